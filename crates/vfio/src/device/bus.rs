//! The bus behind a device: its DMA, translated, and its interrupts.

use alloc::vec::Vec;
use core::any::Any;

use iommu::{Backing, Fault, FaultReason, PinId, Prot, Translation};
use pci::{Aborted, DmaBus};

use super::Irqs;
use crate::{BadAddress, ContainerId, Containers, DeviceId, EventId, Message, Platform};

/// The smallest page an IOMMU translates, in bytes: after a fault the next page is tried.
const PAGE: u64 = 4096;

/// Whether the machine takes interrupts while a device is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupts {
    /// At once.
    Taken,
    /// Afterwards, and those of one vector once: the kernel accesses the device with interrupts
    /// off.
    Held,
}

/// A platform whose eventfds are signalled at once or at the end.
pub(super) struct Signals<'a> {
    platform: &'a mut dyn Platform,
    interrupts: Interrupts,
    held: Vec<EventId>,
}

impl<'a> Signals<'a> {
    pub(super) fn new(platform: &'a mut dyn Platform, interrupts: Interrupts) -> Self {
        Self { platform, interrupts, held: Vec::new() }
    }

    /// Signals what was held back.
    pub(super) fn flush(self) {
        for event in self.held {
            self.platform.signal(event);
        }
    }
}

impl Platform for Signals<'_> {
    fn dma_read(&mut self, at: Backing, data: &mut [u8]) -> Result<(), BadAddress> {
        self.platform.dma_read(at, data)
    }

    fn dma_write(&mut self, at: Backing, data: &[u8]) -> Result<(), BadAddress> {
        self.platform.dma_write(at, data)
    }

    fn dma_write_mapped(&mut self, at: Backing, source: &dyn Any, offset: u64, len: usize) -> bool {
        self.platform.dma_write_mapped(at, source, offset, len)
    }

    fn dma_read_mapped(&mut self, at: Backing, target: &dyn Any, offset: u64, len: usize) -> bool {
        self.platform.dma_read_mapped(at, target, offset, len)
    }

    fn signal(&mut self, event: EventId) {
        match self.interrupts {
            Interrupts::Taken => self.platform.signal(event),
            Interrupts::Held if self.held.contains(&event) => {}
            Interrupts::Held => self.held.push(event),
        }
    }

    fn moved(&mut self, device: DeviceId, iova: u64, access: Prot, bytes: usize) {
        self.platform.moved(device, iova, access, bytes);
    }

    fn message(&mut self, device: DeviceId, message: &Message) {
        self.platform.message(device, message);
    }

    fn fault(&mut self, device: DeviceId, fault: &Fault) {
        self.platform.fault(device, fault);
    }

    fn put_event(&mut self, event: EventId) {
        self.platform.put_event(event);
    }

    fn clear_event(&mut self, event: EventId) {
        self.platform.clear_event(event);
    }

    fn hold(&mut self, pin: PinId) {
        self.platform.hold(pin);
    }

    fn release(&mut self, pin: PinId) {
        self.platform.release(pin);
    }
}

/// A device's way to memory and to its interrupts, for the time of one access to its registers.
///
/// Whether the function may master the bus is the model's matter ([`pci::MasterGate`]).
pub(crate) struct DeviceBus<'a> {
    pub(crate) device: DeviceId,
    /// The device's group, by number.
    pub(crate) group: u32,
    pub(crate) container: ContainerId,
    pub(crate) containers: &'a mut dyn Containers,
    pub(crate) platform: &'a mut dyn Platform,
    pub(crate) irqs: &'a mut Irqs,
    /// The level the INTx line was left at, when it was driven. [`Irqs`] is told when the model is
    /// at rest.
    pub(crate) line: Option<bool>,
}

/// One piece of a transfer: bytes that lie in one mapping, or on one page that has none.
struct Piece {
    /// Bytes from the start of the transfer.
    start: usize,
    len: usize,
    outcome: Result<Reached, Fault>,
}

enum Reached {
    Memory,
    /// A doorbell, at this IOVA and this physical address.
    Doorbell {
        iova: u64,
        address: u64,
    },
}

