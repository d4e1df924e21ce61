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
//! The function itself is a model ([`pci::Device`]). What needs the rest of the system goes through
//! [`System`](crate::System); accesses to regions and what the function does by itself need only what
//! lies [`Upstream`] of it, so that a front end with threads can let devices work side by side. Orders
//! of checks are the kernel's, from recorded traces and kernel-semantics section 7.

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

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use iommu::{Dialect, Host};
use pci::regs::{self, cap, pm};
use pci::{Aborted, Command, DmaBus, MasterGate, MsixTable};
use uapi::ioctl;

pub use env::Upstream;
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
use crate::{ContainerId, DeviceId, EventId, Platform};

/// A PCI function that can be had through its group.
pub struct Device {
    id: DeviceId,
    function: PciFunction,
    model: Box<dyn pci::Device>,
    page_size: u64,
    dialect: Dialect,
    /// The interrupt controller adds vectors to live MSI-X.
    dynamic_msix: bool,
    /// Where BAR 0 begins in the device descriptor's file, in bytes.
    bar0_base: u64,
    /// BARs can be mapped, as far as they are memory.
    mappable: bool,
    opens: u32,
    open: Option<Open>,
}

/// What there is between first open and last close.
struct Open {
    /// The container the group is in: it stays there as long as a device is open.
    container: ContainerId,
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
    /// A device that nobody has open.
    pub(crate) fn new(
        id: DeviceId,
        function: PciFunction,
        model: Box<dyn pci::Device>,
        host: &Host,
    ) -> Self {
        let controller = host.group(function.group.0).map(|g| g.controller);
        let controller = controller.and_then(|c| host.controllers.get(c));
        Self {
            id,
            function,
            model,
            page_size: host.page_size,
            dialect: host.dialect.clone(),
            dynamic_msix: controller.is_some_and(|c| c.dynamic_msix),
            bar0_base: 0,
            mappable: true,
            opens: 0,
            open: None,
        }
    }

    /// The function.
    #[must_use]
    pub const fn function(&self) -> &PciFunction {
        &self.function
    }

    /// The function's registers and configuration space.
    #[must_use]
    pub fn model(&self) -> &dyn pci::Device {
        self.model.as_ref()
    }

    /// Chooses where BAR 0 begins in the descriptor's file, in bytes: a multiple of 2^40 where no
    /// other region is. The kernel's is 0.
    pub const fn set_bar0_base(&mut self, base: u64) {
        self.bar0_base = base;
    }

    /// Takes the possibility to map BARs away, or gives it back: a front end may have no way to see
    /// accesses through a mapping. The kernel has it.
    pub const fn set_mappable(&mut self, mappable: bool) {
        self.mappable = mappable;
    }

    /// Looks at a register as software would read it: 32 bits at a multiple of 4, of a page that is
    /// [polled](pci::Device::polled), where reading has no effect.
    pub fn peek(&mut self, bar: u8, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.model.bar_read(bar, offset, &mut word, &mut Nowhere);
        u32::from_le_bytes(word)
    }

