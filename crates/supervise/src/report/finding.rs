//! A bug that showed: what happened, and what would have been legal.

use std::fmt;

use iommu::{IovaRange, Prot};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the kernel puts it right.
    Note,
    /// It works by luck.
    Warning,
    /// It cannot work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A mapping or a window, and the request that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Where.
    pub range: IovaRange,
    /// The request.
    pub request: u64,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (request {})", self.range, self.request)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// A device accessed an IOVA that no request had mapped.
    NeverMapped {
        /// The mappings nearest to it, below and above.
        nearest: [Option<Owner>; 2],
    },
    /// A device accessed an IOVA after it was unmapped.
    UnmappedEarlier {
        /// The mapping that was.
        mapping: Owner,
        /// The request that removed it.
        unmapped: u64,
    },
    /// A device accessed an IOVA whose mapping was refused.
    MapRefused {
        /// What was asked, and by which request.
        asked: Owner,
        /// Its answer: the error's name, and the reason.
        answer: String,
    },
    /// A mapping was refused, and a device uses the older one that is there, which leads to other
    /// memory.
    OtherMapping {
        /// What was asked, and by which request.
        asked: Owner,
        /// Its answer: the error's name, and the reason.
        answer: String,
        /// What is there.
        existing: Owner,
    },
    /// An unmap removed less than asked, and the program goes on as if it had.
    UnmapFellShort {
        /// What was asked, and by which request.
        asked: Owner,
        /// Bytes that it removed.
        removed: u64,
        /// What is left there.
        existing: Owner,
        /// The request that was refused for it; a device's access when absent.
        refused: Option<u64>,
    },
    /// The mapping does not permit the access.
    NotPermitted {
        /// What it permits.
        prot: Prot,
        /// The mapping.
        mapping: Option<Owner>,
    },
    /// The program's memory is gone while it is mapped.
    MemoryGone {
        /// The mapping.
        mapping: Option<Owner>,
        /// The program's address that has no memory.
        vaddr: u64,
        /// Its process has ended.
        exited: bool,
    },
    /// The mapping was made before the container had an IOMMU with groups, and has no memory.
    NotPinned,
    /// The device's group is in no container with an IOMMU.
    NoDomain,
    /// An MSI to a window that was closed.
    ClosedWindow {
        /// The window.
        window: Owner,
        /// The request that closed it.
        closed: u64,
    },
    /// Interrupts were refused as their doorbell has no window.
    NoWindow {
        /// The reason.
        reason: String,
    },
    /// An MSI that the interrupt controller does not know.
    UnknownVector,
    /// A doorbell was read, or written with something that is no MSI.
    DoorbellMisused,
    /// The device may not master the bus.
    BusMasterOff,
    /// Mappings were live as the program ended.
    LiveMappings {
        /// How many.
        count: u64,
        /// Their bytes.
        bytes: u64,
        /// The lowest.
        first: Owner,
    },
    /// Windows were live as the program ended.
    LiveWindows {
        /// How many.
        count: u64,
        /// The lowest.
        first: Owner,
    },
    /// Interrupts were enabled as the program ended.
    LiveInterrupts {
        /// Their kind: `MSI-X`.
        kind: &'static str,
        /// The request that enabled them.
        enabled: u64,
    },
    /// Something that is neither: a sentence.
    Other(String),
}

/// A problem, where and when it was first seen, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub problem: Problem,
    /// The device's address.
    pub device: Option<String>,
    /// The IOVA.
    pub iova: Option<u64>,
    /// What the device wanted.
    pub access: Option<Prot>,
    /// The last request before; or the request that it is about.
    pub request: u64,
    /// How often.
    pub times: u64,
}

