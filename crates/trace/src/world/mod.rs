//! A machine, the kernel on it, and the process that issues requests: all that a script acts on.

mod kernel;
mod params;
mod watch;

use std::collections::BTreeSet;

use vfio::{Abi, ContainerTable, DeviceId, DeviceTable, Driver, System};

use crate::machine::{DeviceSpec, Machine};

use crate::process::Process;
use crate::watch::{Change, Events};
pub(crate) use kernel::function;

/// A device by its names.
#[derive(Clone, Debug)]
pub(crate) struct NamedDevice {
    /// What requests call it.
    pub(crate) name: String,
    /// Its address.
    pub(crate) bdf: String,
    /// Its group.
    pub(crate) group: u32,
}

/// Numbered descriptors; -1 where none is open.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    /// Containers.
    pub(crate) c: [i32; 8],
    /// Groups.
    pub(crate) g: [i32; 8],
    /// Devices.
    pub(crate) d: [i32; 8],
    /// Eventfds.
    pub(crate) e: [i32; 64],
}

impl Slots {
    /// The slot that a word like `c0` names; `c` is `c0`.
    pub(crate) fn named(&mut self, word: &str) -> Option<&mut i32> {
        let (kind, slot) = word.split_at_checked(1)?;
        let slot: usize = if slot.is_empty() { 0 } else { slot.parse().ok()? };
        match kind {
            "c" => self.c.get_mut(slot),
            "g" => self.g.get_mut(slot),
            "d" => self.d.get_mut(slot),
            "e" => self.e.get_mut(slot),
            _ => None,
        }
    }
}

/// Memories that a script may name.
const MAX_MEMORIES: usize = 31;

/// Drivers that the recorded machines have, besides vfio-pci.
const DRIVERS: [&str; 3] = ["pci-stub", "e1000", "e1000e"];

/// What a script acts on.
pub(crate) struct World {
    system: System,
    containers: ContainerTable,
    /// The devices' state on this side.
    table: DeviceTable,
    /// The process.
    pub(crate) process: Process,
    /// The devices; their places are their [`DeviceId`]s.
    pub(crate) devices: Vec<NamedDevice>,
    /// Numbered descriptors.
    pub(crate) slots: Slots,
    /// Names of memories and where they start.
    memories: Vec<(String, u64)>,
    disable_hugepages: bool,
    /// Where BAR 0 begins in a device's file.
    bar0_base: u64,
    /// Devices whose memory was mapped: pins need to know whether they decode it.
    regions: BTreeSet<DeviceId>,
    /// Where address spaces tell their changes, when somebody watches.
    events: Option<Events>,
    changes: Vec<Change>,
}

impl World {
    /// A machine as it was before the script ran, and a new process.
    pub(crate) fn new(machine: &Machine) -> Self {
        let functions = machine.devices.iter().map(kernel::function).collect();
        let mut system = System::new(machine.host.clone(), functions);
        let models = machine.devices.iter().map(kernel::model).collect();
        system.set_abi(machine.abi);
        for (id, device) in (0..).map(DeviceId).zip(&machine.devices) {
            if device.driver != "vfio-pci" {
                system.unbind(id);
                let _ = system.bind(id, Driver::named(&device.driver));
            }
        }
        let named = |d: &DeviceSpec| NamedDevice {
            name: d.name.clone(),
            bdf: d.bdf.clone(),
            group: d.group,
        };
        let mut table = DeviceTable::new(&system, models);
        for (id, device) in (0..).map(DeviceId).zip(&machine.devices) {
            if let Some(state) = table.get_mut(id) {
                state.set_bar0_base(machine.bar0_base);
                state.set_mappable(device.mappable);
            }
        }
        Self {
            table,
            bar0_base: machine.bar0_base,
            process: Process::new(machine.layout.clone(), &machine.host.dialect),
            devices: machine.devices.iter().map(named).collect(),
            containers: ContainerTable::default(),
            slots: Slots { c: [-1; 8], g: [-1; 8], d: [-1; 8], e: [-1; 64] },
            memories: Vec::new(),
            disable_hugepages: machine.disable_hugepages,
            regions: BTreeSet::new(),
            events: None,
            changes: Vec::new(),
            system,
        }
    }

    /// Which numbers the process speaks.
    pub(crate) fn abi(&self) -> Abi {
        self.system.abi()
    }

    /// The place of the device that requests call `name`.
    pub(crate) fn find_device(&self, name: &str) -> Option<usize> {
        self.devices.iter().position(|d| d.name == name)
    }

    /// The devices' names, for people.
    pub(crate) fn device_names(&self) -> String {
        self.devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Where the memory of that name starts.
    pub(crate) fn memory(&self, name: &str) -> Option<u64> {
        self.memories.iter().find(|(n, _)| n == name).map(|&(_, at)| at)
    }

    /// Faults of devices since the last time, by the devices' names.
    pub(crate) fn take_faults(&mut self) -> Vec<(String, iommu::Fault)> {
        let name = |id: DeviceId| {
            let device = usize::try_from(id.0).ok().and_then(|i| self.devices.get(i));
            device.map(|d| d.name.clone()).unwrap_or_default()
        };
        self.process.take_faults().into_iter().map(|(id, fault)| (name(id), fault)).collect()
    }

    /// Makes a name known; `false` when there are too many.
    pub(crate) fn add_memory(&mut self, name: &str) -> bool {
        if self.memory(name).is_none() {
            if self.memories.len() >= MAX_MEMORIES {
                return false;
            }
            self.memories.push((name.to_owned(), 0));
        }
        true
    }

    /// Says where the memory of that name starts now.
    pub(crate) fn set_memory(&mut self, name: &str, at: u64) {
        if let Some(memory) = self.memories.iter_mut().find(|(n, _)| n == name) {
            memory.1 = at;
        }
    }

    /// Bytes the process has locked (`VmLck`).
    pub(crate) fn locked_bytes(&self) -> u64 {
        let pages = self.system.shared().locked.pages(crate::process::MM);
        pages.saturating_mul(self.process.page())
    }
}
