//! The edge cases of a type1 container, by topic (kernel-semantics 11, rows 1 to 108).

mod common;
#[path = "common/hosts.rs"]
mod hosts;

use common::{ARGS, BUF, World};
use hosts::{AMD, ARM, INTEL, INTEL_39, INTEL_TOO, STRICT, UNSAFE, mixed};
use iommu::Dialect;
use softvfio_vfio::{ContainerId, FdObject, GroupId, System};
use uapi::ioctl::{
    VFIO_CHECK_EXTENSION, VFIO_GET_API_VERSION, VFIO_GROUP_GET_STATUS, VFIO_GROUP_SET_CONTAINER,
    VFIO_GROUP_UNSET_CONTAINER, VFIO_IOMMU_DIRTY_PAGES, VFIO_IOMMU_GET_INFO, VFIO_IOMMU_MAP_DMA,
    VFIO_IOMMU_UNMAP_DMA, VFIO_SET_IOMMU,
};
use uapi::type1::{
    Bitmap, DirtyBitmapGet, DirtyPages, DmaAvailCap, DmaMap, DmaUnmap, IovaRangeCap, Type1Info,
};
use uapi::{Caps, Errno, read_prefix};
use zerocopy::IntoBytes;

const PAGE: u64 = 0x1000;
const TOP: u64 = u64::MAX - 0xfff;

struct Case {
    world: World,
    c: ContainerId,
}

impl Case {
    /// A container of `kind` (1 or 3) with the groups in it, in that order.
    fn new(dialect: &Dialect, kind: u64, groups: &[u32]) -> Self {
        let mut case = Self::empty(dialect);
        for group in groups {
            assert_eq!(case.join(*group), Ok(0));
        }
        assert_eq!(case.world.container(case.c, VFIO_SET_IOMMU, kind), Ok(0));
        case
    }

    fn empty(dialect: &Dialect) -> Self {
        let system = System::new(mixed(dialect), Vec::new());
        let mut world = World::new(system, Vec::new());
        let c = world.open_container(3);
        Self { world, c }
    }

    fn join(&mut self, group: u32) -> Result<i64, Errno> {
        self.world.group_with(GroupId(group), VFIO_GROUP_SET_CONTAINER, &3i32.to_ne_bytes())
    }

    fn leave(&mut self, group: u32) -> Result<i64, Errno> {
        self.world.group_with(GroupId(group), VFIO_GROUP_UNSET_CONTAINER, &[])
    }

    fn ioctl(&mut self, request: u32, arg: u64) -> Result<i64, Errno> {
        self.world.container(self.c, request, arg)
    }

    fn map_raw(&mut self, map: DmaMap) -> Result<i64, Errno> {
        self.world.container_with(self.c, VFIO_IOMMU_MAP_DMA, map.as_bytes())
    }

    fn map(&mut self, iova: u64, size: u64) -> Result<i64, Errno> {
        self.map_raw(DmaMap { argsz: 32, flags: 3, vaddr: BUF, iova, size })
    }

    /// The size written back, or the errno; an errno leaves the argument as it was.
    fn unmap_raw(&mut self, unmap: DmaUnmap) -> Result<u64, Errno> {
        let answer = self.world.container_with(self.c, VFIO_IOMMU_UNMAP_DMA, unmap.as_bytes());
        let after: DmaUnmap = read_prefix(&self.world.client.args).unwrap();
        match answer {
            Ok(0) => Ok(after.size),
            Ok(n) => panic!("unmap answered {n}"),
            Err(errno) => {
                assert_eq!(after, unmap);
                Err(errno)
            }
        }
    }

    fn unmap(&mut self, iova: u64, size: u64) -> Result<u64, Errno> {
        self.unmap_raw(DmaUnmap { argsz: 24, flags: 0, iova, size })
    }

    fn unmap_all(&mut self, flags: u32) -> Result<u64, Errno> {
        self.unmap_raw(DmaUnmap { argsz: 24, flags: 2 | flags, iova: 0, size: 0 })
    }

