//! `SET_IRQS`.

use iommu::Dialect;
use serde_json::json;

use super::{ascend, machine};

/// An open device; `test` has two vectors of MSI and of MSI-X.
fn open(host: &str, name: &str) -> String {
    let header = machine(host, |header| {
        // A power management capability before what is there.
        let config = header["devices"]["test"]["config"].as_str().unwrap().to_owned();
        let mut bytes: Vec<u8> = config
            .as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect();
        bytes.resize(0xa8, 0);
        let first = bytes[0x34];
        bytes[0xa0..0xa2].copy_from_slice(&[1, first]);
        bytes[0x34] = 0xa0;
        let config: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        header["devices"]["test"]["config"] = json!(config);
    });
    format!(
        "{header}{{\"op\":\"open_container\"}}\n{{\"op\":\"open_group\",\"dev\":\"{name}\"}}\n\
         {{\"op\":\"set_container\"}}\n{{\"op\":\"set_iommu\"}}\n\
         {{\"op\":\"get_device_fd\",\"dev\":\"{name}\"}}\n{{\"op\":\"eventfd\"}}\n\
         {{\"op\":\"eventfd\",\"e\":1}}\n"
    )
}

/// A request: index, flags, the rest.
fn set(index: &str, flags: &[&str], rest: &str) -> String {
    let flags = json!(flags);
    format!("{{\"op\":\"set_irqs\",\"index\":\"{index}\",\"flags\":{flags}{rest}}}\n")
}

const EVENT: &[&str] = &["data_eventfd", "action_trigger"];
const NONE: &[&str] = &["data_none", "action_trigger"];
const BOOL: &[&str] = &["data_bool", "action_trigger"];

#[test]
fn what_is_looked_at_for_every_kind() {
    for dialect in Dialect::ALL {
        let both = r#"["data_none","data_eventfd",64]"#;
        let script = [
            &*open("x86-intel", "test"),
            r#"{"op":"set_irqs","arg":"null","index":9,"flags":64}
{"op":"set_irqs","argsz":19,"index":9,"start":-1,"flags":64,"count":7}
{"op":"set_irqs","index":9,"start":-1,"flags":64,"count":7}
"#,
            &format!(
                "{{\"op\":\"set_irqs\",\"index\":\"msi\",\"start\":-1,\"count\":7,\"flags\":{both}}}\n\
                 {{\"op\":\"set_irqs\",\"index\":\"msi\",\"start\":7,\"count\":7,\"flags\":{both}}}\n"
            ),
            &set("msi", &["data_none", "data_eventfd"], ",\"start\":1,\"count\":2"),
            &set("msi", &["data_none", "data_eventfd"], ",\"count\":2"),
            &set("msi", &["data_eventfd"], ",\"count\":2,\"argsz\":27,\"arg\":\"tail:20\""),
            &set("msi", &["data_eventfd"], ",\"count\":2,\"argsz\":28,\"arg\":\"tail:27\""),
            &set("msi", &["data_eventfd"], ",\"fds\":[99]"),
        ];
        let later = [
            "no other kind of interrupt is enabled",
            "to enable: at least one vector",
            "to enable: the device is powered up (D0)",
            "to enable: where the user chooses, an MSI window is there that devices may write",
            "to enable: a page of the MSI windows is free for the doorbell",
            "the interrupt controller has a vector left, and the driver's MSI window a page",
            "once enabled: all vectors are among the enabled ones",
            "each descriptor is open",
            "each descriptor is an eventfd",
        ];
        ascend(dialect, &[script.concat()], &later);
    }
}

/// Checks for every kind of interrupt.
const GENERAL: [&str; 9] = [
    "the argument can be read",
    "argsz is at least 20",
    "the index is one of 0 to 4",
    "start plus count stays below 2^32 - 1",
    "no unknown flags",
    "start and all vectors are among those that the device has",
    "exactly one of DATA_NONE, DATA_BOOL and DATA_EVENTFD",
    "argsz is at least 20 and the data",
    "the data can be read",
];

