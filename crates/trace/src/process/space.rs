//! An address space: which memory lies at which address, and how the process may use it.
//!
//! Addresses are handed out as Linux does: from the top down, the highest gap that is large enough.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use uapi::Errno;
use vfio::DeviceId;

use super::files::FileKey;
use super::object::Object;

/// Mappings a process may have (`vm.max_map_count`).
const MAX_MAPPINGS: usize = 65530;

/// How the process may access a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Not at all.
    None,
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

impl Access {
    /// `rw`, `r`, anything else: none; as the recording program understands it.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "rw" => Self::ReadWrite,
            "r" => Self::Read,
            _ => Self::None,
        }
    }

    /// Whether it allows reading, or writing too.
    pub(crate) fn allows(self, write: bool) -> bool {
        match self {
            Self::None => false,
            Self::Read => !write,
            Self::ReadWrite => true,
        }
    }
}

/// What a mapping shows.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Memory, from an offset in bytes.
    Memory {
        /// The memory.
        object: Rc<RefCell<Object>>,
        /// Offset of the mapping's first byte.
        offset: u64,
    },
    /// A device's registers.
    Region {
        /// The device's file, held open by the mapping.
        file: FileKey,
        /// The device.
        device: DeviceId,
        /// Position of the mapping's first byte in the file.
        offset: u64,
    },
}

/// A mapping of `start..end`.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    /// First byte.
    pub(crate) start: u64,
    /// One past the last byte.
    pub(crate) end: u64,
    /// What the process may do.
    pub(crate) access: Access,
    /// What is there.
    pub(crate) content: Content,
}

impl Mapping {
    /// The part of the mapping that is `start..end`.
    fn part(&self, start: u64, end: u64) -> Self {
        let mut part = self.clone();
        let skip = start - self.start;
        match &mut part.content {
            Content::Memory { offset, .. } | Content::Region { offset, .. } => *offset += skip,
        }
        (part.start, part.end) = (start, end);
        part
    }
}

/// The mappings of a process.
#[derive(Debug)]
pub(crate) struct Space {
    mappings: BTreeMap<u64, Mapping>,
    page: u64,
    /// Sizes that are a multiple of this are placed at a multiple of it.
    huge: u64,
    /// Where the highest mapping may end.
    top: u64,
    /// The end of the addresses a process may have.
    limit: u64,
    /// By size, an address above which no gap is as large: where a search starts. The larger the
    /// size, the lower the address.
    searched: BTreeMap<u64, u64>,
}

impl Space {
    /// An empty space; `top` is where mappings are placed below, `limit` the end of the addresses
    /// a process may ask for.
    pub(crate) fn new(page: u64, huge: u64, top: u64, limit: u64) -> Self {
        Self {
            mappings: BTreeMap::new(),
            page,
            huge,
            top: top & !(page - 1),
            limit,
            searched: BTreeMap::new(),
        }
    }

    /// The mapping that holds `addr`.
    pub(crate) fn find(&self, addr: u64) -> Option<&Mapping> {
        let (_, mapping) = self.mappings.range(..=addr).next_back()?;
        (addr < mapping.end).then_some(mapping)
    }

    /// `size` in whole pages; `None` when that is 0 or too much.
    fn pages(&self, size: u64) -> Result<u64, Errno> {
        if size == 0 {
            return Err(Errno::EINVAL);
        }
        match size.checked_add(self.page - 1).map(|s| s & !(self.page - 1)) {
            Some(s) if s <= self.limit => Ok(s),
            _ => Err(Errno::ENOMEM),
        }
    }

    /// A free place for `size` bytes: the highest, which for huge pages is one that has room to
    /// align it, if there is any.
    pub(crate) fn place(&mut self, size: u64) -> Result<u64, Errno> {
        let size = self.pages(size)?;
        if self.huge > 1 && size.is_multiple_of(self.huge) {
            let roomy = size.checked_add(self.huge).ok_or(Errno::ENOMEM)?;
            if let Ok(at) = self.highest(roomy) {
                return Ok((at + self.huge) & !(self.huge - 1));
            }
        }
        self.highest(size)
    }

