//! Which file a client's address shows.
//!
//! Each question goes to the kernel: what a client mapped a moment ago may be gone. PROCMAP_QUERY
//! answers in about a microsecond; before Linux 6.11 the text of `/proc/PID/maps` is read up to the
//! line. The descriptor belongs to one address space, so it outlives no exec.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};

use crate::sys::procmap::{self, Mapping};

/// One client address space.
#[derive(Debug)]
pub(crate) struct Space {
    maps: File,
    text_only: bool,
}

impl Space {
    /// The space that a thread lives in now.
    pub(crate) fn of(tid: i32) -> io::Result<Self> {
        Ok(Self { maps: File::open(format!("/proc/{tid}/maps"))?, text_only: false })
    }

    /// The same, as on a kernel before 6.11.
    #[cfg(test)]
    pub(crate) fn text_of(tid: i32) -> io::Result<Self> {
        Ok(Self { text_only: true, ..Self::of(tid)? })
    }

    /// The mapping that holds an address.
    ///
    /// # Errors
    /// `ESRCH`: the address space is no more.
    pub(crate) fn find(&mut self, address: u64) -> io::Result<Option<Mapping>> {
        if !self.text_only {
            match procmap::query(&self.maps, address) {
                Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => self.text_only = true,
                answer => return answer,
            }
        }
        self.maps.rewind()?;
        let mut any = false;
        for line in BufReader::with_capacity(16 << 10, &self.maps).split(b'\n') {
            let line = line?;
            any = true;
            let Some(mapping) = parse(&String::from_utf8_lossy(&line)) else { continue };
            if address < mapping.start {
                break;
            }
            if address < mapping.end {
                return Ok(Some(mapping));
            }
        }
        if any { Ok(None) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    }
}

/// `start-end perms offset major:minor inode name`, proc_pid_maps(5).
fn parse(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = words.next()?.split_once('-')?;
    let perms = words.next()?;
    let offset = hex(words.next()?)?;
    let (major, minor) = words.next()?.split_once(':')?;
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset,
        dev: libc::makedev(hex(major)?.try_into().ok()?, hex(minor)?.try_into().ok()?),
        ino: words.next()?.parse().ok()?,
        readable: perms.as_bytes().first() == Some(&b'r'),
        writable: perms.as_bytes().get(1) == Some(&b'w'),
    })
}

#[cfg(test)]
mod tests {
    use std::os::linux::fs::MetadataExt;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_line() {
        let line = "7f00-7f10 rw-s 10000000000 00:01 1029 /memfd:bar (deleted) x";
        let mapping = parse(line).unwrap();
        assert_eq!((mapping.start, mapping.end, mapping.offset), (0x7f00, 0x7f10, 1 << 40));
        assert_eq!((mapping.dev, mapping.ino, mapping.writable), (libc::makedev(0, 1), 1029, true));
        assert_eq!(parse(""), None);
        assert_eq!(parse("x-y"), None);
    }

    #[test]
    fn both_ways_agree() {
        let pid = std::process::id() as i32;
        let (mut quick, mut text) = (Space::of(pid).unwrap(), Space::text_of(pid).unwrap());
        let file = std::fs::metadata("/proc/self/exe").unwrap();
        let code = both_ways_agree as fn() as usize as u64;
        let found = text.find(code).unwrap().unwrap();
        assert_eq!((found.dev, found.ino), (file.st_dev(), file.st_ino()));
        assert_eq!(quick.find(code).unwrap(), Some(found));
        assert_eq!(quick.find(8).unwrap(), None);
        assert_eq!(text.find(8).unwrap(), None);
        for (name, space) in [("PROCMAP_QUERY", &mut quick), ("text", &mut text)] {
            let start = Instant::now();
            (0..1000).for_each(|_| drop(space.find(code)));
            println!("{name}: {:.2} us", start.elapsed().as_secs_f64() * 1e3);
        }
    }
}
