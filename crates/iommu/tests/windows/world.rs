//! An Arm host whose users register windows, beside groups of other kinds.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use softvfio_iommu::{
    AddressSpace, AttachRefusal, BindRefusal, Consumer, Dialect, Doorbell, Env, Fault, Group, Host,
    InterruptController, Iommu, IovaRange, Limits, LockBudget, LockedMemory, MapRefusal,
    MapRequest, MmId, MsiPolicy, PageSizes, PinError, PinId, Pinned, Pinner, Prot, ReservedKind,
    ReservedRegion, Translation, Window, WindowRefusal,
};

/// What is planted is of the whole process: whoever plants holds this alone.
pub(crate) static PLANTING: RwLock<()> = RwLock::new(());

/// Nothing is planted while this is held.
pub(crate) fn sound() -> RwLockReadGuard<'static, ()> {
    PLANTING.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) const PAGE: u64 = 0x1000;
/// Groups of one IOMMU: A and B behind doorbell 1, C behind doorbell 2.
pub(crate) const A: u32 = 1;
pub(crate) const B: u32 = 2;
pub(crate) const C: u32 = 3;
/// A group of another IOMMU of the same kind, behind doorbell 1.
pub(crate) const D: u32 = 4;
/// A group whose IOMMU translates 39 bits and allows two windows.
pub(crate) const SMALL: u32 = 5;
/// A group whose MSIs are not translated.
pub(crate) const X86: u32 = 6;
/// A group with Linux's own window.
pub(crate) const ROOMY: u32 = 7;
/// Where A reserves a page.
pub(crate) const HOLE: u64 = 0x2000_0000;
/// Where A reserves a page that may be mapped.
pub(crate) const RELAXABLE: u64 = 0x3000_0000;
/// Where SMALL reserves a page.
pub(crate) const SMALL_RESERVES: u64 = 0x5000_0000;

pub(crate) fn range(first: u64, pages: u64) -> IovaRange {
    IovaRange::sized(first, pages * PAGE).unwrap()
}

fn region(first: u64, pages: u64, kind: ReservedKind) -> ReservedRegion {
    let owner = "a test".into();
    ReservedRegion { range: range(first, pages), kind, prot: Prot::READ | Prot::WRITE, owner }
}

fn host() -> Host {
    let iommu = |kind: &str, bits: u32, msi, write_only| Iommu {
        kind: kind.into(),
        aperture: IovaRange::new(0, (1 << bits) - 1).unwrap(),
        page_sizes: PageSizes(0x4020_1000),
        write_only,
        msi,
        msi_isolated: true,
        coherent: false,
        nests: false,
    };
    let user = |max_windows| MsiPolicy::User { max_windows };
    let fixed = MsiPolicy::Fixed { window: IovaRange::sized(0x800_0000, 0x10_0000).unwrap() };
    let group = |number, iommu, controller, reserved| Group {
        number,
        iommu,
        controller,
        devices: vec![format!("0000:00:{number:02x}.0")],
        reserved,
    };
    let its =
        |doorbell| InterruptController { kind: "gicv3-its".into(), doorbell, dynamic_msix: true };
    let a = vec![
        region(HOLE, 1, ReservedKind::Reserved),
        region(RELAXABLE, 1, ReservedKind::DirectRelaxable),
    ];
    Host {
        name: "test".into(),
        dialect: Dialect::V7_3,
        page_size: PAGE,
        iommus: vec![
            iommu("smmuv3", 48, user(8), true),
            iommu("smmuv3", 48, user(8), false),
            iommu("smmuv3", 39, user(2), false),
            iommu("vt-d", 48, MsiPolicy::Implicit, false),
            iommu("smmuv3", 48, fixed, false),
        ],
        controllers: vec![its(0x808_0040), its(0x809_0040), its(0xfee0_0000)],
        groups: vec![
            group(A, 0, 0, a),
            group(B, 0, 0, vec![]),
            group(C, 0, 1, vec![]),
            group(D, 1, 0, vec![]),
            group(SMALL, 2, 0, vec![region(SMALL_RESERVES, 1, ReservedKind::Reserved)]),
            group(X86, 3, 2, vec![region(0xfee0_0000, 0x100, ReservedKind::Msi)]),
            group(ROOMY, 4, 0, vec![region(0x800_0000, 0x100, ReservedKind::SwMsi)]),
        ],
        limits: Limits::default(),
    }
}

#[derive(Default)]
struct Pins(u64);

