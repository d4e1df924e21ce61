//! The order of checks that `vfio::order` tells is the order in which requests are refused: each
//! request here fails one check and everything it can of what comes after.

use iommu::Dialect;
use softvfio_trace::{Options, Outcome, Reader, Session, Step};
use vfio::order::{self, Rule};

fn refused(script: &str, dialect: &'static Dialect) -> Vec<Outcome> {
    let options = Options { dialect: Some(dialect), ..Options::default() };
    let mut session = Session::start(Reader::new(script.as_bytes(), "s"), &options).unwrap();
    let mut outcomes = Vec::new();
    while let Some(step) = session.step().unwrap() {
        if let Step::Request(outcome) = step
            && outcome.refusal.is_some()
        {
            outcomes.push(*outcome);
        }
    }
    outcomes
}

/// Each refusal comes from a later check than the one before, has its errno, and none is skipped but
/// those `skipped`.
fn ascend(rules: &[Rule], outcomes: &[Outcome], skipped: &[&str]) {
    let mut next = 0;
    for outcome in outcomes {
        let refusal = outcome.refusal.as_ref().unwrap();
        let at = order::find(rules, refusal).unwrap_or_else(|| panic!("no rule for {refusal:?}"));
        for rule in &rules[next..at] {
            assert!(skipped.contains(&rule.says), "{:?} skipped before {refusal:?}", rule.says);
        }
        assert!(at >= next, "{refusal:?} comes from {:?}", rules[at].says);
        assert_eq!(outcome.got["errno"].as_str(), rules[at].errno.name(), "{refusal:?}");
        next = at + 1;
    }
    for rule in &rules[next..] {
        assert!(skipped.contains(&rule.says), "{:?} is not tested", rule.says);
    }
}

const OPEN: &str = r#"{"built_in":"arm-smmuv3-its","kernel":"6.12.1"}
{"op":"module_param","name":"dma_entry_limit","value":1}
{"op":"mem"}
{"op":"open_container"}
{"op":"open_group","dev":"edu"}
"#;