    fn info(&mut self, argsz: u32) -> Result<Type1Info, Errno> {
        let info = Type1Info { argsz, ..Type1Info::default() };
        self.world.client.args.fill(0xaa);
        self.world.container_with(self.c, VFIO_IOMMU_GET_INFO, &info.as_bytes()[..16])?;
        Ok(read_prefix(&self.world.client.args).unwrap())
    }

    fn ranges(&mut self) -> Vec<(u64, u64)> {
        let offset = self.info(4096).unwrap().cap_offset;
        let args = self.world.client.args.clone();
        let caps: Vec<_> = Caps::new(&args, offset).map(Result::unwrap).collect();
        let list = caps.iter().find_map(uapi::Cap::read_list::<IovaRangeCap>);
        list.unwrap_or_default().iter().map(|r| (r.start, r.end)).collect()
    }

    fn available(&mut self) -> u32 {
        let offset = self.info(4096).unwrap().cap_offset;
        let args = self.world.client.args.clone();
        Caps::new(&args, offset)
            .find_map(|c| c.unwrap().read::<DmaAvailCap>())
            .map(|c| c.avail)
            .unwrap()
    }

    fn dirty(&mut self, flags: u32) -> Result<i64, Errno> {
        let arg = DirtyPages { argsz: 48, flags };
        self.world.container_with(self.c, VFIO_IOMMU_DIRTY_PAGES, arg.as_bytes())
    }

    /// Queries into a bitmap at `BUF`, which is zero before; the bitmap's first word.
    fn query(&mut self, iova: u64, size: u64, bytes: u64, pgsize: u64) -> Result<u64, Errno> {
        self.world.client.buf[..64].fill(0);
        let bitmap = Bitmap { pgsize, size: bytes, data: BUF };
        let mut arg = DirtyPages { argsz: 48, flags: 4 }.as_bytes().to_vec();
        arg.extend_from_slice(DirtyBitmapGet { iova, size, bitmap }.as_bytes());
        self.world.container_with(self.c, VFIO_IOMMU_DIRTY_PAGES, &arg)?;
        Ok(u64::from_ne_bytes(self.world.client.buf[..8].try_into().unwrap()))
    }
}

fn v2() -> Case {
    Case::new(&Dialect::V7_3, 3, &[INTEL])
}

fn v1() -> Case {
    Case::new(&Dialect::V7_3, 1, &[INTEL])
}

#[test]
fn extensions_and_types() {
    let mut c = Case::empty(&Dialect::V7_3);
    let ask = |c: &mut Case, ext| c.ioctl(VFIO_CHECK_EXTENSION, ext);
    assert_eq!(c.ioctl(VFIO_GET_API_VERSION, 77), Ok(0));
    for (ext, answer) in [(1, 1), (3, 1), (9, 1), (10, 0), (4, 0), (0, 0), (2, 0), (1000, 0)] {
        assert_eq!(ask(&mut c, ext), Ok(answer), "{ext}");
    }
    assert_eq!(ask(&mut c, 0x1_0000_0001), Ok(0));
    for request in [VFIO_IOMMU_GET_INFO, VFIO_IOMMU_MAP_DMA, 0x3bff] {
        assert_eq!(c.ioctl(request, ARGS), Err(Errno::EINVAL));
    }
    assert_eq!(c.ioctl(VFIO_SET_IOMMU, 3), Err(Errno::EINVAL));
    c.join(INTEL).unwrap();
    for (kind, errno) in
        [(2, Errno::ENODEV), (99, Errno::ENODEV), (6, Errno::ENODEV), (9, Errno::EINVAL)]
    {
        assert_eq!(c.ioctl(VFIO_SET_IOMMU, kind), Err(errno));
    }
    assert_eq!(c.ioctl(VFIO_SET_IOMMU, 1), Ok(0));
    assert_eq!(c.ioctl(VFIO_SET_IOMMU, 3), Err(Errno::EINVAL));
    assert_eq!(c.ioctl(0x3bff, 0), Err(Errno::ENOTTY));
    assert_eq!((ask(&mut c, 10), ask(&mut c, 3)), (Ok(1), Ok(1)));
}

