//! Base address registers: what part of the machine's address space a function answers to.

bitflags::bitflags! {
    /// Flags of a resource as Linux's sysfs prints them (`resource`, third column).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ResourceFlags: u64 {
        /// I/O ports.
        const IO = 0x100;
        /// Memory.
        const MEM = 0x200;
        /// Reads have no side effects.
        const PREFETCH = 0x2000;
        /// A 64-bit register, of which the next one is the upper half.
        const MEM_64 = 0x0010_0000;
    }
}

/// What a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory.
    Memory {
        /// Reads have no side effects.
        prefetchable: bool,
        /// The register is 64 bits wide and takes two places.
        is_64: bool,
    },
}

/// A BAR that exists and has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The first byte, as the CPU sees it.
    pub start: u64,
    /// Bytes; not 0, and a power of two in real hardware.
    pub size: u64,
    /// What it decodes.
    pub kind: BarKind,
}

impl Bar {
    /// From a line of sysfs' `resource`: first byte, last byte (inclusive) and flags. `None` when
    /// the line is that of a BAR which does not exist or has no address.
    #[must_use]
    pub fn from_resource(start: u64, end: u64, flags: u64) -> Option<Self> {
        let flags = ResourceFlags::from_bits_retain(flags);
        let size = end.checked_sub(start)?.checked_add(1)?;
        let kind = if flags.contains(ResourceFlags::IO) {
            BarKind::Io
        } else if flags.contains(ResourceFlags::MEM) {
            BarKind::Memory {
                prefetchable: flags.contains(ResourceFlags::PREFETCH),
                is_64: flags.contains(ResourceFlags::MEM_64),
            }
        } else {
            return None;
        };
        (start != 0).then_some(Self { start, size, kind })
    }

    /// The flags of its line in sysfs' `resource`.
    #[must_use]
    pub fn resource_flags(&self) -> u64 {
        let flags = match self.kind {
            BarKind::Io => ResourceFlags::IO,
            BarKind::Memory { prefetchable, is_64 } => {
                let mut flags = ResourceFlags::MEM;
                flags.set(ResourceFlags::PREFETCH, prefetchable);
                flags.set(ResourceFlags::MEM_64, is_64);
                flags
            }
        };
        flags.bits()
    }

    /// Whether it decodes memory.
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        matches!(self.kind, BarKind::Memory { .. })
    }

    /// Whether its register takes the place of the next one too.
    #[must_use]
    pub const fn is_64(&self) -> bool {
        matches!(self.kind, BarKind::Memory { is_64: true, .. })
    }

    /// The low bits of the register, which say what kind of BAR it is (PCI 3.0, 6.2.5.1).
    #[must_use]
    pub const fn type_bits(&self) -> u32 {
        match self.kind {
            BarKind::Io => 1,
            BarKind::Memory { prefetchable, is_64 } => {
                (if prefetchable { 8 } else { 0 }) | (if is_64 { 4 } else { 0 })
            }
        }
    }

    /// The address bits that software can set: the size, negated.
    #[must_use]
    pub const fn address_mask(&self) -> u64 {
        !self.size.wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_the_recorded_nic_and_nvme() {
        let io = Bar::from_resource(0xd040, 0xd05f, 0x40101).unwrap();
        assert_eq!((io.size, io.type_bits(), io.is_memory()), (0x20, 1, false));
        let mem = Bar::from_resource(0xfe20_0000, 0xfe20_3fff, 0x14_0204).unwrap();
        assert_eq!((mem.size, mem.type_bits(), mem.is_64()), (0x4000, 4, true));
        assert_eq!(mem.address_mask() as u32, 0xffff_c000);
        assert_eq!(Bar::from_resource(0, 0, 0), None);
    }
}
