//! Pins: what a device keeps hold of, whatever the process does to its mappings.

use iommu::{Backing, PinError, PinFault, PinId, Pinned, Pinner};
use std::cell::RefCell;
use std::rc::Rc;
use vfio::BadAddress;

use super::object::Object;
use super::touch::Page;
use super::{Content, Mapping, Process};

/// A part of a pin.
#[derive(Debug)]
pub(crate) enum Part {
    /// Memory, from an offset in bytes.
    Memory(Rc<RefCell<Object>>, u64),
    /// The shared zero page.
    Zero,
    /// A device's registers. No memory: DMA to them is not modelled and fails.
    Registers,
}

/// A pinned range: where each part starts in it, ascending, and what the part is.
#[derive(Debug)]
pub(crate) struct Pin {
    parts: Vec<(u64, Part)>,
    size: u64,
}

/// Moves the bytes of one part: the part, the offset in it, which bytes of the transfer.
pub(super) type Move<'a> =
    &'a mut dyn FnMut(&Part, u64, core::ops::Range<usize>) -> Result<(), BadAddress>;

impl Pin {
    /// The part at `offset`, the offset in it, and the bytes left of it.
    fn at(&self, offset: u64) -> Option<(&Part, u64, u64)> {
        if offset >= self.size {
            return None;
        }
        let next = self.parts.partition_point(|(start, _)| *start <= offset);
        let (start, part) = self.parts.get(next.checked_sub(1)?)?;
        let end = self.parts.get(next).map_or(self.size, |(start, _)| *start);
        Some((part, offset - start, end - offset))
    }
}

impl Process {
    /// The address that an address means: arm64 ignores the top byte.
    fn untagged(&self, addr: u64) -> u64 {
        if self.layout.tagged { ((addr << 8).cast_signed() >> 8).cast_unsigned() } else { addr }
    }

    /// Follows which pages of a mapping are touched.
    pub(super) fn touch(&self, mapping: &Mapping, at: u64, size: u64, write: bool) {
        let Content::Memory { object, offset } = &mapping.content else { return };
        let mut object = object.borrow_mut();
        let Some(touched) = &mut object.touched else { return };
        let page = self.layout.page;
        let base = offset / page;
        let low = (at - mapping.start) / page + base;
        let high = (at + size - mapping.start).div_ceil(page) + base;
        let all = (base, base + (mapping.end - mapping.start) / page);
        let shift = touched.shift(mapping.start / page, base);
        touched.touch(low, high, write, all, shift);
    }

    /// Adds the part of `mapping` that is `at..at + size` to a pin.
    fn add_parts(&self, pin: &mut Pin, mapping: &Mapping, at: u64, size: u64, write: bool) -> u64 {
        let page = self.layout.page;
        let (object, offset) = match &mapping.content {
            Content::Region { .. } => {
                pin.parts.push((pin.size, Part::Registers));
                pin.size += size;
                return 0;
            }
            Content::Memory { object, offset } => (object, offset + (at - mapping.start)),
        };
        self.touch(mapping, at, size, write);
        let mut charged = 0;
        let pieces = match &object.borrow().touched {
            Some(touched) => touched.pieces(offset / page, (offset + size) / page),
            None => vec![(offset / page, (offset + size) / page, Page::Own)],
        };
        for (first, end, what) in pieces {
            let part = match what {
                Page::Own => Part::Memory(object.clone(), first * page),
                Page::Zero | Page::HugeZero => Part::Zero,
            };
            if what != Page::Zero {
                charged += end - first;
            }
            pin.parts.push((pin.size, part));
            pin.size += (end - first) * page;
        }
        charged
    }

    /// Why `mapping` cannot be pinned at `at`, or how many bytes of it from there can.
    fn pinnable(&self, mapping: &Mapping, at: u64, write: bool) -> Result<u64, PinFault> {
        if !mapping.access.allows(write) {
            return Err(PinFault::NotPermitted);
        }
        match &mapping.content {
            Content::Region { device, .. } if self.decoding.get(device) == Some(&false) => {
                Err(PinFault::DeviceOff)
            }
            Content::Region { .. } => Ok(mapping.end - at),
            Content::Memory { object, offset } => {
                let object = object.borrow();
                let from = offset + (at - mapping.start);
                match object.pages_from(from) {
                    0 => Err(PinFault::BeyondFile),
                    bytes => Ok(bytes.min(mapping.end - at)),
                }
            }
        }
    }

    /// Copies between a device and pinned memory.
    pub(super) fn transfer(&self, at: Backing, size: usize, f: Move<'_>) -> Result<(), BadAddress> {
        let pin = self.pins.get(&at.pin).ok_or(BadAddress)?;
        let mut done = 0;
        while done < size {
            let offset = at.offset.checked_add(done as u64).ok_or(BadAddress)?;
            let (part, inside, left) = pin.at(offset).ok_or(BadAddress)?;
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(size - done);
            f(part, inside, done..done + n)?;
            done += n;
        }
        Ok(())
    }
}

impl Pinner for Process {
    fn pin(&mut self, vaddr: u64, size: u64, write: bool) -> Result<Pinned, PinError> {
        let mut pin = Pin { parts: Vec::new(), size: 0 };
        let mut charged = 0;
        while pin.size < size {
            let at = self.untagged(vaddr.wrapping_add(pin.size));
            let found = self.space.find(at).ok_or(PinFault::NotMapped);
            let room = found.and_then(|m| self.pinnable(m, at, write).map(|room| (m, room)));
            match room {
                Ok((mapping, room)) => {
                    let n = room.min(size - pin.size);
                    charged += self.add_parts(&mut pin, mapping, at, n, write);
                }
                Err(why) => {
                    let vaddr = vaddr.wrapping_add(pin.size);
                    return Err(PinError { vaddr, charged_pages: charged, why });
                }
            }
        }
        let id = PinId(self.next_pin);
        self.next_pin += 1;
        self.pins.insert(id, pin);
        Ok(Pinned { id, charged_pages: charged })
    }

    fn unpin(&mut self, pin: PinId) {
        self.pins.remove(&pin);
    }
}