#[test]
fn nesting_is_a_type_of_older_kernels() {
    let mut c = Case::empty(&Dialect::V6_12);
    assert_eq!(c.ioctl(VFIO_CHECK_EXTENSION, 6), Ok(1));
    c.join(INTEL).unwrap();
    assert_eq!(c.ioctl(VFIO_SET_IOMMU, 6), Err(Errno::EINVAL));
    assert_eq!(c.ioctl(VFIO_SET_IOMMU, 3), Ok(0));
}

#[test]
fn a_container_lives_in_its_groups() {
    let mut c = v2();
    assert_eq!(c.join(INTEL), Err(Errno::EINVAL));
    c.map(0x1000, PAGE).unwrap();
    c.world.containers.close(c.c);
    let joined = c.world.containers.get(c.c).unwrap();
    assert_eq!(joined.type1().unwrap().space().len(), 1);
    c.leave(INTEL).unwrap();
    assert!(c.world.containers.get(c.c).is_some());
    c.world.containers.drop_dead();
    assert!(c.world.containers.get(c.c).is_none());
    assert!(c.world.client.pins.is_empty());
}

#[test]
fn the_last_group_takes_everything_along() {
    let mut c = v2();
    c.map(0x1000, PAGE).unwrap();
    assert_eq!(c.available(), 65534);
    assert_eq!(c.leave(INTEL), Ok(0));
    assert_eq!(c.leave(INTEL), Err(Errno::EINVAL));
    assert_eq!(c.info(24), Err(Errno::EINVAL));
    c.join(INTEL).unwrap();
    c.ioctl(VFIO_SET_IOMMU, 3).unwrap();
    assert_eq!(c.available(), 65535);
    assert!(c.world.client.pins.is_empty());
}

#[test]
fn group_status_and_set_container() {
    let mut c = Case::empty(&Dialect::V7_3);
    let status = |c: &mut Case, argsz: u32| {
        let answer =
            c.world.group_with(GroupId(INTEL), VFIO_GROUP_GET_STATUS, [argsz, 0].as_bytes());
        answer.map(|_| u32::from_ne_bytes(c.world.client.args[4..8].try_into().unwrap()))
    };
    assert_eq!(status(&mut c, 4), Err(Errno::EINVAL));
    assert_eq!(status(&mut c, 8), Ok(1));
    let set = |c: &mut Case, fd: i32| {
        c.world.group_with(GroupId(INTEL), VFIO_GROUP_SET_CONTAINER, &fd.to_ne_bytes())
    };
    c.world.client.fds.insert(9, FdObject::Other);
    assert_eq!(set(&mut c, -1), Err(Errno::EBADF));
    assert_eq!(set(&mut c, 9), Err(Errno::EBADFD));
    assert_eq!(set(&mut c, 3), Ok(0));
    assert_eq!(status(&mut c, 8), Ok(3));
    assert_eq!(c.join(STRICT), Err(Errno::EINVAL));
    assert_eq!(c.join(UNSAFE), Ok(0));
    assert_eq!(c.ioctl(VFIO_SET_IOMMU, 3), Err(Errno::EPERM));
    c.world.system.shared_mut().limits.allow_unsafe_interrupts = true;
    assert_eq!(c.ioctl(VFIO_SET_IOMMU, 3), Ok(0));
}