impl Problem {
    /// How bad it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::LiveMappings { .. }
            | Self::LiveWindows { .. }
            | Self::LiveInterrupts { .. }
            | Self::MemoryGone { exited: true, .. } => Severity::Note,
            Self::OtherMapping { .. }
            | Self::UnmapFellShort { .. }
            | Self::UnknownVector
            | Self::BusMasterOff
            | Self::Other(_) => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// A name for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NeverMapped { .. } => "never-mapped",
            Self::UnmappedEarlier { .. } => "unmapped-earlier",
            Self::MapRefused { .. } => "map-refused",
            Self::OtherMapping { .. } => "other-mapping",
            Self::UnmapFellShort { .. } => "unmap-fell-short",
            Self::NotPermitted { .. } => "not-permitted",
            Self::MemoryGone { .. } => "memory-gone",
            Self::NotPinned => "not-pinned",
            Self::NoDomain => "no-domain",
            Self::ClosedWindow { .. } => "closed-window",
            Self::NoWindow { .. } => "no-window",
            Self::UnknownVector => "unknown-vector",
            Self::DoorbellMisused => "doorbell-misused",
            Self::BusMasterOff => "bus-master-off",
            Self::LiveMappings { .. } => "live-mappings",
            Self::LiveWindows { .. } => "live-windows",
            Self::LiveInterrupts { .. } => "live-interrupts",
            Self::Other(_) => "other",
        }
    }

    /// Whether it is the same bug: what lies near an address may differ.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        matches!((self, other), (Self::NeverMapped { .. }, Self::NeverMapped { .. }))
            || self == other
    }
}

impl Finding {
    /// How bad it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.problem.severity()
    }

    /// What would have been legal.
    #[must_use]
    pub fn legal(&self) -> String {
        match &self.problem {
            Problem::NeverMapped { nearest: [None, None] } => {
                "nothing: the container has no mapping at that time".into()
            }
            Problem::NeverMapped { nearest } => {
                let all: Vec<_> = nearest.iter().flatten().map(Owner::to_string).collect();
                format!("the nearest mappings are {}", all.join(" and "))
            }
            Problem::UnmappedEarlier { mapping, unmapped } => {
                format!("{} before request {unmapped}", mapping.range)
            }
            Problem::MapRefused { .. } => "to map it elsewhere, or to remove what is there".into(),
            Problem::OtherMapping { existing, .. } => {
                format!("to unmap {existing} first, or to choose another IOVA")
            }
            Problem::UnmapFellShort { existing, .. } => {
                format!("to unmap {existing} as a whole, and to look at the size that comes back")
            }
            Problem::NotPermitted { mapping, .. } => match (mapping, self.access) {
                (Some(mapping), Some(access)) => format!(
                    "to ask for {} in request {}",
                    if access.contains(Prot::WRITE) { "WRITE" } else { "READ" },
                    mapping.request
                ),
                _ => "a mapping with that permission".into(),
            },
            Problem::MemoryGone { exited: true, .. } => {
                "to stop the device before its process ends".into()
            }
            Problem::MemoryGone { .. } => "to unmap the IOVA before the memory is freed".into(),
            Problem::NotPinned => "to map it while a group is attached".into(),
            Problem::NoDomain => "to put the group into a container, then SET_IOMMU".into(),
            Problem::ClosedWindow { window, closed } => {
                format!("{} before request {closed}", window.range)
            }
            Problem::NoWindow { .. } => "to register a window before SET_IRQS".into(),
            Problem::UnknownVector => "a vector that SET_IRQS has enabled".into(),
            Problem::DoorbellMisused => "a write of 4 bytes to the doorbell's register".into(),
            Problem::BusMasterOff => {
                "to set Bus Master in the command register (configuration space, 0x4)".into()
            }
            Problem::LiveMappings { .. } => "UNMAP_DMA, or closing the container".into(),
            Problem::LiveWindows { .. } => {
                "UNMAP_DMA with the window flag, or closing the container".into()
            }
            Problem::LiveInterrupts { .. } => {
                "SET_IRQS with DATA_NONE and count 0, or closing the device".into()
            }
            Problem::Other(_) => String::new(),
        }
    }
}

