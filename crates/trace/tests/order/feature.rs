//! Features of a device.

use iommu::Dialect;
use uapi::ioctl::VFIO_DEVICE_FEATURE;

use super::device::open;
use super::{ascend, value, words};

const GET: u32 = 1 << 16;
const SET: u32 = 1 << 17;

/// A request for a feature with `argsz`, flags and data.
fn feature(argsz: u32, flags: u32, data: &[u32]) -> String {
    let words_of = [&[argsz, flags], data].concat();
    words("d0", VFIO_DEVICE_FEATURE, &words_of)
}

/// The same where memory ends behind the header.
fn ends_early(argsz: u32, flags: u32) -> String {
    feature(argsz, flags, &[]).replace("}\n", ",\"arg\":\"tail:8\"}\n")
}

/// What is looked at before the feature is.
fn start() -> String {
    [
        &open("edu"),
        &*value("d0", VFIO_DEVICE_FEATURE, 0),
        &feature(7, GET | SET | 99, &[]),
        &feature(8, GET | SET | 99, &[]),
        &feature(8, 99, &[]),
    ]
    .concat()
}

#[test]
fn low_power() {
    for dialect in Dialect::ALL {
        let entry = [start(), feature(8, GET | 3, &[]), feature(8, SET | 3, &[]).repeat(2)];
        let fd = |word: &str| {
            let line = feature(16, SET | 4, &[0, 0]);
            line.replace("}\n", &format!(",\"fds\":[\"{word}\"]}}\n"))
        };
        let wakeup = [
            &open("edu"),
            &*feature(8, SET | 4, &[]).replace("}\n", ",\"arg\":\"tail:4\"}\n"),
            &feature(8, GET | 4, &[]),
            &ends_early(15, SET | 4),
            &ends_early(16, SET | 4),
            &fd("-1"),
            &feature(8, SET | 3, &[]),
            &fd("99"),
            &fd("c0"),
            &fd("e0"),
        ];
        let exit = [open("edu"), feature(8, GET | 5, &[])];
        ascend(dialect, &[entry.concat(), wakeup.concat(), exit.concat()], &[]);
    }
}

#[test]
fn dma_buf_and_migration() {
    for dialect in Dialect::ALL {
        let buf = |region: u32, flags: u32, ranges: u32| {
            feature(24, GET | 11, &[region, 0, flags, ranges])
        };
        let script = [
            &start(),
            &*feature(8, SET | 11, &[]),
            &ends_early(23, GET | 11),
            &ends_early(24, GET | 11),
            &buf(9, 1, 0),
            &buf(9, 0, 1),
            &buf(0, 0, 1),
        ];
        let migration = [open("edu"), feature(8, SET | 12, &[])].concat();
        if dialect.device_dma_buf {
            ascend(dialect, &[script.concat(), migration], &[]);
        } else {
            // Before 7.3 there is no such feature.
            for refused in super::refused_of(&migration, dialect) {
                let rule = refused.checks.rules[refused.failed()];
                assert_eq!(rule.says, "the device has the feature");
            }
        }
    }
}
