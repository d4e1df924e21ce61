//! The engine on a host with every kind of IOMMU, and all that can be seen of it.

use softvfio_iommu::pool::Slot;
use softvfio_iommu::{
    AddressSpace, Consumer, Dialect, Env, Event, Group, Host, InterruptController, Iommu,
    IovaRange, Limits, LockedMemory, Mapping, MmId, MsiPolicy, Observer, PageSizes, PinError,
    PinFault, PinId, Pinned, Pinner, Prot, ReservedKind, ReservedRegion, Window,
};

use super::world::{PAGE, range};

/// Client memory from here on cannot be pinned.
pub(crate) const BAD: u64 = 0xbad_0000_0000;
/// Groups with Linux's own window.
const FIXED: [u32; 3] = [8, 9, 10];
/// Mappings that the container may hold.
pub(crate) const MAX_MAPPINGS: u32 = 6;
pub(crate) const RW: Prot = Prot::READ.union(Prot::WRITE);

pub(crate) fn iommu(bits: u32, page_sizes: u64, write_only: bool, msi: MsiPolicy) -> Iommu {
    Iommu {
        kind: "lab".into(),
        aperture: IovaRange::new(0, (1 << bits) - 1).unwrap(),
        page_sizes: PageSizes(page_sizes),
        write_only,
        msi,
        msi_isolated: true,
        coherent: false,
        nests: false,
    }
}

pub(crate) fn group(number: u32, iommu: usize, controller: usize) -> Group {
    Group { number, iommu, controller, devices: vec![], reserved: vec![] }
}

pub(crate) fn region(first: u64, pages: u64, kind: ReservedKind) -> ReservedRegion {
    ReservedRegion { range: range(first, pages), kind, prot: RW, owner: format!("at {first:#x}") }
}

/// Several IOMMUs of each policy at once.
pub(crate) fn host() -> Host {
    let user = |max_windows| MsiPolicy::User { max_windows };
    let fixed = MsiPolicy::Fixed { window: range(0x800_0000, 2) };
    let iommus = vec![
        iommu(48, 0x4020_1000, true, user(5)),
        iommu(48, 0x4020_1000, false, user(4)),
        iommu(39, 0x4020_1000, true, user(2)),
        iommu(48, 0x4020_1000, false, MsiPolicy::Implicit),
        iommu(48, 0x4020_1000, true, fixed),
        iommu(48, 0x2001_0000, true, user(3)),
        iommu(48, 0x4020_1000, true, user(6)),
    ];
    let mut groups = vec![
        group(1, 0, 0),
        group(2, 0, 3),
        group(3, 0, 1),
        group(4, 1, 0),
        group(5, 1, 2),
        group(6, 2, 0),
        group(7, 3, 4),
        group(8, 4, 0),
        group(9, 4, 1),
        group(10, 4, 2),
        group(11, 5, 1),
        group(12, 6, 2),
        group(13, 6, 0),
    ];
    groups[0].reserved = vec![
        region(0x2000_0000, 16, ReservedKind::Reserved),
        region(0x1003_0000, 16, ReservedKind::DirectRelaxable),
    ];
    groups[5].reserved = vec![region(0x1012_0000, 16, ReservedKind::Reserved)];
    groups[6].reserved = vec![region(0xfee0_0000, 0x100, ReservedKind::Msi)];
    for fixed in &mut groups[7..10] {
        fixed.reserved = vec![region(0x800_0000, 2, ReservedKind::SwMsi)];
    }
    groups[11].reserved = vec![region(0x1000_4000, 2, ReservedKind::Reserved)];
    Host {
        name: "lab".into(),
        dialect: Dialect::V7_3,
        page_size: PAGE,
        iommus,
        controllers: [0x808_0040, 0x809_0040, 0x80a_0040, 0x808_0080, 0xfee0_0000]
            .map(|doorbell| InterruptController {
                kind: "lab".into(),
                doorbell,
                dynamic_msix: true,
            })
            .into(),
        groups,
        limits: Limits::default(),
    }
}

#[derive(Default)]
pub(crate) struct Pins {
    next: u64,
    pub(crate) live: Vec<u64>,
}

impl Pinner for Pins {
    fn pin(&mut self, vaddr: u64, size: u64, _: bool) -> Result<Pinned, PinError> {
        if vaddr >= BAD {
            return Err(PinError { vaddr, charged_pages: 0, why: PinFault::NotMapped });
        }
        self.next += 1;
        self.live.push(self.next);
        Ok(Pinned { id: PinId(self.next), charged_pages: size / PAGE })
    }

    fn unpin(&mut self, pin: PinId) {
        let at = self.live.iter().position(|p| *p == pin.0).expect("a live pin");
        self.live.remove(at);
    }
}

/// Windows as events tell of them, and how many events there were.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) windows: Vec<Window>,
    pub(crate) bound: u64,
    count: u64,
}

impl Observer for Told {
    fn event(&mut self, event: &Event) {
        self.count += 1;
        match *event {
            Event::WindowAdded { window } => self.windows.push(window),
            Event::WindowRemoved { range } => self.windows.retain(|w| w.range != range),
            // The fixed policy keeps what is bound as long as the domain.
            Event::DoorbellBound { group, .. } if !FIXED.contains(&group) => self.bound += 1,
            Event::DoorbellReleased { .. } => self.bound -= 1,
            _ => {}
        }
    }
}

type Binding = (Consumer, u64, Slot);

/// Everything that can be seen from outside.
#[derive(Debug, PartialEq)]
pub(crate) struct Snapshot {
    mappings: Vec<(IovaRange, Mapping)>,
    windows: Vec<(Window, u64)>,
    valid: Vec<IovaRange>,
    page_sizes: PageSizes,
    limits: (u32, Option<u32>, u32),
    members: Vec<Vec<(u32, u64)>>,
    pools: Vec<Option<(Vec<Window>, Vec<Binding>)>>,
    locked: u64,
    pins: Vec<u64>,
    events: u64,
}

pub(crate) struct Lab {
    pub(crate) space: AddressSpace,
    pub(crate) host: Host,
    pub(crate) pins: Pins,
    pub(crate) locked: LockedMemory,
    pub(crate) told: Told,
}

impl Lab {
    pub(crate) fn new(host: Host, max_mappings: u32) -> Self {
        let space = AddressSpace::new(PAGE, max_mappings, &host.dialect);
        let (pins, locked, told) = (Pins::default(), LockedMemory::default(), Told::default());
        Self { space, host, pins, locked, told }
    }

    pub(crate) fn on<R>(
        &mut self,
        f: impl FnOnce(&mut AddressSpace, &Host, &mut Env<'_>) -> R,
    ) -> R {
        let Self { space, host, pins, locked, told } = self;
        f(space, host, &mut Env { pinner: pins, locked, observer: told })
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let space = &self.space;
        let domains = || space.domains().iter();
        Snapshot {
            mappings: space.mappings().map(|(r, m)| (r, *m)).collect(),
            windows: space
                .windows()
                .map(|w| (w, space.window_used_pages(w.range.first())))
                .collect(),
            valid: space.valid_ranges(),
            page_sizes: space.page_sizes(),
            limits: (space.available(), space.max_windows(), space.doorbell_pages_needed()),
            members: domains()
                .map(|d| d.members().iter().map(|m| (m.group, m.enabled)).collect())
                .collect(),
            pools: domains()
                .map(|d| d.pool().map(|p| (p.windows().collect(), p.bindings().collect())))
                .collect(),
            locked: self.locked.pages(MmId(1)),
            pins: self.pins.live.clone(),
            events: self.told.count,
        }
    }
}