    /// The container its group is in, while it is open.
    #[must_use]
    pub fn container(&self) -> Option<ContainerId> {
        self.open.as_ref().map(|open| open.container)
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
    /// [`event_fired`](Self::event_fired); when its last descriptor is closed, call
    /// [`event_closed`](Self::event_closed).
    pub fn watched_events(&self) -> impl Iterator<Item = EventId> {
        self.io_events().chain(self.unmask_event())
    }

    /// A descriptor was opened. The first enables the function: decoding on, bus mastering off.
    /// `reset_works` says whether the function can be reset alone.
    pub(crate) fn open(&mut self, container: ContainerId, reset_works: bool) {
        self.opens = self.opens.saturating_add(1);
        if self.open.is_some() {
            return;
        }
        let (function, model) = (&self.function, self.model.as_mut());
        enable(model, function);
        if reset_works {
            reset::reset(model);
        }
        let mut irqs = Irqs::new();
        let saved = Saved::of(model);
        irqs.opened(model);
        self.open = Some(Open {
            container,
            config: VirtualConfig::new(model.config(), &function.bars),
            msix_table: MsixTable::find(model.config()).map(|t| (t.bar(), t.range())),
            irqs,
            io_events: IoEvents::default(),
            low_power: LowPower::default(),
            reset_works,
            saved,
            saved_in_d3: None,
        });
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
        self.with_irq_env(env, open.container, |irq_env| open.irqs.teardown(irq_env));
        let model = self.model.as_mut();
        set_power_state(model, 0);
        open.saved.restore(model);
        if open.reset_works {
            reset::reset(model);
        }
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
        self.wake(env.caller);
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

    /// An eventfd that the device [watches](Self::watched_events) was signalled; the front end has
    /// read its counter back to 0.
    pub fn event_fired(&mut self, up: &mut Upstream<'_>, event: EventId) {
        self.io_event_fired(up, event);
        if let Some(open) = &mut self.open
            && open.irqs.unmask_event() == Some(event)
        {
            open.irqs.unmask_fired(self.model.as_mut(), up.platform);
        }
    }

    /// The eventfd that unmasks INTx, if there is one.
    #[must_use]
    pub fn unmask_event(&self) -> Option<EventId> {
        self.irqs().and_then(Irqs::unmask_event)
    }

    /// The last descriptor of an eventfd that the device watches was closed. INTx no longer has an
    /// unmask eventfd then, and another may be set. (A register write stays in the list, though
    /// nothing can signal it any more: adding it again is `EEXIST`.)
    pub fn event_closed(&mut self, platform: &mut dyn Platform, event: EventId) {
        if let Some(open) = &mut self.open
            && open.irqs.unmask_event() == Some(event)
        {
            open.irqs.unmask_closed(platform);
        }
    }

    /// Lets the function go on with work of its own; whether anything is left to do. A function that
    /// nobody has open has none.
    pub fn run(&mut self, up: &mut Upstream<'_>) -> bool {
        self.on_bus(up, |model, bus, _| model.run(bus)).unwrap_or(false)
    }

    fn opened(&mut self) -> Result<&mut Open, DeviceRefusal> {
        self.open.as_mut().ok_or(DeviceRefusal::NotThere)
    }

    fn set_irqs(&mut self, env: &mut DeviceEnv<'_>, arg: u64) -> Result<i64, DeviceRefusal> {
        // Out and in again: the rest of the device is needed meanwhile.
        let mut open = self.open.take().ok_or(DeviceRefusal::NotThere)?;
        let answer = self.with_irq_env(env, open.container, |env| open.irqs.set_irqs(env, arg));
        if answer.is_ok()
            && let Some(log2) = open.irqs.msi_vectors_log2()
        {
            open.config.msi_vectors_log2 = log2;
        }
        self.open = Some(open);
        Ok(answer?)
    }

    /// Runs `f` with the model and the bus behind it, then lets the interrupts see what the INTx
    /// line came to.
    fn on_bus<R>(
        &mut self,
        up: &mut Upstream<'_>,
        f: impl FnOnce(&mut dyn pci::Device, &mut dyn DmaBus, &mut VirtualConfig) -> R,
    ) -> Result<R, DeviceRefusal> {
        self.on_bus_with(up, Interrupts::Taken, f)
    }

    /// The same, with interrupts taken or held back meanwhile.
    fn on_bus_with<R>(
        &mut self,
        up: &mut Upstream<'_>,
        interrupts: Interrupts,
        f: impl FnOnce(&mut dyn pci::Device, &mut dyn DmaBus, &mut VirtualConfig) -> R,
    ) -> Result<R, DeviceRefusal> {
        let open = self.open.as_mut().ok_or(DeviceRefusal::NotThere)?;
        let model = self.model.as_mut();
        let mut platform = Signals::new(up.platform, interrupts);
        let mut bus = DeviceBus {
            device: self.id,
            group: self.function.group.0,
            container: open.container,
            containers: up.containers,
            platform: &mut platform,
            irqs: &mut open.irqs,
            line: None,
        };
        let mut gate = MasterGate::new(&mut bus, model.config());
        let result = f(model, &mut gate, &mut open.config);
        let line = bus.line;
        platform.flush();
        if let Some(asserted) = line {
            open.irqs.set_line(asserted, model, up.platform);
        }
        Ok(result)
    }
}

/// A bus for accesses that need none.
struct Nowhere;

impl DmaBus for Nowhere {
    fn read(&mut self, _addr: u64, data: &mut [u8]) -> Result<(), Aborted> {
        data.fill(0);
        Err(Aborted)
    }

    fn write(&mut self, _addr: u64, _data: &[u8]) -> Result<(), Aborted> {
        Err(Aborted)
    }

    fn set_intx(&mut self, _asserted: bool) {}
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