#[test]
fn map_arguments() {
    let mut c = v2();
    let good = DmaMap { argsz: 32, flags: 3, vaddr: BUF, iova: 0x10000, size: PAGE };
    let einval = [
        DmaMap { argsz: 31, ..good },
        DmaMap { flags: 8, ..good },
        DmaMap { flags: 0, ..good },
        DmaMap { flags: 5, ..good },
        DmaMap { size: 0, ..good },
        DmaMap { size: 4095, ..good },
        DmaMap { iova: 0x800, ..good },
        DmaMap { vaddr: BUF + 1, ..good },
        DmaMap { iova: TOP, ..good },
        DmaMap { iova: 0xfee0_0000, ..good },
        DmaMap { iova: 0xfedf_f000, size: 0x10_2000, ..good },
        DmaMap { iova: (1 << 48) - PAGE, size: 2 * PAGE, ..good },
    ];
    for map in einval {
        assert_eq!(c.map_raw(map), Err(Errno::EINVAL), "{map:x?}");
    }
    assert_eq!(c.map_raw(DmaMap { flags: 4, ..good }), Err(Errno::ENOENT));
    let wraps = [
        DmaMap { iova: TOP, size: 0x2000, ..good },
        DmaMap { vaddr: TOP, size: 0x2000, ..good },
        DmaMap { vaddr: TOP, size: 0x2000, flags: 4, ..good },
        // A wrap is found before flags and alignment.
        DmaMap { iova: TOP, size: 0x2001, flags: 5, ..good },
    ];
    for map in wraps {
        assert_eq!(c.map_raw(map), Err(Errno::EOVERFLOW), "{map:x?}");
    }
    let mut old = Case::new(&Dialect::V6_12, 3, &[INTEL]);
    for map in wraps {
        assert_eq!(old.map_raw(map), Err(Errno::EINVAL), "{map:x?}");
    }
    let fine = [
        DmaMap { argsz: 4096, ..good },
        DmaMap { iova: (1 << 48) - PAGE, ..good },
        DmaMap { iova: 0x20000, flags: 2, ..good },
        DmaMap { iova: 0x30000, flags: 1, ..good },
    ];
    for map in fine {
        assert_eq!(c.map_raw(map), Ok(0), "{map:x?}");
    }
    assert_eq!(c.map_raw(DmaMap { flags: 4, ..good }), Err(Errno::EINVAL));
    assert_eq!(c.ioctl(VFIO_IOMMU_MAP_DMA, 0), Err(Errno::EFAULT));
}

#[test]
fn map_overlaps_and_limits() {
    let mut c = v2();
    c.map(0x10000, 0x4000).unwrap();
    for (iova, size) in [(0x10000, 0x4000), (0xf000, 0x2000), (0x13000, 0x2000), (0x11000, PAGE)] {
        assert_eq!(c.map(iova, size), Err(Errno::EEXIST));
    }
    assert_eq!((c.map(0xf000, PAGE), c.map(0x14000, PAGE)), (Ok(0), Ok(0)));
    let hole = DmaMap { argsz: 32, flags: 3, vaddr: 0x1000, iova: 0x50000, size: PAGE };
    assert_eq!(c.map_raw(hole), Err(Errno::EFAULT));
    assert_eq!(c.available(), 65532);

    let mut c = Case::empty(&Dialect::V7_3);
    c.world.system.shared_mut().limits.dma_entry_limit = 1;
    c.join(INTEL).unwrap();
    c.ioctl(VFIO_SET_IOMMU, 3).unwrap();
    c.map(0x10000, PAGE).unwrap();
    assert_eq!(c.map(0x20000, PAGE), Err(Errno::ENOSPC));
    assert_eq!(c.map(0x10000, PAGE), Err(Errno::EEXIST));
    assert_eq!(c.map(0xfee0_0000, PAGE), Err(Errno::ENOSPC));
}

#[test]
fn locked_memory_has_a_limit_and_no_memory_of_pages() {
    let mut c = v2();
    c.world.client.may_lock = false;
    c.world.client.memlock = 0x10fff;
    assert_eq!(c.map(0x10_0000, 0x11000), Err(Errno::ENOMEM));
    assert_eq!(c.map(0x10_0000, 0x8000), Ok(0));
    assert_eq!(c.map(0x20_0000, 0x8000), Ok(0));
    assert_eq!(c.map(0x30_0000, PAGE), Err(Errno::ENOMEM));
    assert_eq!(c.map(0x20_0000, PAGE), Err(Errno::EEXIST));
    assert_eq!(c.unmap_all(0), Ok(0x10000));
    assert_eq!(c.map(0x30_0000, 0x10000), Ok(0));
    assert_eq!(c.world.client.pins.len(), 1);
}

