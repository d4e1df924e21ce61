//! What is known of a PCI function before anybody opens it.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use pci::{Bar, Bdf};

use crate::GroupId;

/// A way to reset a function, by the name sysfs has for it (`reset_method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetMethod {
    /// A method of this very device.
    DeviceSpecific,
    /// The firmware's.
    Acpi,
    /// Function level reset of PCI Express.
    Flr,
    /// Function level reset of the advanced features capability.
    AfFlr,
    /// D3hot and back, where that resets.
    Pm,
    /// Reset of the whole bus; works for a function that is alone there.
    Bus,
}

impl ResetMethod {
    /// The method of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "device_specific" => Self::DeviceSpecific,
            "acpi" => Self::Acpi,
            "flr" => Self::Flr,
            "af_flr" => Self::AfFlr,
            "pm" => Self::Pm,
            "bus" => Self::Bus,
            _ => return None,
        })
    }
}

/// Where a function's INTx line leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntxLine {
    /// Nowhere: INTx cannot be enabled.
    None,
    /// To a controller that looks at the level: a line that is up when INTx gets enabled fires.
    Level,
    /// To a controller that misses a line that is up already when INTx gets enabled, until it rises
    /// again: an I/O APIC in the x86 recordings.
    Rise,
}

/// A PCI function as the host's kernel found it. Its registers are the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// Its name: the address as sysfs prints it.
    pub name: String,
    /// Its address.
    pub bdf: Bdf,
    /// Its group.
    pub group: GroupId,
    /// BARs 0 to 5 and the expansion ROM. The upper half of a 64-bit BAR has none.
    pub bars: [Option<Bar>; 7],
    /// The ways to reset it alone.
    pub reset_methods: Vec<ResetMethod>,
    /// Whether its bus is a root bus, which nothing can reset.
    pub on_root_bus: bool,
    /// Whether the link to its bus comes back after a reset of that bus. Where it does not, a hot
    /// reset takes place and still fails.
    pub link_comes_back: bool,
    /// Where its INTx line leads.
    pub line: IntxLine,
}

impl PciFunction {
    /// A function with no way to reset it; bus 0 is taken for a root bus, and its line for one
    /// that goes to a controller of levels.
    #[must_use]
    pub fn new(bdf: Bdf, group: GroupId, bars: [Option<Bar>; 7]) -> Self {
        Self {
            name: bdf.to_string(),
            bdf,
            group,
            bars,
            reset_methods: Vec::new(),
            on_root_bus: bdf.bus() == 0,
            link_comes_back: true,
            line: IntxLine::Level,
        }
    }

    /// With the methods of sysfs' `reset_method`: names with blanks between. Unknown ones are left
    /// out.
    #[must_use]
    pub fn with_reset_methods(mut self, names: &str) -> Self {
        self.reset_methods = names.split_whitespace().filter_map(ResetMethod::named).collect();
        self
    }

    /// BAR `index` (0..=5), or the ROM (6).
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<Bar> {
        self.bars.get(usize::from(index)).copied().flatten()
    }

    /// Whether it can be reset alone; `alone` says whether nothing else is on its bus.
    #[must_use]
    pub fn can_reset(&self, alone: bool) -> bool {
        self.reset_methods.iter().any(|m| *m != ResetMethod::Bus || alone)
    }
}
