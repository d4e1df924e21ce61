//! The mappings that every structure holds, and the order in which it is asked.

use iommu::IovaRange;

/// Random picks before they repeat.
const PICKS: usize = 1 << 18;

/// A generator good enough to have no order: xorshift.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Disjoint mappings in random order.
pub struct Work {
    ranges: Vec<(IovaRange, u64)>,
    seed: u64,
}

impl Work {
    pub fn new(n: usize) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ n as u64);
        let mut ranges = Vec::with_capacity(n);
        let mut at = 1u64 << 33;
        for _ in 0..n {
            let size = 4096u64 << random.below(10);
            at = at.next_multiple_of(size) + size * random.below(3);
            ranges.push((IovaRange::sized(at, size).expect("a range"), (1 << 40) + at));
            at += size;
        }
        for i in (1..n).rev() {
            ranges.swap(i, random.below(i as u64 + 1) as usize);
        }
        Self { ranges, seed: random.next() }
    }

    pub fn live(&self) -> usize {
        self.ranges.len()
    }

    pub fn ranges(&self) -> impl Iterator<Item = (IovaRange, u64)> {
        self.ranges.iter().copied()
    }

    /// Mappings picked at random, again and again. They are picked beforehand: reading the next one
    /// costs the same whatever is measured.
    pub fn picked(&self) -> Vec<(IovaRange, u64)> {
        let mut random = Random(self.seed);
        (0..PICKS).map(|_| self.ranges[random.below(self.ranges.len() as u64) as usize]).collect()
    }

    /// Addresses in mappings picked at random.
    pub fn addresses(&self) -> Vec<u64> {
        let mut random = Random(self.seed ^ 3);
        let within =
            |r: IovaRange, random: &mut Random| r.first() + (random.below(r.size()) & !0xfff);
        self.picked().into_iter().map(|(range, _)| within(range, &mut random)).collect()
    }

    /// Pages of mappings, at random.
    pub fn warm(&self, count: usize) -> Vec<u64> {
        let mut random = Random(self.seed ^ 1);
        let pages: Vec<u64> = self.addresses().into_iter().take(count).collect();
        (0..count * 16).map(|_| pages[random.below(count as u64) as usize]).collect()
    }

    /// The same, nine of ten among 128.
    pub fn hot(&self, count: usize) -> Vec<u64> {
        let mut random = Random(self.seed ^ 2);
        let pages: Vec<u64> = self.addresses().into_iter().take(count).collect();
        let mut pick = || {
            let among = if random.below(10) == 0 { count as u64 } else { 128 };
            pages[random.below(among) as usize]
        };
        (0..count * 16).map(|_| pick()).collect()
    }
}
