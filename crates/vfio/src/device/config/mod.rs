//! Configuration space as the user of a device sees it.
//!
//! Some bits are the function's own, some are kept for the user and never reach it: his BARs (so
//! that sizing works), his MSI address, his interrupt line, and the pointers of the capability
//! lists. An access is cut into aligned pieces of 4, 2 or 1 bytes, none of which crosses a
//! capability; a few registers do more than hold bits, and say so in [`Effects`].

mod bits;
mod layout;

use alloc::vec::Vec;

use pci::regs::{self, af, cap, express, msi, pm};
use pci::{Bar, Command, ConfigSpace};

use self::bits::{Area, Bits};
use self::layout::Layout;

/// What a write asks for beyond the bits it changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// The user's INTx-disable bit was written and is this now.
    pub(super) intx_disable: Option<bool>,
    /// Go to this power state: 0 (D0) to 3 (D3hot).
    pub(super) power: Option<u16>,
    /// Reset the function.
    pub(super) reset: bool,
}

/// A device's configuration space between its first open and its last close.
pub(super) struct VirtualConfig {
    areas: Vec<Area>,
    copy: Vec<u8>,
    bars: [Option<Bar>; 7],
    /// What the function's BAR and ROM registers should hold.
    bar_registers: [u32; 7],
    /// log2 of the vectors that MSI was enabled with last.
    pub(super) msi_vectors_log2: u8,
}

impl VirtualConfig {
    /// The user's view of a function that has just been enabled; `bars` are its BARs and ROM.
    pub(super) fn new(config: &ConfigSpace, bars: &[Option<Bar>; 7]) -> Self {
        let Layout { areas, copy } = Layout::of(config);
        let mut bar_registers = [0; 7];
        let offsets = (regs::BAR0..regs::BARS_END).step_by(4).chain([regs::ROM_BAR]);
        for (register, offset) in bar_registers.iter_mut().zip(offsets) {
            *register = config.u32(offset);
        }
        Self { areas, copy, bars: *bars, bar_registers, msi_vectors_log2: 0 }
    }

    /// Bytes there are: 256 or 4096.
    pub(super) const fn len(&self) -> usize {
        self.copy.len()
    }

    /// The user's command register, as far as it is his own: decoding, and INTx-disable.
    pub(super) fn command(&self) -> Command {
        Command::from_bits_retain(self.word(regs::COMMAND))
    }

    fn word(&self, offset: u16) -> u16 {
        let byte = |at: u16| self.copy.get(usize::from(at)).copied().unwrap_or(0);
        u16::from_le_bytes([byte(offset), byte(offset.saturating_add(1))])
    }

    fn put(&mut self, offset: u16, data: &[u8]) {
        for (to, from) in self.copy.iter_mut().skip(usize::from(offset)).zip(data) {
            *to = *from;
        }
    }

    fn area(&self, offset: u16) -> Area {
        self.areas.get(usize::from(offset)).copied().unwrap_or(Area::Free)
    }

    /// Bytes of the next piece of an access of `count` bytes at `offset`: 4, 2 or 1.
    fn piece(&self, offset: u16, count: usize) -> usize {
        let area = self.area(offset);
        let to_dword = usize::from(4_u16.saturating_sub(offset & 3));
        let following = self.areas.iter().skip(usize::from(offset)).take(to_dword.min(count));
        match (following.take_while(|a| **a == area).count(), offset & 3) {
            (4, 0) => 4,
            (2.., 0 | 2) => 2,
            _ => 1,
        }
    }

    /// Where the header or capability begins that `offset` lies in.
    fn start(&self, offset: u16) -> u16 {
        let area = self.area(offset);
        let base = match area {
            Area::Header => return 0,
            _ if offset >= regs::EXTENDED => regs::EXTENDED,
            _ => regs::HEADER_END,
        };
        let mut start = offset;
        while start > base && self.area(start.saturating_sub(1)) == area {
            start = start.saturating_sub(1);
        }
        start
    }

