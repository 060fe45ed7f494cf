//! Names and passwords that say nothing.

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A name or password of `[a-z2-7]` with 5 random bits a character.
pub(super) fn opaque(length: usize) -> String {
    let character = || {
        let index = usize::from(rand::random::<u8>() % 32);
        char::from(*BASE32.get(index).expect("a remainder of 32"))
    };
    (0..length).map(|_| character()).collect()
}