    /// The highest gap's last `size` bytes.
    fn highest(&mut self, size: u64) -> Result<u64, Errno> {
        if self.mappings.len() >= MAX_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        let known = self.searched.range(..=size).next_back();
        let mut above = known.map_or(self.top, |(_, &at)| at);
        for mapping in self.mappings.range(..above).rev().map(|(_, m)| m) {
            if above.saturating_sub(mapping.end) >= size {
                break;
            }
            above = above.min(mapping.start);
        }
        while let Some((&larger, _)) =
            self.searched.range(size..).next().filter(|&(_, &at)| at >= above)
        {
            self.searched.remove(&larger);
        }
        self.searched.insert(size, above);
        match above.checked_sub(size) {
            // The lowest addresses are kept free (vm.mmap_min_addr).
            Some(at) if at >= 0x10000 => Ok(at),
            _ => Err(Errno::ENOMEM),
        }
    }

    /// Maps `content` at `addr`, in place of what is there. Gives back what it replaced.
    pub(crate) fn map(
        &mut self,
        addr: u64,
        size: u64,
        access: Access,
        content: Content,
    ) -> Result<Vec<Mapping>, Errno> {
        let size = self.pages(size)?;
        if !addr.is_multiple_of(self.page) {
            return Err(Errno::EINVAL);
        }
        if addr > self.limit - size || self.mappings.len() >= MAX_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        let removed = self.remove(addr, addr + size);
        self.mappings.insert(addr, Mapping { start: addr, end: addr + size, access, content });
        Ok(removed)
    }

    /// `munmap`: gives back what was there.
    pub(crate) fn unmap(&mut self, addr: u64, size: u64) -> Result<Vec<Mapping>, Errno> {
        let end = self.range(addr, size).ok_or(Errno::EINVAL)?;
        if end == addr {
            return Err(Errno::EINVAL);
        }
        self.searched.clear();
        Ok(self.remove(addr, end))
    }

    /// The end of a page-aligned range of the process' addresses.
    fn range(&self, addr: u64, size: u64) -> Option<u64> {
        let size = size.checked_add(self.page - 1)? & !(self.page - 1);
        let end = addr.checked_add(size)?;
        (addr.is_multiple_of(self.page) && end <= self.limit).then_some(end)
    }

    /// `mprotect`: in order of address up to the first hole.
    pub(crate) fn protect(&mut self, addr: u64, size: u64, access: Access) -> Result<(), Errno> {
        if !addr.is_multiple_of(self.page) {
            return Err(Errno::EINVAL);
        }
        if size == 0 {
            return Ok(());
        }
        let end = self.range(addr, size).ok_or(Errno::ENOMEM)?;
        let mut at = addr;
        while at < end {
            let Some(mapping) = self.find(at) else { return Err(Errno::ENOMEM) };
            let stop = mapping.end.min(end);
            if mapping.access != access {
                for mut part in self.remove(at, stop) {
                    part.access = access;
                    self.mappings.insert(part.start, part);
                }
            }
            at = stop;
        }
        Ok(())
    }

    /// Removes `start..end`, cutting the mappings at its ends.
    fn remove(&mut self, start: u64, end: u64) -> Vec<Mapping> {
        self.cut(start);
        self.cut(end);
        let inside: Vec<u64> = self.mappings.range(start..end).map(|(&at, _)| at).collect();
        inside.into_iter().filter_map(|at| self.mappings.remove(&at)).collect()
    }

    /// Makes `at` a border.
    fn cut(&mut self, at: u64) {
        let Some(whole) = self.find(at).filter(|m| m.start < at).cloned() else { return };
        if let Content::Memory { object, offset } = &whole.content {
            let page = self.page;
            if let Some(touched) = &mut object.borrow_mut().touched {
                let index = (offset + (at - whole.start)) / page;
                touched.split_at(index, touched.shift(whole.start / page, offset / page));
            }
        }
        self.mappings.insert(whole.start, whole.part(whole.start, at));
        self.mappings.insert(at, whole.part(at, whole.end));
    }

