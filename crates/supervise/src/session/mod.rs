//! A program on a software IOMMU: from a host and devices to a report.
//!
//! ```no_run
//! use softvfio_supervise::kinds::DeviceSpec;
//! use softvfio_supervise::session::{Program, Session};
//!
//! let disk = "nvme,size=64M".parse::<DeviceSpec>()?.make()?;
//! let report = Session::new()
//!     .host("arm-smmuv3-its")
//!     .device(disk)
//!     .run(&Program::new("./my-vmm").args(["--disk", "0000:01:00.0"]))?;
//! assert!(report.status.success() && report.findings.is_empty(), "{report}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A device of one's own is a [`pci::Device`] in an [`EmulatedDevice`]; the example `own_device` has one.

mod bars;
mod limit;
mod output;
mod place;
mod program;
mod ready;
mod registers;
mod stop;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use iommu::Dialect;
use pci::{Bar, Bdf};
use serde_json::{Map, Value};
use trace::profile::{self, Profile};
use vfio::{Abi, DeviceId, System};

pub use self::output::Output;
pub use self::program::Program;
pub use self::ready::Ready;
pub use self::stop::{Aftermath, GRACE};
pub use crate::door::MmioMode;

use crate::control::Control;
use crate::door;
use crate::report::Report;
use crate::sandbox::LaunchError;
use crate::watch::Watch;

/// The host where none is named.
pub const DEFAULT_HOST: &str = "x86-intel";

/// A device to be emulated.
pub struct EmulatedDevice {
    /// What it is, in a word: `nvme`.
    pub kind: String,
    /// Its registers and configuration space.
    pub model: Box<dyn pci::Device>,
    /// BARs 0 to 5 and the expansion ROM. Addresses are chosen when it is placed.
    pub bars: [Option<Bar>; 7],
    /// The ways to reset it, as sysfs has them: `flr`.
    pub reset_method: String,
    /// Its address; the first free one of function 0 of a bus of its own when absent.
    pub bdf: Option<Bdf>,
    /// Its group; one of its own when absent.
    pub group: Option<u32>,
    /// The IOMMU it is behind, by name, or one of the host's own devices whose place it takes.
    pub iommu: Option<String>,
    /// How its registers are reached; the best that they allow when absent.
    pub mmio: Option<MmioMode>,
}

impl EmulatedDevice {
    /// A device that is placed as the session sees fit.
    #[must_use]
    pub fn new(kind: &str, model: Box<dyn pci::Device>, bars: [Option<Bar>; 7]) -> Self {
        Self {
            kind: kind.into(),
            model,
            bars,
            reset_method: String::new(),
            bdf: None,
            group: None,
            iommu: None,
            mmio: None,
        }
    }
}

