//! From bytes to structures, by copy: no alignment is asked of the bytes.

use zerocopy::{FromBytes, IntoBytes};

/// The `T` at the start of `bytes`; `None` when there are too few.
#[must_use]
pub fn read_prefix<T: FromBytes>(bytes: &[u8]) -> Option<T> {
    T::read_from_prefix(bytes).ok().map(|(value, _)| value)
}

/// The `T` at the start of `bytes`, with zeros where `bytes` ends early.
///
/// For structures that grew: the kernel reads 16 bytes of [`Type1Info`](crate::type1::Type1Info)
/// from everyone and writes back only what the caller has room for.
#[must_use]
pub fn read_padded<T: FromBytes + IntoBytes>(bytes: &[u8]) -> T {
    let mut value = T::new_zeroed();
    for (to, from) in value.as_mut_bytes().iter_mut().zip(bytes) {
        *to = *from;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::type1::{DmaAvailCap, Type1Info};

    #[test]
    fn a_prefix_is_whole_or_nothing() {
        assert_eq!(read_prefix(&[1, 0, 0, 0, 9]), Some(DmaAvailCap { avail: 1 }));
        assert_eq!(read_prefix::<DmaAvailCap>(&[1, 0, 0]), None);
    }

    #[test]
    fn a_short_structure_ends_in_zeros() {
        let info: Type1Info = read_padded(&[24, 0, 0, 0, 3]);
        assert_eq!(info, Type1Info { argsz: 24, flags: 3, ..Type1Info::default() });
    }
}