    fn bits(&self, offset: u16) -> Bits {
        match self.area(offset) {
            Area::Free => Bits::default(),
            area => area.bits(offset.saturating_sub(self.start(offset))),
        }
    }

    /// Reads bytes from `offset` on; the caller has checked that they exist.
    pub(super) fn read(&mut self, config: &ConfigSpace, offset: u16, data: &mut [u8]) {
        self.size_bars();
        config.read(offset, data);
        for (at, byte) in (offset..).zip(data) {
            let Bits { virt, .. } = self.bits(at);
            let own = self.copy.get(usize::from(at)).copied().unwrap_or(0);
            *byte = *byte & !virt | own & virt;
        }
    }

    /// Makes the user's BARs answer as hardware of their size.
    fn size_bars(&mut self) {
        let mut bars = self.bars;
        let mut upper = None;
        for (offset, bar) in (regs::BAR0..regs::BARS_END).step_by(4).zip(&mut bars) {
            let (low, high) = (self.word(offset), self.word(offset.saturating_add(2)));
            let register = u32::from(high) << 16 | u32::from(low);
            let register = match (upper.take(), bar) {
                (Some(mask), _) => register & mask,
                (None, None) => 0,
                (None, Some(bar)) => {
                    let mask = bar.address_mask();
                    let register = register & mask as u32 | bar.type_bits();
                    if register & 4 != 0 {
                        upper = Some((mask >> 32) as u32);
                    }
                    register
                }
            };
            self.put(offset, &register.to_le_bytes());
        }
        let [.., rom] = &self.bars;
        let mask = rom.map_or(0, |rom| rom.address_mask() as u32 | 1);
        let (low, high) = (self.word(regs::ROM_BAR), self.word(regs::ROM_BAR + 2));
        let register = (u32::from(high) << 16 | u32::from(low)) & mask;
        self.put(regs::ROM_BAR, &register.to_le_bytes());
    }

    /// Writes the first piece of `data` at `offset` (the caller has checked that the bytes exist)
    /// and answers its length, at least 1. `msi_enabled` says whether MSI is the enabled kind of
    /// interrupt.
    pub(super) fn write(
        &mut self,
        config: &mut ConfigSpace,
        offset: u16,
        data: &[u8],
        msi_enabled: bool,
    ) -> (usize, Effects) {
        let len = self.piece(offset, data.len());
        let data = data.get(..len).unwrap_or(data);
        let area = self.area(offset);
        if area.is_raw() {
            config.write(offset, data);
            return (len, Effects::default());
        }
        let start = self.start(offset);
        let into = offset.saturating_sub(start);
        if area == Area::Header && into == regs::COMMAND {
            self.restore_bars(config, data);
        }
        self.write_bits(config, offset, data);
        let effects = match area {
            Area::Header => self.header_written(into, data),
            Area::Standard(cap::PM) if into == pm::PMCSR => {
                let low = data.first().copied().unwrap_or(0);
                Effects { power: Some(u16::from(low) & pm::STATE_MASK), ..Effects::default() }
            }
            Area::Standard(cap::EXPRESS) => self.express_written(config, start),
            Area::Standard(cap::AF) => self.af_written(config, start),
            Area::Msi { .. } => {
                let end = usize::from(into).saturating_add(len);
                if into <= msi::CONTROL && end >= usize::from(msi::CONTROL) {
                    self.msi_written(config, start, msi_enabled);
                }
                Effects::default()
            }
            _ => Effects::default(),
        };
        (len, effects)
    }

    /// Writes what the user may: virtual bits to his copy, others to the function.
    fn write_bits(&mut self, config: &mut ConfigSpace, offset: u16, data: &[u8]) {
        let mut merged = [0; 4];
        let mut physical = false;
        config.read(offset, &mut merged);
        for ((at, new), out) in (offset..).zip(data).zip(&mut merged) {
            let Bits { virt, write } = self.bits(at);
            if let Some(own) = self.copy.get_mut(usize::from(at)) {
                *own = *own & !(write & virt) | new & write & virt;
            }
            *out = *out & !(write & !virt) | new & write & !virt;
            physical |= write & !virt != 0;
        }
        if physical {
            config.write(offset, merged.get(..data.len()).unwrap_or(&merged));
        }
    }

