//! Watches a session for its report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use iommu::{BindRefusal, Event, Fault, FaultReason, IovaRange, MmId, Prot};
use parking_lot::Mutex;
use uapi::irq::IrqSet;
use uapi::parse::{read_padded, read_prefix};
use uapi::type1::{DmaMap, DmaUnmap, MapFlags, UnmapFlags};
use uapi::{Errno, ioctl};
use vfio::device::{DeviceRefusal, IrqRefusal};
use vfio::{ContainerId, DeviceId, GroupId, Refusal};

use super::finding::{Finding, Owner, Problem};
use super::findings::Findings;
use super::interrupts::Interrupts;
use super::space::{Mapping, Space};
use super::users::Users;
use super::{DeviceReport, Peak, Report};
use crate::session::Placed;
use crate::watch::{Call, Request, Target, Watch, bytes_at};

/// Requests whose changes were told and that were not: more than there are threads.
const MOST_PENDING: usize = 256;

/// A device, as the reporter knows it.
struct Device {
    report: DeviceReport,
    read: AtomicU64,
    written: AtomicU64,
}

/// Collects what a [`Report`] says.
pub struct Reporter {
    devices: Vec<Device>,
    requests: AtomicU64,
    /// The number of the last request; those that close are numbered, not counted.
    last: AtomicU64,
    refused: AtomicU64,
    interrupts: AtomicU64,
    /// Whether a device's transfers are to be looked at one by one.
    suspicious: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    spaces: BTreeMap<ContainerId, Space>,
    groups: BTreeMap<GroupId, ContainerId>,
    irqs: BTreeMap<DeviceId, Interrupts>,
    /// Processes of address spaces.
    owners: BTreeMap<MmId, i32>,
    locked: BTreeMap<MmId, u64>,
    users: Users,
    /// What went with a request that was not told yet, by its number.
    gone: BTreeMap<u64, Gone>,
    made: BTreeMap<u64, MmId>,
    peak: Peak,
    findings: Findings,
}

/// What went with one request.
#[derive(Default)]
struct Gone {
    container: Option<ContainerId>,
    mappings: u64,
    bytes: u64,
    first: Option<Owner>,
    windows: u64,
    window: Option<Owner>,
}

impl Reporter {
    /// For a session of these devices.
    #[must_use]
    pub fn new(placed: &Placed) -> Self {
        let device = |device: &crate::session::PlacedDevice| Device {
            report: DeviceReport {
                name: device.name.clone(),
                kind: device.kind.clone(),
                group: device.group,
                mmio: device.mmio,
                read: 0,
                written: 0,
            },
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        };
        let memlock = super::own_memlock();
        let entry_limit = placed.profile.host.limits.dma_entry_limit;
        let peak = Peak { entry_limit, memlock, ..Peak::default() };
        Self {
            devices: placed.devices.iter().map(device).collect(),
            requests: AtomicU64::new(0),
            last: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            interrupts: AtomicU64::new(0),
            suspicious: AtomicBool::new(false),
            state: Mutex::new(State { peak, ..State::default() }),
        }
    }

    /// The report of what was seen so far.
    #[must_use]
    pub fn report(&self, status: ExitStatus, shadowed: Vec<PathBuf>) -> Report {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let state = self.state.lock();
        let device = |device: &Device| DeviceReport {
            read: load(&device.read),
            written: load(&device.written),
            ..device.report.clone()
        };
        Report {
            status,
            stopped: None,
            timed_out: None,
            shadowed,
            devices: self.devices.iter().map(device).collect(),
            requests: load(&self.requests),
            refused: load(&self.refused),
            interrupts: load(&self.interrupts),
            peak: state.peak,
            findings: state.findings.list.clone(),
            more_findings: state.findings.more,
        }
    }

    fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(usize::try_from(id.0).ok()?)
    }

    fn name(&self, id: DeviceId) -> Option<String> {
        Some(self.device(id)?.report.name.clone())
    }

    /// The container that a device's group is in.
    fn container(&self, state: &State, id: DeviceId) -> Option<ContainerId> {
        let group = GroupId(self.device(id)?.report.group);
        state.groups.get(&group).copied()
    }

    fn refused(&self, state: &mut State, request: &Request, refusal: Option<&Refusal>) {
        let (Call::Ioctl { request: number, arg, read, .. }, Err(errno)) =
            (&request.call, request.answer)
        else {
            return;
        };
        match (request.target, *number) {
            (Target::Container(id), ioctl::VFIO_IOMMU_MAP_DMA) => {
                let Some(map) = read_prefix::<DmaMap>(&bytes_at(read, *arg, 32)) else { return };
                // Only what is wrong with the range may be overlooked.
                let known = MapFlags::READ | MapFlags::WRITE;
                let Some(range) = IovaRange::sized(map.iova, map.size) else { return };
                if map.flags & !known.bits() != 0 {
                    return;
                }
                let answer = answer(errno, refusal);
                let asked = Owner { range, request: request.number };
                let space = state.spaces.entry(id).or_default();
                let problem = space.refused(asked, map.vaddr, answer);
                if space.has_suspects() {
                    self.suspicious.store(true, Ordering::Relaxed);
                }
                if let Some(problem) = problem {
                    state.findings.add(about(problem, request.number));
                }
            }
            (Target::Device(id), ioctl::VFIO_DEVICE_SET_IRQS) => {
                let no_window = matches!(
                    refusal,
                    Some(Refusal::Device(DeviceRefusal::Irq(IrqRefusal::Doorbell(
                        BindRefusal::NoWindow { .. } | BindRefusal::NoWritableWindow { .. }
                    ))))
                );
                if no_window {
                    let problem = Problem::NoWindow { reason: answer(errno, refusal) };
                    let device = self.name(id);
                    state.findings.add(Finding { device, ..about(problem, request.number) });
                }
            }
            _ => {}
        }
    }

    fn granted(&self, state: &mut State, request: &Request) {
        let Call::Ioctl { request: number, arg, read, written } = &request.call else { return };
        match (request.target, *number) {
            (Target::Container(_), ioctl::VFIO_IOMMU_MAP_DMA) => {
                if let Some(mm) = state.made.remove(&request.number) {
                    state.owners.insert(mm, request.pid);
                }
            }
            (Target::Container(id), ioctl::VFIO_IOMMU_UNMAP_DMA) => {
                let asked = read_prefix::<DmaUnmap>(&bytes_at(read, *arg, 24));
                let size = bytes_at(written, arg.wrapping_add(16), 8);
                let Some(asked) =
                    asked.filter(|asked| asked.flags & !UnmapFlags::GET_DIRTY_BITMAP.bits() == 0)
                else {
                    return;
                };
                let Some(range) = IovaRange::sized(asked.iova, asked.size) else { return };
                // Where nothing was written the size stands.
                let removed = read_prefix::<[u8; 8]>(&size).map_or(asked.size, u64::from_le_bytes);
                let space = state.spaces.entry(id).or_default();
                space.unmapped(Owner { range, request: request.number }, removed);
                if space.has_suspects() {
                    self.suspicious.store(true, Ordering::Relaxed);
                }
            }
            (Target::Device(id), ioctl::VFIO_DEVICE_SET_IRQS) => {
                let set: IrqSet = read_padded(&bytes_at(read, *arg, 20));
                state.irqs.entry(id).or_default().set(request.number, &set);
            }
            _ => {}
        }
    }

    /// The last descriptor of something was closed.
    fn closed(&self, state: &mut State, request: &Request, gone: Option<Gone>) {
        let left = state.users.was_left(request.target);
        let mut add = |problem, device| {
            state.findings.add(Finding { device, ..about(problem, request.number) });
        };
        if let Target::Device(id) = request.target {
            let live = state.irqs.get_mut(&id).map(Interrupts::take).unwrap_or_default();
            for (kind, enabled) in live.into_iter().filter(|_| left) {
                add(Problem::LiveInterrupts { kind, enabled }, self.name(id));
            }
        }
        if let Target::Container(id) = request.target {
            let space = state.spaces.entry(id).or_default();
            (space.closed, space.left) = (true, left);
        }
        let of = gone.as_ref().and_then(|gone| gone.container);
        let closed = of.and_then(|id| state.spaces.get(&id)).is_some_and(|s| s.closed && !s.left);
        // A container ends with its descriptor and its groups.
        let groups = &state.groups;
        state.spaces.retain(|id, space| !space.closed || groups.values().any(|in_| in_ == id));
        let Some(gone) = gone.filter(|_| left && !closed) else { return };
        if let Some(first) = gone.first {
            let (count, bytes) = (gone.mappings, gone.bytes);
            add(Problem::LiveMappings { count, bytes, first }, None);
        }
        if let Some(first) = gone.window {
            add(Problem::LiveWindows { count: gone.windows, first }, None);
        }
    }
}

impl Watch for Reporter {
    fn request(&self, request: &Request) {
        let state = &mut *self.state.lock();
        self.last.fetch_max(request.number, Ordering::Relaxed);
        let gone = state.gone.remove(&request.number);
        if request.call == Call::Close {
            return self.closed(state, request, gone);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        state.users.asked(request.pid, request.target);
        match request.answer {
            Ok(_) => self.granted(state, request),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                self.refused(state, request, request.refusal.as_ref());
            }
        }
    }

