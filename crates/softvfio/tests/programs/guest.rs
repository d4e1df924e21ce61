//! A guest of QEMU to which a device is assigned (`-device vfio-pci`): its firmware starts from our
//! NVMe disk, and what it starts reads and writes the disk.

use std::ffi::OsString;

use super::support::program;
use super::{LIMIT, each_user, within};

const BLOCK: usize = 512;
const GREETING: &[u8] = b"hello from block 1\n\0";
/// QEMU's exit code when the guest writes `n` to the port that ends it.
const fn exit_code(n: u8) -> i32 {
    (n as i32) << 1 | 1
}
/// What the guest writes when all went well.
const DONE: u8 = 0x10;

/// Begins at 0000:7c00 in real mode, with the drive in DL. Reads block 1 to 0000:8000, sends it to the
/// first serial port up to a zero, writes it to block 2, and ends the machine with [`DONE`], or with
/// what the firmware says of an error.
fn boot_sector() -> [u8; BLOCK] {
    const CODE: &[u8] = &[
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0x8e, 0xc0, // mov es, ax
        0x8e, 0xd0, // mov ss, ax
        0xbc, 0x00, 0x7c, // mov sp, 0x7c00
        0xbe, 0x40, 0x7c, // mov si, packet
        0xb4, 0x42, // mov ah, 0x42: extended read
        0xcd, 0x13, // int 0x13
        0x72, 0x23, // jc failed
        0x52, // push dx
        0xbe, 0x00, 0x80, // mov si, 0x8000
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x03, // jz sent
        0xee, // out dx, al
        0xeb, 0xf8, // jmp next
        0x5a, // sent: pop dx
        0xc6, 0x06, 0x48, 0x7c, 0x02, // mov byte [packet + 8], 2
        0xbe, 0x40, 0x7c, // mov si, packet
        0xb8, 0x00, 0x43, // mov ax, 0x4300: extended write
        0xcd, 0x13, // int 0x13
        0x72, 0x04, // jc failed
        0xb0, DONE, // mov al, DONE
        0xeb, 0x02, // jmp end
        0x88, 0xe0, // failed: mov al, ah
        0xe6, 0xf4, // end: out 0xf4, al
        0xf4, // hlt
    ];
    /// Size, blocks, where to (offset and segment), block.
    const PACKET: [u8; 16] = [16, 0, 1, 0, 0x00, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let mut sector = [0; BLOCK];
    sector[..CODE.len()].copy_from_slice(CODE);
    sector[0x40..0x50].copy_from_slice(&PACKET);
    sector[BLOCK - 2..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A machine without what it does not need, and the device.
fn machine() -> Vec<OsString> {
    const MACHINE: &str = "qemu-system-x86_64 -M q35 -accel tcg -m 64M -nodefaults -display none \
                           -no-reboot -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 \
                           -device vfio-pci,host=0000:01:00.0";
    MACHINE.split_whitespace().map(OsString::from).collect()
}

#[test]
fn a_guest_starts_from_an_assigned_disk() {
    if program("qemu-system-x86_64").is_none() {
        return;
    }
    each_user("guest", |place, user| {
        for mmio in ["poll", "trap", "none"] {
            let disk = place.blank("disk", 1 << 20);
            let mut blocks = [&boot_sector()[..], GREETING].concat();
            blocks.resize(1 << 20, 0);
            std::fs::write(&disk, blocks).unwrap();
            let device = format!("nvme,file={},mmio={mmio}", disk.display());
            let finished = place.run(&mut within(place, user, &[&device], &machine()), LIMIT);
            let finished = finished.says(str::from_utf8(GREETING).unwrap().trim_end_matches('\0'));
            assert_eq!(finished.status.code(), Some(exit_code(DONE)), "{mmio}: {finished:?}");
            assert!(finished.stderr.contains("findings   none"), "{mmio}: {finished:?}");
            let blocks = std::fs::read(&disk).unwrap();
            assert!(blocks[2 * BLOCK..].starts_with(GREETING), "{mmio}: {finished:?}");
        }
    });
}
