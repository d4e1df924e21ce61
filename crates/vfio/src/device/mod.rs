//! A device: what vfio-pci keeps of a PCI function while a user has it.
//!
//! ```text
//!   ioctl ──► info │ irq │ reset │ feature │ ioeventfd        pread, pwrite ──► region
//!                                │                                 │
//!        config (the user's view of configuration space) ──────────┤
//!                                │                                 ▼
//!   DMA and MSIs ◄── bus (translation, doorbells) ◄── the model (pci::Device)
//! ```
//!
//! The function itself is a model that the front end keeps ([`Models`](crate::Models)); a [`Device`]
//! is the state on this side. Orders of checks are the kernel's, from recorded traces and
//! kernel-semantics section 7.

mod bus;
mod config;
mod env;
mod feature;
mod function;
mod hot_reset;
mod info;
mod ioeventfd;
mod irq;
mod mmap;
mod refusal;
mod region;
mod requests;
mod reset;

use alloc::vec::Vec;
use core::ops::Range;

use pci::regs::{self, cap, pm};
use pci::{Command, DmaBus, MasterGate, MsixTable};
use uapi::ioctl;

pub use function::{IntxLine, PciFunction, ResetMethod};
pub use irq::{Doorbells, IrqEnv, IrqKind, IrqRefusal, Irqs};
pub use mmap::{Mappable, Mmio};
pub use refusal::DeviceRefusal;

use self::bus::{DeviceBus, Interrupts, Signals};
use self::config::VirtualConfig;
use self::env::DeviceEnv;
use self::feature::LowPower;
use self::ioeventfd::IoEvents;
use self::reset::Saved;
use crate::{DeviceId, Driver, EventId};

/// A PCI function that can be had through its group.
pub struct Device {
    id: DeviceId,
    function: PciFunction,
    driver: Driver,
    /// Where BAR 0 begins in the device descriptor's file, in bytes.
    bar0_base: u64,
    opens: u32,
    open: Option<Open>,
}

/// What there is between first open and last close.
struct Open {
    config: VirtualConfig,
    /// The BAR that holds the MSI-X table, and the table's bytes in it.
    msix_table: Option<(u8, Range<u64>)>,
    irqs: Irqs,
    io_events: IoEvents,
    low_power: LowPower,
    /// The function can be reset alone.
    reset_works: bool,
    /// The configuration space at the first open, for the last close.
    saved: Saved,
    /// The configuration space when it went to D3, where it forgets it there.
    saved_in_d3: Option<Saved>,
}

impl Device {
    /// A device bound to vfio-pci that nobody has open. `id` names its model.
    #[must_use]
    pub const fn new(id: DeviceId, function: PciFunction) -> Self {
        Self { id, function, driver: Driver::VfioPci, bar0_base: 0, opens: 0, open: None }
    }

    /// The function.
    #[must_use]
    pub const fn function(&self) -> &PciFunction {
        &self.function
    }

    /// The driver it is bound to.
    #[must_use]
    pub const fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Binds it to another driver.
    pub fn set_driver(&mut self, driver: Driver) {
        self.driver = driver;
    }

    /// Whether a descriptor of it is open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Its interrupts, while it is open.
    #[must_use]
    pub fn irqs(&self) -> Option<&Irqs> {
        self.open.as_ref().map(|open| &open.irqs)
    }

    /// The eventfds to watch: when one fires, read its counter back to 0 and call
    /// [`System::device_event`](crate::System::device_event); when its last descriptor is closed,
    /// call [`System::device_event_closed`](crate::System::device_event_closed).
    pub fn watched_events(&self) -> impl Iterator<Item = EventId> {
        self.io_events().chain(self.irqs().and_then(Irqs::unmask_event))
    }

