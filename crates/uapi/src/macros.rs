//! The three shapes the header's numbers come in: plain constants, bits, and closed enumerations.
//!
//! Each shape also makes a table of (C name, value), so that [`crate::names`] can list everything
//! without saying a name twice.

/// Constants under their C names, and a table of them.
macro_rules! constants {
    (
        $(#[$doc:meta])*
        $table:ident: $type:ty {
            $($(#[$item_doc:meta])* $name:ident = $value:expr;)+
        }
    ) => {
        $($(#[$item_doc])* pub const $name: $type = $value;)+

        $(#[$doc])*
        pub const $table: &[(&str, u32)] = &[$((stringify!($name), $name as u32)),+];
    };
}

/// A set of bits, each with its C name.
macro_rules! flags {
    (
        $(#[$doc:meta])*
        $type:ident {
            $($(#[$item_attr:ident $($item_args:tt)*])* $name:ident = $bits:expr, $c_name:literal;)+
        }
    ) => {
        bitflags::bitflags! {
            $(#[$doc])*
            ///
            /// `from_bits` refuses bits the header does not define; `from_bits_retain` keeps them,
            /// for printing.
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
            pub struct $type: u32 {
                $($(#[$item_attr $($item_args)*])* #[doc(alias = $c_name)] const $name = $bits;)+
            }
        }

        impl $type {
            /// (C name, bit) of every flag.
            pub const NAMES: &'static [(&'static str, u32)] = &[$(($c_name, $bits)),+];
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                $crate::macros::write_flags(self, f)
            }
        }
    };
}

/// A closed enumeration of u32 numbers, each with its C name.
macro_rules! numbers {
    (
        $(#[$doc:meta])*
        $type:ident {
            $($(#[$item_doc:meta])* $name:ident = $value:literal, $c_name:literal;)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $type {
            $($(#[$item_doc])* #[doc(alias = $c_name)] $name = $value,)+
        }

        impl $type {
            /// Every variant, in the header's order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// (C name, number) of every variant.
            pub const NAMES: &'static [(&'static str, u32)] = &[$(($c_name, $value)),+];

            /// The C name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $c_name,)+
                }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u32 {
                self as u32
            }
        }

        impl TryFrom<u32> for $type {
            type Error = $crate::UnknownNumber;

            fn try_from(number: u32) -> Result<Self, Self::Error> {
                match number {
                    $($value => Ok(Self::$name),)+
                    _ => Err($crate::UnknownNumber(number)),
                }
            }
        }

        impl From<$type> for u32 {
            fn from(value: $type) -> Self {
                value.number()
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

/// A structure of the ABI: C layout, any bit pattern valid, no hidden padding.
macro_rules! wire {
    (
        $(#[$doc:meta])*
        $type:ident {
            $($(#[$field_doc:meta])* $field:ident: $field_type:ty,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
        )]
        #[repr(C)]
        pub struct $type {
            $($(#[$field_doc])* pub $field: $field_type,)+
        }
    };
}

pub(crate) use {constants, flags, numbers, wire};

/// `READ|WRITE|0x80`: the flags' own names, then unknown bits as a number; `0` when empty.
pub(crate) fn write_flags<F: bitflags::Flags<Bits = u32>>(
    flags: &F,
    f: &mut core::fmt::Formatter<'_>,
) -> core::fmt::Result {
    let mut separator = "";
    let mut names = flags.iter_names();
    for (name, _) in names.by_ref() {
        write!(f, "{separator}{name}")?;
        separator = "|";
    }
    match names.remaining().bits() {
        0 if separator.is_empty() => f.write_str("0"),
        0 => Ok(()),
        unknown => write!(f, "{separator}{unknown:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use crate::{UnknownNumber, container::Extension, type1::MapFlags};

    #[test]
    fn flags_print_what_is_known_and_keep_what_is_not() {
        let shown = |bits| MapFlags::from_bits_retain(bits).to_string();
        assert_eq!(shown(3), "READ|WRITE");
        assert_eq!(shown(0x8000_0001), "READ|0x80000000");
        assert_eq!([shown(0), shown(8)], ["0", "0x8"]);
        assert_eq!(MapFlags::from_bits(8), None);
    }

    #[test]
    fn numbers_refuse_what_the_header_lacks() {
        assert_eq!(Extension::try_from(3), Ok(Extension::Type1V2));
        assert_eq!(Extension::Type1V2.to_string(), "VFIO_TYPE1v2_IOMMU");
        assert_eq!(u32::from(Extension::Type1V2), 3);
        let unknown = Extension::try_from(0x8001);
        assert_eq!(unknown, Err(UnknownNumber(0x8001)));
        assert_eq!(unknown.map_err(|error| error.to_string()), Err("unknown number 0x8001".into()));
    }
}
