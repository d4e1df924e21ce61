//! A container: one IOVA space, entered by groups, with a type1 IOMMU behind it.
//!
//! The order of checks in each request is the kernel's; kernel-semantics has the sources.

mod dirty;
mod info;
mod map;
mod unmap;
mod window;

use alloc::vec::Vec;

use iommu::{AddressSpace, Env, LockBudget};
use uapi::container::Extension;
use uapi::ioctl;
use uapi::windows::SOFTVFIO_MSI_WINDOWS;

use crate::{Abi, Answer, Caller, GroupId, Refusal, Shared};

/// Which rules of unmapping a container follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// An unmap may remove more than asked, or nothing.
    V1,
    /// An unmap never cuts a mapping.
    V2,
}

/// A container's IOMMU, once it is set.
pub struct Type1 {
    version: Version,
    space: AddressSpace,
}

impl Type1 {
    /// Which rules of unmapping it follows.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// What its IOVAs mean.
    #[must_use]
    pub const fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// The same, to change. Meant for devices that bind doorbells; mappings are the client's.
    pub const fn space_mut(&mut self) -> &mut AddressSpace {
        &mut self.space
    }
}

/// One open of `/dev/vfio/vfio`. Lives as long as its descriptor or a group in it.
pub struct Container {
    open: bool,
    /// Most recent first, as the kernel lists them.
    groups: Vec<GroupId>,
    type1: Option<Type1>,
}

impl Container {
    /// An empty container.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a container is opened, not defaulted")]
    pub const fn new() -> Self {
        Self { open: true, groups: Vec::new(), type1: None }
    }

