//! What a step answers, in terms both sides can give.

use std::fmt;

use iommu::{
    AttachRefusal, BindRefusal, DirtyRefusal, Fault, IovaRange, MapRefusal, MmId, VaddrRefusal,
};

/// The answer to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Map(Result<(), MapRefusal>),
    Cut(Result<(), MapRefusal>),
    /// Bytes, or the mapping that would be cut.
    Unmap(Result<u64, IovaRange>),
    Existed(bool),
    Invalidate(Result<u64, VaddrRefusal>),
    Update(Result<(), VaddrRefusal>),
    DirtyStart(Result<(), DirtyRefusal>),
    /// Bytes unmapped (0 for a query), and the client's bitmap afterwards.
    Dirty(Result<u64, DirtyRefusal>, Words),
    Attach(Result<(), AttachRefusal>),
    Bind(Result<u64, BindRefusal>),
    Translate(Result<Target, Fault>),
    Choose(Option<u64>),
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Memory {
        /// The byte's user address when it was pinned: which memory it is.
        home: u64,
        /// Its user address now.
        vaddr: u64,
        mm: MmId,
        /// Bytes up to the end of the mapping.
        bytes: u64,
    },
    Doorbell(u64),
}

/// A bitmap.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Words(pub Vec<u64>);

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x?}...", &self.0[..self.0.len().min(6)])
    }
}