    /// A descriptor was opened. The first enables the function: decoding on, bus mastering off.
    /// `reset_works` says whether the function can be reset alone.
    ///
    /// # Errors
    /// The model is not there.
    pub(crate) fn open(
        &mut self,
        env: &mut DeviceEnv<'_>,
        reset_works: bool,
    ) -> Result<(), DeviceRefusal> {
        if self.open.is_none() {
            let function = &self.function;
            let open = env.with_model(self.id, |model, _| {
                enable(model, function);
                if reset_works {
                    reset::reset(model);
                }
                let mut irqs = Irqs::new();
                let saved = Saved::of(model);
                irqs.opened(model);
                Open {
                    config: VirtualConfig::new(model.config(), &function.bars),
                    msix_table: MsixTable::find(model.config()).map(|t| (t.bar(), t.range())),
                    irqs,
                    io_events: IoEvents::default(),
                    low_power: LowPower::default(),
                    reset_works,
                    saved,
                    saved_in_d3: None,
                }
            })?;
            self.open = Some(open);
        }
        self.opens = self.opens.saturating_add(1);
        Ok(())
    }

    /// A descriptor was closed for good. The last one turns everything off, and the function is as
    /// it was found.
    pub(crate) fn close(&mut self, env: &mut DeviceEnv<'_>) {
        self.opens = self.opens.saturating_sub(1);
        if self.opens != 0 {
            return;
        }
        let Some(mut open) = self.open.take() else { return };
        open.low_power.end(env.caller);
        open.io_events.clear(env.caller);
        let line = self.function.line;
        // Without its model there is nothing left to turn off.
        let _ = env.with_irq_env(self.id, line, |irq_env| {
            open.irqs.teardown(irq_env);
            set_power_state(irq_env.model, 0);
            open.saved.restore(irq_env.model);
            if open.reset_works {
                reset::reset(irq_env.model);
            }
        });
    }

    /// A request on a descriptor.
    ///
    /// # Errors
    /// The [`DeviceRefusal`], whose errno the client gets.
    #[doc(alias("VFIO_DEVICE_GET_INFO", "VFIO_DEVICE_SET_IRQS", "VFIO_DEVICE_RESET"))]
    pub(crate) fn ioctl(
        &mut self,
        env: &mut DeviceEnv<'_>,
        request: u32,
        arg: u64,
    ) -> Result<i64, DeviceRefusal> {
        self.wake(env);
        match request {
            ioctl::VFIO_DEVICE_GET_INFO => self.get_info(env, arg),
            ioctl::VFIO_DEVICE_GET_REGION_INFO => self.get_region_info(env, arg),
            ioctl::VFIO_DEVICE_GET_IRQ_INFO => self.get_irq_info(env, arg),
            ioctl::VFIO_DEVICE_SET_IRQS => self.set_irqs(env, arg),
            ioctl::VFIO_DEVICE_RESET => self.reset(env),
            ioctl::VFIO_DEVICE_IOEVENTFD => self.set_io_event(env, arg),
            ioctl::VFIO_DEVICE_FEATURE => self.feature(env, arg),
            _ => Err(DeviceRefusal::UnknownRequest(request)),
        }
    }

    /// An eventfd that the device watches was signalled.
    pub(crate) fn event_fired(&mut self, env: &mut DeviceEnv<'_>, event: EventId) {
        self.io_event_fired(env, event);
        let id = self.id;
        if let Ok(open) = self.opened()
            && open.irqs.unmask_event() == Some(event)
        {
            // Without its model nothing is masked either.
            let _ = env.with_model(id, |model, env| open.irqs.unmask_fired(model, env.caller));
        }
    }

    /// The last descriptor of an eventfd that the device watches was closed. (A register write
    /// stays in the list, though nothing can signal it any more: adding it again is `EEXIST`.)
    pub(crate) fn event_closed(&mut self, env: &mut DeviceEnv<'_>, event: EventId) {
        if let Ok(open) = self.opened()
            && open.irqs.unmask_event() == Some(event)
        {
            open.irqs.unmask_closed(env.caller);
        }
    }