    /// The groups in it, most recent first.
    #[must_use]
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }

    /// Its IOMMU, once set.
    #[must_use]
    pub const fn type1(&self) -> Option<&Type1> {
        self.type1.as_ref()
    }

    /// The same, to change.
    pub const fn type1_mut(&mut self) -> Option<&mut Type1> {
        self.type1.as_mut()
    }

    /// Its descriptor was closed. Nothing else happens: groups keep it alive.
    pub const fn close_fd(&mut self) {
        self.open = false;
    }

    /// Whether nothing refers to it any more.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        !self.open && self.groups.is_empty()
    }

    /// A request on its descriptor.
    ///
    /// # Errors
    /// The [`Refusal`], whose errno the client gets.
    #[doc(alias("VFIO_SET_IOMMU", "VFIO_CHECK_EXTENSION", "VFIO_GET_API_VERSION"))]
    pub fn ioctl(
        &mut self,
        shared: &mut Shared,
        caller: &mut dyn Caller,
        request: u32,
        arg: u64,
    ) -> Answer {
        match request {
            ioctl::VFIO_GET_API_VERSION => Ok(i64::from(uapi::container::VFIO_API_VERSION)),
            ioctl::VFIO_CHECK_EXTENSION => Ok(i64::from(self.has_extension(shared, arg))),
            ioctl::VFIO_SET_IOMMU => self.set_iommu(shared, caller, arg),
            _ => {
                let Some(type1) = &mut self.type1 else { return Err(Refusal::NoIommu) };
                match request {
                    ioctl::VFIO_IOMMU_GET_INFO => type1.get_info(shared, caller, arg),
                    ioctl::VFIO_IOMMU_MAP_DMA => type1.map_dma(shared, caller, arg),
                    ioctl::VFIO_IOMMU_UNMAP_DMA => type1.unmap_dma(shared, caller, arg),
                    ioctl::VFIO_IOMMU_DIRTY_PAGES => type1.dirty_pages(shared, caller, arg),
                    _ => Err(Refusal::UnknownRequest(request)),
                }
            }
        }
    }

    fn has_extension(&self, shared: &Shared, number: u64) -> bool {
        if number == u64::from(SOFTVFIO_MSI_WINDOWS) {
            return self.takes_windows(shared);
        }
        let Ok(Ok(extension)) = u32::try_from(number).map(Extension::try_from) else {
            return false;
        };
        match extension {
            Extension::Type1 | Extension::Type1V2 | Extension::UnmapAll => true,
            Extension::Type1Nesting => shared.host.dialect.nesting_type,
            Extension::UpdateVaddr => self.type1.is_some(),
            Extension::DmaCc => self.type1.as_ref().is_some_and(|t| t.space.is_coherent()),
            _ => false,
        }
    }

    /// Whether windows can be registered: here, or before there is an IOMMU, with any of the host.
    fn takes_windows(&self, shared: &Shared) -> bool {
        let user = |i: &iommu::Iommu| matches!(i.msi, iommu::MsiPolicy::User { .. });
        shared.abi == Abi::Reviewed
            && match &self.type1 {
                Some(type1) => type1.space.max_windows().is_some(),
                None => shared.host.iommus.iter().any(user),
            }
    }

    fn set_iommu(&mut self, shared: &mut Shared, caller: &mut dyn Caller, arg: u64) -> Answer {
        if self.groups.is_empty() {
            return Err(Refusal::NoGroup);
        }
        if self.type1.is_some() {
            return Err(Refusal::IommuAlreadySet);
        }
        // The driver must say yes to the number as an extension, then open it as a type.
        if !self.has_extension(shared, arg) {
            return Err(Refusal::NoSuchType(arg));
        }
        let version = match u32::try_from(arg).map(Extension::try_from) {
            Ok(Ok(Extension::Type1)) => Version::V1,
            Ok(Ok(Extension::Type1V2)) => Version::V2,
            Ok(Ok(Extension::Type1Nesting)) => {
                let iommu = self.groups.first().and_then(|g| shared.host.group(g.0));
                let iommu = iommu.and_then(|g| shared.host.iommu_of(g));
                return Err(Refusal::NoNesting { known: iommu.is_some_and(|i| i.nests) });
            }
            _ => return Err(Refusal::NotAType(arg)),
        };
        let host = &shared.host;
        let space = AddressSpace::new(host.page_size, shared.limits.dma_entry_limit, &host.dialect);
        let mut type1 = Type1 { version, space };
        for (done, group) in self.groups.iter().enumerate() {
            if let Err(refusal) = type1.attach(shared, caller, *group) {
                for attached in self.groups.iter().take(done).rev() {
                    type1.detach(shared, caller, *attached);
                }
                return Err(refusal);
            }
        }
        self.type1 = Some(type1);
        Ok(0)
    }

    /// A group joins. The caller has checked that it may.
    pub(crate) fn join(
        &mut self,
        shared: &mut Shared,
        caller: &mut dyn Caller,
        group: GroupId,
    ) -> Result<(), Refusal> {
        if let Some(type1) = &mut self.type1 {
            type1.attach(shared, caller, group)?;
        }
        self.groups.insert(0, group);
        Ok(())
    }

    /// A group leaves; with the last one the IOMMU and every mapping go.
    pub(crate) fn leave(&mut self, shared: &mut Shared, caller: &mut dyn Caller, group: GroupId) {
        if let Some(type1) = &mut self.type1 {
            type1.detach(shared, caller, group);
        }
        self.groups.retain(|g| *g != group);
        if self.groups.is_empty() {
            self.type1 = None;
        }
    }
}

impl Type1 {
    fn attach(
        &mut self,
        shared: &mut Shared,
        caller: &mut dyn Caller,
        group: GroupId,
    ) -> Result<(), Refusal> {
        let limit = budget(shared, caller).limit_pages;
        let Shared { host, limits, locked, observer, .. } = shared;
        let mut env = Env { pinner: caller, locked, observer: observer.as_mut() };
        Ok(self.space.attach(host, limits, group.0, limit, &mut env)?)
    }

    fn detach(&mut self, shared: &mut Shared, caller: &mut dyn Caller, group: GroupId) {
        self.space.detach(group.0, &mut env(shared, caller));
    }
}

/// What the engine needs of a request's surroundings.
pub(crate) fn env<'a>(shared: &'a mut Shared, caller: &'a mut dyn Caller) -> Env<'a> {
    Env { pinner: caller, locked: &mut shared.locked, observer: shared.observer.as_mut() }
}

/// What the caller may lock.
pub(crate) fn budget(shared: &Shared, caller: &dyn Caller) -> LockBudget {
    let pages = caller.memlock_limit().wrapping_shr(shared.host.page_size.trailing_zeros());
    let limit_pages = if caller.may_lock_memory() { None } else { Some(pages) };
    LockBudget { mm: caller.mm(), limit_pages }
}
