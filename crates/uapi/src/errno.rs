//! Error numbers as Linux has them on x86-64 and arm64 (asm-generic/errno.h).

use core::fmt;

/// An error number; positive, as in C's `errno`. Unknown numbers survive and print as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)+) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Self = Self($number);)+

            /// Every error this crate names.
            pub const ALL: &'static [(&'static str, Self)] =
                &[$((stringify!($name), Self::$name)),+];
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1;
    /// No such file, or no such mapping.
    ENOENT = 2;
    /// A signal came first.
    EINTR = 4;
    /// Input/output error.
    EIO = 5;
    /// No such device or address.
    ENXIO = 6;
    /// Too much of an argument; unknown trailing bytes.
    E2BIG = 7;
    /// Not an open fd.
    EBADF = 9;
    /// Try again (also `EWOULDBLOCK`).
    EAGAIN = 11;
    /// Out of memory, or of the right to lock it.
    ENOMEM = 12;
    /// Permission denied.
    EACCES = 13;
    /// An address of the caller could not be read or written.
    EFAULT = 14;
    /// In use.
    EBUSY = 16;
    /// Already there.
    EEXIST = 17;
    /// No such device.
    ENODEV = 19;
    /// Invalid argument.
    EINVAL = 22;
    /// Too many open fds in the system.
    ENFILE = 23;
    /// Too many open fds in the process.
    EMFILE = 24;
    /// This fd has no such request.
    ENOTTY = 25;
    /// No room left.
    ENOSPC = 28;
    /// A fd that cannot seek.
    ESPIPE = 29;
    /// The other end is gone.
    EPIPE = 32;
    /// Out of range.
    ERANGE = 34;
    /// No such system call.
    ENOSYS = 38;
    /// No data.
    ENODATA = 61;
    /// A sum does not fit.
    EOVERFLOW = 75;
    /// A fd of the wrong kind, or in a bad state.
    EBADFD = 77;
    /// The answer does not fit the caller's room.
    EMSGSIZE = 90;
    /// Not supported (also `ENOTSUP`).
    EOPNOTSUPP = 95;
    /// The address is taken.
    EADDRINUSE = 98;
    /// Took too long.
    ETIMEDOUT = 110;
    /// Cancelled.
    ECANCELED = 125;
}

impl Errno {
    /// The error of this number; any number is kept.
    #[must_use]
    pub const fn new(number: i32) -> Self {
        Self(number)
    }

    /// The positive number. A system call answers its negative.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// `EINVAL` and so on, when this crate knows the number.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let (name, _) = Self::ALL.iter().find(|(_, errno)| *errno == self)?;
        Some(name)
    }

    /// The error called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let (_, errno) = Self::ALL.iter().find(|(known, _)| *known == name)?;
        Some(*errno)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn names_go_both_ways() {
        for &(name, errno) in Errno::ALL {
            assert_eq!((errno.name(), Errno::from_name(name)), (Some(name), Some(errno)));
            assert_eq!(errno.to_string(), name);
        }
        assert_eq!(Errno::from_name("EWHAT"), None);
    }

    #[test]
    fn unknown_numbers_survive() {
        let errno = Errno::new(4095);
        assert_eq!((errno.number(), errno.name()), (4095, None));
        assert_eq!(errno.to_string(), "errno 4095");
    }
}