#[test]
fn unmap_arguments() {
    let mut c = v2();
    let bad = |argsz, flags, iova, size| DmaUnmap { argsz, flags, iova, size };
    for unmap in [
        bad(23, 0, 0, PAGE),
        bad(24, 8, 0, PAGE),
        bad(24, 0, 1, PAGE),
        bad(24, 0, 0, 0),
        bad(24, 0, 0, u64::MAX),
        bad(24, 2, PAGE, 0),
        bad(24, 2, 0, PAGE),
        bad(24, 3, 0, 0),
        bad(24, 5, 0, 0),
        bad(24, 1, 0, PAGE),
    ] {
        assert_eq!(c.unmap_raw(unmap), Err(Errno::EINVAL), "{unmap:x?}");
    }
    assert_eq!(c.unmap(0x1000, PAGE), Ok(0));
    assert_eq!(c.unmap(0x2000, u64::MAX - 0xfff), Err(Errno::EOVERFLOW));
    c.map(0x1000, PAGE).unwrap();
    c.map(0x9000, 0x3000).unwrap();
    assert_eq!(c.unmap(0, u64::MAX - 0xfff), Ok(0x4000));
    assert_eq!(c.unmap(0x1000, u64::MAX - 0xfff), Ok(0));
    assert_eq!(c.unmap_all(0), Ok(0));
}

#[test]
fn version_2_never_cuts() {
    let mut c = v2();
    c.map(0x10000, 0x4000).unwrap();
    for (iova, size) in [(0x10000, 0x2000), (0x12000, 0x2000), (0x11000, PAGE), (0xf000, 0x2000)] {
        assert_eq!(c.unmap(iova, size), Err(Errno::EINVAL));
    }
    c.map(0x20000, PAGE).unwrap();
    assert_eq!(c.unmap(0x8000, 0x20000), Ok(0x5000));
}

#[test]
fn version_1_removes_more_or_nothing() {
    let mut c = v1();
    c.map(0x10000, 0x4000).unwrap();
    c.map(0x14000, 0x4000).unwrap();
    assert_eq!(c.unmap(0x12000, 0x2000), Ok(0));
    assert_eq!(c.unmap(0x12000, 0x6000), Ok(0));
    assert_eq!(c.unmap(0x8000, 0x9000), Ok(0x4000));
    assert_eq!(c.unmap(0x14000, PAGE), Ok(0x4000));
    assert_eq!(c.unmap_all(0), Ok(0));
}

#[test]
fn user_addresses_move() {
    let mut c = v2();
    let at = |iova, size| DmaMap { argsz: 32, flags: 4, vaddr: BUF + 0x8000, iova, size };
    c.map(0x10000, 0x4000).unwrap();
    c.map(0x20000, 0x4000).unwrap();
    assert_eq!(c.map_raw(at(0x10000, 0x4000)), Err(Errno::EINVAL));
    let invalidate = DmaUnmap { argsz: 24, flags: 4, iova: 0x10000, size: 0x4000 };
    assert_eq!(c.unmap_raw(invalidate), Ok(0x4000));
    assert_eq!(c.unmap_raw(invalidate), Err(Errno::EINVAL));
    // The one that was invalid stops all; the other stays valid.
    assert_eq!(c.unmap_all(4), Err(Errno::EINVAL));
    assert_eq!(c.map_raw(at(0x20000, 0x4000)), Err(Errno::EINVAL));
    assert_eq!(c.join(INTEL_TOO), Err(Errno::EBUSY));
    assert_eq!(c.map_raw(at(0x10000, PAGE)), Err(Errno::EINVAL));
    assert_eq!(c.map_raw(at(0x10000, 0x4000)), Ok(0));
    assert_eq!(c.unmap_all(4), Ok(0x8000));
    assert_eq!(c.unmap(0x10000, 0x4000), Ok(0x4000));
    assert_eq!(c.join(INTEL_TOO), Err(Errno::EBUSY));
    assert_eq!(c.unmap_all(0), Ok(0x4000));
    assert_eq!(c.join(INTEL_TOO), Ok(0));
}

#[test]
fn groups_that_join_late() {
    let mut c = v2();
    c.map(1 << 40, PAGE).unwrap();
    assert_eq!(c.join(INTEL_39), Err(Errno::EINVAL));
    c.unmap_all(0).unwrap();
    c.map(0x800_0000, PAGE).unwrap();
    assert_eq!(c.join(ARM), Err(Errno::EINVAL));
    assert_eq!(c.ranges(), [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 48) - 1)]);
    assert_eq!(c.join(UNSAFE), Err(Errno::EPERM));
    assert_eq!(c.join(INTEL_39), Ok(0));
    assert_eq!(c.ranges(), [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)]);
    assert_eq!(c.map(1 << 40, PAGE), Err(Errno::EINVAL));
    assert_eq!(c.leave(INTEL_39), Ok(0));
    assert_eq!(c.ranges(), [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 48) - 1)]);
    assert_eq!(c.map(1 << 40, PAGE), Ok(0));
    assert_eq!(c.unmap_all(0), Ok(0x2000));
}

