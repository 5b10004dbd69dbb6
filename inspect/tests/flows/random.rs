//! Numbers that are the same in each run (xorshift64*).

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % bound
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// Ranges that together cover `0..length`, shuffled, some of them repeated or overlapping.
    pub(crate) fn pieces(&mut self, length: usize, longest: usize) -> Vec<std::ops::Range<usize>> {
        let (mut pieces, mut at) = (Vec::new(), 0);
        while at < length {
            let end = (at + 1 + self.below(longest)).min(length);
            pieces.push(at - self.below(at.min(20) + 1)..end);
            if self.below(5) == 0 {
                pieces.push(at..end);
            }
            at = end;
        }
        self.shuffle(&mut pieces);
        pieces
    }
}
