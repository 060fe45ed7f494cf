//! Numbers with six decimals, exactly: prices, amounts of money, and quantities that are paid for.

use serde::{Serialize, Serializer};
use std::{fmt, iter::Sum, ops::AddAssign};

/// Millionths in one.
const ONE: u128 = 1_000_000;

/// The largest number that can be written.
const WRITTEN_MAX: u128 = 1_000_000_000 * ONE;

/// A number of millionths, never below zero. Sums are exact; at the end of what it can hold it stays there.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(u128);

impl Micros {
    /// So many millionths.
    pub fn new(millionths: u128) -> Self {
        Self(millionths)
    }

    /// The millionths.
    pub fn get(self) -> u128 {
        self.0
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// Reads digits with at most six decimals, up to a billion.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let are_digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !are_digits(whole) || !are_digits(decimals) || decimals.len() > 6 || whole.len() > 10 {
            return None;
        }
        let whole: u128 = whole.parse().ok()?;
        let decimals: u128 = format!("{decimals:0<6}").parse().ok()?;
        let number = whole * ONE + decimals;
        (number <= WRITTEN_MAX).then_some(Self(number))
    }

    /// This times `quantity` by `per`, rounded to a millionth, half a one upwards. Nothing where `per` is
    /// zero.
    #[must_use]
    pub fn times(self, quantity: u128, per: u128) -> Self {
        let product = self.0.saturating_mul(quantity);
        Self(
            product
                .saturating_add(per / 2)
                .checked_div(per)
                .unwrap_or(0),
        )
    }

    /// What is left above `less`.
    #[must_use]
    pub fn saturating_sub(self, less: Self) -> Self {
        Self(self.0.saturating_sub(less.0))
    }

    /// Shares it out by weights, to the last millionth: each part is rounded down, and what is left goes to
    /// the parts that lost most by that, the first ones first. `None` where all weights are zero.
    pub fn shares(self, weights: &[u64]) -> Option<Vec<Self>> {
        let all: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        if all == 0 {
            return None;
        }
        let split = |weight: &u64| {
            let product = self.0.saturating_mul(u128::from(*weight));
            (product / all, product % all)
        };
        let parts: Vec<_> = weights.iter().map(split).collect();
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(parts.get(*at).map_or(0, |(_, rest)| *rest)));
        let mut shares: Vec<_> = parts.iter().map(|(part, _)| Self(*part)).collect();
        let given: u128 = parts.iter().map(|(part, _)| part).sum();
        let left = usize::try_from(self.0.saturating_sub(given)).unwrap_or(usize::MAX);
        for at in order.into_iter().take(left) {
            if let Some(share) = shares.get_mut(at) {
                share.0 += 1;
            }
        }
        Some(shares)
    }
}

impl AddAssign for Micros {
    fn add_assign(&mut self, more: Self) {
        self.0 = self.0.saturating_add(more.0);
    }
}

impl Sum for Micros {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, more| {
            sum += more;
            sum
        })
    }
}

/// With two to six decimals.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:06}", self.0 % ONE);
        let (cents, rest) = decimals.split_at(2);
        let rest = rest.trim_end_matches('0');
        f.pad(&format!("{}.{cents}{rest}", self.0 / ONE))
    }
}

impl fmt::Debug for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As a text: who reads JSON may make a binary fraction of a number.
impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_what_is_meant() {
        for (text, millionths, shown) in [
            ("0", 0, "0.00"),
            ("0.2", 200_000, "0.20"),
            ("12.345678", 12_345_678, "12.345678"),
            ("300", 300_000_000, "300.00"),
            ("0.000001", 1, "0.000001"),
            ("1000000000", 1_000_000_000_000_000, "1000000000.00"),
        ] {
            let number = Micros::parse(text).unwrap();
            assert_eq!((number.get(), &*number.to_string()), (millionths, shown));
        }
        for wrong in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "1e3",
            "0.0000001",
            "1000000000.1",
            "99999999999",
            "1,5",
            "NaN",
        ] {
            assert_eq!(Micros::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn half_a_millionth_is_rounded_up_and_less_is_not() {
        let price = Micros::new(1);
        assert_eq!(price.times(499_999, 1_000_000).get(), 0);
        assert_eq!(price.times(500_000, 1_000_000).get(), 1);
        assert_eq!(Micros::new(3).times(1, 2).get(), 2);
        assert_eq!(
            Micros::new(200_000).times(1_500_000, 1_000_000).to_string(),
            "0.30"
        );
        // No quantity that can be counted is too much.
        let most = Micros::new(WRITTEN_MAX).times(u64::MAX.into(), 1_000_000);
        assert_eq!(most.get(), WRITTEN_MAX * u128::from(u64::MAX) / 1_000_000);
        assert_eq!(price.times(1, 0).get(), 0);
    }

    #[test]
    fn what_is_left_of_a_division_goes_to_who_lost_most() {
        let shares = |cost: u128, weights: &[u64]| {
            let shares = Micros::new(cost).shares(weights)?;
            Some(shares.iter().map(|share| share.get()).collect::<Vec<_>>())
        };
        assert_eq!(shares(100, &[1, 1, 1]), Some(vec![34, 33, 33]));
        assert_eq!(shares(10, &[1, 0, 2]), Some(vec![3, 0, 7]));
        assert_eq!(shares(1, &[5, 5]), Some(vec![1, 0]));
        assert_eq!(shares(7, &[u64::MAX, u64::MAX]), Some(vec![4, 3]));
        assert_eq!(shares(7, &[0, 0]), None);
        assert_eq!(shares(7, &[]), None);
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_last_millionth(
            cost in 0..WRITTEN_MAX,
            weights in prop::collection::vec(0..u64::MAX / 2, 1..50),
        ) {
            let all: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
            if let Some(shares) = Micros::new(cost).shares(&weights) {
                prop_assert_eq!(shares.iter().copied().sum::<Micros>().get(), cost);
                for (share, weight) in shares.iter().zip(&weights) {
                    let exact = cost * u128::from(*weight) / all;
                    prop_assert!(share.get() == exact || share.get() == exact + 1);
                }
            }
        }
    }
}