#[test]
fn information_and_its_capabilities() {
    let mut c = v2();
    assert_eq!(c.info(15), Err(Errno::EINVAL));
    for argsz in [16, 24, 119] {
        let info = c.info(argsz).unwrap();
        assert_eq!((info.argsz, info.flags, info.iova_pgsizes), (120, 3, 0x4020_1000));
        if argsz >= 24 {
            assert_eq!(info.cap_offset, 0);
        } else {
            assert_eq!(info.cap_offset, 0xaaaa_aaaa);
        }
    }
    for argsz in [120, 4096] {
        let info = c.info(argsz).unwrap();
        assert_eq!((info.argsz, info.cap_offset), (argsz, 24));
        let args = c.world.client.args.clone();
        let chain: Vec<_> = Caps::new(&args, 24).map(|c| c.unwrap()).collect();
        let seen: Vec<_> = chain.iter().map(|c| (c.id, c.offset)).collect();
        assert_eq!(seen, [(2, 24), (3, 56), (1, 72)]);
    }
    let mut old = Case::new(&Dialect::V6_1, 3, &[INTEL]);
    assert_eq!(old.info(24).unwrap().argsz, 116);
    assert_eq!(old.world.client.args[20..24], [0xaa; 4]);

    let mut arm = Case::new(&Dialect::V7_3, 3, &[ARM]);
    assert_eq!(arm.ranges(), [(0, 0x7ff_ffff), (0x810_0000, (1 << 48) - 1)]);
}

#[test]
fn the_last_page_there_is() {
    let mut amd = Case::new(&Dialect::V7_3, 3, &[AMD]);
    assert_eq!(amd.map(TOP, PAGE), Ok(0));
    assert_eq!(amd.map(TOP - PAGE, 0x2000), Err(Errno::EEXIST));
    assert_eq!(amd.unmap(PAGE, TOP), Ok(PAGE));
    assert_eq!(amd.map(TOP - PAGE, 0x2000), Ok(0));
    assert_eq!(amd.unmap(TOP, PAGE), Err(Errno::EINVAL));
    assert_eq!(amd.unmap_all(0), Ok(0x2000));
}

#[test]
fn dirty_pages() {
    let mut c = v1();
    assert_eq!(c.dirty(1), Err(Errno::EACCES));
    assert_eq!(c.ioctl(VFIO_IOMMU_DIRTY_PAGES, 0), Err(Errno::EACCES));

    let mut c = v2();
    c.map(0x10_0000, 0x4_0000).unwrap();
    for flags in [0, 3, 8] {
        assert_eq!(c.dirty(flags), Err(Errno::EINVAL));
    }
    assert_eq!(c.query(0x10_0000, 0x4_0000, 8, PAGE), Err(Errno::EINVAL));
    assert_eq!((c.dirty(1), c.dirty(1)), (Ok(0), Ok(0)));
    assert_eq!(c.query(0x10_0000, 0x4_0000, 7, PAGE), Err(Errno::EINVAL));
    assert_eq!(c.query(0x10_0000, 0x4_0000, 8, 0x2000), Err(Errno::EINVAL));
    assert_eq!(c.query(0x10_0000, 0x4_0000, 8, 0), Err(Errno::EINVAL));
    assert_eq!(c.query(0x10_0000, 0x2_0000, 8, PAGE), Err(Errno::EINVAL));
    assert_eq!(c.query(TOP, 0x2000, 8, PAGE), Err(Errno::EOVERFLOW));
    for _ in 0..2 {
        assert_eq!(c.query(0x10_0000, 0x4_0000, 8, PAGE), Ok(u64::MAX));
    }
    assert_eq!(c.query(0x80_0000, 0x1_0000, 8, PAGE), Ok(0));
    assert_eq!((c.dirty(2), c.dirty(2)), (Ok(0), Ok(0)));
}
