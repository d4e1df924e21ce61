//! Disks whose commands are large, and end at odd places.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::disk::{Disk, READ, WRITE};
use super::fault::Faults;
use super::hostile::Random;
use super::killed::stamped;
use super::raw::{self, Vfio};
use super::{becoming, ready};

const KIB: u64 = 1 << 10;
const PAGE: u64 = 4 * KIB;
/// Bytes of a command at most.
pub(super) const MOST: u64 = 512 * KIB;
/// Where data is for the device, and queues of a first and second one.
const DATA: u64 = 0x100_0000;
const QUEUES: [u64; 2] = [0x10_0000, 0x20_0000];
/// Where memory is before and after an exec.
const PLACE: u64 = 0x1000_0000_0000;

pub(super) fn run(role: &str) -> Option<()> {
    match role {
        "large writes" => writes(),
        "sizes and places" => sizes_and_places(),
        "the file changes" => the_file_changes(),
        "fills" => fills(),
        "large faults" => [READ, WRITE].map(faults).into_iter().for_each(drop),
        "dies in a fault" => dies_in_a_fault(),
        "exec in a write" => exec_in(WRITE),
        "exec in a read" => exec_in(READ),
        "after exec in dma" => after_exec(),
        _ => return None,
    }
    Some(())
}

fn disk_file() -> File {
    File::options()
        .read(true)
        .write(true)
        .open(std::env::var("SOFTVFIO_E2E_DISK").unwrap())
        .unwrap()
}

/// Memory that a device reaches at `iova`.
fn data(container: i32, iova: u64, len: u64) -> &'static mut [u8] {
    let memory = raw::memory(len as usize, libc::MAP_PRIVATE);
    assert_eq!(raw::map(container, memory, iova, len), 0);
    unsafe { std::slice::from_raw_parts_mut(memory, len as usize) }
}

/// Writes stamped data of 512 KiB, two commands at a time, and says which are written.
fn writes() {
    let stamp = std::env::var("SOFTVFIO_E2E_STAMP").map_or(0, |stamp| stamp.parse().unwrap());
    let vfio = Vfio::open();
    let mut disk = Disk::start(vfio.container, vfio.nvme, QUEUES[0]);
    let memory = data(vfio.container, DATA, 4 * MOST);
    let blocks = disk_file().metadata().unwrap().len() / MOST;
    ready();
    let mut last = None;
    for n in (0..).map(|n| (n + 7 * stamp) % blocks) {
        // Pages, blocks, and neither.
        let at = n % 2 * 2 * MOST + [0, 0, 512, 4][n as usize / 2 % 4];
        memory[at as usize..][..MOST as usize].copy_from_slice(&stamped(stamp, n, MOST as usize));
        disk.give(WRITE, n * MOST / 512, MOST / 512, DATA + at);
        disk.ring();
        if let Some(last) = last.replace(n) {
            assert_eq!(disk.wait(), 0);
            let line = format!("{last}\n");
            std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).unwrap();
        }
    }
}

/// Two disks at a time: commands of all sizes at all places, compared with what should be there.
fn sizes_and_places() {
    let Vfio { container, edu: first, nvme: second, .. } = Vfio::open();
    std::thread::scope(|scope| {
        for (device, which) in [(first, 0), (second, 1)] {
            let mut disk = Disk::start(container, device, QUEUES[which]);
            let iova = DATA + which as u64 * 4 * MOST;
            let memory = data(container, iova, 2 * MOST);
            scope.spawn(move || {
                let mut random = Random(which as u64 + 1);
                let mut there = vec![0; 4 << 20];
                for round in 0..400_u64 {
                    let most = [8, 128, MOST / 512][random.below(3) as usize];
                    let blocks = 1 + random.below(most);
                    let (len, place) = (512 * blocks as usize, random.below(8192 - blocks));
                    let offset = [0, 0, 4, 512, 2048, 4092][random.below(6) as usize];
                    let range = place as usize * 512..place as usize * 512 + len;
                    let here = offset as usize..offset as usize + len;
                    if random.below(2) == 0 {
                        let seed = random.below(1 << 31);
                        for (i, word) in
                            memory[here.clone()].as_chunks_mut::<4>().0.iter_mut().enumerate()
                        {
                            *word =
                                (seed as u32 ^ (i as u32).wrapping_mul(0x9e37_79b1)).to_le_bytes();
                        }
                        assert_eq!(disk.run(WRITE, place, blocks, iova + offset), 0);
                        there[range].copy_from_slice(&memory[here]);
                    } else {
                        memory.fill(round as u8);
                        assert_eq!(disk.run(READ, place, blocks, iova + offset), 0);
                        assert!(memory[here.clone()] == there[range], "{which} {round}");
                        let around = [&memory[..here.start], &memory[here.end..]];
                        assert!(around.iter().all(|m| m.iter().all(|b| *b == round as u8)));
                    }
                }
                let whole = memory.len() as u64 / 2;
                for at in (0..there.len() as u64).step_by(whole as usize) {
                    assert_eq!(disk.run(READ, at / 512, whole / 512, iova), 0);
                    assert!(memory[..whole as usize] == there[at as usize..][..whole as usize]);
                }
            });
        }
    });
}