#[test]
fn map() {
    for dialect in [&Dialect::V6_1, &Dialect::V6_12, &Dialect::V7_3] {
        let wraps = r#"{"op":"map","iova":"0xfffffffffffff800","size":"0x1000","flags":0}
{"op":"map","iova":"0xfffffffffffff800","size":"0x1000","vaddr":"0x10"}
"#;
        let mut wraps: Vec<&str> = wraps.lines().collect();
        if dialect.wrap_is_eoverflow {
            // No flags after the wrap, in a place that does not wrap.
            wraps = vec![wraps[0], r#"{"op":"map","iova":"0x8000800","size":"0x1000","flags":0}"#];
        }
        let script = [
            OPEN,
            r#"{"op":"map","arg":"null"}
{"op":"set_container"}
{"op":"set_iommu","type":"type1v2"}
{"op":"map","iova":"0x10000","size":"0x1000","vaddr":"buf"}
{"op":"map","arg":"null"}
{"op":"map","argsz":16,"flags":256}
{"op":"map","flags":256}
{"op":"map","iova":"0x10800","flags":0}
"#,
            &(wraps.join("\n") + "\n"),
            r#"{"op":"map","iova":"0x10800","size":"0x1000","vaddr":"buf"}
{"op":"map","iova":"0x10000","size":"0x10000000","vaddr":"0x1000"}
{"op":"map","iova":"0x8000000","size":"0x1000","vaddr":"0x1000"}
{"op":"module_param","name":"dma_entry_limit","value":9}
{"op":"open_container","c":1}
{"op":"open_group","g":1,"dev":"edu2"}
{"op":"set_container","g":1,"c":1}
{"op":"set_iommu","c":1,"type":"type1v2"}
{"op":"rlimit_memlock","value":0}
{"op":"setuid"}
{"op":"map","c":1,"iova":"0x8000000","size":"0x1000","vaddr":"0x1000"}
{"op":"map","c":1,"iova":"0x0","size":"0x1000","vaddr":"0x1000"}
{"op":"map","c":1,"iova":"0x0","size":"0x1000","vaddr":"buf"}
"#,
        ]
        .concat();
        let skipped = ["while dirty pages are tracked: it has less than 2^31 pages"];
        ascend(&order::map(dialect, false), &refused(&script, dialect), &skipped);
    }
}

#[test]
fn unmap() {
    for dialect in [&Dialect::V6_1, &Dialect::V6_12, &Dialect::V7_3] {
        let script = [
            OPEN,
            r#"{"op":"unmap","arg":"null"}
{"op":"set_container"}
{"op":"set_iommu","type":"type1v2"}
{"op":"map","iova":"0x10000","size":"0x2000","vaddr":"buf"}
{"op":"unmap","arg":"null"}
{"op":"unmap","argsz":16,"flags":256}
{"op":"unmap","flags":256}
{"op":"unmap","flags":["get_dirty_bitmap","all"],"bitmap_size":8,"iova":1}
{"op":"unmap","flags":["get_dirty_bitmap"],"bitmap_size":0,"iova":1,"size":"0x1000"}
{"op":"unmap","flags":["all"],"iova":1,"size":0}
{"op":"unmap","flags":["all"],"iova":"0x1000","size":0}
{"op":"unmap","iova":"0x1000","size":0}
{"op":"unmap","iova":"0xfffffffffffff000","size":"0x2000"}
{"op":"unmap","flags":["get_dirty_bitmap"],"bitmap_size":8,"iova":"0x11000","size":"0x1000"}
{"op":"unmap","iova":"0x11000","size":"0x1000","flags":["vaddr"]}
{"op":"unmap","iova":"0x10000","size":"0x2000","flags":["vaddr"]}
{"op":"unmap","iova":"0x10000","size":"0x2000","flags":["vaddr"]}
"#,
        ]
        .concat();
        let what = order::Unmap::Mappings(vfio::Version::V2);
        ascend(&order::unmap(dialect, what), &refused(&script, dialect), &[]);
    }
}

#[test]
fn map_window() {
    let script = r#"{"built_in":"mixed"}
{"op":"mem"}
{"op":"open_container"}
{"op":"open_group","dev":"edu"}
{"op":"map","arg":"null","flags":["reserved_msi_iova"]}
{"op":"set_container"}
{"op":"set_iommu","type":"type1v2"}
{"op":"map","iova":"0x10000","size":"0x1000","vaddr":"buf"}
{"op":"map","arg":"null","flags":["reserved_msi_iova"]}
{"op":"map","argsz":16,"flags":["reserved_msi_iova",256]}
{"op":"map","flags":["reserved_msi_iova",256]}
{"op":"map","iova":"0x10800","flags":["reserved_msi_iova"]}
{"op":"map","iova":"0xfffffffffffff800","size":"0x1000","flags":["reserved_msi_iova"]}
{"op":"map","iova":"0x10800","size":"0x1000","flags":["reserved_msi_iova"]}
{"op":"map","iova":"0x10800","size":"0x1000","flags":["reserved_msi_iova","write"]}
{"op":"map","iova":"0x10000","size":"0xffffffff0000","flags":["reserved_msi_iova","write"]}
{"op":"map","iova":"0x20000","size":"0x1000","flags":["reserved_msi_iova","read"]}
{"op":"map","iova":"0x30000","size":"0x1000","flags":["reserved_msi_iova","read"]}
{"op":"map","iova":"0xfffffffff000","size":"0x2000","flags":["reserved_msi_iova","write"]}
{"op":"unmap","iova":"0x30000","size":"0x1000","flags":["reserved_msi_iova"]}
{"op":"map","iova":"0xfffffffff000","size":"0x2000","flags":["reserved_msi_iova","write"]}
{"op":"map","iova":"0x40000","size":"0x1000","flags":["reserved_msi_iova","write"]}
"#;
    let dialect = &Dialect::V7_3;
    let rules = order::map_window(dialect);
    ascend(&rules, &refused(script, dialect), &["an attached IOMMU takes windows"]);
}
