//! A disk kept in a file.

use std::any::Any;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use devices::nvme::{Backend, BackendError};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::sys::mapped::MappedFile;

/// Bytes of zeroes that are written at a time where the file system cannot.
const ZEROES: usize = 64 << 10;

/// A file or block device. What was written is in the file at once, and durable after a flush.
#[derive(Debug)]
pub struct FileBackend {
    file: File,
    size: u64,
    read_only: bool,
    mapped: Option<MappedFile>,
}

impl FileBackend {
    /// Opens an image.
    ///
    /// # Errors
    /// It cannot be opened, or has no byte.
    pub fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        let mut file = File::options().read(true).write(!read_only).open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // Also the size of a block device.
        let size = file.seek(SeekFrom::End(0))?;
        if size == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is empty: a disk has a size",
            ));
        }
        let mapped = MappedFile::map(&file, size, read_only);
        Ok(Self { file, size, read_only, mapped })
    }

    fn allocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> Result<(), BackendError> {
        loop {
            match rustix::fs::fallocate(&self.file, flags, offset, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                    return self.write_zeroes_by_hand(offset, len);
                }
                Err(_) => return Err(BackendError),
            }
        }
    }

    fn write_zeroes_by_hand(&self, offset: u64, len: u64) -> Result<(), BackendError> {
        let zeroes = vec![0; ZEROES];
        let end = offset.checked_add(len).ok_or(BackendError)?;
        let mut at = offset;
        while at < end {
            let part = usize::try_from(end - at).unwrap_or(ZEROES).min(ZEROES);
            self.file.write_all_at(&zeroes[..part], at).map_err(|_| BackendError)?;
            at += part as u64;
        }
        Ok(())
    }

    fn inside(&self, offset: u64, len: u64) -> Result<(), BackendError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(BackendError),
        }
    }
}

impl Backend for FileBackend {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), BackendError> {
        self.inside(offset, data.len() as u64)?;
        self.file.read_exact_at(data, offset).map_err(|_| BackendError)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BackendError> {
        self.inside(offset, data.len() as u64)?;
        self.file.write_all_at(data, offset).map_err(|_| BackendError)
    }

    fn flush(&mut self) -> Result<(), BackendError> {
        self.file.sync_data().map_err(|_| BackendError)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        self.inside(offset, len)?;
        self.allocate(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn discard(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        self.inside(offset, len)?;
        self.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn mapped(&self) -> Option<&dyn Any> {
        self.mapped.as_ref().map(|mapped| mapped as &dyn Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_in_and_come_out_and_nothing_beyond() {
        let path = std::env::temp_dir().join(format!("softvfio-file-{}", std::process::id()));
        std::fs::write(&path, [5; 8192]).unwrap();
        let mut disk = FileBackend::open(&path, false).unwrap();
        disk.write(100, &[1, 2, 3]).unwrap();
        disk.discard(4096, 4096).unwrap();
        disk.write_zeroes(0, 100).unwrap();
        disk.flush().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((&bytes[99..105], bytes[4095], bytes[4096]), (&[0, 1, 2, 3, 5, 5][..], 5, 0));
        let mut data = [0; 4];
        assert_eq!(disk.read(8190, &mut data), Err(BackendError));
        assert_eq!(disk.write(8190, &data), Err(BackendError));
        assert_eq!(disk.discard(u64::MAX, 2), Err(BackendError));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 8192);
        assert!(FileBackend::open(&path, true).unwrap().write(0, &[1]).is_err());
        std::fs::write(&path, []).unwrap();
        assert!(FileBackend::open(&path, true).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