impl Pinner for Pins {
    fn pin(&mut self, _: u64, size: u64, _: bool) -> Result<Pinned, PinError> {
        self.0 += 1;
        Ok(Pinned { id: PinId(self.0), charged_pages: size / PAGE })
    }

    fn unpin(&mut self, _: PinId) {}
}

pub(crate) struct World {
    pub(crate) space: AddressSpace,
    host: Host,
    pins: Pins,
    locked: LockedMemory,
    _sound: RwLockReadGuard<'static, ()>,
}

impl World {
    pub(crate) fn new(groups: &[u32]) -> Self {
        let host = host();
        let space = AddressSpace::new(PAGE, 16, &host.dialect);
        let mut world = Self {
            space,
            host,
            pins: Pins::default(),
            locked: LockedMemory::default(),
            _sound: sound(),
        };
        for group in groups {
            world.attach(*group).unwrap();
        }
        world
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut AddressSpace, &Host, &mut Env<'_>) -> R) -> R {
        let mut env = Env { pinner: &mut self.pins, locked: &mut self.locked, observer: &mut () };
        f(&mut self.space, &self.host, &mut env)
    }

    pub(crate) fn window(first: u64, pages: u64) -> Window {
        let prot = Prot::READ | Prot::WRITE;
        Window { range: range(first, pages), prot, consumer: Consumer::MSI }
    }

    pub(crate) fn add(&mut self, first: u64, pages: u64) -> Result<(), WindowRefusal> {
        self.add_window(Self::window(first, pages))
    }

    pub(crate) fn add_window(&mut self, window: Window) -> Result<(), WindowRefusal> {
        self.with(|s, _, env| s.add_window(window, env))
    }

    pub(crate) fn remove(&mut self, first: u64, pages: u64) -> Result<bool, WindowRefusal> {
        self.with(|s, _, env| s.remove_window(range(first, pages), env))
    }

    pub(crate) fn remove_all(&mut self) -> Result<u64, WindowRefusal> {
        self.with(|s, _, env| s.remove_all_windows(env))
    }

    pub(crate) fn attach(&mut self, group: u32) -> Result<(), AttachRefusal> {
        self.with(|s, host, env| s.attach(host, &Limits::default(), group, None, env))
    }

    pub(crate) fn detach(&mut self, group: u32) {
        assert!(self.with(|s, _, env| s.detach(group, env)));
    }

    pub(crate) fn bind(&mut self, group: u32) -> Result<Doorbell, BindRefusal> {
        self.with(|s, _, env| s.bind_doorbell(group, env))
    }

    pub(crate) fn release(&mut self, group: u32) {
        self.with(|s, _, env| s.release_doorbell(group, env));
    }

    pub(crate) fn map(&mut self, first: u64, pages: u64) -> Result<(), MapRefusal> {
        let budget = LockBudget { mm: MmId(1), limit_pages: None };
        let (range, prot) = (range(first, pages), Prot::READ | Prot::WRITE);
        let request = MapRequest { range, vaddr: 0x7000_0000, prot, budget };
        self.with(|s, _, env| s.map(&request, env))
    }

    pub(crate) fn unmap_all(&mut self) -> u64 {
        self.with(|s, _, env| s.unmap(IovaRange::ALL, env))
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what translate answers")]
    pub(crate) fn doorbell(&self, address: u64) -> Result<Translation, Fault> {
        Ok(Translation::Doorbell { address })
    }

    /// What always holds: windows are disjoint from each other and from mappings, every taking
    /// domain has every window, and bindings are on pages of their own inside windows.
    pub(crate) fn check(&self) {
        let windows: Vec<Window> = self.space.windows().collect();
        for pair in windows.windows(2) {
            assert!(pair[0].range.last() < pair[1].range.first());
        }
        for (mapping, _) in self.space.mappings() {
            assert!(windows.iter().all(|w| !w.range.overlaps(mapping)));
        }
        for domain in self.space.domains().iter().filter(|d| d.max_windows().is_some()) {
            let pool = domain.pool().unwrap();
            assert_eq!(pool.windows().collect::<Vec<_>>(), windows);
            let mut pages = BTreeMap::new();
            for (consumer, key, slot) in pool.bindings() {
                assert_ne!(slot.references, 0);
                assert_eq!(pages.insert(slot.iova, key), None, "two bindings share a page");
                assert_eq!(pool.resolve(slot.iova), Some((consumer, key)));
                let page = range(slot.iova, 1);
                assert!(windows.iter().any(|w| w.range.covers(page) && w.consumer == consumer));
            }
        }
    }
}
