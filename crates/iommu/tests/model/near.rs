//! The model's places: what is in the way of a range, what is legal near it, what would be chosen.

use iommu::refusal::{Nearest, Unusable};
use iommu::{ReservedKind, ReservedRegion};

use super::reference::Model;
use super::span::{Span, TOP};

impl Model {
    /// What is in the way of a range that is not valid.
    pub(crate) fn unusable(&self, span: Span) -> Unusable {
        let mut regions: Vec<&ReservedRegion> =
            self.reserved().into_iter().map(|(_, r)| r).collect();
        regions
            .retain(|r| r.kind != ReservedKind::DirectRelaxable && Span::of(r.range).meets(span));
        let lowest = regions.iter().map(|r| (r.range.first(), r.range.last())).min();
        if let Some(lowest) = lowest {
            let region = regions.into_iter().find(|r| (r.range.first(), r.range.last()) == lowest);
            return Unusable::Reserved(region.expect("it was there").clone());
        }
        let apertures: Vec<Span> =
            self.domains.iter().map(|d| Span::of(self.host.iommus[d.iommu].aperture)).collect();
        let first = apertures.iter().map(|a| a.first).max().unwrap_or(0);
        let end = apertures.iter().map(|a| a.end).min().unwrap_or(TOP);
        Unusable::OutsideAperture((first < end).then(|| Span::new(first, end).range()))
    }

    /// The nearest places where as much could be mapped: one of the places that lie against a
    /// mapping or the edge of a valid range.
    pub(crate) fn nearest(&self, span: Span) -> Nearest {
        let (granule, size) = (u128::from(self.granule()), span.size());
        let valid = self.valid_or_all();
        let mut places = vec![span.first];
        for obstacle in self.spans() {
            places.push(obstacle.end.div_ceil(granule) * granule);
            places.push(obstacle.first.saturating_sub(size) / granule * granule);
        }
        for range in &valid {
            places.push(range.first.div_ceil(granule) * granule);
            places.push(range.end.saturating_sub(size) / granule * granule);
        }
        let legal = |at: &u128| {
            at + size <= TOP && {
                let there = Span::new(*at, at + size);
                at.is_multiple_of(granule)
                    && valid.iter().any(|v| there.inside(*v))
                    && self.lowest_in(there).is_none()
            }
        };
        places.retain(legal);
        let above = places.iter().filter(|at| **at >= span.first).min();
        let below = places.iter().filter(|at| **at <= span.first).max();
        Nearest {
            size: size as u64,
            above: above.map(|at| *at as u64),
            below: below.map(|at| *at as u64),
        }
    }

    /// The lowest place for `size` bytes at a multiple of `align`.
    pub(crate) fn choose(&self, size: u64, align: u64) -> Option<u64> {
        let (granule, size) = (u128::from(self.granule()), u128::from(size));
        if size == 0 || !size.is_multiple_of(granule) || !align.is_power_of_two() {
            return None;
        }
        let step = u128::from(align).max(granule);
        let valid = self.valid_or_all();
        let edges = valid.iter().map(|v| v.first).chain(self.maps.iter().map(|m| m.span.end));
        let places = edges.map(|at| at.div_ceil(step) * step);
        let fits = |at: &u128| {
            at + size <= TOP && {
                let there = Span::new(*at, at + size);
                valid.iter().any(|v| there.inside(*v)) && self.lowest_in(there).is_none()
            }
        };
        places.filter(fits).min().map(|at| at as u64)
    }

    fn valid_or_all(&self) -> Vec<Span> {
        if self.valid.is_empty() { vec![Span::new(0, TOP)] } else { self.valid.clone() }
    }
}
