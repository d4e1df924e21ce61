//! Reads, writes and mappings of regions.

use iommu::Dialect;
use serde_json::json;

use super::{ascend, machine};

/// `edu` with ports as BAR 1 and a ROM without contents, open.
fn open(bar0_base: &str) -> String {
    let header = machine("x86-intel", |header| {
        let bar0 = header["devices"]["edu"]["resource"][0].clone();
        let none = json!(["0x0", "0x0", "0x0"]);
        header["devices"]["edu"]["resource"] = json!([
            bar0,
            ["0xc000", "0xc03f", "0x40101"],
            none,
            none,
            none,
            none,
            ["0xfd000000", "0xfd00ffff", "0x46200"],
        ]);
        header["bar0_base"] = json!(bar0_base);
    });
    format!(
        "{header}{{\"op\":\"open_container\"}}\n{{\"op\":\"open_group\"}}\n\
         {{\"op\":\"set_container\"}}\n{{\"op\":\"set_iommu\"}}\n{{\"op\":\"get_device_fd\"}}\n"
    )
}

const DECODE_OFF: &str = "{\"op\":\"region_write\",\"offset\":4,\"data\":\"0000\"}\n";

#[test]
fn read_and_write() {
    for dialect in Dialect::ALL {
        for (op, data) in
            [("region_read", "\"size\":8"), ("region_write", "\"data\":\"0011223344556677\"")]
        {
            let at = |region: &str, offset: &str| {
                format!("{{\"op\":\"{op}\",\"region\":{region},\"offset\":\"{offset}\",{data}}}\n")
            };
            let script = [
                &*open("0"),
                &at("9", "0x0"),
                &at("\"vga\"", "0xa0000"),
                &at("\"config\"", "0xfc"),
                DECODE_OFF,
                &at("\"bar2\"", "0x0"),
                &at("\"bar0\"", "0x100000"),
                &at("\"bar0\"", "0x0"),
            ];
            let rom = [&*open("0"), DECODE_OFF, &at("\"rom\"", "0x10000"), &at("\"rom\"", "0x0")];
            let rom = rom.concat();
            // Regions that there are have that check too.
            ascend(dialect, &[script.concat(), rom], &[]);
        }
    }
}

#[test]
fn mmap() {
    let map = |name: &str, offset: &str, size: &str| {
        format!(
            "{{\"op\":\"mem\",\"name\":\"{name}\",\"kind\":\"region\",\"file_offset\":\"{offset}\",\
             \"size\":\"{size}\"}}\n"
        )
    };
    for dialect in Dialect::ALL {
        let script = [
            &*open("0x100000000000"),
            &map("a", "0x0", "0x10000000"),
            &map("b", "0x70000000000", "0x10000000"),
            &map("c", "0x10000000000", "0x10000000"),
            &map("d", "0x100000000000", "0x10000000"),
        ];
        // Mappings here are shared; crates/vfio/tests/order.rs.
        ascend(dialect, &[script.concat()], &["the mapping is shared (MAP_SHARED)"]);
    }
}
