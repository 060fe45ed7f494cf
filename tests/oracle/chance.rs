//! Chance that can be repeated.

/// A sequence of numbers that its seed determines (`SplitMix64`).
pub struct Chance(u64);

impl Chance {
    /// The sequence of this seed and this number.
    pub fn new(seed: u64, stream: u64) -> Self {
        // Mixed twice, as neighbours would be one sequence from different places.
        let seed = Self(seed).next();
        Self(Self(seed ^ stream).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below this one.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("a usize fits");
        usize::try_from(self.next() % limit).expect("it is below a usize")
    }

    /// True once in so many times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of these, as often as its weight says.
    pub fn weighed<T: Copy>(&mut self, from: &[(usize, T)]) -> T {
        let total: usize = from.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(total);
        for (weight, item) in from {
            if at < *weight {
                return *item;
            }
            at -= weight;
        }
        from[0].1
    }
}