    /// Before the command register is written: puts the function's BARs back when it lost them to
    /// a reset behind our back.
    fn restore_bars(&self, config: &mut ConfigSpace, data: &[u8]) {
        let new = Command::from_bits_retain(u16::from(data.first().copied().unwrap_or(0)));
        let (own, physical) = (self.command(), config.command());
        let lost = |bit| new.contains(bit) && own.contains(bit) && !physical.contains(bit);
        let registers = || (regs::BAR0..regs::BARS_END).step_by(4).zip(self.bar_registers);
        let moved = registers().any(|(at, bar)| bar != 0 && config.u32(at) != bar);
        if lost(Command::MEMORY) || lost(Command::IO) || moved {
            for (at, bar) in registers() {
                config.write_u32(at, bar);
            }
            let [.., rom] = self.bar_registers;
            config.write_u32(regs::ROM_BAR, rom);
        }
    }

    fn header_written(&mut self, into: u16, data: &[u8]) -> Effects {
        if into == regs::COMMAND {
            // What decodes is remembered here, to notice resets behind our back.
            let decode = (Command::IO | Command::MEMORY).bits();
            let new = u16::from(data.first().copied().unwrap_or(0));
            let own = self.word(regs::COMMAND) & !decode | new & decode;
            self.put(regs::COMMAND, &own.to_le_bytes());
        }
        if into == regs::COMMAND || into == regs::COMMAND + 1 {
            let disabled = self.command().contains(Command::INTX_DISABLE);
            return Effects { intx_disable: Some(disabled), ..Effects::default() };
        }
        Effects::default()
    }

    /// A function level reset starts when its bit is written; the bit reads 0.
    fn express_written(&mut self, config: &ConfigSpace, start: u16) -> Effects {
        let at = start.saturating_add(express::DEVCTL);
        let control = self.word(at);
        self.put(at, &(control & !express::FLR).to_le_bytes());
        let able = config.u32(start.saturating_add(express::DEVCAP)) & express::DEVCAP_FLR != 0;
        Effects { reset: control & express::FLR != 0 && able, ..Effects::default() }
    }

    fn af_written(&mut self, config: &ConfigSpace, start: u16) -> Effects {
        let at = start.saturating_add(af::CONTROL);
        let control = self.copy.get(usize::from(at)).copied().unwrap_or(0);
        self.put(at, &[control & !af::FLR]);
        let needed = af::CAP_FLR | af::CAP_TP;
        let able = config.u8(start.saturating_add(af::CAP)) & needed == needed;
        Effects { reset: control & af::FLR != 0 && able, ..Effects::default() }
    }

    /// MSI is enabled by `SET_IRQS`: here the user can only switch the enabled interrupts off and
    /// on, and choose fewer vectors.
    fn msi_written(&mut self, config: &mut ConfigSpace, start: u16, msi_enabled: bool) {
        let at = start.saturating_add(msi::CONTROL);
        let mut control = self.word(at);
        if !msi_enabled {
            control &= !msi::ENABLE;
        }
        let most = u16::from(self.msi_vectors_log2);
        if (control & msi::ENABLED_MASK) >> 4 > most {
            control = control & !msi::ENABLED_MASK | most << 4;
        }
        self.put(at, &control.to_le_bytes());
        config.write_u16(at, control);
    }
}

#[cfg(test)]
mod tests {
    use pci::{BarKind, ConfigSize};

    use super::*;

