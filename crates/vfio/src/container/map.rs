//! `VFIO_IOMMU_MAP_DMA` (kernel-semantics 2.2).

use iommu::{IovaRange, MapRequest, Prot};
use uapi::type1::{DmaMap, MapFlags};

use super::{Type1, budget, env};
use crate::{Answer, Caller, Refusal, Shared, user};

impl Type1 {
    #[doc(alias = "VFIO_IOMMU_MAP_DMA")]
    pub(super) fn map_dma(
        &mut self,
        shared: &mut Shared,
        caller: &mut dyn Caller,
        arg: u64,
    ) -> Answer {
        let map: DmaMap = user::read_all(caller, arg)?;
        if map.argsz < DmaMap::MIN_ARGSZ {
            return Err(Refusal::ArgszTooSmall { argsz: map.argsz, min: DmaMap::MIN_ARGSZ });
        }
        let window = self.window_flag(shared.abi).unwrap_or(0);
        let unknown = map.flags & !(shared.abi.map_flags().bits() | window);
        if unknown != 0 {
            return Err(Refusal::UnknownFlags { unknown });
        }
        let flags = MapFlags::from_bits_truncate(map.flags & !window);
        if map.flags & window != 0 {
            return self.map_window(shared, caller, &map, flags);
        }
        if map.size == 0 {
            return Err(Refusal::Empty);
        }
        let wraps = |what, first: u64| {
            IovaRange::sized(first, map.size).ok_or(Refusal::Wraps { what, first, size: map.size })
        };
        let early = shared.host.dialect.wrap_is_eoverflow;
        if early {
            wraps("iova", map.iova)?;
            wraps("vaddr", map.vaddr)?;
        }
        let update = flags.contains(MapFlags::VADDR);
        let mut prot = Prot::empty();
        prot.set(Prot::READ, flags.contains(MapFlags::READ));
        prot.set(Prot::WRITE, flags.contains(MapFlags::WRITE));
        if update && !prot.is_empty() {
            return Err(Refusal::FlagMix("VADDR excludes READ and WRITE"));
        }
        if !update && prot.is_empty() {
            return Err(Refusal::FlagMix("READ or WRITE is needed"));
        }
        let range = wraps("iova", map.iova)?;
        wraps("vaddr", map.vaddr)?;

        let budget = budget(shared, caller);
        let mut env = env(shared, caller);
        if update {
            self.space.update_vaddr(range, map.vaddr, budget, &mut env)?;
        } else {
            let request = MapRequest { range, vaddr: map.vaddr, prot, budget };
            self.space.map(&request, &mut env)?;
        }
        Ok(0)
    }
}
