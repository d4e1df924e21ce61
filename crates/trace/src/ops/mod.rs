//! The operations, each as the recording program (`vfio-oracle.c`) does it.
//!
//! Everything goes through bytes: an operation builds the structure in the modelled process'
//! memory, issues the request with its address, and reads the answer from there.

mod admin;
mod answer;
mod arg;
mod calls;
mod caps;
mod device;
mod memory;
mod raw;
mod region;
mod type1;

pub(crate) use answer::{Answer, Failure, Sys};
use arg::Arg;

use crate::process::Killed;
use crate::request::{BadMember, Request};
use crate::world::World;

/// Why an operation has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A member cannot be used.
    Bad(BadMember),
    /// The recording program would be killed by a signal.
    Killed(&'static str),
    /// There is no such operation.
    Unknown(String),
}

impl From<BadMember> for Stop {
    fn from(bad: BadMember) -> Self {
        Self::Bad(bad)
    }
}

impl From<Killed> for Stop {
    fn from(killed: Killed) -> Self {
        Self::Killed(killed.0)
    }
}

/// An operation under way.
pub(crate) struct Op<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) request: Request<'a>,
}

type Done = Result<Answer, Stop>;

/// Names of operations and what carries them out: a list of the names, and the way from one to the
/// other.
macro_rules! operations {
    ($($name:literal => $carry_out:path,)+) => {
        /// Every operation.
        #[cfg(test)]
        pub(crate) const OPERATIONS: &[&str] = &[$($name),+];

        fn carry_out(name: &str, op: &mut Op<'_>) -> Done {
            match name {
                $($name => $carry_out(op),)+
                _ => Err(Stop::Unknown(name.to_owned())),
            }
        }
    };
}

operations! {
    "mem" => memory::mem,
    "mem_unmap" => memory::unmap,
    "mem_protect" => memory::protect,
    "mem_fill" => memory::fill,
    "mem_read" => memory::read,
    "open_container" => calls::open_container,
    "open_iommufd" => calls::open_iommufd,
    "open_group" => calls::open_group,
    "close" => calls::close,
    "api_version" => calls::api_version,
    "check_extension" => calls::check_extension,
    "set_iommu" => calls::set_iommu,
    "group_status" => calls::group_status,
    "set_container" => calls::set_container,
    "unset_container" => calls::unset_container,
    "get_device_fd" => calls::get_device_fd,
    "map" => type1::map,
    "unmap" => type1::unmap,
    "dirty" => type1::dirty,
    "get_info" => type1::get_info,
    "device_info" => device::device_info,
    "region_info" => device::region_info,
    "irq_info" => device::irq_info,
    "set_irqs" => device::set_irqs,
    "reset" => device::reset,
    "faults" => device::faults,
    "eventfd" => device::eventfd,
    "eventfd_read" => device::eventfd_read,
    "eventfd_write" => device::eventfd_write,
    "region_read" => region::read,
    "region_write" => region::write,
    "edu_dma" => region::edu_dma,
    "ioctl" => raw::ioctl,
    "rlimit_memlock" => admin::rlimit_memlock,
    "setuid" => admin::setuid,
    "locked_kb" => admin::locked_kb,
    "module_param" => admin::module_param,
    "bind" => admin::bind,
    "unbind" => admin::unbind,
    "remove" => admin::remove,
}

/// Carries out one operation.
pub(crate) fn run(world: &mut World, request: Request<'_>) -> Done {
    let name = request.text_or("op", "")?;
    let mut op = Op { world, request };
    let answer = carry_out(&name, &mut op);
    op.world.close_released();
    op.world.deliver_events();
    answer
}

impl Op<'_> {
    /// The descriptor in a container slot.
    fn container(&self) -> Result<i32, Stop> {
        let slot = self.request.slot("c", self.world.slots.c.len())?;
        Ok(self.world.slots.c[slot])
    }

    /// The descriptor in a group slot.
    fn group(&self) -> Result<i32, Stop> {
        let slot = self.request.slot("g", self.world.slots.g.len())?;
        Ok(self.world.slots.g[slot])
    }

    /// The descriptor in a device slot.
    fn device(&self) -> Result<i32, Stop> {
        let slot = self.request.slot("d", self.world.slots.d.len())?;
        Ok(self.world.slots.d[slot])
    }

    /// The descriptor that a word like `c0` names.
    fn any_fd(&mut self, member: &str, word: &str) -> Result<&mut i32, Stop> {
        let found = self.world.slots.named(word);
        match found {
            Some(fd) => Ok(fd),
            None => Ok(self.request.bad(member, "a descriptor: c0-c7, g0-g7, d0-d7 or e0-e63")?),
        }
    }

    /// The descriptor that a scalar names: a word, or a number.
    fn fd_of(&mut self, member: &str, text: &str) -> Result<i32, Stop> {
        if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Ok(*self.any_fd(member, text)?);
        }
        match crate::request::parse_number(text) {
            Some(number) => Ok(crate::request::low32(number).cast_signed()),
            None => Ok(self.request.bad(member, "descriptors or numbers")?),
        }
    }

    /// An address: a number, or a memory's name and an offset.
    fn address(&self, member: &str, default: &str) -> Result<u64, Stop> {
        let text = self.request.text_or(member, default)?;
        let parse = crate::request::parse_number;
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match parse(&text) {
                Some(address) => Ok(address),
                None => Ok(self.request.bad(member, "an address")?),
            };
        }
        let (name, offset) = text.split_at(text.find(['+', '-']).unwrap_or(text.len()));
        let Some(base) = self.world.memory(name) else {
            return Ok(self.request.bad(member, "the name of a memory that was made before")?);
        };
        let offset = match offset.as_bytes().first() {
            None => Some(0),
            Some(b'-') => parse(&offset[1..]).map(u64::wrapping_neg),
            Some(_) => parse(&offset[1..]),
        };
        match offset {
            Some(offset) => Ok(base.wrapping_add(offset)),
            None => Ok(self.request.bad(member, "name+offset")?),
        }
    }

    /// Issues a request with an argument structure.
    fn request_with(&mut self, fd: i32, number: u32, arg: Arg) -> Sys {
        self.world.ioctl(fd, number, arg.passed)
    }
}