impl DeviceBus<'_> {
    /// Goes through the transfer of `len` bytes at `addr` piece by piece, as long as `done` answers
    /// `true`. `copy` moves a piece of memory while its pin is held, and nothing else: reaching a
    /// client's memory may take the client's help, and the client may need the container for it.
    fn transfer(
        &mut self,
        addr: u64,
        len: usize,
        access: Prot,
        copy: &mut dyn FnMut(&mut dyn Platform, iommu::Backing, usize, usize) -> bool,
        mut done: impl FnMut(&mut Self, Piece) -> bool,
    ) {
        let mut start = 0;
        while start < len {
            let left = len.saturating_sub(start);
            let at = u64::try_from(start).ok().and_then(|start| addr.checked_add(start));
            let iova = at.unwrap_or(u64::MAX);
            let fault = |reason| Fault { iova, access, reason };
            let mut found = Err(fault(FaultReason::NoDomain));
            let (group, platform) = (self.group, &mut *self.platform);
            if at.is_some() {
                self.containers.read(self.container, &mut |container| {
                    let Some(type1) = container.type1() else { return };
                    found = type1.space().translate(group, iova, access);
                    if let Ok(Translation::Memory { at, .. }) = found {
                        platform.hold(at.pin);
                    }
                });
            }
            let (n, outcome) = match found {
                Ok(Translation::Memory { at, bytes }) => {
                    let room = usize::try_from(bytes.wrapping_sub(1)).unwrap_or(usize::MAX);
                    let n = left.min(room.saturating_add(1));
                    let moved = copy(self.platform, at, start, n);
                    self.platform.release(at.pin);
                    if moved {
                        self.platform.moved(self.device, iova, access, n);
                    }
                    (
                        n,
                        if moved {
                            Ok(Reached::Memory)
                        } else {
                            Err(fault(FaultReason::MemoryGone))
                        },
                    )
                }
                Ok(Translation::Doorbell { address }) => {
                    (left.min(to_page_end(iova)), Ok(Reached::Doorbell { iova, address }))
                }
                Err(fault) if fault.reason == FaultReason::NoDomain => (left, Err(fault)),
                Err(fault) => (left.min(to_page_end(iova)), Err(fault)),
            };
            if !done(self, Piece { start, len: n, outcome }) {
                return;
            }
            // A piece has at least one byte, so that this ends.
            start = start.saturating_add(n.max(1));
        }
    }

    /// The part of a transfer, from its start on, that `copy` does and where nothing else is the
    /// matter; how many bytes.
    fn mapped(
        &mut self,
        addr: u64,
        len: usize,
        access: Prot,
        copy: &mut dyn FnMut(&mut dyn Platform, iommu::Backing, usize, usize) -> bool,
    ) -> usize {
        let mut done = 0_usize;
        self.transfer(addr, len, access, copy, |_, piece| {
            let moved = matches!(piece.outcome, Ok(Reached::Memory));
            if moved {
                done = piece.start.saturating_add(piece.len);
            }
            moved
        });
        done
    }

    /// Reports a fault unless it goes on where the last one ended.
    fn report(&mut self, last_failed: bool, fault: &Fault) {
        if !last_failed {
            self.platform.fault(self.device, fault);
        }
    }
}

/// The place in an object of byte `start` of a transfer.
fn offset_of(offset: u64, start: usize) -> Option<u64> {
    offset.checked_add(u64::try_from(start).ok()?)
}

/// Bytes from `iova` to the end of its page: 1..=4096.
fn to_page_end(iova: u64) -> usize {
    usize::try_from(PAGE.wrapping_sub(iova & PAGE.wrapping_sub(1))).unwrap_or(1)
}

fn slice(data: &[u8], start: usize, len: usize) -> &[u8] {
    data.get(start..start.saturating_add(len)).unwrap_or(&[])
}

impl DmaBus for DeviceBus<'_> {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Aborted> {
        let (mut failed, mut answer) = (false, Ok(()));
        let mut lost = Vec::new();
        let len = data.len();
        let mut copy = |platform: &mut dyn Platform, at, start: usize, n: usize| {
            let part = data.get_mut(start..start.saturating_add(n)).unwrap_or(&mut []);
            platform.dma_read(at, part).is_ok()
        };
        self.transfer(addr, len, Prot::READ, &mut copy, |bus, piece| {
            let range = piece.start..piece.start.saturating_add(piece.len);
            let fault = match piece.outcome {
                Ok(Reached::Memory) => {
                    failed = false;
                    return true;
                }
                Ok(Reached::Doorbell { iova, .. }) => {
                    Fault { iova, access: Prot::READ, reason: FaultReason::Doorbell }
                }
                Err(fault) => fault,
            };
            bus.report(failed, &fault);
            lost.push(range);
            (failed, answer) = (true, Err(Aborted));
            true
        });
        for range in lost {
            data.get_mut(range).unwrap_or_default().fill(0);
        }
        answer
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
        let (mut failed, mut answer) = (false, Ok(()));
        let mut copy = |platform: &mut dyn Platform, at, start, n| {
            platform.dma_write(at, slice(data, start, n)).is_ok()
        };
        self.transfer(addr, data.len(), Prot::WRITE, &mut copy, |bus, piece| {
            let reached = piece.outcome.and_then(|reached| match reached {
                Reached::Memory => Ok(()),
                Reached::Doorbell { iova, address } => {
                    let fault = |reason| Fault { iova, access: Prot::WRITE, reason };
                    let message = <[u8; 4]>::try_from(slice(data, piece.start, piece.len));
                    let message = message.map_err(|_| fault(FaultReason::Doorbell))?;
                    let number = u32::from_le_bytes(message);
                    if !bus.irqs.deliver_msi(address, number, bus.platform) {
                        return Err(fault(FaultReason::UnknownVector));
                    }
                    let message = Message { iova, doorbell: address, vector: number };
                    bus.platform.message(bus.device, &message);
                    Ok(())
                }
            });
            match reached {
                Ok(()) => failed = false,
                Err(fault) => {
                    bus.report(failed, &fault);
                    (failed, answer) = (true, Err(Aborted));
                }
            }
            true
        });
        answer
    }

    fn write_mapped(&mut self, addr: u64, source: &dyn Any, offset: u64, len: usize) -> usize {
        self.mapped(addr, len, Prot::WRITE, &mut |platform, at, start, n| {
            let offset = offset_of(offset, start);
            offset.is_some_and(|offset| platform.dma_write_mapped(at, source, offset, n))
        })
    }

    fn read_mapped(&mut self, addr: u64, target: &dyn Any, offset: u64, len: usize) -> usize {
        self.mapped(addr, len, Prot::READ, &mut |platform, at, start, n| {
            let offset = offset_of(offset, start);
            offset.is_some_and(|offset| platform.dma_read_mapped(at, target, offset, n))
        })
    }

    fn set_intx(&mut self, asserted: bool) {
        self.line = Some(asserted);
    }

    fn not_master(&mut self, addr: u64, write: bool) {
        let access = if write { Prot::WRITE } else { Prot::READ };
        let fault = Fault { iova: addr, access, reason: FaultReason::BusMasterOff };
        self.platform.fault(self.device, &fault);
    }
}
