//! A device with its surroundings, all fake.

use alloc::vec::Vec;

use iommu::{BindRefusal, Dialect};
use pci::regs::{COMMAND, STATUS};
use pci::{
    Aborted, Bar, Command, ConfigSize, ConfigSpace, DmaBus, MasterGate, Msi, MsixTable, Status,
};
use uapi::Errno;

use super::process::{ARG, Process};
use crate::device::irq::{Doorbells, IrqEnv, Irqs};

/// What the doorbell is bound at.
pub(super) const DOORBELL: u64 = 0x800_0040;

/// A function with an interrupt status, an MSI-X table if its configuration space has one, and
/// nothing else.
pub(super) struct Function {
    config: ConfigSpace,
    table: Option<MsixTable>,
    status: u32,
    /// Wants the line up. QEMU's functions forget it when messages get enabled.
    asserted: bool,
    /// Drops its line while INTx is disabled, as hardware does; the other kind of model leaves
    /// that to us.
    obeys_disable: bool,
}

impl Function {
    pub(super) fn new(bytes: &[u8], size: ConfigSize, obeys_disable: bool) -> Self {
        let mut config = ConfigSpace::from_bytes(bytes, size, &[None::<Bar>; 7]);
        config.write_u16(COMMAND, (Command::MEMORY | Command::MASTER).bits());
        // Recorded while nobody used it, asleep; whoever opens it wakes it.
        if let Some(pm) = config.capability(pci::regs::cap::PM) {
            config.set_u16(pm.offset + pci::regs::pm::PMCSR, 0);
        }
        let table = MsixTable::find(&config);
        Self { config, table, status: 0, asserted: false, obeys_disable }
    }

    fn drive(&mut self, bus: &mut dyn DmaBus) {
        let mut bits = Status::from_bits_retain(self.config.u16(STATUS));
        bits.set(Status::INTERRUPT, self.asserted);
        self.config.set_u16(STATUS, bits.bits());
        let off = self.obeys_disable && self.config.command().contains(Command::INTX_DISABLE);
        bus.set_intx(self.asserted && !off);
    }

    /// Whether messages are enabled.
    pub(super) fn messages(&self) -> bool {
        Msi::find(&self.config).is_some_and(|msi| msi.enabled(&self.config))
            || self.table.as_ref().is_some_and(|t| t.enabled(&self.config))
    }

    /// Raises the bits of `status`: by message when MSI is on, else on the line.
    pub(super) fn raise(&mut self, status: u32, bus: &mut dyn DmaBus) {
        self.status |= status;
        if self.status == 0 {
            return;
        }
        self.fire(0, bus);
        self.asserted = !self.messages();
        self.drive(bus);
    }

    /// What its status register says.
    pub(super) fn wants_service(&self) -> bool {
        Status::from_bits_retain(self.config.u16(STATUS)).contains(Status::INTERRUPT)
    }

    pub(super) fn clear(&mut self, status: u32, bus: &mut dyn DmaBus) {
        self.status &= !status;
        self.asserted &= self.status != 0;
        self.drive(bus);
    }

    /// Sets or clears the bus master bit.
    pub(super) fn set_master(&mut self, on: bool) {
        let mut command = self.config.command();
        command.set(Command::MASTER, on);
        self.config.write_u16(COMMAND, command.bits());
    }

    /// Fires a vector of whatever messages are enabled.
    pub(super) fn fire(&mut self, vector: u32, bus: &mut dyn DmaBus) {
        let mut gate = MasterGate::new(bus, &self.config);
        let bus = &mut gate;
        if let Some(msi) = Msi::find(&self.config) {
            let _ = msi.fire(&mut self.config, vector, bus);
        }
        if let Some(table) = &mut self.table {
            let _ = table.fire(&self.config, vector, bus);
        }
    }
}

impl pci::Device for Function {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8], _bus: &mut dyn DmaBus) {
        if let Some(table) = &self.table {
            table.bar_read(bar, offset, data);
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8], bus: &mut dyn DmaBus) {
        if let Some(table) = &mut self.table {
            table.bar_write(bar, offset, data, &self.config, bus);
        }
    }

    fn config_written(&mut self, bus: &mut dyn DmaBus) {
        if let Some(table) = &mut self.table {
            table.fire_pending(&self.config, bus);
        }
        self.asserted &= !self.messages();
        if self.obeys_disable || self.messages() {
            self.drive(bus);
        }
    }

    fn reset(&mut self) {
        (self.status, self.asserted) = (0, false);
        self.config.reset();
        self.drive(&mut Wire::default());
        if let Some(table) = &mut self.table {
            table.reset();
        }
    }
}

/// A doorbell that counts.
#[derive(Default)]
pub(super) struct Doorbell {
    pub(super) references: u32,
    pub(super) refusal: Option<BindRefusal>,
}

impl Doorbells for Doorbell {
    fn bind(&mut self) -> Result<iommu::Doorbell, BindRefusal> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        self.references += 1;
        Ok(iommu::Doorbell { iova: DOORBELL, address: DOORBELL })
    }

    fn release(&mut self) {
        self.references = self.references.checked_sub(1).expect("released twice");
    }
}

/// What left the function.
#[derive(Default)]
pub(super) struct Wire {
    messages: Vec<(u64, u32)>,
    line: Option<bool>,
}

