//! Reads and writes of regions: BARs, the expansion ROM, configuration space.

use core::ops::Range;

use pci::{Command, ConfigSpace};
use uapi::region::{self, RegionIndex};

use super::config::{Effects, VirtualConfig};
use super::{Device, DeviceRefusal, Upstream, is_in_d3};

/// Whether memory BARs answer: the user's own decode bit, and the power state.
pub(super) fn memory_on(own: &VirtualConfig, config: &ConfigSpace) -> bool {
    own.command().contains(Command::MEMORY) && !is_in_d3(config)
}

/// Whether a BAR answers now. Ports that do not decode read as ones; memory that does not is an
/// error.
pub(super) fn answers(
    is_memory: bool,
    own: &VirtualConfig,
    config: &ConfigSpace,
) -> Result<bool, DeviceRefusal> {
    if !is_memory {
        return Ok(config.command().contains(Command::IO));
    }
    if memory_on(own, config) { Ok(true) } else { Err(DeviceRefusal::MemoryOff) }
}

/// What part of a BAR a transfer covers, and how it is done.
pub(super) struct Span {
    bar: u8,
    offset: u64,
    len: usize,
    is_memory: bool,
    /// The widest access, in bytes.
    pub(super) width: u64,
    /// The MSI-X table: reads as ones, is not written.
    pub(super) excluded: Range<u64>,
}

/// One access of a span.
struct Access {
    /// Bytes from the start of the BAR.
    offset: u64,
    /// The same, within the caller's buffer.
    bytes: Range<usize>,
    /// In the MSI-X table.
    excluded: bool,
}

impl Span {
    /// Cuts the span into naturally aligned accesses, and pieces of the excluded range.
    fn accesses(&self) -> impl Iterator<Item = Access> {
        let mut done = 0_usize;
        core::iter::from_fn(move || {
            let left = u64::try_from(self.len.checked_sub(done)?).ok().filter(|left| *left > 0)?;
            let offset = self.offset.saturating_add(u64::try_from(done).ok()?);
            let Range { start, end } = self.excluded;
            let excluded = self.excluded.contains(&offset);
            let n = if excluded {
                left.min(end.saturating_sub(offset))
            } else {
                let room =
                    if offset < start { left.min(start.saturating_sub(offset)) } else { left };
                let fits = |n: u64| n <= room && n <= self.width && offset & n.wrapping_sub(1) == 0;
                [8, 4, 2].into_iter().find(|n| fits(*n)).unwrap_or(1)
            };
            let next = done.saturating_add(usize::try_from(n).ok()?);
            let bytes = done..next;
            done = next;
            Some(Access { offset, bytes, excluded })
        })
    }
}

impl Device {
    /// Where a region begins in the descriptor's file.
    pub(super) const fn region_base(&self, index: RegionIndex) -> u64 {
        match index {
            RegionIndex::Bar0 => self.bar0_base,
            _ => region::region_offset(index.number()),
        }
    }

    /// The region index and the offset in it, of an offset in the descriptor's file.
    pub(super) fn split_offset(&self, offset: u64) -> Result<(u32, u64), DeviceRefusal> {
        let (index, within) = region::split_offset(offset);
        let (bar0, _) = region::split_offset(self.bar0_base);
        match index {
            _ if index == bar0 => Ok((0, within)),
            0 => Err(DeviceRefusal::NoSuchRegion(offset)),
            _ => Ok((index, within)),
        }
    }

    fn region(&self, offset: u64) -> Result<(RegionIndex, u64), DeviceRefusal> {
        let (index, within) = self.split_offset(offset)?;
        let index = RegionIndex::try_from(index);
        index.map(|i| (i, within)).map_err(|_| DeviceRefusal::NoSuchRegion(offset))
    }

    /// Reads from `offset` of the descriptor's file; answers how many bytes, which is fewer than
    /// asked only at the end of a BAR.
    ///
    /// # Errors
    /// The [`DeviceRefusal`], whose errno the client gets. Bytes of `data` may have changed.
    pub fn read(
        &mut self,
        up: &mut Upstream<'_>,
        offset: u64,
        data: &mut [u8],
    ) -> Result<usize, DeviceRefusal> {
        if data.is_empty() {
            return Ok(0);
        }
        self.wake(up.platform);
        let (index, within) = self.region(offset)?;
        match index {
            RegionIndex::Config => {
                let at = self.config_offset(within, data.len())?;
                self.on_bus(up, |model, _, config| config.read(model.config(), at, data))?;
                Ok(data.len())
            }
            RegionIndex::Rom => self.read_rom(within, data),
            RegionIndex::Vga => Err(DeviceRefusal::NoSuchRegion(offset)),
            _ => self.read_bar(up, index.bar().unwrap_or(0), within, data),
        }
    }

    /// Writes to `offset` of the descriptor's file; answers as [`read`](Self::read).
    ///
    /// # Errors
    /// The [`DeviceRefusal`], whose errno the client gets. Bytes before the one that failed have
    /// been written.
    pub fn write(
        &mut self,
        up: &mut Upstream<'_>,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, DeviceRefusal> {
        if data.is_empty() {
            return Ok(0);
        }
        self.wake(up.platform);
        let (index, within) = self.region(offset)?;
        match index {
            RegionIndex::Config => self.write_config(up, within, data),
            RegionIndex::Rom => Err(DeviceRefusal::RomIsReadOnly),
            RegionIndex::Vga => Err(DeviceRefusal::NoSuchRegion(offset)),
            _ => self.write_bar(up, index.bar().unwrap_or(0), within, data),
        }
    }

