//! Groups, and what is looked at when one comes to a container with an IOMMU.

use iommu::Dialect;
use serde_json::json;
use uapi::ioctl::{VFIO_GROUP_GET_DEVICE_FD, VFIO_GROUP_SET_CONTAINER};

use super::{ascend, device, machine, value, words};

/// Devices that cannot be had, or not beside each other.
fn header() -> String {
    machine("mixed", |header| {
        let wide = json!({"msi": "implicit"});
        let big = json!("0x40200000");
        header["host"]["iommus"]["wide"] = wide;
        header["host"]["iommus"]["unsafe"] = json!({"msi": "implicit", "msi_isolated": false});
        header["host"]["iommus"]["big-unsafe"] =
            json!({"msi": "implicit", "msi_isolated": false, "pgsizes": big});
        header["host"]["iommus"]["big"] = json!({"msi": "user", "pgsizes": big});
        header["host"]["iommus"]["low"] = json!({"msi": "user", "aperture": [["0x0", "0xfffff"]]});
        header["host"]["iommus"]["high"] = json!({
            "msi": "implicit", "msi_isolated": false,
            "aperture": [["0x1000000", "0xffffffff"]],
        });
        let mapped = json!([["0x10000", "0x1ffff", "reserved"]]);
        let whole = json!([["0x0", "0xffffffffffff", "reserved"]]);
        let direct = json!([["0x10000", "0x1ffff", "direct"]]);
        let none = json!([]);
        let devices = [
            ("plain", "wide", &none),
            ("gone", "wide", &none),
            ("busy", "wide", &direct),
            ("direct", "high", &direct),
            ("far", "high", &mapped),
            ("on-it", "unsafe", &whole),
            ("coarse-unsafe", "big-unsafe", &none),
            ("coarse", "big", &none),
            ("narrow", "low", &none),
        ];
        for ((name, iommu, reserved), slot) in devices.into_iter().zip(8..) {
            let bdf = format!("0000:00:{slot:02x}.0");
            let members =
                json!({"bdf": bdf, "group": slot, "iommu": iommu, "reserved_regions": reserved});
            device(header, name, members);
        }
        let sibling = json!({
            "bdf": "0000:00:0a.1", "group": 10, "iommu": "wide", "reserved_regions": direct,
            "driver": "e1000",
        });
        device(header, "sibling", sibling);
        let unbound = json!({"bdf": "0000:00:1f.0", "group": 31, "iommu": "wide", "driver": ""});
        device(header, "unbound", unbound);
    })
}

fn open(slot: u8, name: &str) -> String {
    format!("{{\"op\":\"open_group\",\"g\":{slot},\"dev\":\"{name}\"}}\n")
}

fn set(slot: u8, target: &str) -> String {
    format!("{{\"op\":\"set_container\",\"g\":{slot},{target}}}\n")
}

/// A container with an IOMMU, and what is mapped in it.
fn container(slot: u8, name: &str, maps: &str) -> String {
    let (open, set) = (open(slot, name), set(slot, &format!("\"c\":{slot}")));
    format!(
        "{{\"op\":\"open_container\",\"c\":{slot}}}\n{open}{set}\
         {{\"op\":\"set_iommu\",\"c\":{slot}}}\n{}",
        maps.replace("SLOT", &slot.to_string())
    )
}

const MAP: &str = r#"{"op":"map","c":SLOT,"iova":"0x10000","size":"0x1000","vaddr":"buf"}
"#;
const WINDOW: &str = r#"{"op":"map","c":SLOT,"iova":"0x200000","size":"0x1000","flags":["reserved_msi_iova","write","read"]}
"#;