    /// How often `file` is held by mappings.
    pub(crate) fn holds(&self, file: FileKey) -> bool {
        self.mappings
            .values()
            .any(|m| matches!(m.content, Content::Region { file: f, .. } if f == file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Content {
        Content::Memory { object: Rc::new(RefCell::new(Object::anonymous(4096, None))), offset: 0 }
    }

    fn space() -> Space {
        Space::new(4096, 1, 0x7fff_0000_0000, 1 << 47)
    }

    /// Places and maps `size` bytes.
    fn put(s: &mut Space, size: u64) -> u64 {
        let at = s.place(size).unwrap();
        s.map(at, size, Access::None, memory()).unwrap();
        at
    }

    #[test]
    fn huge_mappings_are_aligned_and_small_ones_fill_the_rest() {
        let mut s = Space::new(4096, 0x20_0000, 0x7fff_0000_3000, 1 << 47);
        assert_eq!(put(&mut s, 0x1000), 0x7fff_0000_2000);
        assert_eq!(put(&mut s, 0x20_0000), 0x7ffe_ffe0_0000);
        assert_eq!(put(&mut s, 0x20_1000), 0x7ffe_ffbf_f000);
        assert_eq!(put(&mut s, 0x2000), 0x7fff_0000_0000);
        assert_eq!(put(&mut s, 0x40_0000), 0x7ffe_ff60_0000);
        assert_eq!(put(&mut s, 0x1000), 0x7ffe_ffbf_e000);
    }

    #[test]
    fn a_place_is_found_again_after_many() {
        let mut s = space();
        let places: Vec<u64> = (0..1000).map(|i| put(&mut s, 0x1000 + 0x1000 * (i % 3))).collect();
        s.unmap(places[500], 0x1000).unwrap();
        s.unmap(places[20], 0x1000).unwrap();
        assert_eq!(put(&mut s, 0x2000), places[999] - 0x2000);
        assert_eq!((put(&mut s, 0x1000), put(&mut s, 0x1000)), (places[20], places[500]));
        assert_eq!(put(&mut s, 0x1000), places[999] - 0x3000);
    }

    #[test]
    fn a_hole_is_reused_by_the_next_of_its_size() {
        let mut s = space();
        let a = s.place(0x5000).unwrap();
        assert_eq!(a, 0x7ffe_ffff_b000);
        s.map(a, 0x5000, Access::None, memory()).unwrap();
        let b = s.place(0x3000).unwrap();
        assert_eq!(b, a - 0x3000);
        s.map(b, 0x3000, Access::None, memory()).unwrap();
        s.unmap(a, 0x5000).unwrap();
        assert_eq!(s.place(0x6000), Ok(b - 0x6000));
        assert_eq!(s.place(0x4001), Ok(a));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        let mut s = space();
        assert_eq!(s.place(0), Err(Errno::EINVAL));
        assert_eq!(s.place(1 << 60), Err(Errno::ENOMEM));
        assert_eq!(s.place(u64::MAX), Err(Errno::ENOMEM));
        assert!(s.place(1 << 46).is_ok());
    }

    #[test]
    fn unmap_and_protect_split() {
        let mut s = space();
        s.map(0x10000, 0x8000, Access::ReadWrite, memory()).unwrap();
        assert_eq!(s.unmap(0x13800, 0x1000).unwrap_err(), Errno::EINVAL);
        assert_eq!(s.unmap(0x13000, 0).unwrap_err(), Errno::EINVAL);
        assert_eq!(s.unmap(0x13000, 1).unwrap().len(), 1);
        assert!(s.find(0x13000).is_none() && s.find(0x14000).is_some());
        assert_eq!(s.protect(0x12000, 0x3000, Access::Read), Err(Errno::ENOMEM));
        assert_eq!(s.find(0x12fff).unwrap().access, Access::Read);
        assert_eq!(s.find(0x11fff).unwrap().access, Access::ReadWrite);
        let Content::Memory { offset, .. } = s.find(0x17000).unwrap().content else { panic!() };
        assert_eq!(offset, 0x4000);
    }
}
