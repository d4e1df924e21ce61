//! What a device's access meets.

use crate::space::{AddressSpace, State};
use crate::{Backing, Consumer, Domain, Fault, FaultReason, PinId, Prot, ReservedKind};

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// To the client's memory.
    Memory {
        /// The first byte.
        at: Backing,
        /// Bytes from there to the end of the mapping (modulo 2^64; never 0 otherwise).
        bytes: u64,
    },
    /// To an interrupt controller: a write there is an MSI.
    Doorbell {
        /// The physical address that the access reaches.
        address: u64,
    },
}

impl AddressSpace {
    /// Translates an access of a device of `group` at `iova`.
    ///
    /// # Errors
    /// The [`Fault`] the IOMMU would report.
    #[inline]
    pub fn translate(&self, group: u32, iova: u64, access: Prot) -> Result<Translation, Fault> {
        let fault = |reason| Fault { iova, access, reason };
        let Some(domain) = self.domain_of(group) else {
            return Err(fault(FaultReason::NoDomain));
        };
        let Some((range, mapping)) = self.table.lookup(iova, &self.cache) else {
            return doorbell(domain, group, iova)
                .map(|address| Translation::Doorbell { address })
                .ok_or_else(|| fault(FaultReason::NotMapped));
        };
        let mut allowed = mapping.prot;
        let write_only = domain.write_only() && !planted!(WriteOnlyReadable);
        if !write_only && allowed.contains(Prot::WRITE) {
            allowed |= Prot::READ;
        }
        if !allowed.contains(access) {
            return Err(fault(FaultReason::NotPermitted { prot: mapping.prot }));
        }
        if !mapping.is_pinned() {
            return Err(fault(FaultReason::NotPinned));
        }
        let into = iova.wrapping_sub(range.first());
        let was_cut = mapping.state.contains(State::SHARED_PIN) && !planted!(CutLosesPinOffset);
        let offset = if was_cut { self.pin_offset(mapping.pin, iova) } else { into };
        Ok(Translation::Memory {
            at: Backing {
                pin: mapping.pin,
                offset,
                vaddr: mapping.vaddr.wrapping_add(into),
                mm: mapping.mm,
            },
            bytes: range.last().wrapping_sub(iova).wrapping_add(1),
        })
    }

    /// Bytes from the start of a pin that the parts of a cut mapping share.
    #[cold]
    fn pin_offset(&self, pin: PinId, iova: u64) -> u64 {
        self.shared_pins.get(&pin).map_or(0, |shared| iova.wrapping_sub(shared.first))
    }

    /// The domain of a group.
    #[must_use]
    #[inline]
    pub fn domain_of(&self, group: u32) -> Option<&Domain> {
        self.domains.iter().find(|d| d.member(group).is_some())
    }
}

/// The physical address behind `iova` where it is a doorbell page or lies in an MSI range that the
/// IOMMU does not translate.
#[inline(never)]
fn doorbell(domain: &Domain, group: u32, iova: u64) -> Option<u64> {
    if let Some(pool) = domain.pool() {
        let (consumer, page) = pool.resolve(iova)?;
        return (consumer == Consumer::MSI).then(|| page | pool.offset(iova));
    }
    let member = domain.member(group)?;
    let msi = |r: &&crate::ReservedRegion| r.kind == ReservedKind::Msi && r.range.contains(iova);
    member.reserved.iter().find(msi).map(|_| iova)
}
