//! What a device tells of itself, resets and eventfd writes.

use iommu::Dialect;
use serde_json::json;
use uapi::ioctl::{
    VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, VFIO_DEVICE_IOEVENTFD, VFIO_DEVICE_PCI_HOT_RESET,
};

use super::{ascend, device, machine, value, words};

/// `name` is open as `d0`, and so are an eventfd and another group.
pub(crate) fn open(name: &str) -> String {
    let header = machine("x86-intel", |header| {
        // Three PCI Express functions on a bus of their own, in two groups.
        let express = "3412e811000010001000ff000000000000000000000000000000000000000000\
                       0000000000000000000000000000000000000000400000000000000000000000\
                       10000200";
        for (slot, group) in [(0, 10), (1, 11), (2, 11)] {
            let members = json!({
                "bdf": format!("0000:01:00.{slot}"), "group": group, "config": express,
            });
            device(header, &format!("bus{slot}"), members);
        }
    });
    format!(
        "{header}{{\"op\":\"open_container\"}}\n{{\"op\":\"open_group\",\"dev\":\"{name}\"}}\n\
         {{\"op\":\"set_container\"}}\n{{\"op\":\"set_iommu\"}}\n\
         {{\"op\":\"get_device_fd\",\"dev\":\"{name}\"}}\n{{\"op\":\"eventfd\"}}\n\
         {{\"op\":\"open_group\",\"g\":1,\"dev\":\"bus1\"}}\n"
    )
}

#[test]
fn information() {
    for dialect in Dialect::ALL {
        let scripts = [
            r#"{"op":"device_info","arg":"null"}
{"op":"device_info","argsz":15,"arg":"tail:16"}
{"op":"device_info","argsz":24,"arg":"tail:16"}
"#,
            r#"{"op":"region_info","arg":"null","index":9}
{"op":"region_info","argsz":31,"index":9}
{"op":"region_info","argsz":40,"index":9,"arg":"tail:32"}
{"op":"region_info","argsz":40,"index":"vga","arg":"tail:32"}
{"op":"region_info","argsz":40,"index":"bar0","arg":"tail:32"}
"#,
            r#"{"op":"irq_info","arg":"null","index":9}
{"op":"irq_info","argsz":15,"index":9}
{"op":"irq_info","index":9}
"#,
        ];
        let scripts = scripts.map(|script| open("test") + script);
        // A structure that can be read and not written: crates/vfio/tests/order.rs. (The first
        // two have one that ends early.)
        let [device, region, irq] = scripts;
        ascend(dialect, &[device, region], &[]);
        ascend(dialect, &[irq], &["the answer can be written"]);
    }
}

#[test]
fn resets() {
    for dialect in Dialect::ALL {
        ascend(dialect, &[open("edu") + "{\"op\":\"reset\"}\n"], &[]);

        let request = VFIO_DEVICE_GET_PCI_HOT_RESET_INFO;
        let with_arg = |arg: &str, words: &str| {
            format!(
                "{{\"op\":\"ioctl\",\"fd\":\"d0\",\"cmd\":{request},\"arg\":\"{arg}\",\"data\":\"{words}\"}}\n"
            )
        };
        let short = [&open("edu"), &*with_arg("null", "0b000000")].concat();
        let on_root = [short, words("d0", request, &[11, 0, 0]), words("d0", request, &[12, 0, 0])];
        let info = [
            &*open("bus0"),
            &*with_arg("tail:8", "0b00000000000000"),
            &words("d0", request, &[11, 0, 0]),
            // Room for the header, in memory that ends there.
            &words("d0", request, &[12, 0, 0]),
        ];
        let unwritable = [&open("bus0"), &*with_arg("tail:12", "240000000000000000000000")];
        let scripts = [on_root.concat(), info.concat(), unwritable.concat()];
        ascend(dialect, &scripts, &[]);

        let request = VFIO_DEVICE_PCI_HOT_RESET;
        let groups = |argsz: u32, flags: u32, fds: &[&str], count: u32| {
            let mut data = vec![argsz, flags, count];
            data.resize(3 + fds.len(), 0);
            let line = words("d0", request, &data);
            line.replace("}\n", &format!(",\"fds\":{},\"fds_at\":12}}\n", json!(fds)))
        };
        let unreadable = |count: u8| {
            format!(
                "{{\"op\":\"ioctl\",\"fd\":\"d0\",\"cmd\":{request},\"arg\":\"tail:12\",\
                 \"data\":\"0c00000000000000{count:02x}000000\"}}\n"
            )
        };
        let start = [
            &*open("edu"),
            &value("d0", request, 0),
            &groups(11, 1, &[], 0),
            &groups(12, 1, &[], 0),
            &groups(12, 0, &[], 0),
            &groups(12, 0, &[], 9),
        ];
        let rest = [
            &*open("bus0"),
            &groups(12, 0, &[], 0),
            &unreadable(9),
            &unreadable(1),
            &groups(12, 0, &["99", "c0"], 2),
            &groups(12, 0, &["c0"], 1),
            &groups(12, 0, &["g0"], 1),
            &groups(12, 0, &["g0", "g1"], 2),
        ];
        ascend(dialect, &[start.concat(), rest.concat()], &[]);
    }
}

#[test]
fn eventfd_writes() {
    // argsz, flags; offset; data; descriptor.
    let write = |argsz: u32, flags: u32, offset: u64, fd: &str| {
        let (low, high) = (offset as u32, (offset >> 32) as u32);
        let line = words("d0", VFIO_DEVICE_IOEVENTFD, &[argsz, flags, low, high, 5, 0, 0, 0]);
        line.replace("}\n", &format!(",\"fds\":[\"{fd}\"],\"fds_at\":24}}\n"))
    };
    for dialect in Dialect::ALL {
        let script = [
            &*open("test"),
            &value("d0", VFIO_DEVICE_IOEVENTFD, 0),
            &write(27, 3, 1 << 43, "-2"),
            &write(32, 3, 1 << 43, "-2"),
            &write(32, 4, 1 << 43, "-2"),
            &write(32, 4, 1 << 43, "99"),
            &write(32, 4, 0x2000, "99"),
            &write(32, 4, 0x100, "e0"),
            &write(32, 4, 0x100, "99"),
            &write(32, 4, 0x200, "-1"),
        ];
        let many: Vec<String> = (0..999).map(|i| write(32, 1, 0x1000 + i, "e0")).collect();
        let rest = [many.concat(), write(32, 4, 0x200, "99"), write(32, 1, 0x1000, "-1")];
        let events = [write(32, 4, 0x200, "99"), write(32, 4, 0x200, "c0")];
        let script = [script.concat(), rest.concat(), events.concat()].concat();
        ascend(dialect, &[script], &[]);
    }
}

#[test]
fn an_unknown_request() {
    for dialect in Dialect::ALL {
        ascend(dialect, &[open("edu") + &value("d0", 0x3bff, 0)], &[]);
    }
}
