//! Random bytes as choices.

use iommu::IovaRange;

/// Bytes, taken from the front. What is not there reads as 0.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `count` bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.u8()) % choices.len()]
    }

    /// A number of any magnitude out of three bytes: a few bits, moved up, and one more or less.
    pub fn scaled(&mut self) -> u64 {
        let shift = self.u8();
        let bits = u64::from(self.u8() & 0xf) << (shift & 63);
        match shift >> 6 {
            0 | 1 => bits,
            2 => bits.wrapping_sub(u64::from(self.u8())),
            _ => bits.wrapping_add(u64::from(self.u8())),
        }
    }

    /// An address that means something: the n-th range's edge and a small distance from it. Random
    /// addresses would never meet a mapping again; these do.
    pub fn near(&mut self, ranges: &[IovaRange], granule: u64) -> u64 {
        if ranges.is_empty() {
            return self.scaled();
        }
        let range = ranges[usize::from(self.u8()) % ranges.len()];
        let how = self.u8();
        let anchor = match how & 3 {
            0 => range.first(),
            1 => range.last().wrapping_add(1),
            2 => range.first().wrapping_add(range.size() / 2),
            _ => return self.scaled(),
        };
        let pages = u64::from(how >> 2 & 0xf).wrapping_sub(8);
        let distance = if how & 0x40 == 0 { pages.wrapping_mul(granule) } else { pages };
        let distance = if how & 0x80 == 0 { 0 } else { distance };
        anchor.wrapping_add(distance)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }
}