    /// Lets the function go on with work of its own; whether anything is left to do.
    pub(crate) fn run(&mut self, env: &mut DeviceEnv<'_>) -> Result<bool, DeviceRefusal> {
        self.on_bus(env, |model, bus, _| model.run(bus))
    }

    fn opened(&mut self) -> Result<&mut Open, DeviceRefusal> {
        self.open.as_mut().ok_or(DeviceRefusal::NotThere)
    }

    fn set_irqs(&mut self, env: &mut DeviceEnv<'_>, arg: u64) -> Result<i64, DeviceRefusal> {
        let (id, line) = (self.id, self.function.line);
        let open = self.opened()?;
        let answer = env.with_irq_env(id, line, |env| open.irqs.set_irqs(env, arg))??;
        if let Some(log2) = open.irqs.msi_vectors_log2() {
            open.config.msi_vectors_log2 = log2;
        }
        Ok(answer)
    }

    /// Runs `f` with the model and the bus behind it, then lets the interrupts see what the INTx
    /// line came to.
    fn on_bus<R>(
        &mut self,
        env: &mut DeviceEnv<'_>,
        f: impl FnOnce(&mut dyn pci::Device, &mut dyn DmaBus, &mut VirtualConfig) -> R,
    ) -> Result<R, DeviceRefusal> {
        self.on_bus_with(env, Interrupts::Taken, f)
    }

    /// The same, with interrupts taken or held back meanwhile.
    fn on_bus_with<R>(
        &mut self,
        env: &mut DeviceEnv<'_>,
        interrupts: Interrupts,
        f: impl FnOnce(&mut dyn pci::Device, &mut dyn DmaBus, &mut VirtualConfig) -> R,
    ) -> Result<R, DeviceRefusal> {
        let (id, group) = (self.id, self.function.group.0);
        let open = self.opened()?;
        env.with_model(id, |model, env| {
            let mut platform = Signals::new(env.caller, interrupts);
            let mut bus = DeviceBus {
                device: id,
                group,
                container: env.container,
                containers: env.containers,
                platform: &mut platform,
                irqs: &mut open.irqs,
                line: None,
            };
            let mut gate = MasterGate::new(&mut bus, model.config());
            let result = f(model, &mut gate, &mut open.config);
            let line = bus.line;
            platform.flush();
            if let Some(asserted) = line {
                open.irqs.set_line(asserted, model, env.caller);
            }
            result
        })
    }
}

/// `pci_enable_device` with bus mastering off: decoding as far as there is something to decode.
fn enable(model: &mut dyn pci::Device, function: &PciFunction) {
    set_power_state(model, 0);
    let mut command = model.config().command();
    command.remove(Command::MASTER);
    let [bars @ .., _rom] = &function.bars;
    for bar in bars.iter().flatten() {
        command.insert(if bar.is_memory() { Command::MEMORY } else { Command::IO });
    }
    model.config_mut().write_u16(regs::COMMAND, command.bits());
}

/// The offset of the power management control register.
fn power_register(config: &pci::ConfigSpace) -> Option<u16> {
    Some(config.capability(cap::PM)?.offset.saturating_add(pm::PMCSR))
}

/// Sets the power state's bits, 0 (D0) to 3 (D3hot), where the function has them.
fn set_power_state(model: &mut dyn pci::Device, state: u16) {
    if let Some(at) = power_register(model.config()) {
        let others = model.config().u16(at) & !pm::STATE_MASK;
        model.config_mut().write_u16(at, others | state);
    }
}

/// Whether the function is in D3hot, where it decodes nothing but configuration space.
fn is_in_d3(config: &pci::ConfigSpace) -> bool {
    power_register(config).is_some_and(|at| config.u16(at) & pm::STATE_MASK == 3)
}

/// Bytes of a structure that go back to a caller with room for `argsz`.
fn room(argsz: u32, bytes: &[u8]) -> Vec<u8> {
    let argsz = usize::try_from(argsz).unwrap_or(usize::MAX);
    bytes.iter().copied().take(argsz).collect()
}
