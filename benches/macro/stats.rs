//! Medians, percentiles and spread of a few numbers.

/// The middle of several numbers, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` when there are no numbers.
    pub(crate) fn of(numbers: &[f64]) -> Option<Self> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = (sorted.len() - 1) / 2;
        let (low, high) = (sorted.get(middle)?, sorted.get(sorted.len() / 2)?);
        Some(Self {
            median: f64::midpoint(*low, *high),
            min,
            max,
        })
    }
}

/// The smallest of `sorted` that at least `share` (0 to 1) of them don't exceed.
pub(crate) fn percentile(sorted: &[u32], share: f64) -> Option<u32> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}