impl DmaBus for Wire {
    fn read(&mut self, _addr: u64, _data: &mut [u8]) -> Result<(), Aborted> {
        Err(Aborted)
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
        self.messages.push((addr, u32::from_le_bytes(data.try_into().unwrap())));
        Ok(())
    }

    fn set_intx(&mut self, asserted: bool) {
        self.line = Some(asserted);
    }
}

/// Everything together.
pub(super) struct Rig {
    pub(super) irqs: Irqs,
    pub(super) function: Function,
    pub(super) process: Process,
    pub(super) doorbell: Doorbell,
    pub(super) dialect: &'static Dialect,
    pub(super) line_wired: bool,
    pub(super) line_up_noticed: bool,
    pub(super) dynamic_msix: bool,
    pub(super) multi_msi: bool,
    pub(super) vectors_left: u32,
}

impl Rig {
    pub(super) fn new(function: Function, dialect: &'static Dialect) -> Self {
        Self {
            irqs: Irqs::new(),
            function,
            process: Process { others: [0, 50].into(), ..Process::default() },
            doorbell: Doorbell::default(),
            dialect,
            line_wired: true,
            line_up_noticed: true,
            dynamic_msix: true,
            multi_msi: true,
            vectors_left: u32::MAX,
        }
    }

    /// Runs `f` with the environment of a request; then whoever polls the unmask eventfd.
    pub(super) fn with<R>(&mut self, f: impl FnOnce(&mut Irqs, &mut IrqEnv<'_>) -> R) -> R {
        let mut env = IrqEnv {
            dialect: self.dialect,
            caller: &mut self.process,
            model: &mut self.function,
            doorbells: &mut self.doorbell,
            line_wired: self.line_wired,
            line_up_noticed: self.line_up_noticed,
            dynamic_msix: self.dynamic_msix,
            multi_msi: self.multi_msi,
            vectors_left: self.vectors_left,
        };
        let answer = f(&mut self.irqs, &mut env);
        self.poll();
        answer
    }

    fn poll(&mut self) {
        let woken = core::mem::take(&mut self.process.woken);
        if let Some(event) = self.irqs.unmask_event()
            && woken.contains(&event)
        {
            let fd = self.process.held[&event];
            self.process.counters.insert(fd, 0);
            self.irqs.unmask_fired(&mut self.function, &mut self.process);
        }
    }

    /// `SET_IRQS` of these bytes, at [`ARG`].
    pub(super) fn set_bytes(&mut self, bytes: Vec<u8>) -> Result<i64, Errno> {
        self.process.memory = bytes;
        let dialect = self.dialect;
        self.with(|irqs, env| irqs.set_irqs(env, ARG)).map_err(|refusal| {
            assert!(!alloc::format!("{refusal}").is_empty());
            refusal.errno(dialect)
        })
    }

    /// `SET_IRQS`, put together.
    pub(super) fn set(
        &mut self,
        flags: u32,
        index: u32,
        start: u32,
        count: u32,
        data: &[u8],
    ) -> Result<i64, Errno> {
        let argsz = 20 + u32::try_from(data.len()).unwrap();
        let mut bytes = words(&[argsz, flags, index, start, count]);
        bytes.extend(data);
        self.set_bytes(bytes)
    }

    /// `SET_IRQS` with eventfds, action trigger.
    pub(super) fn set_fds(&mut self, index: u32, start: u32, fds: &[i32]) -> Result<i64, Errno> {
        let data: Vec<u8> = fds.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
        self.set(0x24, index, start, u32::try_from(fds.len()).unwrap(), &data)
    }

    /// Runs the function; what leaves it arrives. How many messages found no vector.
    pub(super) fn run(&mut self, f: impl FnOnce(&mut Function, &mut Wire)) -> usize {
        let mut wire = Wire::default();
        f(&mut self.function, &mut wire);
        let mut lost = 0;
        for (address, data) in wire.messages {
            lost += usize::from(!self.irqs.deliver_msi(address, data, &mut self.process));
        }
        if let Some(level) = wire.line {
            self.irqs.set_line(level, &mut self.function, &mut self.process);
        }
        lost
    }

    /// A reset as a host does one: configuration space saved and written back around it.
    pub(super) fn reset(&mut self) {
        let config = self.function.config.clone();
        pci::Device::reset(&mut self.function);
        self.function.config.write(0, config.bytes());
        self.irqs.restored(&mut self.function, &mut self.process);
    }

    /// Adds to a counter, as its owner may.
    pub(super) fn write(&mut self, fd: i32, value: u64) {
        *self.process.counters.get_mut(&fd).unwrap() += value;
        self.process.wake(fd);
        self.poll();
    }

    /// Reads a counter back to 0.
    pub(super) fn read(&mut self, fd: i32) -> u64 {
        self.process.counters.insert(fd, 0).unwrap()
    }

    /// The last close; nothing may be held after it.
    pub(super) fn close(&mut self) {
        self.with(|irqs, env| irqs.teardown(env));
        assert!(self.process.held.is_empty(), "leaked {:?}", self.process.held);
        assert_eq!(self.doorbell.references, 0);
        assert_eq!(self.irqs.mode(), None);
    }
}

/// Native-endian words as bytes.
pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}