#[test]
fn set_container() {
    for dialect in Dialect::ALL {
        let script = [
            &*header(),
            "{\"op\":\"mem\"}\n{\"op\":\"eventfd\"}\n",
            &container(0, "plain", MAP),
            &container(1, "edu2", ""),
            &container(2, "edu", &[MAP, WINDOW].concat()),
            &open(3, "gone"),
            "{\"op\":\"remove\",\"dev\":\"gone\"}\n",
            &value("g0", VFIO_GROUP_SET_CONTAINER, 0),
            &set(0, "\"fd\":99"),
            &set(0, "\"fd\":\"e0\""),
            &set(3, "\"fd\":\"e0\""),
            &open(4, "busy"),
            &set(4, "\"fd\":\"e0\""),
            "{\"op\":\"unmap\",\"iova\":\"0x10000\",\"size\":\"0x1000\",\"flags\":[\"vaddr\"]}\n",
            &set(4, "\"c\":0"),
            &open(5, "direct"),
            &set(5, "\"c\":0"),
            &open(5, "far"),
            &set(5, "\"c\":0"),
            "{\"op\":\"map\",\"iova\":\"0x10000\",\"size\":\"0x1000\",\"vaddr\":\"buf\",\"flags\":[\"vaddr\"]}\n",
            &set(5, "\"c\":0"),
            &open(5, "on-it"),
            &set(5, "\"c\":0"),
            &set(5, "\"c\":1"),
            &open(5, "coarse-unsafe"),
            &set(5, "\"c\":0"),
            &open(5, "coarse"),
            &set(5, "\"c\":2"),
            &open(5, "narrow"),
            &set(5, "\"c\":2"),
        ];
        ascend(dialect, &[script.concat()], &[]);
    }
}

#[test]
fn get_device_fd() {
    for dialect in Dialect::ALL {
        let named = |name: &str| format!("{{\"op\":\"get_device_fd\",\"name\":\"{name}\"}}\n");
        let name: Vec<u32> = "0000:00:03.0\0\0\0\0"
            .as_bytes()
            .chunks(4)
            .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
            .collect();
        let script = [
            &*header(),
            "{\"op\":\"open_container\"}\n",
            &open(0, "edu"),
            &value("g0", VFIO_GROUP_GET_DEVICE_FD, 0),
            &named(&"0000:00:1e.0 f=1".repeat(300)),
            &named("0000:00:1e.0 foo=1"),
            &named("0000:00:03.0 foo=1"),
            &named("0000:00:03.0"),
            &set(0, "\"c\":0"),
            &named("0000:00:03.0"),
            "{\"op\":\"set_iommu\"}\n",
        ];
        // Descriptors until no more are to be had.
        let many = words("g0", VFIO_GROUP_GET_DEVICE_FD, &name).repeat(1030);
        let refused = super::refused_of(&[&script.concat(), &*many].concat(), dialect);
        let last = refused.last().unwrap();
        assert_eq!(last.checks.rules.len(), last.failed() + 1);
        let one = words("g0", VFIO_GROUP_GET_DEVICE_FD, &name);
        let fills = one.repeat(1030 - (refused.len() - 6));
        ascend(dialect, &[[&script.concat(), &*fills, &one].concat()], &[]);
    }
}

#[test]
fn the_others() {
    for dialect in Dialect::ALL {
        let header = header();
        let opened = [&*header, &open(0, "edu"), &open(1, "unbound"), &open(1, "edu")].concat();
        ascend(dialect, &[opened], &[]);

        let status = [
            &*header,
            &open(0, "gone"),
            "{\"op\":\"remove\",\"dev\":\"gone\"}\n",
            r#"{"op":"group_status","arg":"null"}
{"op":"group_status","argsz":7}
{"op":"group_status"}
"#,
        ];
        // A structure that can be read and not written: crates/vfio/tests/order.rs.
        ascend(dialect, &[status.concat()], &["the answer can be written"]);

        let unset = [
            &*header,
            &open(0, "edu"),
            "{\"op\":\"unset_container\"}\n{\"op\":\"open_container\"}\n",
            &set(0, "\"c\":0"),
            "{\"op\":\"set_iommu\"}\n{\"op\":\"get_device_fd\"}\n{\"op\":\"unset_container\"}\n",
        ];
        ascend(dialect, &[unset.concat()], &[]);

        let unknown = [&*header, &open(0, "edu"), &value("g0", 0x3bff, 0)];
        ascend(dialect, &[unknown.concat()], &[]);

        let bind = [
            &*header,
            "{\"op\":\"open_container\"}\n{\"op\":\"unbind\",\"dev\":\"sibling\"}\n",
            &open(0, "plain"),
            &set(0, "\"c\":0"),
            "{\"op\":\"unbind\",\"dev\":\"plain\"}\n{\"op\":\"bind\",\"dev\":\"plain\",\"driver\":\"e1000\"}\n",
        ];
        ascend(dialect, &[bind.concat()], &[]);
    }
}
