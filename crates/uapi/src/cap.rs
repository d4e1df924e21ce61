//! Capability chains: what follows an information structure.
//!
//! A capability is a [`CapHeader`] and a body. `next` counts bytes from the start of the enclosing
//! structure, not of the chain; 0 ends it. Nothing says how long a body is: its id does.
//!
//! [`CapChain`] writes, [`Caps`] reads. The reader accepts any bytes: it neither panics nor loops,
//! and reports what is wrong as a [`ChainError`].
//!
//! Source: linux/vfio.h; kernel-semantics 3.2.

use alloc::vec::Vec;
use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{macros::wire, parse::read_prefix};

wire! {
    /// The start of every capability. Out.
    #[doc(alias = "vfio_info_cap_header")]
    CapHeader {
        /// Which capability; the numbers belong to the enclosing structure.
        id: u16,
        /// Version of the body.
        version: u16,
        /// Bytes from the start of the enclosing structure to the next capability, 0 in the last.
        next: u32,
    }
}

/// Bytes of a [`CapHeader`].
pub const CAP_HEADER_SIZE: usize = size_of::<CapHeader>();

/// The fixed part of a capability's body, right after the header.
pub trait Capability: FromBytes + IntoBytes + Immutable + KnownLayout {
    /// The id in the header.
    const ID: u16;
    /// The version in the header.
    const VERSION: u16;
}

/// A capability whose fixed part is followed by a list.
pub trait ListCapability: Capability {
    /// One element.
    type Item: FromBytes + IntoBytes + Immutable + KnownLayout;

    /// The fixed part for `count` elements.
    fn with_count(count: u32) -> Self;

    /// How many elements follow.
    fn count(&self) -> u32;
}

/// Where a chain's capabilities start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CapAlign {
    /// Right behind each other, as in Linux 6.1.
    None,
    /// At multiples of 8, each capability padded with zeros, the last one too, as in Linux 6.12.
    Eight,
}

/// A chain being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapChain {
    align: CapAlign,
    entries: Vec<Entry>,
    len: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Bytes from the start of the chain.
    start: usize,
    id: u16,
    version: u16,
    body: Vec<u8>,
}

impl CapChain {
    /// An empty chain.
    #[must_use]
    pub const fn new(align: CapAlign) -> Self {
        Self { align, entries: Vec::new(), len: 0 }
    }

    /// Appends a capability.
    pub fn push(&mut self, id: u16, version: u16, body: &[u8]) {
        let start = self.len;
        let end = start.saturating_add(CAP_HEADER_SIZE).saturating_add(body.len());
        self.len = match self.align {
            CapAlign::None => end,
            CapAlign::Eight => up_to_eight(end),
        };
        self.entries.push(Entry { start, id, version, body: body.into() });
    }

    /// Makes the next capability start at a multiple of 8, whatever the chain's alignment.
    ///
    /// Does nothing to an empty chain, which starts aligned.
    pub fn align(&mut self) {
        self.len = up_to_eight(self.len);
    }

    /// Appends a capability with a fixed body.
    pub fn push_cap<T: Capability>(&mut self, body: &T) {
        self.push(T::ID, T::VERSION, body.as_bytes());
    }

    /// Appends a capability with a list.
    pub fn push_list<T: ListCapability>(&mut self, items: &[T::Item]) {
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let mut body = T::with_count(count).as_bytes().to_vec();
        body.extend_from_slice(items.as_bytes());
        self.push(T::ID, T::VERSION, &body);
    }

    /// Bytes of the whole chain.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes to place `base` bytes after the start of the enclosing structure.
    ///
    /// `base` is that structure's size; all of them are multiples of 8, so that an aligned start
    /// in the chain is one in the structure.
    #[must_use]
    pub fn emit(&self, base: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        let mut entries = self.entries.iter().peekable();
        while let Some(entry) = entries.next() {
            let next = entries.peek().map_or(0, |next| {
                u32::try_from(next.start).unwrap_or(u32::MAX).saturating_add(base)
            });
            let header = CapHeader { id: entry.id, version: entry.version, next };
            bytes.resize(entry.start, 0);
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(&entry.body);
        }
        bytes.resize(self.len, 0);
        bytes
    }
}

