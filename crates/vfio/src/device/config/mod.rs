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
