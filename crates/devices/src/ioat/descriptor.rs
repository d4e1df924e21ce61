//! Descriptors: what to do, and where the next one is.

/// Bytes of a descriptor, which is its alignment too.
pub(super) const SIZE: usize = 64;

/// CHANERR: why the channel halted.
pub(super) mod error {
    pub(crate) const SOURCE_ADDRESS: u32 = 1 << 0;
    pub(crate) const DESTINATION_ADDRESS: u32 = 1 << 1;
    pub(crate) const NEXT_ALIGNMENT: u32 = 1 << 3;
    pub(crate) const CHAIN_ADDRESS: u32 = 1 << 4;
    pub(crate) const DESCRIPTOR_READ: u32 = 1 << 8;
    pub(crate) const CONTROL: u32 = 1 << 10;
    pub(crate) const LENGTH: u32 = 1 << 11;
    pub(crate) const COMPLETION_ADDRESS: u32 = 1 << 12;
}

/// Control: interrupt when done.
const INTERRUPT: u32 = 1 << 0;
/// Control: completion record when done.
const COMPLETE: u32 = 1 << 3;
/// Control: moves nothing.
const NULL: u32 = 1 << 5;

/// What a descriptor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Nothing.
    Null,
    /// Copy `size` bytes.
    Copy { source: u64, destination: u64, size: u32 },
    /// Fill `size` bytes with a pattern of 8.
    Fill { pattern: [u8; 8], destination: u64, size: u32 },
}

/// A descriptor, copied out of memory once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) operation: Result<Operation, u32>,
    pub(super) interrupt: bool,
    pub(super) complete: bool,
    pub(super) next: u64,
}

impl Descriptor {
    /// Takes a descriptor apart; `most` bytes may be moved by one. An operation that is not to be
    /// done is an error of CHANERR.
    pub(super) fn parse(bytes: &[u8; SIZE], most: u32) -> Self {
        let word = |at: usize| {
            let found = bytes.get(at..at.saturating_add(8)).and_then(|b| b.try_into().ok());
            found.map_or(0, u64::from_le_bytes)
        };
        let (size, control) = (word(0) as u32, (word(0) >> 32) as u32);
        let (source, destination) = (word(8), word(16));
        let in_range = if size == 0 || size > most { Err(error::LENGTH) } else { Ok(()) };
        let operation = match control >> 24 {
            0x00 if control & NULL != 0 => Ok(Operation::Null),
            0x00 => in_range.map(|()| Operation::Copy { source, destination, size }),
            0x01 => {
                let pattern = source.to_le_bytes();
                in_range.map(|()| Operation::Fill { pattern, destination, size })
            }
            _ => Err(error::CONTROL),
        };
        Self {
            operation,
            interrupt: control & INTERRUPT != 0,
            complete: control & COMPLETE != 0,
            next: word(24),
        }
    }
}
