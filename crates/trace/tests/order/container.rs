//! `SET_IOMMU`, and what never fails.

use iommu::Dialect;
use serde_json::json;

use super::{ascend, device, machine, refused_of};

/// Devices behind IOMMUs that do not go together, none of them isolating interrupts.
fn header() -> String {
    machine("x86-amd", |header| {
        header["host"]["iommus"] = json!({
            "one": {"msi_isolated": false, "iommu": "smmuv3"},
            "low": {"aperture": [["0x0", "0xfffff"]]},
            "high": {"aperture": [["0x100000", "0x1fffff"]], "msi_isolated": false},
        });
        header["devices"]["edu2"]["iommu"] = json!("low");
        header["devices"]["edu3"]["iommu"] = json!("high");
        header["devices"]["test"]["iommu"] = json!("low");
        header["devices"]["edu"]["iommu"] = json!("one");
        let everything = json!([["0x0", "0xffffffffffffffff", "reserved"]]);
        device(
            header,
            "full",
            json!({"bdf": "0000:00:09.0", "group": 9, "iommu": "one", "reserved_regions": everything}),
        );
    })
}

#[test]
fn set_iommu() {
    for dialect in Dialect::ALL {
        let header = header();
        let start = r#"{"op":"open_container"}
{"op":"open_container","c":1}
{"op":"open_group","g":1,"dev":"edu2"}
{"op":"set_container","g":1,"c":1}
{"op":"set_iommu","c":1}
{"op":"set_iommu","type":99}
{"op":"set_iommu","c":1,"type":99}
"#;
        let join = |slot: u8, name: &str| {
            format!(
                "{{\"op\":\"open_group\",\"g\":{slot},\"dev\":\"{name}\"}}\n\
                 {{\"op\":\"set_container\",\"g\":{slot}}}\n"
            )
        };
        let types = |types: &[&str]| -> String {
            types.iter().map(|t| format!("{{\"op\":\"set_iommu\",\"type\":{t}}}\n")).collect()
        };
        let (open, nesting) = ("{\"op\":\"open_container\"}\n", dialect.nesting_type);
        let script = [&header, start, &join(0, "full"), &types(&["99", "9", "3"])].concat();
        // The group that joined last is attached first.
        let apart = [&header, open, &join(0, "edu3"), &join(2, "test"), &types(&["3"])].concat();
        let unsafe_one = [&header, open, &join(0, "edu"), &types(&["3"])].concat();
        let mut scripts = vec![script, apart, unsafe_one];
        if nesting {
            // The group that joined last says whether there is nesting.
            scripts.push([&header, open, &join(0, "edu"), &types(&["9", "6"])].concat());
            scripts.push([&header, open, &join(0, "test"), &types(&["9", "6"])].concat());
        }
        ascend(dialect, &scripts, &[]);
    }
}

#[test]
fn what_a_container_always_answers() {
    for op in ["api_version", "check_extension"] {
        let script = format!(
            "{}{{\"op\":\"open_container\"}}\n{{\"op\":\"{op}\",\"ext\":99,\"value\":-1}}\n",
            header()
        );
        assert!(refused_of(&script, &Dialect::V7_3).is_empty(), "{op}");
    }
}