    fn config_offset(&mut self, offset: u64, count: usize) -> Result<u16, DeviceRefusal> {
        let len = self.opened()?.config.len();
        let fits = |at: &u16| usize::from(*at).checked_add(count).is_some_and(|end| end <= len);
        let at = u16::try_from(offset).ok().filter(fits);
        at.ok_or(DeviceRefusal::BeyondConfig { offset, count })
    }

    fn write_config(
        &mut self,
        up: &mut Upstream<'_>,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, DeviceRefusal> {
        let mut at = self.config_offset(offset, data.len())?;
        let mut rest = data;
        while !rest.is_empty() {
            let msi = self.opened()?.irqs.mode() == Some(uapi::irq::IrqIndex::Msi);
            let (len, effects) = self.on_bus(up, |model, bus, config| {
                let written = config.write(model.config_mut(), at, rest, msi);
                model.config_written(bus);
                written
            })?;
            self.apply(up, effects)?;
            at = at.saturating_add(u16::try_from(len).unwrap_or(u16::MAX));
            rest = rest.get(len..).unwrap_or(&[]);
        }
        Ok(data.len())
    }

    fn apply(&mut self, up: &mut Upstream<'_>, effects: Effects) -> Result<(), DeviceRefusal> {
        if let Some(disable) = effects.intx_disable {
            let open = self.open.as_mut().ok_or(DeviceRefusal::NotThere)?;
            open.irqs.set_user_intx_disable(disable, self.model.as_mut(), up.platform);
        }
        if let Some(state) = effects.power {
            self.set_power(state)?;
        }
        if effects.reset && self.opened()?.reset_works {
            self.reset_function(up.platform)?;
        }
        Ok(())
    }

    pub(super) fn span(
        &mut self,
        number: u8,
        offset: u64,
        len: usize,
    ) -> Result<Span, DeviceRefusal> {
        let beyond = DeviceRefusal::BeyondBar { bar: number, offset };
        let bar = self.function.bar(number).ok_or(beyond.clone())?;
        let left = bar.size.checked_sub(offset).filter(|left| *left > 0).ok_or(beyond)?;
        let table = self.opened()?.msix_table.clone().filter(|(bar, _)| *bar == number);
        let wide = bar.is_memory() && self.dialect.wide_bar_accesses;
        Ok(Span {
            bar: number,
            offset,
            len: len.min(usize::try_from(left).unwrap_or(usize::MAX)),
            is_memory: bar.is_memory(),
            width: if wide { 8 } else { 4 },
            excluded: table.map_or(0..0, |(_, range)| range),
        })
    }

    fn read_bar(
        &mut self,
        up: &mut Upstream<'_>,
        bar: u8,
        offset: u64,
        data: &mut [u8],
    ) -> Result<usize, DeviceRefusal> {
        let span = self.span(bar, offset, data.len())?;
        self.read_span(up, &span, data)?;
        Ok(span.len)
    }

    pub(super) fn read_span(
        &mut self,
        up: &mut Upstream<'_>,
        span: &Span,
        data: &mut [u8],
    ) -> Result<(), DeviceRefusal> {
        for access in span.accesses() {
            let Some(part) = data.get_mut(access.bytes) else { break };
            if access.excluded {
                part.fill(0xff);
                continue;
            }
            self.on_bus(up, |model, bus, config| {
                if answers(span.is_memory, config, model.config())? {
                    model.bar_read(span.bar, access.offset, part, bus);
                } else {
                    part.fill(0xff);
                }
                Ok::<(), DeviceRefusal>(())
            })??;
        }
        Ok(())
    }

    fn write_bar(
        &mut self,
        up: &mut Upstream<'_>,
        bar: u8,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, DeviceRefusal> {
        let span = self.span(bar, offset, data.len())?;
        self.write_span(up, &span, data)?;
        Ok(span.len)
    }

    pub(super) fn write_span(
        &mut self,
        up: &mut Upstream<'_>,
        span: &Span,
        data: &[u8],
    ) -> Result<(), DeviceRefusal> {
        for access in span.accesses().filter(|access| !access.excluded) {
            let Some(part) = data.get(access.bytes) else { break };
            self.on_bus(up, |model, bus, config| {
                if answers(span.is_memory, config, model.config())? {
                    model.bar_write(span.bar, access.offset, part, bus);
                }
                Ok::<(), DeviceRefusal>(())
            })??;
        }
        Ok(())
    }

    fn read_rom(&mut self, offset: u64, data: &mut [u8]) -> Result<usize, DeviceRefusal> {
        let beyond = DeviceRefusal::BeyondBar { bar: 6, offset };
        let rom = self.function.bar(6).ok_or(beyond.clone())?;
        let left = rom.size.checked_sub(offset).filter(|left| *left > 0).ok_or(beyond)?;
        let len = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let open = self.open.as_ref().ok_or(DeviceRefusal::NotThere)?;
        let model = self.model.as_ref();
        // Its contents are looked at first, and all ones are none.
        if model.rom().is_empty() || !memory_on(&open.config, model.config()) {
            return Err(DeviceRefusal::NoRom);
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut contents = model.rom().iter().skip(from);
        for byte in data.iter_mut().take(len) {
            *byte = contents.next().copied().unwrap_or(0xff);
        }
        Ok(len)
    }
}
