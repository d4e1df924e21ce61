//! Sizes and addresses: as people write them, and as they like to read them.

pub use trace::size::{Bytes, Count};

/// The units, largest first: 1024 each.
const UNITS: [(char, u32); 6] = [('E', 60), ('P', 50), ('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// Reads a size or an address: `4096`, `0x1000`, `4K`, `1.5T`; units are powers of 1024, and `B`,
/// `iB` may follow them.
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
    let bare = text.strip_suffix("iB").or_else(|| text.strip_suffix('B')).unwrap_or(text);
    let unit = bare.chars().last().and_then(|last| {
        UNITS.iter().find(|(name, _)| last.eq_ignore_ascii_case(name)).map(|(_, shift)| *shift)
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

/// A size with an address behind an `@`, or without.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_at(text: &str) -> Result<(u64, Option<u64>), String> {
    match text.split_once('@') {
        None => Ok((parse(text)?, None)),
        Some((size, at)) => Ok((parse(size)?, Some(parse(at)?))),
    }
}

/// The beginning of an argument, for a message.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("2M", 2 << 20),
            ("1.5G", 3 << 29),
            ("0.25T", 1 << 38),
            ("15E", 15 << 60),
            ("0xffffffffffffffff", u64::MAX),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
        assert_eq!(parse_at("4K@0xfffffffffffff000"), Ok((4096, Some(u64::MAX - 4095))));
        assert_eq!(parse_at("4G"), Ok((4 << 30, None)));
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
        assert!(parse_at("4G@").is_err() && parse_at("@0").is_err() && parse_at("1@2@3").is_err());
    }
}