/// Somebody cuts the file, makes it longer, and takes its blocks away while commands go on.
fn the_file_changes() {
    let (vfio, file) = (Vfio::open(), disk_file());
    let size = file.metadata().unwrap().len();
    let mut disk = Disk::start(vfio.container, vfio.nvme, QUEUES[0]);
    let memory = data(vfio.container, DATA, MOST);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(5);
            while !over.load(Ordering::Relaxed) {
                let len = match random.below(3) {
                    0 => random.below(size),
                    1 => size + random.below(size),
                    _ => size,
                };
                file.set_len(len).unwrap();
                let (at, len) = (random.below(size), 1 + random.below(size));
                let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
                unsafe { libc::fallocate(fd, punch, at.cast_signed(), len.cast_signed()) };
            }
            file.set_len(size).unwrap();
        });
        let (mut random, mut done) = (Random(6), [0; 2]);
        for _ in 0..300 {
            let (blocks, command) = (1 + random.below(MOST / 512), 1 + random.below(2));
            memory[random.below(MOST) as usize] ^= 1;
            let place = random.below(size / 512 - blocks);
            match disk.run(command as u8, place, blocks, DATA) {
                0 => done[0] += 1,
                // Unrecovered read error; a write makes the file longer.
                0x281 if command == 2 => done[1] += 1,
                status => panic!("{command} {status:#x}"),
            }
        }
        over.store(true, Ordering::Relaxed);
        println!("\n{done:?}");
    });
    for at in (0..size).step_by(MOST as usize) {
        memory.fill((at >> 19) as u8 + 1);
        assert_eq!(disk.run(WRITE, at / 512, MOST / 512, DATA), 0);
    }
    for at in (0..size).step_by(MOST as usize) {
        assert_eq!(disk.run(READ, at / 512, MOST / 512, DATA), 0);
        assert!(memory.iter().all(|b| *b == (at >> 19) as u8 + 1));
        let mut found = vec![0; MOST as usize];
        file.read_exact_at(&mut found, at).unwrap();
        assert!(found == memory);
    }
}

/// The file system has less room than the disk.
fn fills() {
    let (vfio, file) = (Vfio::open(), disk_file());
    let size = file.metadata().unwrap().len();
    let mut disk = Disk::start(vfio.container, vfio.nvme, QUEUES[0]);
    let memory = data(vfio.container, DATA, MOST);
    for round in 1..4 {
        let mut written = Vec::new();
        for at in (0..size).step_by(MOST as usize) {
            memory.fill(round + (at >> 19) as u8);
            // What is read is in memory, also where nothing is.
            assert_eq!(disk.run(READ, at / 512, MOST / 512, DATA), 0);
            memory.fill(round + (at >> 19) as u8);
            match disk.run(WRITE, at / 512, MOST / 512, DATA) {
                0 => written.push(at),
                status => assert_eq!(status, 0x280),
            }
        }
        println!("\n{} of {}", written.len(), size / MOST);
        for at in written {
            let mut found = vec![0; MOST as usize];
            file.read_exact_at(&mut found, at).unwrap();
            assert!(found.iter().all(|b| *b == round + (at >> 19) as u8), "{at}");
        }
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        unsafe { libc::fallocate(fd, punch, 0, 2 << 20) };
    }
}

/// Memory at a known place, some of whose pages are never there until somebody serves them.
fn holes(vfio: &Vfio, faults: &Faults, holes: &[u64]) -> &'static mut [u8] {
    let memory = raw::memory_at(PLACE, MOST as usize);
    faults.register(PLACE, MOST);
    for page in (0..MOST / PAGE).filter(|page| !holes.contains(page)) {
        faults.serve(PLACE + page * PAGE);
        memory[(page * PAGE) as usize..][..PAGE as usize].fill(0x41);
    }
    assert_eq!(raw::map(vfio.container, memory.as_ptr(), DATA, MOST), 0);
    memory
}

