//! MSI windows.

use iommu::Dialect;

use super::ascend;

/// Two windows at most, of which one is there already once the group has joined.
const OPEN: &str = r#"{"built_in":"mixed"}
{"op":"mem"}
{"op":"open_container"}
{"op":"open_group","dev":"edu"}
"#;
const JOIN: &str = r#"{"op":"set_container"}
{"op":"set_iommu","type":"type1v2"}
{"op":"map","iova":"0x10000","size":"0x1000","vaddr":"buf"}
{"op":"map","iova":"0x20000","size":"0x1000","flags":["reserved_msi_iova","read","write"]}
"#;

#[test]
fn map() {
    for dialect in Dialect::ALL {
        let wrap = r#"{"op":"map","iova":"0xfffffffffffff800","size":"0x1000","flags":["reserved_msi_iova"FLAGS]}
"#;
        let (first, second) = if dialect.wrap_is_eoverflow {
            (
                wrap.replace("FLAGS", ""),
                wrap.replace("FLAGS", "").replace("0xfffffffffffff", "0x10"),
            )
        } else {
            (wrap.replace("FLAGS", ""), wrap.replace("FLAGS", ",\"read\""))
        };
        let script = [
            OPEN,
            r#"{"op":"map","arg":"null","flags":["reserved_msi_iova"]}
"#,
            JOIN,
            r#"{"op":"map","arg":"null","flags":["reserved_msi_iova"]}
{"op":"map","argsz":16,"flags":["reserved_msi_iova",256]}
{"op":"map","flags":["reserved_msi_iova",256]}
{"op":"map","iova":"0x10800","flags":["reserved_msi_iova"]}
"#,
            &first,
            &second,
            r#"{"op":"map","iova":"0x10800","size":"0x10000","flags":["reserved_msi_iova","write"]}
{"op":"map","iova":"0x10000","size":"0xffffffff0000","flags":["reserved_msi_iova","write"]}
{"op":"map","iova":"0x30000","size":"0x1000","flags":["reserved_msi_iova","read"]}
{"op":"map","iova":"0x20000","size":"0xffffffff0000","flags":["reserved_msi_iova","write"]}
{"op":"map","iova":"0xfffffffff000","size":"0x2000","flags":["reserved_msi_iova","write"]}
{"op":"unmap","iova":"0x30000","size":"0x1000","flags":["reserved_msi_iova"]}
{"op":"map","iova":"0xfffffffff000","size":"0x2000","flags":["reserved_msi_iova","write"]}
{"op":"map","iova":"0x40000","size":"0x1000","flags":["reserved_msi_iova","write"]}
"#,
        ];
        ascend(dialect, &[script.concat()], &[]);
    }
}

#[test]
fn unmap() {
    for dialect in Dialect::ALL {
        let script = [
            OPEN,
            r#"{"op":"unmap","arg":"null","flags":["reserved_msi_iova","vaddr"]}
"#,
            JOIN,
            r#"{"op":"get_device_fd","d":0}
{"op":"eventfd"}
{"op":"set_irqs","index":"msi","fds":["e0"],"flags":["data_eventfd","action_trigger"]}
{"op":"unmap","arg":"null","flags":["reserved_msi_iova","vaddr"]}
{"op":"unmap","argsz":23,"flags":["reserved_msi_iova","vaddr",256]}
{"op":"unmap","iova":1,"flags":["reserved_msi_iova","vaddr",256]}
{"op":"unmap","iova":1,"flags":["reserved_msi_iova","vaddr"]}
{"op":"unmap","iova":1,"flags":["reserved_msi_iova"]}
{"op":"unmap","iova":"0x1000","flags":["reserved_msi_iova"]}
{"op":"unmap","iova":"0xfffffffffffff000","size":"0x2800","flags":["reserved_msi_iova"]}
{"op":"unmap","iova":"0xfffffffffffff000","size":"0x2000","flags":["reserved_msi_iova"]}
{"op":"unmap","iova":"0x20000","size":"0x2000","flags":["reserved_msi_iova"]}
{"op":"unmap","iova":"0x20000","size":"0x1000","flags":["reserved_msi_iova"]}
"#,
        ];
        let all = r#"{"op":"unmap","iova":1,"flags":["reserved_msi_iova","all"]}
{"op":"unmap","iova":"0x1000","flags":["reserved_msi_iova","all"]}
"#;
        // A structure that can be read and not written: crates/vfio/tests/order.rs.
        let all = [OPEN, JOIN, all];
        ascend(dialect, &[script.concat(), all.concat()], &["the answer can be written"]);
    }
}

#[test]
fn a_mapping_keeps_out_of_windows() {
    for dialect in Dialect::ALL {
        let map = r#"{"op":"map","iova":"0x20000","size":"0xffffffff0000","vaddr":"0x1000"}
"#;
        let refused = super::refused_of(&[OPEN, JOIN, map].concat(), dialect);
        let rules = &refused[0].checks.rules;
        assert_eq!(rules[refused[0].failed()].says, "no MSI window is there");
    }
}

#[test]
fn where_no_iommu_takes_windows_the_flag_is_unknown() {
    let script = r#"{"built_in":"x86-amd"}
{"op":"open_container"}
{"op":"open_group"}
{"op":"set_container"}
{"op":"set_iommu"}
{"op":"map","iova":"0x20000","size":0,"flags":["reserved_msi_iova"]}
{"op":"unmap","iova":"0x20000","size":0,"flags":["reserved_msi_iova"]}
"#;
    for refused in super::refused_of(script, &Dialect::V7_3) {
        assert_eq!(refused.checks.rules[refused.failed()].says, "no unknown flags");
        assert!(refused.checks.source.starts_with("drivers/"));
    }
}
