//! What the process itself does with its memory.

use std::cell::RefCell;
use std::rc::Rc;

use uapi::Errno;
use vfio::DeviceId;

use super::object::Object;
use super::{Access, Content, File, Killed, Mapping, Process};

/// What the process finds at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Memory, for so many bytes.
    Memory(u64),
    /// A device's registers, for so many bytes, from a position in its file.
    Region(DeviceId, u64, u64),
}

/// A kind of memory to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Private, anonymous.
    Anonymous,
    /// Shared, of a file with so many bytes.
    Shared(u64),
}

impl Process {
    /// Reserves `size` bytes, inaccessible: `mmap(PROT_NONE)`.
    ///
    /// # Errors
    /// As `mmap`'s.
    pub(crate) fn reserve(&mut self, size: u64) -> Result<u64, Errno> {
        let at = self.space.place(size)?;
        let content = self.anonymous();
        let removed = self.space.map(at, size, Access::None, content)?;
        self.dropped(removed);
        Ok(at)
    }

    /// `mmap(MAP_FIXED)` of memory.
    ///
    /// # Errors
    /// As `mmap`'s: `ENOMEM` for more private writable memory than the machine has.
    pub(crate) fn map_memory(
        &mut self,
        at: u64,
        size: u64,
        access: Access,
        kind: Kind,
    ) -> Result<(), Errno> {
        let content = match kind {
            Kind::Anonymous => {
                if access == Access::ReadWrite && size > self.layout.memory {
                    return Err(Errno::ENOMEM);
                }
                self.anonymous()
            }
            Kind::Shared(bytes) => Content::Memory {
                object: Rc::new(RefCell::new(Object::file(self.layout.page, bytes))),
                offset: 0,
            },
        };
        let removed = self.space.map(at, size, access, content)?;
        self.dropped(removed);
        Ok(())
    }

    /// `mmap(MAP_FIXED | MAP_SHARED)` of a device's file, which the device has agreed to.
    ///
    /// # Errors
    /// As `mmap`'s.
    pub(crate) fn map_region(
        &mut self,
        at: u64,
        size: u64,
        access: Access,
        fd: i32,
        offset: u64,
    ) -> Result<(), Errno> {
        let (file, what) = self.files.get(fd).ok_or(Errno::EBADF)?;
        let File::Device(device) = what else { return Err(Errno::ENODEV) };
        let content = Content::Region { file, device, offset };
        let removed = self.space.map(at, size, access, content)?;
        self.dropped(removed);
        Ok(())
    }

    /// `munmap`.
    ///
    /// # Errors
    /// `EINVAL`.
    pub(crate) fn unmap_memory(&mut self, at: u64, size: u64) -> Result<(), Errno> {
        let removed = self.space.unmap(at, size)?;
        self.dropped(removed);
        Ok(())
    }

    /// `mprotect`.
    ///
    /// # Errors
    /// `EINVAL` for an address inside a page, `ENOMEM` for a range with a hole.
    pub(crate) fn protect_memory(
        &mut self,
        at: u64,
        size: u64,
        access: Access,
    ) -> Result<(), Errno> {
        self.space.protect(at, size, access)
    }

    /// What the process finds at `at` when it reads or writes there itself.
    ///
    /// # Errors
    /// [`Killed`]: nothing is there, or not for that access.
    pub(crate) fn look(&self, at: u64, write: bool) -> Result<Place, Killed> {
        self.find(at, write).map(|(_, place)| place)
    }

    /// The same, with the mapping that it lies in.
    fn find(&self, at: u64, write: bool) -> Result<(&Mapping, Place), Killed> {
        let mapping = self.space.find(at).ok_or(Killed("SIGSEGV"))?;
        if !mapping.access.allows(write) {
            return Err(Killed("SIGSEGV"));
        }
        let skip = at - mapping.start;
        let left = mapping.end - at;
        match &mapping.content {
            Content::Memory { object, offset } => match object.borrow().pages_from(offset + skip) {
                0 => Err(Killed("SIGBUS")),
                bytes => Ok((mapping, Place::Memory(bytes.min(left)))),
            },
            Content::Region { device, offset, .. } => {
                if self.decoding.get(device) == Some(&false) {
                    return Err(Killed("SIGBUS"));
                }
                Ok((mapping, Place::Region(*device, offset + skip, left)))
            }
        }
    }

    /// Touches `size` bytes at `at` and lets `f` at them: the memory, and where in it they start.
    fn at_memory<R>(
        &self,
        at: u64,
        mapping: &Mapping,
        size: u64,
        write: bool,
        f: impl FnOnce(&mut Object, u64) -> R,
    ) -> Result<R, Killed> {
        let Content::Memory { object, offset } = &mapping.content else {
            return Err(Killed("SIGBUS"));
        };
        self.touch(mapping, at, size, write);
        Ok(f(&mut object.borrow_mut(), offset + (at - mapping.start)))
    }

    /// Reads the process' own memory; a device's registers are not memory and end it.
    ///
    /// # Errors
    /// [`Killed`], after the bytes before the first bad one.
    pub(crate) fn load(&self, mut at: u64, mut data: &mut [u8]) -> Result<(), Killed> {
        while !data.is_empty() {
            let (mapping, place) = self.find(at, false)?;
            let Place::Memory(room) = place else { return Err(Killed("SIGBUS")) };
            let n = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
            let (now, rest) = data.split_at_mut(n);
            self.at_memory(at, mapping, n as u64, false, |object, at| object.read(at, now))?;
            data = rest;
            at = at.wrapping_add(n as u64);
        }
        Ok(())
    }

    /// Writes the process' own memory.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn store(&mut self, mut at: u64, mut data: &[u8]) -> Result<(), Killed> {
        while !data.is_empty() {
            let (mapping, place) = self.find(at, true)?;
            let Place::Memory(room) = place else { return Err(Killed("SIGBUS")) };
            let n = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
            let (now, rest) = data.split_at(n);
            self.at_memory(at, mapping, n as u64, true, |object, at| object.write(at, now))?;
            data = rest;
            at = at.wrapping_add(n as u64);
        }
        Ok(())
    }

    /// `memset` of one stretch that [`look`](Self::look) found to be memory.
    pub(crate) fn set(&mut self, at: u64, size: u64, byte: u8) {
        if let Ok((mapping, _)) = self.find(at, true) {
            let fill = |object: &mut Object, at| object.fill(at, size, byte);
            let _ = self.at_memory(at, mapping, size, true, fill);
        }
    }

    /// `memset` of a buffer of the program itself.
    pub(crate) fn set_buffer(&mut self, at: u64, size: u64, byte: u8) -> Result<(), Killed> {
        let (mut at, end) = (at, at + size);
        while at < end {
            let (mapping, place) = self.find(at, true)?;
            let Place::Memory(room) = place else { return Err(Killed("SIGBUS")) };
            let n = room.min(end - at);
            self.at_memory(at, mapping, n, true, |object, at| object.fill(at, n, byte))?;
            at += n;
        }
        Ok(())
    }
}
