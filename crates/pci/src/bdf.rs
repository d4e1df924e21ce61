//! The address of a PCI function: segment, bus, device, function.

use core::fmt;
use core::str::FromStr;

/// A function's address; prints and parses as `0000:03:01.0` (all digits hexadecimal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    segment: u16,
    bus: u8,
    devfn: u8,
}

impl Bdf {
    /// The function `function` (0..=7) of device `device` (0..=31); `None` beyond those.
    #[must_use]
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 {
            Some(Self { segment, bus, devfn: device << 3 | function })
        } else {
            None
        }
    }

    /// The segment (Linux: PCI domain).
    #[must_use]
    pub const fn segment(self) -> u16 {
        self.segment
    }

    /// The bus within the segment.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// Device in the upper five bits, function in the lower three.
    #[must_use]
    pub const fn devfn(self) -> u8 {
        self.devfn
    }

    /// Whether both sit on the same bus of the same segment.
    #[must_use]
    pub const fn same_bus(self, other: Self) -> bool {
        self.segment == other.segment && self.bus == other.bus
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, function) = (self.devfn >> 3, self.devfn & 7);
        write!(f, "{:04x}:{:02x}:{device:02x}.{function:x}", self.segment, self.bus)
    }
}

/// A text that is no function's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBdf;

impl fmt::Display for BadBdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a PCI address like 0000:03:01.0")
    }
}

impl core::error::Error for BadBdf {}

impl FromStr for Bdf {
    type Err = BadBdf;

    /// Reads exactly the form that is printed: fixed widths, the segment not left out.
    fn from_str(text: &str) -> Result<Self, BadBdf> {
        let (segment, rest) = text.split_once(':').ok_or(BadBdf)?;
        let (bus, rest) = rest.split_once(':').ok_or(BadBdf)?;
        let (device, function) = rest.split_once('.').ok_or(BadBdf)?;
        let segment = hex(segment, 4)?;
        let bus = u8::try_from(hex(bus, 2)?).map_err(|_| BadBdf)?;
        let device = u8::try_from(hex(device, 2)?).map_err(|_| BadBdf)?;
        let function = u8::try_from(hex(function, 1)?).map_err(|_| BadBdf)?;
        Self::new(segment, bus, device, function).ok_or(BadBdf)
    }
}

fn hex(digits: &str, width: usize) -> Result<u16, BadBdf> {
    if digits.len() != width || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(BadBdf);
    }
    u16::from_str_radix(digits, 16).map_err(|_| BadBdf)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn text_goes_both_ways() {
        let bdf: Bdf = "0000:03:1f.7".parse().unwrap();
        assert_eq!((bdf.segment(), bdf.bus(), bdf.devfn()), (0, 3, 0xff));
        assert_eq!(bdf.to_string(), "0000:03:1f.7");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "03:00.0", "0000:03:20.0", "0000:03:00.8", "0000:3:00.0", "+000:03:00.0"] {
            assert_eq!(text.parse::<Bdf>(), Err(BadBdf), "{text}");
        }
    }
}
