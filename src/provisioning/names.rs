//! Names that say nothing about who a tenant is.

use super::ProvisioningError;
use rand::{TryRng as _, rngs::SysRng};

/// Characters of a token: 100 bits.
pub const TOKEN_CHARS: usize = 20;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A new random word for all names of a tenant: `[a-z2-7]{20}`. It needs no quoting, is the same
/// in any case folding, and leaves room for a prefix within the 63 bytes of a name.
///
/// # Errors
/// [`ProvisioningError::Randomness`].
pub fn new_token() -> Result<Box<str>, ProvisioningError> {
    let mut bytes = [0; TOKEN_CHARS];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|_error| ProvisioningError::Randomness)?;
    let letter = |byte: &u8| {
        let letter = ALPHABET.get(usize::from(byte & 31));
        letter.map_or('a', |letter| char::from(*letter))
    };
    Ok(bytes.iter().map(letter).collect::<String>().into())
}

/// Whether a text is a token.
pub fn is_token(text: &str) -> bool {
    text.len() == TOKEN_CHARS && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_are_random_words_of_one_form() {
        let tokens: HashSet<_> = (0..1000).map(|_| new_token().unwrap()).collect();
        assert_eq!(tokens.len(), 1000);
        assert!(tokens.iter().all(|token| is_token(token)));
        let used: HashSet<char> = tokens.iter().flat_map(|token| token.chars()).collect();
        assert_eq!(used.len(), 32);
    }

    #[test]
    fn anything_else_is_no_token() {
        for text in [
            "",
            "acme",
            "aaaaaaaaaaaaaaaaaaa1",
            "AAAAAAAAAAAAAAAAAAAA",
            "aaaaaaaaaaaaaaaaaaa\"",
        ] {
            assert!(!is_token(text), "{text}");
        }
    }
}