    /// PCI Express with FLR at 0x40, 32-bit MSI with four vectors at 0x80; one 4 KiB BAR; error
    /// reporting at 0x100.
    fn function() -> (ConfigSpace, VirtualConfig) {
        let mut bytes = [0; 0x10c];
        for (at, data) in [
            (4, &[3, 0, 0x10, 0][..]),
            (0x10, &[0, 0, 0x40, 0xfe]),
            (0x34, &[0x40]),
            (0x40, &[cap::EXPRESS, 0x80, 2, 0, 0, 0, 0, 0x10]),
            (0x80, &[cap::MSI, 0, 4, 0]),
            (0x100, &[1, 0, 2, 0]),
        ] {
            bytes[at..at + data.len()].copy_from_slice(data);
        }
        let kind = BarKind::Memory { prefetchable: true, is_64: false };
        let mut bars = [None; 7];
        bars[0] = Some(Bar { start: 0xfe40_0000, size: 0x1000, kind });
        let config = ConfigSpace::from_bytes(&bytes, ConfigSize::Extended, &bars);
        let own = VirtualConfig::new(&config, &bars);
        (config, own)
    }

    fn read(own: &mut VirtualConfig, config: &ConfigSpace, at: u16) -> u32 {
        let mut data = [0; 4];
        own.read(config, at, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn bars_size_without_reaching_the_function() {
        let (mut config, mut own) = function();
        own.write(&mut config, 0x10, &[0xff; 4], false);
        assert_eq!(read(&mut own, &config, 0x10), 0xffff_f008);
        assert_eq!(config.u32(0x10), 0xfe40_0000);
    }

    #[test]
    fn a_reset_behind_our_back_is_mended() {
        let (mut config, mut own) = function();
        config.reset();
        assert_eq!((config.u32(0x10), config.u16(4)), (0, 0));
        own.write(&mut config, 4, &[2, 0], false);
        assert_eq!((config.u32(0x10), config.u16(4)), (0xfe40_0000, 2));
    }

    #[test]
    fn a_reset_is_asked_for_once() {
        let (mut config, mut own) = function();
        let (len, effects) = own.write(&mut config, 0x48, &[0x10, 0xa8], false);
        assert_eq!((len, effects.reset), (2, true));
        assert_eq!(read(&mut own, &config, 0x48) & 0xffff, 0x2000);
        let (_, effects) = own.write(&mut config, 0x48, &[0, 0], false);
        assert!(!effects.reset);
    }

    #[test]
    fn msi_is_the_users_only_while_it_is_enabled() {
        let (mut config, mut own) = function();
        own.write(&mut config, 0x82, &[0x21, 0], false);
        assert_eq!((read(&mut own, &config, 0x80) >> 16, config.u16(0x82)), (0, 4));
        own.msi_vectors_log2 = 1;
        own.write(&mut config, 0x82, &[0x21, 0], true);
        assert_eq!((read(&mut own, &config, 0x80) >> 16, config.u16(0x82)), (0x11, 0x15));
        own.write(&mut config, 0x84, &[0x12, 0x34, 0xe0, 0xfe], true);
        assert_eq!((read(&mut own, &config, 0x84), config.u32(0x84)), (0xfee0_3412, 0));
    }

    #[test]
    fn pieces_end_with_capabilities_and_dwords() {
        let (mut config, mut own) = function();
        let mut lens = |at, count: usize| own.write(&mut config, at, &[0; 8][..count], false).0;
        assert_eq!([lens(0, 8), lens(2, 8), lens(1, 8), lens(0x50, 3)], [4, 2, 1, 2]);
        // MSI ends at 0x8a; what follows belongs to nobody, and is raw.
        assert_eq!([lens(0x88, 4), lens(0x8a, 4), lens(0x8c, 4)], [2, 2, 4]);
    }

    #[test]
    fn error_masks_are_the_users_gaps_are_raw() {
        let (mut config, mut own) = function();
        own.write(&mut config, 0x108, &[0xff; 4], false);
        own.write(&mut config, 0x200, &[0x5a; 4], false);
        assert_eq!(read(&mut own, &config, 0x108), 0x03ff_f030);
        assert_eq!((read(&mut own, &config, 0x200), config.u32(0x200)), (0x5a5a_5a5a, 0x5a5a_5a5a));
    }
}