#[test]
fn messages() {
    for dialect in Dialect::ALL {
        let power = |state: u8| {
            format!("{{\"op\":\"region_write\",\"offset\":\"0xa4\",\"data\":\"0{state}00\"}}\n")
        };
        let script = [
            &*open("arm-smmuv3-its-user", "test"),
            "{\"op\":\"map\",\"iova\":\"0x100000\",\"size\":\"0x1000\",\"flags\":[\"reserved_msi_iova\",\"write\",\"read\"]}\n",
            &set("msi", EVENT, ",\"fds\":[\"e0\"]"),
            &set("msix", &["data_eventfd", "action_mask"], ",\"fds\":[99]"),
            &set("msix", EVENT, ",\"fds\":[99]"),
            &set("msix", NONE, ",\"count\":0"),
            &set("msi", NONE, ",\"count\":0"),
            &set("msi", NONE, ",\"count\":0"),
            "{\"op\":\"unmap\",\"flags\":[\"reserved_msi_iova\",\"all\"]}\n",
            &power(3),
            &set("msi", EVENT, ",\"fds\":[]"),
            &set("msi", EVENT, ",\"fds\":[99]"),
            &power(0),
            &set("msi", EVENT, ",\"fds\":[99]"),
            "{\"op\":\"map\",\"iova\":\"0x100000\",\"size\":\"0x1000\",\"flags\":[\"reserved_msi_iova\",\"write\",\"read\"]}\n",
            &set("msi", EVENT, ",\"fds\":[\"e0\"]"),
            &set("msi", EVENT, ",\"start\":1,\"fds\":[99]"),
            &set("msi", EVENT, ",\"fds\":[99]"),
            &set("msi", EVENT, ",\"fds\":[\"c0\"]"),
        ];
        // Two devices of one SMMU with an ITS each, and one page.
        let full = [
            &*open("arm-two-its-user", "edu"),
            r#"{"op":"open_group","g":1,"dev":"edu3"}
{"op":"set_container","g":1}
{"op":"get_device_fd","g":1,"d":1,"dev":"edu3"}
{"op":"map","iova":"0x100000","size":"0x1000","flags":["reserved_msi_iova","write","read"]}
"#,
            &set("msi", EVENT, ",\"fds\":[\"e0\"]"),
            &set("msi", EVENT, ",\"d\":1,\"fds\":[99]"),
        ];
        let range = [
            &*open("x86-intel", "test"),
            &set("msi", EVENT, ",\"fds\":[\"e0\"]"),
            &set("msi", BOOL, ",\"start\":1,\"data\":[1]"),
        ];
        let mut skipped = GENERAL.to_vec();
        // No host runs out of vectors; crates/vfio/src/device/irq/tests/order.rs.
        skipped
            .push("the interrupt controller has a vector left, and the driver's MSI window a page");
        let scripts = [script.concat(), full.concat(), range.concat()];
        ascend(dialect, &scripts, &skipped);
    }
}

#[test]
fn the_line() {
    for dialect in Dialect::ALL {
        let unmask = &["data_eventfd", "action_unmask"];
        let mask = &["data_eventfd", "action_mask"];
        let script = [
            &*open("x86-intel", "edu"),
            &set("intx", &["data_eventfd", "action_mask", "action_unmask"], ",\"fds\":[]"),
            &set("msi", EVENT, ",\"fds\":[\"e0\"]"),
            &set("intx", EVENT, ",\"fds\":[]"),
            &set("msi", NONE, ",\"count\":0"),
            &set("intx", NONE, ",\"count\":0"),
            &set("intx", EVENT, ",\"fds\":[]"),
            &set("intx", EVENT, ",\"fds\":[99]"),
            &set("intx", EVENT, ",\"fds\":[\"c0\"]"),
        ];
        let enabled = [
            &*open("x86-intel", "edu"),
            &set("intx", NONE, ",\"count\":1"),
            &set("intx", mask, ",\"fds\":[99]"),
            &set("intx", unmask, ",\"fds\":[99]"),
            &set("intx", EVENT, ",\"fds\":[\"e0\"]"),
            &set("intx", mask, ",\"fds\":[]"),
            &set("intx", unmask, ",\"fds\":[]"),
            &set("intx", mask, ",\"fds\":[99]"),
            &set("intx", unmask, ",\"fds\":[\"e1\"]"),
            &set("intx", unmask, ",\"fds\":[99]"),
            &set("intx", unmask, ",\"fds\":[\"c0\"]"),
            &set("intx", unmask, ",\"fds\":[\"e0\"]"),
        ];
        let mut skipped = GENERAL.to_vec();
        // Every line is wired here; crates/vfio/src/device/irq/tests/order.rs.
        skipped.push("the device's line is wired");
        ascend(dialect, &[script.concat(), enabled.concat()], &skipped);
    }
}

#[test]
fn error_and_request() {
    for dialect in Dialect::ALL {
        let script = [
            &*open("x86-intel", "edu"),
            &set("req", &["data_none", "action_mask"], ",\"count\":0"),
            &set("req", NONE, ",\"count\":0"),
            &set("req", EVENT, ",\"count\":0"),
            &set("req", BOOL, ",\"count\":0"),
            &set("req", EVENT, ",\"fds\":[-2]"),
            &set("req", EVENT, ",\"fds\":[99]"),
            &set("req", EVENT, ",\"fds\":[\"c0\"]"),
        ];
        ascend(dialect, &[script.concat()], &GENERAL);
    }
}