    fn change(&self, number: u64, container: Option<ContainerId>, event: &Event) {
        let state = &mut *self.state.lock();
        let Some(id) = container else { return };
        let space = state.spaces.entry(id).or_default();
        while state.gone.len() > MOST_PENDING {
            state.gone.pop_first();
        }
        while state.made.len() > MOST_PENDING {
            state.made.pop_first();
        }
        match *event {
            Event::Mapped { range, vaddr, mm, .. } => {
                space.map(range, Mapping { last: range.last(), vaddr, mm, request: number });
                let locked = state.locked.entry(mm).or_default();
                *locked = locked.saturating_add(range.size());
                let peak = &mut state.peak;
                peak.mappings = peak.mappings.max(space.count());
                peak.mapped = peak.mapped.max(space.mapped);
                peak.locked = peak.locked.max(*locked);
                state.made.insert(number, mm);
            }
            Event::Unmapped { range } => {
                let Some(mapping) = space.unmap(range, number) else { return };
                if let Some(locked) = state.locked.get_mut(&mapping.mm) {
                    *locked = locked.saturating_sub(range.size());
                }
                let gone = state.gone.entry(number).or_default();
                gone.container = container;
                gone.mappings += 1;
                gone.bytes = gone.bytes.saturating_add(range.size());
                gone.first.get_or_insert(Owner { range, request: mapping.request });
            }
            Event::Cut { range, at } => space.cut(range, at),
            Event::VaddrUpdated { range, vaddr } => space.set_vaddr(range, vaddr),
            Event::WindowAdded { window } => space.open_window(window.range, number),
            Event::WindowRemoved { range } => {
                let Some(window) = space.close_window(range, number) else { return };
                let gone = state.gone.entry(number).or_default();
                gone.container = container;
                gone.windows += 1;
                gone.window.get_or_insert(window);
            }
            _ => {}
        }
    }

    fn joined(&self, _: u64, group: GroupId, container: Option<ContainerId>) {
        let state = &mut *self.state.lock();
        match container {
            Some(container) => _ = state.groups.insert(group, container),
            None => _ = state.groups.remove(&group),
        }
    }

    fn fault(&self, number: u64, device: DeviceId, fault: &Fault) {
        let state = &mut *self.state.lock();
        let iova = fault.iova;
        let container = self.container(state, device);
        let space = container.and_then(|id| state.spaces.get(&id));
        let mapping = space.and_then(|space| space.mapping(iova));
        let owner = mapping.map(|(owner, _)| owner);
        let problem = match fault.reason {
            FaultReason::NoDomain => Problem::NoDomain,
            FaultReason::NotMapped => match space {
                Some(space) => space.why_unmapped(iova),
                None => Problem::NeverMapped { nearest: [None, None] },
            },
            FaultReason::NotPermitted { prot } => Problem::NotPermitted { prot, mapping: owner },
            FaultReason::NotPinned => Problem::NotPinned,
            FaultReason::Doorbell => Problem::DoorbellMisused,
            FaultReason::UnknownVector => Problem::UnknownVector,
            FaultReason::MemoryGone => {
                let vaddr = mapping.map_or(0, |(owner, mapping)| {
                    mapping.vaddr.wrapping_add(iova - owner.range.first())
                });
                let pid = mapping.and_then(|(_, mapping)| state.owners.get(&mapping.mm));
                let exited = pid.is_some_and(|pid| state.users.has_ended(*pid));
                Problem::MemoryGone { mapping: owner, vaddr, exited }
            }
            FaultReason::BusMasterOff => Problem::BusMasterOff,
            _ => Problem::Other(fault.to_string()),
        };
        let (device, access) = (self.name(device), Some(fault.access));
        state.findings.add(Finding { device, access, iova: Some(iova), ..about(problem, number) });
    }

    fn moved(&self, id: DeviceId, iova: u64, access: Prot, bytes: usize) {
        let Some(device) = self.device(id) else { return };
        let to_memory = access.contains(Prot::WRITE);
        let count = if to_memory { &device.written } else { &device.read };
        count.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.suspicious.load(Ordering::Relaxed) {
            let state = &mut *self.state.lock();
            let space = self.container(state, id).and_then(|id| state.spaces.get(&id));
            if let Some(problem) = space.and_then(|space| space.moved(iova)) {
                let (device, access) = (self.name(id), Some(access));
                let request = self.last.load(Ordering::Relaxed);
                let found = about(problem, request);
                state.findings.add(Finding { device, access, iova: Some(iova), ..found });
            } else if !state.spaces.values().any(Space::has_suspects) {
                self.suspicious.store(false, Ordering::Relaxed);
            }
        }
    }

    fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    fn exiting(&self, pid: i32) {
        self.state.lock().users.exiting(pid);
    }

    fn trouble(&self, sentence: &str) {
        let number = self.last.load(Ordering::Relaxed);
        self.state.lock().findings.add(about(Problem::Other(sentence.into()), number));
    }
}

/// A finding about a request.
fn about(problem: Problem, request: u64) -> Finding {
    Finding { problem, device: None, iova: None, access: None, request, times: 1 }
}

fn answer(errno: i32, refusal: Option<&Refusal>) -> String {
    let name = Errno::new(errno);
    match refusal {
        Some(refusal) => format!("{name}, {refusal}"),
        None => name.to_string(),
    }
}
