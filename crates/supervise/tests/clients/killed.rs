//! Clients that are killed while they write.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use softvfio_supervise::client::nvme::{MEMORY, MOST, Nvme};
use softvfio_supervise::client::vfio::Container;

use super::raw::{self, EduRegisters, Vfio};
use super::{READY, becoming, large, ready};

/// Writes stamped blocks one after the other, and says which are written.
pub(super) fn writes() {
    let stamp = std::env::var("SOFTVFIO_E2E_STAMP").map_or(0, |stamp| stamp.parse().unwrap());
    let mut container = Container::open().unwrap();
    let device = container.open_device(raw::NVME).unwrap_or_else(|failure| panic!("{failure}"));
    let memory = container.map(0x10_0000, MEMORY).unwrap();
    let mut nvme = Nvme::new(device, memory).unwrap_or_else(|failure| panic!("{failure}"));
    ready();
    let most = nvme.identity().blocks / 8;
    for n in (0..most).cycle() {
        let block = stamped(stamp, n, MOST);
        nvme.write(8 * n, &block).unwrap_or_else(|failure| panic!("{failure}"));
        let line = format!("{n}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

/// The bytes of write number `n`.
pub(super) fn stamped(stamp: u64, n: u64, len: usize) -> Vec<u8> {
    [stamp, n].map(u64::to_le_bytes).concat().repeat(len / 16)
}

/// Blocks that have the beginning of one write and the end of another.
fn torn_blocks(disk: &File) -> usize {
    let mut bytes = vec![0; disk.metadata().unwrap().len() as usize];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes.chunks(512).filter(|block| block[..16] != block[496..]).count()
}

/// Kills writers, each after another time, and looks into the file at once.
pub(super) fn killer() {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let disk = File::open(std::env::var("SOFTVFIO_E2E_DISK").unwrap()).unwrap();
    let rounds = number("SOFTVFIO_E2E_ROUNDS");
    let writes = std::env::var("SOFTVFIO_E2E_WRITES").unwrap();
    let most = if writes == "writes" { MOST } else { large::MOST as usize };
    let (mut told, mut state) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    for stamp in 1..=rounds {
        let mut command = becoming(&writes);
        command.env("SOFTVFIO_E2E_STAMP", stamp.to_string()).stdout(Stdio::piped());
        let mut writer = command.spawn().unwrap();
        let mut stdout = BufReader::new(writer.stdout.take().unwrap());
        let mut line = String::new();
        // Every fourth is killed on its way there.
        while stamp % 4 != 0 && line.trim() != READY {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "round {stamp}: it did not begin");
        }
        // And every other one not before it has written something.
        let mut rest = String::new();
        if stamp % 2 == 1 {
            assert!(stdout.read_line(&mut rest).unwrap() > 0, "round {stamp}: it wrote nothing");
        }
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        std::thread::sleep(Duration::from_micros(state >> 32 & 0x3fff));
        writer.kill().unwrap();
        stdout.read_to_string(&mut rest).unwrap();
        // The last line may be a part of one.
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let done = whole.lines().filter_map(|line| line.parse::<u64>().ok());
        for n in done {
            let mut found = vec![0; most];
            disk.read_exact_at(&mut found, n * most as u64).unwrap();
            let whole = found == stamped(stamp, n, most);
            assert!(whole, "round {stamp}: block {n} is not in the file");
            told += 1;
        }
        writer.wait().unwrap();
        // What the device was about to do is over after a while.
        let torn = || torn_blocks(&disk);
        let start = Instant::now();
        while torn() != 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "round {stamp}: {} torn", torn());
        }
    }
    println!("{rounds} killed, {told} writes checked");
    assert!(told >= rounds / 2);
}

/// Dies by its own hand while the device copies.
pub(super) fn suicide() {
    let vfio = Vfio::open();
    let memory = raw::memory(1 << 20, libc::MAP_PRIVATE);
    assert_eq!(raw::map(vfio.container, memory, 0x10_0000, 1 << 20), 0);
    let edu = EduRegisters::new(vfio.edu);
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(10));
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) }
    });
    loop {
        edu.fetch(0x10_0000, 4096);
        edu.store(0x10_1000, 4096);
    }
}
