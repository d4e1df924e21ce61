//! What happens in a session, told to whoever wants to know: traces, reports, decoded output.

use iommu::{Event, Fault, Prot};
use vfio::{ContainerId, DeviceId, GroupId, Message, Refusal, Removal};

/// What a request was addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A container: one open of `/dev/vfio/vfio`.
    Container(ContainerId),
    /// A group: an open of `/dev/vfio/N`.
    Group(GroupId),
    /// A device.
    Device(DeviceId),
}

/// Bytes of the client's memory that a request read or wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The client's address of the first byte.
    pub addr: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What the program asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The first request on an open file; it stands for the `open`.
    Open,
    /// The last descriptor was closed.
    Close,
    /// `ioctl`.
    Ioctl {
        /// The request number.
        request: u32,
        /// Its argument, by value.
        arg: u64,
        /// What was read of the client's memory.
        read: Vec<Piece>,
        /// What was written there.
        written: Vec<Piece>,
    },
    /// `pread` and its like.
    Read {
        /// Position in the device's file.
        offset: u64,
        /// Bytes that were asked for.
        count: usize,
        /// The bytes that were read.
        data: Vec<u8>,
    },
    /// `pwrite` and its like.
    Write {
        /// Position in the device's file.
        offset: u64,
        /// The bytes that were to be written.
        data: Vec<u8>,
    },
    /// `mmap` of a device.
    Map {
        /// Position in the device's file.
        offset: u64,
        /// Bytes.
        len: u64,
        /// The mapping is shared.
        shared: bool,
    },
}

/// A request and what came of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number in the session, from 1. Requests that depend on each other are numbered in the
    /// order in which they took effect; they may be told in another.
    pub number: u64,
    /// The process that asked, as the supervisor numbers it.
    pub pid: i32,
    /// What it was addressed to.
    pub target: Target,
    /// What was asked.
    pub call: Call,
    /// What the client got: the value, or the error number.
    pub answer: Result<i64, i32>,
    /// Why not.
    pub refusal: Option<Refusal>,
}

/// A watcher. Called from several threads at once; what takes long holds up the client.
pub trait Watch: Send + Sync {
    /// A request was answered.
    fn request(&self, _request: &Request) {}

    /// A change of a container's address space by request `number`, before that is told.
    fn change(&self, _number: u64, _container: Option<ContainerId>, _event: &Event) {}

    /// Request `number` put a group into a container, or took it out.
    fn joined(&self, _number: u64, _group: GroupId, _container: Option<ContainerId>) {}

    /// A device's access met no memory. `number` is the last request at that time.
    fn fault(&self, _number: u64, _device: DeviceId, _fault: &Fault) {}

    /// A device moved bytes to a client's memory (`access` is `WRITE`) or from it.
    fn moved(&self, _device: DeviceId, _iova: u64, _access: Prot, _bytes: usize) {}

    /// A device's message signalled interrupt reached its interrupt controller. `number` is the last
    /// request at that time.
    fn message(&self, _number: u64, _device: DeviceId, _message: &Message) {}

    /// An interrupt was delivered to a client.
    fn interrupt(&self) {}

    /// A process is about to end of itself; what it closed before was told.
    fn exiting(&self, _pid: i32) {}

    /// A device was taken from the program from outside, or asked for again; or is gone now.
    fn removal(&self, _number: u64, _device: DeviceId, _removal: Removal) {}

    /// Something went wrong that is neither a refusal nor a fault: a sentence.
    fn trouble(&self, _sentence: &str) {}
}

/// Nobody watches.
impl Watch for () {}

/// Several watch.
impl Watch for Vec<std::sync::Arc<dyn Watch>> {
    fn request(&self, request: &Request) {
        self.iter().for_each(|watch| watch.request(request));
    }

    fn change(&self, number: u64, container: Option<ContainerId>, event: &Event) {
        self.iter().for_each(|watch| watch.change(number, container, event));
    }

    fn joined(&self, number: u64, group: GroupId, container: Option<ContainerId>) {
        self.iter().for_each(|watch| watch.joined(number, group, container));
    }

    fn fault(&self, number: u64, device: DeviceId, fault: &Fault) {
        self.iter().for_each(|watch| watch.fault(number, device, fault));
    }

    fn moved(&self, device: DeviceId, iova: u64, access: Prot, bytes: usize) {
        self.iter().for_each(|watch| watch.moved(device, iova, access, bytes));
    }

    fn message(&self, number: u64, device: DeviceId, message: &Message) {
        self.iter().for_each(|watch| watch.message(number, device, message));
    }

    fn interrupt(&self) {
        self.iter().for_each(|watch| watch.interrupt());
    }

    fn exiting(&self, pid: i32) {
        self.iter().for_each(|watch| watch.exiting(pid));
    }

    fn removal(&self, number: u64, device: DeviceId, removal: Removal) {
        self.iter().for_each(|watch| watch.removal(number, device, removal));
    }

    fn trouble(&self, sentence: &str) {
        self.iter().for_each(|watch| watch.trouble(sentence));
    }
}

/// The bytes at a client's address, as far as `pieces` has them; of several, the last.
pub(crate) fn bytes_at(pieces: &[Piece], addr: u64, len: usize) -> Vec<u8> {
    let from = |piece: &Piece| {
        let start = usize::try_from(addr.checked_sub(piece.addr)?).ok()?;
        let rest = piece.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        Some(rest.get(..len).unwrap_or(rest).to_vec())
    };
    let found = pieces.iter().rev().filter_map(from);
    found.max_by_key(Vec::len).unwrap_or_default()
}