/// The sentence, without what would have been legal.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.as_deref().unwrap_or("a device");
        let verb = match self.access {
            Some(access) if access.contains(Prot::WRITE) => "wrote",
            _ => "read",
        };
        let dma = |f: &mut fmt::Formatter<'_>| {
            write!(f, "{device} {verb} {:#x}", self.iova.unwrap_or_default())
        };
        match &self.problem {
            Problem::NeverMapped { .. } => {
                dma(f)?;
                f.write_str(", which was never mapped")?;
            }
            Problem::UnmappedEarlier { mapping, unmapped } => {
                dma(f)?;
                write!(f, ", of {mapping}, which request {unmapped} had unmapped")?;
            }
            Problem::MapRefused { asked, answer } => {
                dma(f)?;
                write!(f, ", whose mapping {asked} was refused: {answer}")?;
            }
            Problem::OtherMapping { asked, answer, existing } => {
                dma(f)?;
                write!(
                    f,
                    ": {existing}, which leads to other memory than {asked}, which was refused: {answer}"
                )?;
            }
            Problem::UnmapFellShort { asked, removed, existing, refused } => {
                write!(
                    f,
                    "request {} unmapped {removed:#x} of {:#x} bytes at {:#x} and left {existing}, ",
                    asked.request,
                    asked.range.size(),
                    asked.range.first()
                )?;
                match refused {
                    Some(request) => write!(f, "for which request {request} was refused")?,
                    None => {
                        f.write_str("which ")?;
                        write!(f, "{device} {verb} at {:#x}", self.iova.unwrap_or_default())?;
                    }
                }
            }
            Problem::NotPermitted { prot, mapping } => {
                dma(f)?;
                match mapping {
                    Some(mapping) => write!(f, " of {mapping}, which is {prot}")?,
                    None => write!(f, ", which is {prot}")?,
                }
            }
            Problem::MemoryGone { mapping, vaddr, exited } => {
                dma(f)?;
                if let Some(mapping) = mapping {
                    write!(f, " of {mapping}")?;
                }
                if *exited {
                    f.write_str(" after its process had ended")?;
                } else {
                    write!(f, ", whose memory at {vaddr:#x} the program has freed")?;
                }
            }
            Problem::NotPinned => {
                dma(f)?;
                f.write_str(", which was mapped while no group was attached")?;
            }
            Problem::NoDomain => {
                dma(f)?;
                f.write_str(" while its group had no IOMMU")?;
            }
            Problem::ClosedWindow { window, closed } => {
                dma(f)?;
                write!(
                    f,
                    ", an MSI through the window {window}, which request {closed} had closed"
                )?;
            }
            Problem::NoWindow { reason } => {
                write!(f, "interrupts of {device} were refused: {reason}")?;
            }
            Problem::UnknownVector => {
                dma(f)?;
                f.write_str(", a doorbell, with a vector that is not the device's")?;
            }
            Problem::DoorbellMisused => {
                dma(f)?;
                f.write_str(", a doorbell, and not as an MSI")?;
            }
            Problem::BusMasterOff => {
                dma(f)?;
                f.write_str(" while its bus mastering is off")?;
            }
            Problem::LiveMappings { count, bytes, first } => {
                write!(
                    f,
                    "the program ended with {count} live mapping(s), {bytes:#x} bytes, the first {first}"
                )?;
            }
            Problem::LiveWindows { count, first } => {
                write!(f, "the program ended with {count} live MSI window(s), the first {first}")?;
            }
            Problem::LiveInterrupts { kind, enabled } => {
                write!(f, "the program ended with {kind} of {device} enabled (request {enabled})")?;
            }
            Problem::Other(sentence) => f.write_str(sentence)?,
        }
        if self.times > 1 {
            write!(f, " ({} times)", self.times)?;
        }
        Ok(())
    }
}