/// Why a program could not be run, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The host cannot be used, or a device not placed on it.
    #[error("{0}")]
    Host(String),
    /// The program could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Registers trap, and the program cannot be traced.
    #[error(
        "registers that trap need a tracer: {0}. Choose mmio=none for the device, or see `softvfio doctor`"
    )]
    Trace(#[from] crate::mmio::Error),
    /// A system call failed.
    #[error("{what}: {error}")]
    System {
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
}

/// A host with devices, for one program.
pub struct Session {
    header: Result<Map<String, Value>, String>,
    dialect: Option<&'static Dialect>,
    abi: Option<Abi>,
    devices: Vec<EmulatedDevice>,
    watch: Vec<Arc<dyn Watch>>,
    memlock: Option<u64>,
    time_limit: Option<Duration>,
    allow_unsafe_interrupts: bool,
    as_root: bool,
    only_emulated: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

/// What a session is made of, before a program runs in it.
pub struct Placed {
    /// The machine.
    pub profile: Profile,
    /// The devices' names, kinds and ways to their registers, by [`DeviceId`].
    pub devices: Vec<PlacedDevice>,
}

/// A device with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedDevice {
    /// Its address, as text.
    pub name: String,
    /// What it is.
    pub kind: String,
    /// Its group.
    pub group: u32,
    /// How its registers are reached.
    pub mmio: MmioMode,
}

impl Session {
    /// A session on [`DEFAULT_HOST`], with Linux 7.3's answers and no device.
    #[must_use]
    pub fn new() -> Self {
        Self {
            header: profile::host_header(DEFAULT_HOST),
            dialect: Some(&Dialect::V7_3),
            abi: None,
            devices: Vec::new(),
            watch: Vec::new(),
            memlock: Some(u64::MAX),
            time_limit: None,
            allow_unsafe_interrupts: false,
            as_root: false,
            only_emulated: false,
        }
    }

    /// On the built-in host of that name, or that of a file (a profile, or a trace).
    #[must_use]
    pub fn host(mut self, name: &str) -> Self {
        self.header = profile::host_header(name);
        self
    }

    /// On the host of a header.
    #[must_use]
    pub fn host_header(mut self, header: Map<String, Value>) -> Self {
        self.header = Ok(header);
        self
    }

    /// With another kernel's answers; `None`: those of the kernel that the host names.
    #[must_use]
    pub fn dialect(mut self, dialect: Option<&'static Dialect>) -> Self {
        self.dialect = dialect;
        self
    }

    /// Programs speak these numbers, not the host's default.
    #[must_use]
    pub fn abi(mut self, abi: Abi) -> Self {
        self.abi = Some(abi);
        self
    }

    /// With a device.
    #[must_use]
    pub fn device(mut self, device: EmulatedDevice) -> Self {
        self.devices.push(device);
        self
    }

    /// Somebody is told what happens.
    #[must_use]
    pub fn watch(mut self, watch: Arc<dyn Watch>) -> Self {
        self.watch.push(watch);
        self
    }

    /// `RLIMIT_MEMLOCK` in bytes for every process of the session; `None`: each process' own. No
    /// limit otherwise: it is the machine's that the program shall run on, not this one's.
    #[must_use]
    pub fn memlock(mut self, bytes: Option<u64>) -> Self {
        self.memlock = bytes;
        self
    }

    /// All is killed after so long, counted from the program's start; the report says so. What waits for
    /// an interrupt that never comes waits for ever otherwise.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Groups whose interrupts are not isolated are given to programs too, as with the module parameter
    /// `allow_unsafe_interrupts`; otherwise as the host says.
    #[must_use]
    pub fn allow_unsafe_interrupts(mut self, yes: bool) -> Self {
        self.allow_unsafe_interrupts = yes;
        self
    }

    /// The program sees itself as user 0.
    #[must_use]
    pub fn as_root(mut self, yes: bool) -> Self {
        self.as_root = yes;
        self
    }

    /// The program does not see the host's own PCI devices.
    #[must_use]
    pub fn only_emulated(mut self, yes: bool) -> Self {
        self.only_emulated = yes;
        self
    }

    /// Runs a program to its end, and to the end of all that it started.
    ///
    /// # Errors
    /// [`SessionError`]: nothing is left running then.
    pub fn run(self, program: &Program<'_>) -> Result<Report, SessionError> {
        self.place()?.run(program)
    }

    /// The same, and keeps what the program printed.
    ///
    /// # Errors
    /// [`SessionError`]: nothing is left running then.
    pub fn output(self, program: &Program<'_>) -> Result<Output, SessionError> {
        self.place()?.output(program)
    }

    /// Places the devices on the host: what [`run`](Ready::run) needs.
    ///
    /// # Errors
    /// [`SessionError::Host`].
    pub fn place(mut self) -> Result<Ready, SessionError> {
        let header = std::mem::replace(&mut self.header, Err(String::new()));
        let mut header = header.map_err(SessionError::Host)?;
        if self.allow_unsafe_interrupts {
            header = profile::with_parameter(&header, "allow_unsafe_interrupts", true.into())
                .map_err(SessionError::Host)?;
        }
        let placements = place::placements(&mut self.devices).map_err(SessionError::Host)?;
        let profile = profile::place(&header, &placements, self.dialect, self.abi)
            .map_err(SessionError::Host)?;
        let mut system = System::new(profile.host.clone(), profile.functions.clone());
        system.set_abi(profile.abi);
        let mut slots = Vec::new();
        let mut devices = Vec::new();
        for (id, (device, place)) in
            (0..).map(DeviceId).zip(self.devices.drain(..).zip(&placements))
        {
            let wanted = device.mmio;
            let Some(state) = system.new_device(id, device.model) else { continue };
            let mode = match wanted {
                Some(MmioMode::Poll) if !door::can_poll(&state) => {
                    let kind = &device.kind;
                    let why = format!("{}: the registers of {kind} cannot be polled", place.bdf);
                    return Err(SessionError::Host(why));
                }
                Some(mode) => mode,
                None if door::can_poll(&state) => MmioMode::Poll,
                None => MmioMode::Trap,
            };
            let slot = door::Slot::new(id, state, mode);
            slots.push(
                slot.map_err(|error| SessionError::System { what: "a device's file", error })?,
            );
            devices.push(PlacedDevice {
                name: place.bdf.clone(),
                kind: device.kind,
                group: place.group,
                mmio: mode,
            });
        }
        let tree = place::tree(&profile, &placements, self.only_emulated);
        Ok(Ready {
            control: Control::new(devices.clone()),
            placed: Placed { profile, devices },
            system,
            slots,
            tree,
            watch: self.watch,
            memlock: self.memlock,
            time_limit: self.time_limit,
            as_root: self.as_root,
            signals: None,
        })
    }
}
