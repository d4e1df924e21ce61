//! Numbers of bytes, and other large numbers, as people read them (one form in every text and picture) and
//! write them.

use std::fmt;

/// The units, each 1024 of the one before.
pub const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes: `3.75 GiB`, `64 KiB`, `100 bytes`. In the largest unit that it fills, with two
/// decimals at most; where that is not exact in the next smaller one, as `4078 MiB`, as long as that is
/// below 10000. Else it is rounded, which `~` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u128);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = UNITS.len() - 1;
        let unit = (self.0.max(1).ilog2() as usize / 10).min(largest);
        let scale = 1_u128 << (10 * unit);
        let (whole, rest) = (self.0 / scale, self.0 % scale);
        let smaller = scale >> 10;
        let text = if self.0 == 1 {
            "1 byte".into()
        } else if (rest * 100).is_multiple_of(scale) {
            decimal(whole, rest * 100 / scale, unit)
        } else if self.0.is_multiple_of(smaller) && self.0 / smaller < 10_000 {
            decimal(self.0 / smaller, 0, unit - 1)
        } else {
            let hundredths = (rest * 100 + scale / 2) / scale;
            let (whole, hundredths) =
                if hundredths == 100 { (whole + 1, 0) } else { (whole, hundredths) };
            match whole {
                1024 if unit < largest => format!("~1 {}", UNITS[unit + 1]),
                _ => format!("~{}", decimal(whole, hundredths, unit)),
            }
        };
        f.pad(&text)
    }
}

fn decimal(whole: u128, hundredths: u128, unit: usize) -> String {
    let unit = UNITS[unit];
    match hundredths {
        0 => format!("{whole} {unit}"),
        part if part.is_multiple_of(10) => format!("{whole}.{} {unit}", part / 10),
        part => format!("{whole}.{part:02} {unit}"),
    }
}

/// A number with its thousands apart: `262 144`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u128);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at != 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(' ');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// The units by their first letters, and the powers of 2.
const LETTERS: [(char, u32); 6] =
    [('E', 60), ('P', 50), ('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// Reads a size or an address: `4096`, `0x1000`, `4K`, `1.5T`; units are powers of 1024, and `B`
/// or `iB` may follow.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse(text: &str) -> Result<u64, String> {
    let bad = || format!("expected a size like 4096, 0x1000, 2M or 1.5T, found {:?}", shown(text));
    let large = || format!("expected a number below 2^64, found {:?}", shown(text));
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let hexadecimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let read = u64::from_str_radix(digits, 16);
        return if hexadecimal { read.map_err(|_| large()) } else { Err(bad()) };
    }
    let bare = text.strip_suffix(['b', 'B']).unwrap_or(text);
    let bare =
        if bare.len() < text.len() { bare.strip_suffix(['i', 'I']).unwrap_or(bare) } else { bare };
    let unit = bare.chars().last().and_then(|last| {
        LETTERS.iter().find(|(name, _)| last.eq_ignore_ascii_case(name)).map(|(_, shift)| *shift)
    });
    let digits = if unit.is_some() { bare.get(..bare.len() - 1).unwrap_or("") } else { bare };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let decimal = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let dangling = digits.contains('.') && part.is_empty();
    if whole.is_empty() || dangling || !decimal(whole) || !decimal(part) || part.len() > 9 {
        return Err(bad());
    }
    if !part.is_empty() && unit.is_none() {
        return Err(bad());
    }
    let shift = unit.unwrap_or(0);
    let whole: u128 = whole.parse().map_err(|_| large())?;
    let tenths = 10u128.pow(u32::try_from(part.len()).unwrap_or(0));
    let part: u128 = if part.is_empty() { 0 } else { part.parse().map_err(|_| large())? };
    let scaled = whole.checked_mul(1u128 << shift).ok_or_else(large)?;
    u64::try_from(scaled.checked_add((part << shift) / tenths).ok_or_else(large)?)
        .map_err(|_| large())
}

/// The beginning of an argument, for a message.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1025, "1025 bytes"),
            (1280, "1.25 KiB"),
            (1536, "1.5 KiB"),
            (4096, "4 KiB"),
            (12_345, "~12.06 KiB"),
            (15 << 28, "3.75 GiB"),
            (0xfee0_0000, "4078 MiB"),
            (9999 << 20, "9999 MiB"),
            (10_001 << 20, "~9.77 GiB"),
            (0x7ff_ffff, "~128 MiB"),
            ((1 << 30) - 1, "~1 GiB"),
            ((1 << 40) + 1, "~1 TiB"),
            ((1 << 48) - 0xfef0_0000, "~256 TiB"),
            (1 << 64, "16 EiB"),
            (1023 << 60, "1023 EiB"),
            ((1024 << 60) - 1, "~1024 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text, "{bytes:#x}");
        }
        assert!(Bytes(u128::MAX).to_string().starts_with("~2951479051793528258"));
        assert_eq!(format!("{:>8}|", Bytes(4096)), "   4 KiB|");
    }

    /// What is not marked says exactly how many bytes there are; what is marked is close.
    #[test]
    fn nothing_is_rounded_unseen() {
        let mut seed = 1_u64;
        for n in 0..100_000_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes = u128::from(seed.rotate_left(29) >> (n % 60)) << (n % 7);
            let text = Bytes(bytes).to_string();
            let (number, unit) = text.split_once(' ').unwrap();
            let unit = UNITS.iter().position(|u| *u == unit).unwrap_or(0);
            let (whole, part) = number
                .trim_start_matches('~')
                .split_once('.')
                .unwrap_or((number.trim_start_matches('~'), "0"));
            let hundredths = whole.parse::<u128>().unwrap() * 100
                + format!("{part:0<2}").parse::<u128>().unwrap();
            let (said, real) = (hundredths << (10 * unit), bytes * 100);
            match number.starts_with('~') {
                false => assert_eq!(said, real, "{bytes:#x}: {text}"),
                true => {
                    assert_ne!(said, real, "{bytes:#x}: {text}");
                    assert!(said.abs_diff(real) <= (1 << (10 * unit)) / 2, "{bytes:#x}: {text}");
                }
            }
        }
    }

    #[test]
    fn counts_for_people() {
        assert_eq!(
            [7, 262_144, 1_234_567].map(|n| Count(n).to_string()),
            ["7", "262 144", "1 234 567"]
        );
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, value) in [
            ("0", 0),
            ("4096", 4096),
            ("0x1000", 4096),
            ("0XfF", 255),
            ("4K", 4096),
            ("4k", 4096),
            ("4KiB", 4096),
            ("4kb", 4096),
            ("7B", 7),
            ("2M", 2 << 20),
            ("1.5G", 3 << 29),
            ("0.25T", 1 << 38),
            ("15E", 15 << 60),
            ("0xffffffffffffffff", u64::MAX),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_so() {
        for text in
            ["", "K", "-1", "+1", "1.5", "1.", ".5G", "4X", "0x", "0xg", "0x+1", "4 K", "1G2", "ä"]
        {
            assert!(parse(text).unwrap_err().starts_with("expected a size like"), "{text}");
        }
        for text in [
            "16E",
            "0x10000000000000000",
            "18446744073709551616",
            "99999999999999999999999999999999999999999999G",
        ] {
            assert!(parse(text).unwrap_err().starts_with("expected a number below 2^64"), "{text}");
        }
        assert!(parse(&"9".repeat(1000)).unwrap_err().len() < 120);
    }
}
