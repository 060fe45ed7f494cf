//! All attacks, a file for each class.

mod blocking;
mod bytes;
mod impersonating;
mod leaving;
mod observing;
mod queueing;
mod readers;
mod reading;
mod spying;
mod writing;

use crate::attack::Attack;

pub use blocking::cancel;

/// All attacks.
pub fn all() -> Vec<Attack> {
    [
        reading::ATTACKS,
        spying::ATTACKS,
        writing::ATTACKS,
        blocking::ATTACKS,
        queueing::ATTACKS,
        observing::ATTACKS,
        impersonating::ATTACKS,
        leaving::ATTACKS,
        bytes::ATTACKS,
        readers::ATTACKS,
    ]
    .concat()
}
