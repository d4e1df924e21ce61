//! Module parameters of `vfio_iommu_type1`, written as a user writes them to sysfs.

use uapi::Errno;

use super::World;
use crate::ops::{Failure, Sys};

impl World {
    /// Writes `value` to parameter `name`.
    pub(crate) fn set_param(&mut self, name: &str, value: &str) -> Sys<()> {
        if !["allow_unsafe_interrupts", "disable_hugepages", "dma_entry_limit"].contains(&name) {
            let why = format!("vfio_iommu_type1 has no parameter {name:?}");
            return Err(Failure::new(Errno::ENOENT, why));
        }
        if !self.process.is_root() {
            return Err(Failure::new(Errno::EACCES, "only root may write module parameters"));
        }
        // The kernel is not asked to write nothing.
        if value.is_empty() {
            return Ok(());
        }
        let refused = |errno| Failure::new(errno, format!("{name} cannot be {value:?}"));
        let dialect = self.system.shared().host.dialect.name;
        let words = dialect != "6.1";
        match name {
            "allow_unsafe_interrupts" => {
                let on = parse_bool(value, words).ok_or_else(|| refused(Errno::EINVAL))?;
                self.system.shared_mut().limits.allow_unsafe_interrupts = on;
            }
            "disable_hugepages" => {
                self.disable_hugepages =
                    parse_bool(value, words).ok_or_else(|| refused(Errno::EINVAL))?;
            }
            _ => {
                let limit = parse_uint(value).map_err(refused)?;
                self.system.shared_mut().limits.dma_entry_limit = limit;
            }
        }
        Ok(())
    }
}

/// `kstrtobool`: the first letter counts, of `on` and `off` the second. `true` and `false` came
/// with Linux 6.5.
fn parse_bool(text: &str, words: bool) -> Option<bool> {
    match *text.as_bytes() {
        [b'y' | b'Y' | b'1', ..] => Some(true),
        [b'n' | b'N' | b'0', ..] => Some(false),
        [b't' | b'T', ..] if words => Some(true),
        [b'f' | b'F', ..] if words => Some(false),
        [b'o' | b'O', b'n' | b'N', ..] => Some(true),
        [b'o' | b'O', b'f' | b'F', ..] => Some(false),
        _ => None,
    }
}

/// `kstrtouint(.., 0)`: one plus sign, `0x` or a leading 0, one newline at the end.
fn parse_uint(text: &str) -> Result<u32, Errno> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', d, ..] if d.is_ascii_hexdigit() => (&text[2..], 16),
        [b'0', ..] => (text, 8),
        _ => (text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(Errno::EINVAL);
    }
    u32::from_str_radix(digits, radix).map_err(|_| Errno::ERANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_the_kernel_reads_them() {
        let cases = [
            ("4", Ok(4)),
            ("+4\n", Ok(4)),
            ("0x10", Ok(16)),
            ("010", Ok(8)),
            ("0", Ok(0)),
            ("4294967295", Ok(u32::MAX)),
            ("4294967296", Err(Errno::ERANGE)),
            ("99999999999999999999999", Err(Errno::ERANGE)),
            ("x", Err(Errno::EINVAL)),
            ("-1", Err(Errno::EINVAL)),
            ("", Err(Errno::EINVAL)),
            (" 4", Err(Errno::EINVAL)),
            ("4 ", Err(Errno::EINVAL)),
            ("0x", Err(Errno::EINVAL)),
            ("08", Err(Errno::EINVAL)),
        ];
        for (text, value) in cases {
            assert_eq!(parse_uint(text), value, "{text:?}");
        }
    }

    #[test]
    fn truth_as_the_kernel_reads_it() {
        let of = |text| parse_bool(text, true);
        assert_eq!(
            (of("Yes"), of("1"), of("on"), of("true")),
            (Some(true), Some(true), Some(true), Some(true))
        );
        assert_eq!(
            (of("N"), of("0"), of("off"), of("F")),
            (Some(false), Some(false), Some(false), Some(false))
        );
        assert_eq!((of("2"), of("o"), of("")), (None, None, None));
        assert_eq!(parse_bool("t", false), None);
    }
}
