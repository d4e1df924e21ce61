//! The device against what QEMU's answers.

use alloc::vec::Vec;

use pci::Aborted;

use super::*;

/// Memory at 0x1000..0x2000, an MSI doorbell, a wire.
struct Machine {
    memory: Vec<u8>,
    messages: Vec<u32>,
    line: bool,
}

impl Machine {
    fn new() -> Self {
        Self { memory: vec![0xa5; 0x1000], messages: Vec::new(), line: false }
    }
}

impl DmaBus for Machine {
    fn read(&mut self, addr: u64, data: &mut [u8]) -> Result<(), Aborted> {
        data.fill(0);
        let Some(from) = addr.checked_sub(0x1000) else { return Err(Aborted) };
        let there = self.memory.iter().skip(from as usize);
        let n = data.iter_mut().zip(there).map(|(to, from)| *to = *from).count();
        if n == data.len() { Ok(()) } else { Err(Aborted) }
    }

    fn write(&mut self, addr: u64, data: &[u8]) -> Result<(), Aborted> {
        if addr == 0xfee0_0000 {
            self.messages.push(u32::from_le_bytes(data.try_into().unwrap()));
            return Ok(());
        }
        let to = self.memory.iter_mut().skip((addr - 0x1000) as usize);
        let n = to.zip(data).map(|(to, from)| *to = *from).count();
        if n == data.len() { Ok(()) } else { Err(Aborted) }
    }

    fn set_intx(&mut self, asserted: bool) {
        self.line = asserted;
    }
}

fn read(edu: &mut Edu, offset: u64, size: usize) -> Vec<u8> {
    let mut data = vec![0x77; size];
    edu.bar_read(0, offset, &mut data, &mut Machine::new());
    data
}

fn dma(edu: &mut Edu, from: u64, to: u64, count: u64, command: u64, m: &mut Machine) {
    for (offset, value) in [(0x80, from), (0x88, to), (0x90, count), (0x98, command)] {
        edu.bar_write(0, offset, &value.to_le_bytes(), m);
    }
}

#[test]
fn power_on_is_qemus() {
    let edu = Edu::new();
    let hex = "3412e811000010001000ff00000000000000 40fe";
    let start: Vec<u8> = hex.bytes().filter(|b| *b != b' ').collect();
    let bytes = edu.config().bytes();
    let printed: Vec<u8> =
        bytes[..20].iter().flat_map(|b| alloc::format!("{b:02x}").into_bytes()).collect();
    assert_eq!(printed, start);
    assert_eq!(Msi::find(edu.config()).unwrap().capable(edu.config()), 1);
}

#[test]
fn widths_are_qemus() {
    let mut edu = Edu::new();
    assert_eq!(read(&mut edu, 0, 4), [0xed, 0, 0, 1]);
    assert_eq!(read(&mut edu, 0, 8), [0xff; 8]);
    assert_eq!(read(&mut edu, 0, 2), [0; 2]);
    assert_eq!(read(&mut edu, 0x80, 8), [0; 8]);
    assert_eq!(read(&mut edu, 0x84, 4), [0xff; 4]);
}

#[test]
fn liveness_and_factorial() {
    let (mut edu, mut m) = (Edu::new(), Machine::new());
    edu.bar_write(0, 4, &[1, 2, 3, 4], &mut m);
    assert_eq!(read(&mut edu, 4, 4), [0xfe, 0xfd, 0xfc, 0xfb]);
    edu.bar_write(0, 0x20, &[0x80, 0, 0, 0], &mut m);
    edu.bar_write(0, 8, &[5, 0, 0, 0], &mut m);
    assert_eq!((read(&mut edu, 8, 4), m.line), ([120, 0, 0, 0].into(), true));
    edu.bar_write(0, 8, &[0xff; 4], &mut m);
    assert_eq!(read(&mut edu, 8, 4), [0; 4]);
    edu.bar_write(0, 0x64, &[1, 0, 0, 0], &mut m);
    assert!(!m.line);
}

#[test]
fn a_refused_read_leaves_zeros() {
    let (mut edu, mut m) = (Edu::new(), Machine::new());
    dma(&mut edu, 0x1000, 0x4_0000, 16, 1, &mut m);
    dma(&mut edu, 0x1ff8, 0x4_0000, 16, 1, &mut m);
    m.memory.fill(1);
    dma(&mut edu, 0x4_0000, 0x1000, 16, 3, &mut m);
    assert_eq!(m.memory[..17], *b"\xa5\xa5\xa5\xa5\xa5\xa5\xa5\xa5\0\0\0\0\0\0\0\0\x01");
}

#[test]
fn messages_take_the_place_of_the_line() {
    let (mut edu, mut m) = (Edu::new(), Machine::new());
    edu.bar_write(0, 0x60, &[1, 0, 0, 0], &mut m);
    assert_eq!((m.line, edu.config().u16(regs::STATUS)), (true, 0x18));
    let msi = Msi::find(edu.config()).unwrap();
    msi.program(edu.config_mut(), 0xfee0_0000, 0, 0);
    edu.config_written(&mut m);
    msi.disable(edu.config_mut());
    edu.config_written(&mut m);
    assert_eq!((m.line, edu.config().u16(regs::STATUS)), (false, 0x10));
}

#[test]
fn a_transfer_ends_with_its_message() {
    let (mut edu, mut m) = (Edu::new(), Machine::new());
    let msi = Msi::find(edu.config()).unwrap();
    msi.program(edu.config_mut(), 0xfee0_0000, 0x31, 0);
    dma(&mut edu, 0x1000, 0x4_0000, 16, 5, &mut m);
    assert_eq!((m.messages.as_slice(), m.line), (&[0x31][..], false));
    assert_eq!(read(&mut edu, 0x24, 4), [0, 1, 0, 0]);
    assert_eq!(read(&mut edu, 0x98, 4), [4, 0, 0, 0]);
}

#[test]
fn transfers_end_with_the_buffer() {
    let (mut edu, mut m) = (Edu::new(), Machine::new());
    for (start, count) in [(0x3_ffff, 2), (0x4_1000, 1), (0, 1), (u64::MAX, u64::MAX)] {
        dma(&mut edu, start, 0x1000, count, 3, &mut m);
    }
    assert_eq!(m.memory, [0xa5; 0x1000]);
    dma(&mut edu, 0x4_0ffe, 0x1000, u64::MAX, 3, &mut m);
    assert_eq!(m.memory[..4], [0, 0, 0xa5, 0xa5]);
}
