//! How much of its storage a tenant has used.

use std::num::NonZeroU64;

/// A tenant is near its limit from so many hundredths of it on.
const NEAR: u128 = 80;

/// How much of the storage that a tenant may take (`max_storage_bytes`) was used when it was measured last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Fullness {
    /// It may take as much as it likes, or was never measured.
    #[default]
    Unlimited = 0,
    /// Less than 80 %.
    Room = 1,
    /// 80 % or more: its sessions are told.
    Near = 2,
    /// All of it: it may read, and free space.
    Full = 3,
}

impl Fullness {
    /// Of so many bytes, of at most so many.
    pub fn of(used: Option<u64>, limit: Option<NonZeroU64>) -> Self {
        let (Some(used), Some(limit)) = (used.map(u128::from), limit.map(NonZeroU64::get)) else {
            return Self::Unlimited;
        };
        let limit = u128::from(limit);
        if used >= limit {
            Self::Full
        } else if used * 100 >= limit * NEAR {
            Self::Near
        } else {
            Self::Room
        }
    }

    /// The one of this number.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Room,
            2 => Self::Near,
            3 => Self::Full,
            _ => Self::Unlimited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_are_near_and_all_of_it_is_full() {
        let of = |used: u64| Fullness::of(Some(used), NonZeroU64::new(10));
        assert_eq!(of(0), Fullness::Room);
        assert_eq!(of(7), Fullness::Room);
        assert_eq!(of(8), Fullness::Near);
        assert_eq!(of(9), Fullness::Near);
        assert_eq!(of(10), Fullness::Full);
        assert_eq!(of(u64::MAX), Fullness::Full);
        let largest = Fullness::of(Some(u64::MAX - 1), NonZeroU64::new(u64::MAX));
        assert_eq!(largest, Fullness::Near);
    }

    #[test]
    fn without_a_limit_or_a_measurement_nobody_is_full() {
        assert_eq!(Fullness::of(Some(u64::MAX), None), Fullness::Unlimited);
        assert_eq!(Fullness::of(None, NonZeroU64::new(1)), Fullness::Unlimited);
    }

    #[test]
    fn a_number_is_the_same_fullness() {
        use Fullness::{Full, Near, Room, Unlimited};
        for fullness in [Unlimited, Room, Near, Full] {
            assert_eq!(Fullness::from_byte(fullness as u8), fullness);
        }
    }
}
