//! What is in the way, and where a range would be legal: of every edge the nearest that is.

use softvfio_iommu::IovaRange;
use softvfio_iommu::refusal::{Nearest, Unusable};

use super::model::{Model, Span, inside, meet, span};

impl Model {
    pub(crate) fn why(&self, wanted: IovaRange) -> Unusable {
        let regions = self.excluded();
        let met = regions.iter().filter(|r| meet(r.range, wanted)).min_by_key(|r| r.range);
        met.map_or(Unusable::OutsideAperture(self.aperture()), |r| Unusable::Reserved(r.clone()))
    }

    pub(crate) fn nearest(&self, wanted: IovaRange) -> Nearest {
        let (first, end) = span(wanted);
        let (size, granule) = (end - first, u128::from(self.granule()));
        let mut taken: Vec<Span> = self.maps.iter().map(|(r, _)| span(*r)).collect();
        taken.extend(self.windows.iter().map(|w| span(w.range)));
        let mut edges = taken.clone();
        edges.extend(self.excluded().iter().map(|r| span(r.range)));
        edges.push((self.aperture().map_or(1 << 64, |a| span(a).1), 1 << 64));
        let valid = self.valid(false);
        let legal = |at: &u128| {
            let here = (*at, at + size);
            let free = !taken.iter().any(|t| t.0 < here.1 && here.0 < t.1);
            free && here.1 <= 1 << 64
                && (self.domains.is_empty() || valid.iter().any(|v| inside(here, *v)))
        };
        let ups = edges.iter().map(|e| e.1).chain([first]).map(|at| at.div_ceil(granule) * granule);
        let downs = edges.iter().filter_map(|e| e.0.checked_sub(size)).chain([first]);
        let downs = downs.map(|at| at / granule * granule);
        Nearest {
            size: wanted.size(),
            above: ups.filter(|at| *at >= first).filter(legal).min().map(|at| at as u64),
            below: downs.filter(|at| *at <= first).filter(legal).max().map(|at| at as u64),
        }
    }
}
