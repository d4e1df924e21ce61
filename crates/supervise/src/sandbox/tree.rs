//! The emulated functions, groups and IOMMUs, as sysfs is to show them.

/// The emulated part of a client's machine.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Functions, each in one of `groups`.
    pub functions: Vec<SysFunction>,
    /// Groups; each gives a file `/dev/vfio/N`.
    pub groups: Vec<SysGroup>,
    /// IOMMUs, for `/sys/class/iommu`; may be empty.
    pub iommus: Vec<SysIommu>,
    /// Hide the host's PCI devices, groups and `/dev/vfio`.
    pub only_emulated: bool,
    /// `/sys/module/vfio_iommu_type1/parameters/dma_entry_limit`; 65535 unless given.
    pub dma_entry_limit: Option<u32>,
    /// `/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts`.
    pub allow_unsafe_interrupts: bool,
}

/// One emulated PCI function.
#[derive(Clone, Debug)]
pub struct SysFunction {
    /// Address as sysfs writes it: `0000:01:00.0`.
    pub bdf: String,
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Subsystem vendor.
    pub subsystem_vendor: u16,
    /// Subsystem device.
    pub subsystem_device: u16,
    /// Class, subclass and programming interface: 24 bits.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Configuration space, 256 or 4096 bytes.
    pub config: Vec<u8>,
    /// Lines of `resource`: BARs 0 to 5 and the ROM. Missing ones are zeros.
    pub resources: Vec<SysResource>,
    /// `irq`.
    pub irq: u32,
    /// `numa_node`; -1 for none.
    pub numa_node: i32,
    /// Number of the group.
    pub group: u32,
    /// The driver bound to it; `vfio-pci` for all that a client may open.
    pub driver: Option<String>,
    /// `reset_method`, such as `flr`; no file if `None`.
    pub reset_method: Option<String>,
    /// Link files; none if `None`.
    pub link: Option<SysLink>,
    /// Number N of `vfio-dev/vfioN`.
    pub vfio_dev: Option<u32>,
    /// Name of its IOMMU among [`Tree::iommus`].
    pub iommu: Option<String>,
    /// Further files, by name.
    pub extra: Vec<(String, Vec<u8>)>,
}

impl SysFunction {
    /// A function bound to `vfio-pci`, without resources.
    pub fn new(bdf: impl Into<String>, group: u32, config: Vec<u8>) -> SysFunction {
        let byte = |at: usize| config.get(at).copied().unwrap_or(0);
        let word = |at: usize| u16::from_le_bytes([byte(at), byte(at + 1)]);
        SysFunction {
            bdf: bdf.into(),
            vendor: word(0),
            device: word(2),
            subsystem_vendor: word(0x2c),
            subsystem_device: word(0x2e),
            class: u32::from_le_bytes([byte(9), byte(10), byte(11), 0]),
            revision: byte(8),
            resources: Vec::new(),
            irq: 0,
            numa_node: -1,
            group,
            driver: Some("vfio-pci".into()),
            reset_method: None,
            link: None,
            vfio_dev: None,
            iommu: None,
            extra: Vec::new(),
            config,
        }
    }
}

/// A line of `resource`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SysResource {
    /// First address.
    pub start: u64,
    /// Last address.
    pub end: u64,
    /// `IORESOURCE_*`.
    pub flags: u64,
}

/// Speed and width of a link, as sysfs writes them (`16.0 GT/s PCIe`, `4`).
#[derive(Clone, Debug)]
pub struct SysLink {
    /// `current_link_speed` and `max_link_speed`.
    pub speed: String,
    /// `current_link_width` and `max_link_width`.
    pub width: u32,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub struct SysGroup {
    /// Its number, the N of `/dev/vfio/N`.
    pub number: u32,
    /// `type`, such as `DMA`; no file if empty.
    pub kind: String,
    /// `name`; no file if `None`.
    pub name: Option<String>,
    /// `reserved_regions`, its lines.
    pub reserved_regions: String,
}

/// One IOMMU, `/sys/class/iommu/NAME`.
#[derive(Clone, Debug, Default)]
pub struct SysIommu {
    /// Its name, such as `dmar0`.
    pub name: String,
    /// Its files, by path below it, such as `intel-iommu/cap`.
    pub files: Vec<(String, String)>,
}
