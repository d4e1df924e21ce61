//! Sizes, and sizes with addresses.

pub use trace::size::{Bytes, Count, parse};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_may_have_a_place() {
        assert_eq!(parse_at("4K@0xfffffffffffff000"), Ok((4096, Some(u64::MAX - 4095))));
        assert_eq!(parse_at("4G"), Ok((4 << 30, None)));
        assert!(parse_at("4G@").is_err() && parse_at("@0").is_err() && parse_at("1@2@3").is_err());
    }
}
