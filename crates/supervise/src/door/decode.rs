//! System calls as they come: which of them may be for us, and what their arguments mean.

use crate::sys::notify::Notification;

/// Positions of files from here on are regions of devices.
const REGIONS: u64 = 1 << 40;

/// Where the bytes of a transfer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buffers {
    /// Here, so many.
    One { addr: u64, len: u64 },
    /// In so many buffers, whose list is here.
    List { addr: u64, count: u64 },
}

/// `pread`, `pwrite` and their like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) write: bool,
    pub(super) buffers: Buffers,
    pub(super) offset: u64,
    /// Of `preadv2` and `pwritev2`.
    pub(super) flags: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Ioctl { request: u32, arg: u64 },
    Transfer(Transfer),
    Map { len: u64, offset: u64, shared: bool },
}

/// A system call with its descriptor; `None` for what cannot be ours.
pub(super) fn decode(notification: &Notification) -> Option<(i32, Call)> {
    let [a, b, c, d, e, f] = notification.args;
    let low = |arg: u64| arg as u32;
    let transfer = |write, buffers, offset, flags| {
        (offset >= REGIONS).then_some(Call::Transfer(Transfer { write, buffers, offset, flags }))
    };
    let one = Buffers::One { addr: b, len: c };
    let list = Buffers::List { addr: b, count: c };
    let (fd, call) = match notification.number {
        libc::SYS_ioctl => (a, Call::Ioctl { request: low(b), arg: c }),
        libc::SYS_pread64 => (a, transfer(false, one, d, 0)?),
        libc::SYS_pwrite64 => (a, transfer(true, one, d, 0)?),
        libc::SYS_preadv => (a, transfer(false, list, d, 0)?),
        libc::SYS_pwritev => (a, transfer(true, list, d, 0)?),
        libc::SYS_preadv2 => (a, transfer(false, list, d, low(f))?),
        libc::SYS_pwritev2 => (a, transfer(true, list, d, low(f))?),
        libc::SYS_mmap => {
            let kind = d & 0xf;
            let (private, validated) = (libc::MAP_PRIVATE as u64, libc::MAP_SHARED_VALIDATE as u64);
            let shared = kind == libc::MAP_SHARED as u64 || kind == validated;
            let anonymous = d & libc::MAP_ANONYMOUS as u64 != 0;
            // Any other kind is for the kernel to refuse.
            let ours = !anonymous && (shared || kind == private);
            (e, ours.then_some(Call::Map { len: b, offset: f, shared })?)
        }
        _ => return None,
    };
    Some((low(fd).cast_signed(), call))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: i64, args: [u64; 6]) -> Option<(i32, Call)> {
        decode(&Notification { id: 0, tid: 1, number, args })
    }

    #[test]
    fn requests_and_transfers() {
        let upper = 0xdead_beef_0000_0000;
        assert_eq!(
            call(libc::SYS_ioctl, [upper | 5, upper | 0x3b64, upper, 0, 0, 0]),
            Some((5, Call::Ioctl { request: 0x3b64, arg: upper }))
        );
        let config = 7 << 40;
        let Some((3, Call::Transfer(t))) = call(libc::SYS_pwrite64, [3, 0x1000, 4, config, 9, 9])
        else {
            panic!()
        };
        let one = Buffers::One { addr: 0x1000, len: 4 };
        assert_eq!((t.write, t.buffers, t.offset, t.flags), (true, one, config, 0));
        let Some((_, Call::Transfer(t))) = call(libc::SYS_preadv2, [3, 0x1000, 2, config, 0, 8])
        else {
            panic!()
        };
        assert_eq!((t.buffers, t.flags), (Buffers::List { addr: 0x1000, count: 2 }, 8));
        assert_eq!(call(libc::SYS_pread64, [3, 0, 4, 4096, 0, 0]), None);
        assert_eq!(call(libc::SYS_read, [3, 0, 4, config, 0, 0]), None);
    }

    #[test]
    fn mappings_of_files() {
        let map = |flags: i32| call(libc::SYS_mmap, [0, 0x2000, 3, flags as u64, 6, 0x10 << 40]);
        let ours = |shared| Some((6, Call::Map { len: 0x2000, offset: 0x10 << 40, shared }));
        assert_eq!(map(libc::MAP_SHARED), ours(true));
        assert_eq!(map(libc::MAP_SHARED_VALIDATE | libc::MAP_POPULATE), ours(true));
        assert_eq!(map(libc::MAP_PRIVATE | libc::MAP_FIXED), ours(false));
        assert_eq!(map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS), None);
        assert_eq!(map(0), None);
    }
}
