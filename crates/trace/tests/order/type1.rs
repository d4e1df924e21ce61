//! Maps, unmaps, dirty pages and information of a container with an IOMMU.

use iommu::Dialect;

use super::{ascend, value};

/// A container of version 2, its group not yet in it; `edu2`'s is in another of version 1.
const OPEN: &str = r#"{"built_in":"arm-smmuv3-its"}
{"op":"mem"}
{"op":"open_container","c":1}
{"op":"open_group","g":1,"dev":"edu2"}
{"op":"set_container","g":1,"c":1}
{"op":"set_iommu","c":1,"type":"type1"}
{"op":"open_container"}
{"op":"open_group"}
"#;
const JOIN: &str = r#"{"op":"set_container"}
{"op":"set_iommu","type":"type1v2"}
"#;
const BAD_DATA: &str = r#""bitmap_data":"0xffffffffffff0000""#;

#[test]
fn map() {
    for dialect in Dialect::ALL {
        // A wrap, and no flags where it is looked for first; else the other way round.
        let (first, second) = if dialect.wrap_is_eoverflow {
            ("0xfffffffffffff800", "0x8000800")
        } else {
            ("0xfffffffffffff800", "0xfffffffffffff800")
        };
        let (mix, wrap) = (r#""flags":0"#, r#""vaddr":"0x10""#);
        let (one, two) = if dialect.wrap_is_eoverflow { (mix, mix) } else { (mix, wrap) };
        let checked = [
            OPEN,
            "{\"op\":\"map\",\"arg\":\"null\"}\n",
            r#"{"op":"module_param","name":"dma_entry_limit","value":1}
"#,
            JOIN,
            r#"{"op":"map","iova":"0x10000","size":"0x1000","vaddr":"buf"}
{"op":"map","arg":"null"}
{"op":"map","argsz":31,"flags":256}
{"op":"map","flags":256}
{"op":"map","iova":"0x10800","flags":0}
"#,
            &format!(
                "{{\"op\":\"map\",\"iova\":\"{first}\",\"size\":\"0x1000\",{one}}}\n\
                 {{\"op\":\"map\",\"iova\":\"{second}\",\"size\":\"0x1000\",{two}}}\n"
            ),
            r#"{"op":"map","iova":"0x10800","size":"0x1000","vaddr":"buf"}
{"op":"map","iova":"0x10000","size":"0x10000000","vaddr":"0x1000"}
{"op":"map","iova":"0x8000000","size":"0x1000","vaddr":"0x1000"}
{"op":"module_param","name":"dma_entry_limit","value":9}
{"op":"open_container","c":2}
{"op":"open_group","g":2,"dev":"edu3"}
{"op":"set_container","g":2,"c":2}
{"op":"set_iommu","c":2,"type":"type1v2"}
{"op":"dirty","c":2,"flags":["start"]}
{"op":"mem","name":"huge","kind":"shared","size":"0x80000000000"}
{"op":"rlimit_memlock","value":0}
{"op":"setuid"}
{"op":"map","c":2,"iova":"0x8000000","size":"0x1000","vaddr":"0x1000"}
{"op":"map","c":2,"iova":"0x0","size":"0x1000","vaddr":"0x1000"}
{"op":"map","c":2,"iova":"0x100000000000","size":"0x80000000000","vaddr":"huge"}
"#,
        ]
        .concat();
        let huge = [
            OPEN,
            JOIN,
            r#"{"op":"dirty","flags":["start"]}
{"op":"mem","name":"huge","kind":"shared","size":"0x80000000000"}
{"op":"map","iova":"0x100000000000","size":"0x80000000000","vaddr":"huge"}
"#,
        ]
        .concat();
        ascend(dialect, &[checked, huge], &[]);
    }
}

#[test]
fn map_of_another_user_address() {
    for dialect in Dialect::ALL {
        let both = r#"{"op":"map","iova":"0xfffffffffffff800","size":"0x1000","flags":["vaddr","read"]}
"#;
        let (first, second) = if dialect.wrap_is_eoverflow {
            (
                both,
                r#"{"op":"map","iova":"0x10800","size":"0x1000","flags":["vaddr","read"]}
"#,
            )
        } else {
            (
                both,
                r#"{"op":"map","iova":"0xfffffffffffff800","size":"0x1000","flags":["vaddr"]}
"#,
            )
        };
        let script = [
            OPEN,
            r#"{"op":"map","arg":"null","flags":["vaddr"]}
"#,
            JOIN,
            r#"{"op":"map","iova":"0x10000","size":"0x1000","vaddr":"buf"}
{"op":"map","arg":"null","flags":["vaddr"]}
{"op":"map","argsz":16,"flags":["vaddr",256]}
{"op":"map","flags":["vaddr","read",256]}
{"op":"map","iova":"0x10800","flags":["vaddr","read"]}
"#,
            first,
            second,
            r#"{"op":"map","iova":"0x90800","size":"0x1000","flags":["vaddr"]}
{"op":"map","iova":"0x90000","size":"0x1000","flags":["vaddr"]}
{"op":"map","iova":"0x10000","size":"0x2000","flags":["vaddr"]}
{"op":"unmap","iova":"0x10000","size":"0x1000","flags":["vaddr"]}
{"op":"map","iova":"0x10000","size":"0x2000","flags":["vaddr"]}
"#,
        ]
        .concat();
        // A trace has one process; crates/vfio/tests/order.rs has two.
        ascend(dialect, &[script], &["the caller, if another process, may lock the pages"]);
    }
}

#[test]
fn unmap() {
    for dialect in Dialect::ALL {
        let script = [
            OPEN,
            r#"{"op":"unmap","arg":"null","flags":["get_dirty_bitmap","all"]}
"#,
            JOIN,
            r#"{"op":"map","iova":"0x10000","size":"0x2000","vaddr":"buf"}
{"op":"unmap","arg":"null","flags":["get_dirty_bitmap","all"]}
{"op":"unmap","argsz":23,"flags":["get_dirty_bitmap","all",256]}
{"op":"unmap","flags":["get_dirty_bitmap","all",256],"iova":1}
{"op":"unmap","flags":["get_dirty_bitmap","all"],"argsz":24,"iova":1}
{"op":"unmap","flags":["get_dirty_bitmap"],"argsz":47,"arg":"tail:24","iova":1}
{"op":"unmap","flags":["get_dirty_bitmap"],"arg":"tail:24","bitmap_size":0,"iova":1}
"#,
            &format!(
                "{{\"op\":\"unmap\",\"flags\":[\"get_dirty_bitmap\"],\"bitmap_size\":0,{BAD_DATA},\
                 \"iova\":1,\"size\":\"0x1000\"}}\n"
            ),
            r#"{"op":"unmap","flags":["get_dirty_bitmap"],"bitmap_size":0,"iova":1,"size":"0x1000"}
{"op":"unmap","flags":["get_dirty_bitmap"],"bitmap_size":8,"iova":1,"size":"0x1800"}
{"op":"unmap","flags":["all"],"iova":"0x1000","size":0}
{"op":"unmap","iova":"0x1000","size":0}
{"op":"unmap","iova":"0xfffffffffffff000","size":"0x2800"}
{"op":"unmap","flags":["get_dirty_bitmap"],"bitmap_size":8,"iova":"0xfffffffffffff000","size":"0x2000"}
{"op":"unmap","flags":["get_dirty_bitmap"],"bitmap_size":8,"bitmap_pgsize":8192,"iova":"0x11000","size":"0x2000"}
{"op":"dirty","flags":["start"]}
{"op":"unmap","flags":["get_dirty_bitmap"],"bitmap_size":8,"bitmap_pgsize":8192,"iova":"0x11000","size":"0x2000"}
{"op":"unmap","iova":"0x10000","size":"0x2000","flags":["vaddr"]}
{"op":"unmap","iova":"0x11000","size":"0x1000","flags":["vaddr"]}
{"op":"unmap","iova":"0x10000","size":"0x2000","flags":["vaddr"]}
{"op":"unmap","flags":["get_dirty_bitmap"],"bitmap_size":8,"bitmap_data":"0x1000","iova":"0x10000","size":"0x2000"}
"#,
        ]
        .concat();
        // ALL looks at the iova first.
        let all = [OPEN, JOIN, "{\"op\":\"unmap\",\"flags\":[\"all\"],\"iova\":1,\"size\":0}\n"];
        // A structure that can be read and not written: crates/vfio/tests/order.rs.
        ascend(dialect, &[script, all.concat()], &["the answer can be written"]);
    }
}

#[test]
fn an_unmap_of_version_1_may_cut_a_mapping() {
    for dialect in Dialect::ALL {
        let cut = r#"{"op":"map","c":1,"iova":"0x10000","size":"0x2000","vaddr":"buf"}
{"op":"unmap","c":1,"iova":"0x11000","size":"0x1000"}
{"op":"unmap","c":1,"iova":"0x11000","size":"0x800"}
"#;
        let refused = super::refused_of(&[OPEN, JOIN, cut].concat(), dialect);
        assert_eq!(refused.len(), 1);
        let cuts = |rule: &vfio::order::Rule| rule.says.contains("cuts");
        assert!(!refused[0].checks.rules.iter().any(cuts));
        // The other container of the same trace is of version 2, whichever was set last.
        let other = cut.replace("\"c\":1", "\"c\":0");
        let refused = super::refused_of(&[OPEN, JOIN, &other].concat(), dialect);
        assert_eq!(refused.len(), 2);
        assert!(refused.iter().all(|r| r.checks.rules.iter().any(cuts)));
        assert!(cuts(&refused[0].checks.rules[refused[0].failed()]));
    }
}

#[test]
fn dirty_pages() {
    for dialect in Dialect::ALL {
        let script = [
            OPEN,
            r#"{"op":"dirty","arg":"null","flags":["get_bitmap"]}
"#,
            JOIN,
            r#"{"op":"map","iova":"0x10000","size":"0x2000","vaddr":"buf"}
{"op":"dirty","c":1,"arg":"null","flags":["get_bitmap"]}
{"op":"dirty","arg":"null","flags":["get_bitmap"]}
{"op":"dirty","argsz":7,"flags":["get_bitmap","start",256]}
{"op":"dirty","flags":["get_bitmap","start",256]}
{"op":"dirty","flags":["get_bitmap","start"],"argsz":8}
{"op":"dirty","flags":["get_bitmap"],"argsz":47,"arg":"tail:8"}
{"op":"dirty","flags":["get_bitmap"],"arg":"tail:8"}
{"op":"dirty","flags":["get_bitmap"],"iova":1,"bitmap_size":0}
"#,
            &format!(
                "{{\"op\":\"dirty\",\"flags\":[\"get_bitmap\"],\"iova\":\"0xfffffffffffff800\",\
                 \"size\":\"0x1000\",\"bitmap_size\":0,{BAD_DATA}}}\n\
                 {{\"op\":\"dirty\",\"flags\":[\"get_bitmap\"],\"iova\":1,\"size\":\"0x1000\",\
                 \"bitmap_size\":0,{BAD_DATA}}}\n"
            ),
            r#"{"op":"dirty","flags":["get_bitmap"],"iova":1,"size":"0x2800","bitmap_size":0,"bitmap_pgsize":8192}
{"op":"dirty","flags":["get_bitmap"],"iova":1,"size":"0x2800","bitmap_size":8,"bitmap_pgsize":8192}
{"op":"dirty","flags":["get_bitmap"],"iova":1,"size":"0x1800","bitmap_size":8}
{"op":"dirty","flags":["get_bitmap"],"iova":"0x10000","size":"0x1800","bitmap_size":8}
{"op":"dirty","flags":["get_bitmap"],"iova":"0x11000","size":"0x1000","bitmap_size":8,"bitmap_data":"0x1000"}
{"op":"dirty","flags":["start"]}
{"op":"dirty","flags":["get_bitmap"],"iova":"0x11000","size":"0x1000","bitmap_size":8,"bitmap_data":"0x1000"}
{"op":"dirty","flags":["get_bitmap"],"iova":"0x10000","size":"0x2000","bitmap_size":8,"bitmap_data":"0x1000"}
"#,
        ]
        .concat();
        let start = [
            OPEN,
            JOIN,
            r#"{"op":"mem","name":"huge","kind":"shared","size":"0x80000000000"}
{"op":"map","iova":"0x100000000000","size":"0x80000000000","vaddr":"huge"}
{"op":"dirty","flags":["start",256]}
{"op":"dirty","flags":["start","stop"]}
{"op":"dirty","flags":["start"]}
"#,
        ];
        ascend(dialect, &[script, start.concat()], &[]);
    }
}

#[test]
fn get_info_and_requests_that_there_are_not() {
    for dialect in Dialect::ALL {
        let info = [
            OPEN,
            "{\"op\":\"get_info\",\"arg\":\"null\"}\n",
            JOIN,
            r#"{"op":"get_info","arg":"null"}
{"op":"get_info","argsz":15,"arg":"tail:16"}
{"op":"get_info","argsz":24,"arg":"tail:16"}
"#,
        ];
        ascend(dialect, &[info.concat()], &[]);
        let other = [OPEN, &value("c0", 0x3bff, 0), JOIN, &value("c0", 0x3bff, 0)];
        ascend(dialect, &[other.concat()], &[]);
    }
}
