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

/// A pinned range. Nearly every one is a single part, and there may be millions.
#[derive(Debug)]
enum Pin {
    /// One part of so many bytes.
    Whole(Part, u64),
    /// More.
    Parts(Box<Parts>),
}

/// Where each part of a pin starts in it, ascending, and what it is; none or several.
#[derive(Debug, Default)]
struct Parts {
    parts: Vec<(u64, Part)>,
    size: u64,
}

/// The pins that are held. Names are places here, and given again when a pin is not held any more.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    pins: Vec<Option<Pin>>,
    free: Vec<usize>,
}

/// Moves the bytes of one part: the part, the offset in it, which bytes of the transfer.
pub(super) type Move<'a> =
    &'a mut dyn FnMut(&Part, u64, core::ops::Range<usize>) -> Result<(), BadAddress>;

impl Pin {
    /// Puts a part behind what is there; a pin begins as `None`.
    fn push(pin: &mut Option<Self>, part: Part, size: u64) {
        *pin = Some(match pin.take() {
            None => Self::Whole(part, size),
            Some(Self::Whole(first, before)) => Self::Parts(Box::new(Parts {
                parts: vec![(0, first), (before, part)],
                size: before + size,
            })),
            Some(Self::Parts(mut parts)) => {
                parts.parts.push((parts.size, part));
                parts.size += size;
                Self::Parts(parts)
            }
        });
    }

    /// Its bytes.
    fn size(&self) -> u64 {
        match self {
            Self::Whole(_, size) => *size,
            Self::Parts(parts) => parts.size,
        }
    }

    /// The part at `offset`, the offset in it, and the bytes left of it.
    fn at(&self, offset: u64) -> Option<(&Part, u64, u64)> {
        if offset >= self.size() {
            return None;
        }
        let Parts { parts, size } = match self {
            Self::Whole(part, size) => return Some((part, offset, size - offset)),
            Self::Parts(parts) => &**parts,
        };
        let next = parts.partition_point(|(start, _)| *start <= offset);
        let (start, part) = parts.get(next.checked_sub(1)?)?;
        let end = parts.get(next).map_or(*size, |(start, _)| *start);
        Some((part, offset - start, end - offset))
    }
}

impl Pins {
    /// Keeps a pin.
    fn add(&mut self, pin: Pin) -> PinId {
        if let Some(id) = self.free.pop()
            && let Some(place) = self.pins.get_mut(id)
        {
            *place = Some(pin);
            return PinId(id as u64);
        }
        self.pins.push(Some(pin));
        PinId(self.pins.len() as u64 - 1)
    }

    fn get(&self, id: PinId) -> Option<&Pin> {
        self.pins.get(usize::try_from(id.0).ok()?)?.as_ref()
    }

    fn remove(&mut self, id: PinId) {
        let Ok(place) = usize::try_from(id.0) else { return };
        if self.pins.get_mut(place).and_then(Option::take).is_some() {
            self.free.push(place);
        }
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
    fn add_parts(
        &self,
        pin: &mut Option<Pin>,
        mapping: &Mapping,
        at: u64,
        size: u64,
        write: bool,
    ) -> u64 {
        let page = self.layout.page;
        let (object, offset) = match &mapping.content {
            Content::Region { .. } => {
                Pin::push(pin, Part::Registers, size);
                return 0;
            }
            Content::Memory { object, offset } => (object, offset + (at - mapping.start)),
        };
        self.touch(mapping, at, size, write);
        let mut charged = 0;
        let pieces = match &object.borrow().touched {
            Some(touched) => touched.pieces(offset / page, (offset + size) / page),
            None => {
                Pin::push(pin, Part::Memory(object.clone(), offset), size);
                return size / page;
            }
        };
        for (first, end, what) in pieces {
            let part = match what {
                Page::Own => Part::Memory(object.clone(), first * page),
                Page::Zero | Page::HugeZero => Part::Zero,
            };
            if what != Page::Zero {
                charged += end - first;
            }
            Pin::push(pin, part, (end - first) * page);
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
        let pin = self.pins.get(at.pin).ok_or(BadAddress)?;
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
        let mut pin = None;
        let (mut done, mut charged) = (0, 0);
        while done < size {
            let at = self.untagged(vaddr.wrapping_add(done));
            let found = self.space.find(at).ok_or(PinFault::NotMapped);
            let room = found.and_then(|m| self.pinnable(m, at, write).map(|room| (m, room)));
            match room {
                Ok((mapping, room)) => {
                    let n = room.min(size - done);
                    charged += self.add_parts(&mut pin, mapping, at, n, write);
                    done += n;
                }
                Err(why) => {
                    let vaddr = vaddr.wrapping_add(done);
                    return Err(PinError { vaddr, charged_pages: charged, why });
                }
            }
        }
        let id = self.pins.add(pin.unwrap_or_else(|| Pin::Parts(Box::default())));
        Ok(Pinned { id, charged_pages: charged })
    }

    fn unpin(&mut self, pin: PinId) {
        self.pins.remove(pin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other() {
        let mut pin = None;
        Pin::push(&mut pin, Part::Zero, 0x1000);
        let whole = pin.as_ref().unwrap();
        assert!(matches!(whole.at(0xfff), Some((Part::Zero, 0xfff, 1))));
        assert!(whole.at(0x1000).is_none());
        Pin::push(&mut pin, Part::Registers, 0x2000);
        Pin::push(&mut pin, Part::Zero, 0x1000);
        let parts = pin.unwrap();
        assert!(matches!(parts.at(0xfff), Some((Part::Zero, 0xfff, 1))));
        assert!(matches!(parts.at(0x1800), Some((Part::Registers, 0x800, 0x1800))));
        assert!(matches!(parts.at(0x3000), Some((Part::Zero, 0, 0x1000))));
        assert!(parts.at(0x4000).is_none());
    }

    #[test]
    fn pins_that_are_held_have_names_of_their_own() {
        let mut pins = Pins::default();
        let [a, b] = [1, 2].map(|size| pins.add(Pin::Whole(Part::Zero, size)));
        pins.remove(a);
        pins.remove(a);
        assert!(pins.get(a).is_none());
        let [c, d] = [3, 4].map(|size| pins.add(Pin::Whole(Part::Zero, size)));
        assert_eq!([b, c, d].map(|id| pins.get(id).unwrap().size()), [2, 3, 4]);
        assert_eq!(pins.pins.len(), 3);
        // A million of them are 32 MB.
        assert!(size_of::<Option<Pin>>() <= 32);
    }
}
