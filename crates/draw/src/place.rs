//! Labels along a line: as near as possible to what they name, in order, and never overlapping.

/// A label to be placed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    /// Where its middle should be.
    pub centre: f64,
    /// How long it is.
    pub length: f64,
}

/// Where each label begins. Wishes are ascending by centre; the labels keep that order, lie between
/// `from` and `to` (below `from` never, beyond `to` only when they are too many), and the sum of the
/// squares of their distances from where they should be is the smallest possible.
#[must_use]
pub fn spread(wishes: &[Wish], from: f64, to: f64) -> Vec<f64> {
    // Without the lengths before it, each label is a point, and the points must not descend: pool
    // adjacent violators.
    let mut before = 0.0;
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for wish in wishes {
        let start = wish.centre - wish.length / 2.0 - before;
        before += wish.length;
        let mut block = (start, 1.0, 1);
        while let Some(last) = blocks.last().copied().filter(|last| last.0 > block.0) {
            let weight = last.1 + block.1;
            block = ((last.0 * last.1 + block.0 * block.1) / weight, weight, last.2 + block.2);
            blocks.pop();
        }
        blocks.push(block);
    }
    let most = (to - before).max(from);
    let mut starts = Vec::with_capacity(wishes.len());
    let mut before = 0.0;
    for (start, _, members) in blocks {
        for _ in 0..members {
            starts.push(start.clamp(from, most) + before);
            before += wishes[starts.len() - 1].length;
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(centre: f64, length: f64) -> Wish {
        Wish { centre, length }
    }

    #[test]
    fn what_does_not_collide_stays() {
        assert_eq!(spread(&[wish(10.0, 10.0), wish(30.0, 10.0)], 0.0, 100.0), [5.0, 25.0]);
    }

    #[test]
    fn what_collides_shares_the_way() {
        assert_eq!(spread(&[wish(50.0, 10.0), wish(50.0, 10.0)], 0.0, 100.0), [40.0, 50.0]);
        let at_the_edge = spread(&[wish(0.0, 10.0), wish(0.0, 10.0), wish(1.0, 5.0)], 0.0, 100.0);
        assert_eq!(at_the_edge, [0.0, 10.0, 20.0]);
        assert_eq!(spread(&[wish(99.0, 10.0), wish(99.0, 10.0)], 0.0, 100.0), [80.0, 90.0]);
    }
}