/// Gives a command whose pages are there, and behind it at once one whose are not.
fn give_behind_another(vfio: &Vfio, disk: &mut Disk, command: u8) {
    data(vfio.container, DATA + MOST, MOST).fill(0x42);
    for _ in 0..3 {
        disk.give(command, 0, MOST / 512, DATA + MOST);
    }
    disk.give(command, MOST / 512, MOST / 512, DATA);
    disk.ring();
}

/// Each page is served after something else was asked of VFIO.
fn faults(command: u8) {
    let Some(faults) = Faults::new() else { return println!("\nskipped: no userfaultfd") };
    let pages = [0, 15, 16, 40, 63, 64, 100, 127];
    let vfio = Vfio::open();
    let memory = holes(&vfio, &faults, &pages);
    let mut disk = Disk::start(vfio.container, vfio.nvme, QUEUES[0]);
    let other = raw::memory(PAGE as usize, libc::MAP_PRIVATE) as u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in pages {
                let at = faults.wait();
                assert_eq!(raw::map(vfio.container, other as *const u8, 0x800_0000, PAGE), 0);
                assert_eq!(raw::iommu_info(vfio.container), 0);
                assert_eq!(raw::unmap(vfio.container, 0x800_0000, PAGE), PAGE as i64);
                assert_eq!(raw::device_info(vfio.edu), 0);
                faults.serve(at);
            }
        });
        give_behind_another(&vfio, &mut disk, command);
        for _ in 0..4 {
            assert_eq!(disk.wait(), 0);
        }
    });
    if command == WRITE {
        let mut found = vec![0; MOST as usize];
        disk_file().read_exact_at(&mut found, MOST).unwrap();
        assert!(found == memory);
    }
    assert_eq!(unsafe { libc::munmap(memory.as_mut_ptr().cast(), MOST as usize) }, 0);
    vfio.close();
}

/// Nobody serves the pages, and the process is killed.
fn dies_in_a_fault() {
    let Some(faults) = Faults::new() else { return println!("\nskipped: no userfaultfd") };
    let vfio = Vfio::open();
    holes(&vfio, &faults, &[0, 16, 32, 48]);
    let mut disk = Disk::start(vfio.container, vfio.nvme, QUEUES[0]);
    give_behind_another(&vfio, &mut disk, WRITE);
    faults.wait();
    std::thread::sleep(Duration::from_millis(20));
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

/// Becomes another program while the device waits for pages of this one; its child serves them then.
fn exec_in(command: u8) {
    let Some(faults) = Faults::new() else { return println!("\nskipped: no userfaultfd") };
    let vfio = Vfio::open();
    holes(&vfio, &faults, &[0, 16]);
    let mut disk = Disk::start(vfio.container, vfio.nvme, QUEUES[0]);
    let mut pipe = [0; 2];
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let mut began = [0; 2];
    assert_eq!(unsafe { libc::pipe(began.as_mut_ptr()) }, 0);
    let child = unsafe { libc::fork() };
    if child == 0 {
        let first = faults.wait();
        let mut byte = 0_u8;
        unsafe {
            libc::write(began[1], (&raw const byte).cast(), 1);
            libc::read(pipe[0], (&raw mut byte).cast(), 1);
        }
        faults.serve(first);
        faults.offer(PLACE + if first == PLACE { 16 * PAGE } else { 0 });
        unsafe { libc::_exit(0) };
    }
    give_behind_another(&vfio, &mut disk, command);
    let mut byte = 0_u8;
    assert_eq!(unsafe { libc::read(began[0], (&raw mut byte).cast(), 1) }, 1);
    for fd in [vfio.container, vfio.groups[0], vfio.groups[1], vfio.edu, vfio.nvme] {
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, 0);
    }
    let list = format!("{} {} {}", vfio.nvme, pipe[1], child);
    panic!("{}", becoming("after exec in dma").env("SOFTVFIO_E2E_FDS", list).exec());
}

fn after_exec() {
    let list = std::env::var("SOFTVFIO_E2E_FDS").unwrap();
    let list: Vec<i32> = list.split(' ').map(|fd| fd.parse().unwrap()).collect();
    let &[nvme, pipe, child] = &*list else { panic!("{list:?}") };
    let memory = raw::memory_at(PLACE, MOST as usize);
    memory.fill(0x55);
    assert_eq!(unsafe { libc::write(pipe, [0_u8].as_ptr().cast(), 1) }, 1);
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
    // The device has done what it had to.
    assert_eq!(raw::pread(nvme, &mut [0; 4], raw::region(nvme, 0)), 4);
    assert!(std::hint::black_box(&*memory).iter().all(|b| *b == 0x55), "written to");
    let mut found = vec![0; 2 * MOST as usize];
    disk_file().read_exact_at(&mut found, 0).unwrap();
    assert!(!found.contains(&0x55), "read from");
}
