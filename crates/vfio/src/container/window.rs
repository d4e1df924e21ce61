//! MSI windows in `VFIO_IOMMU_MAP_DMA` and `VFIO_IOMMU_UNMAP_DMA`: what their window flag means.

use iommu::{Consumer, IovaRange, Prot, Window};
use uapi::type1::{DmaMap, DmaUnmap, MapFlags, UnmapFlags};

use super::{Type1, env};
use crate::{Abi, Answer, Caller, Refusal, Shared, user};

impl Type1 {
    /// The window flag, where this container has one; elsewhere its bit is unknown.
    pub(super) fn window_flag(&self, abi: Abi) -> Option<u32> {
        abi.window_flag().filter(|_| self.space.max_windows().is_some())
    }

    /// Registers a window; `flags` are the request's without the window flag.
    pub(super) fn map_window(
        &mut self,
        shared: &mut Shared,
        caller: &mut dyn Caller,
        map: &DmaMap,
        flags: MapFlags,
    ) -> Answer {
        if map.size == 0 {
            return Err(Refusal::Empty);
        }
        let wraps = Refusal::Wraps { what: "iova", first: map.iova, size: map.size };
        let range = IovaRange::sized(map.iova, map.size);
        if range.is_none() && shared.host.dialect.wrap_is_eoverflow {
            return Err(wraps);
        }
        if flags.contains(MapFlags::VADDR) {
            return Err(Refusal::FlagMix("a window has no VADDR"));
        }
        let mut prot = Prot::empty();
        prot.set(Prot::READ, flags.contains(MapFlags::READ));
        prot.set(Prot::WRITE, flags.contains(MapFlags::WRITE));
        if prot.is_empty() && shared.abi == Abi::MsiV6 {
            prot = Prot::READ | Prot::WRITE;
        }
        if prot.is_empty() {
            return Err(Refusal::FlagMix("READ or WRITE is needed"));
        }
        let range = range.ok_or(wraps)?;
        let window = Window { range, prot, consumer: Consumer::MSI };
        self.space.add_window(window, &mut env(shared, caller))?;
        Ok(0)
    }

    /// Removes windows: the one that is exactly the range, or all of them.
    pub(super) fn unmap_window(
        &mut self,
        shared: &mut Shared,
        caller: &mut dyn Caller,
        arg: u64,
        mut unmap: DmaUnmap,
        flags: UnmapFlags,
    ) -> Answer {
        if flags.intersects(UnmapFlags::GET_DIRTY_BITMAP | UnmapFlags::VADDR) {
            return Err(Refusal::FlagMix("a window has no dirty pages and no VADDR"));
        }
        let range = self.unmap_range(flags, &unmap)?;
        let mut env = env(shared, caller);
        unmap.size = if flags.contains(UnmapFlags::ALL) {
            self.space.remove_all_windows(&mut env)?
        } else if self.space.remove_window(range, &mut env)? {
            range.size()
        } else {
            0
        };
        user::write(caller, arg, &unmap, size_of::<DmaUnmap>())?;
        Ok(0)
    }
}