const fn up_to_eight(length: usize) -> usize {
    length.saturating_add(7) & !7
}

/// A capability that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap<'a> {
    /// Which capability.
    pub id: u16,
    /// Version of the body.
    pub version: u16,
    /// Bytes from the start of the enclosing structure to the header.
    pub offset: usize,
    /// Everything up to the next capability or the end of the bytes: the body, then padding.
    pub body: &'a [u8],
}

impl Cap<'_> {
    /// The fixed part, when this is a `T` and long enough.
    #[must_use]
    pub fn read<T: Capability>(&self) -> Option<T> {
        if self.id == T::ID { read_prefix(self.body) } else { None }
    }

    /// The list, when this is a `T` and holds all the elements it announces.
    #[must_use]
    pub fn read_list<T: ListCapability>(&self) -> Option<Vec<T::Item>> {
        let head: T = self.read()?;
        let count = usize::try_from(head.count()).ok()?;
        let rest = self.body.get(size_of::<T>()..)?;
        // Bounded by the bytes before anything is allocated.
        let bytes = rest.get(..count.checked_mul(size_of::<T::Item>())?)?;
        bytes.chunks_exact(size_of::<T::Item>()).map(read_prefix).collect()
    }
}

/// Why a chain could not be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainError {
    /// The header at this offset is not wholly inside the bytes.
    Truncated {
        /// Bytes from the start of the enclosing structure.
        offset: usize,
    },
    /// A capability points into itself or back. The kernel's chains only ascend.
    Backward {
        /// The capability, in bytes from the start of the enclosing structure.
        from: usize,
        /// Where it points.
        to: usize,
    },
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { offset } => {
                write!(f, "the capability at {offset} is not wholly inside the buffer")
            }
            Self::Backward { from, to } => {
                write!(f, "the capability at {from} points back to {to}")
            }
        }
    }
}

impl core::error::Error for ChainError {}

/// Reads a chain: its capabilities, then perhaps one error, then nothing.
///
/// Ends after at most one step per 8 bytes, since offsets must ascend by a header's size.
#[derive(Clone, Debug)]
pub struct Caps<'a> {
    bytes: &'a [u8],
    /// Offset of the next header, 0 at the end.
    at: usize,
}

impl<'a> Caps<'a> {
    /// The chain in `bytes`, which start with the enclosing structure; `first` is its `cap_offset`
    /// (0: no capabilities).
    #[must_use]
    pub fn new(bytes: &'a [u8], first: u32) -> Self {
        Self { bytes, at: usize::try_from(first).unwrap_or(usize::MAX) }
    }

    fn step(&mut self) -> Result<Cap<'a>, ChainError> {
        let offset = core::mem::take(&mut self.at);
        let truncated = ChainError::Truncated { offset };
        let here = self.bytes.get(offset..).ok_or(truncated)?;
        let (header, rest) = CapHeader::read_from_prefix(here).map_err(|_| truncated)?;
        let body = match usize::try_from(header.next).unwrap_or(usize::MAX) {
            0 => rest,
            to => {
                let room = to
                    .checked_sub(offset)
                    .and_then(|distance| distance.checked_sub(CAP_HEADER_SIZE))
                    .ok_or(ChainError::Backward { from: offset, to })?;
                self.at = to;
                rest.get(..room).unwrap_or(rest)
            }
        };
        Ok(Cap { id: header.id, version: header.version, offset, body })
    }
}

impl<'a> Iterator for Caps<'a> {
    type Item = Result<Cap<'a>, ChainError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == 0 { None } else { Some(self.step()) }
    }
}

impl core::iter::FusedIterator for Caps<'_> {}
