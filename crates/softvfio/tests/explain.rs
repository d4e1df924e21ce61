//! `softvfio explain`: which check, who is in the way, what was legal, what looks odd.

mod common;

use std::process::Output;

use serde_json::Value;

use self::common::fed;

fn run(arguments: &[&str], input: &str) -> Output {
    fed(&[&["explain"], arguments].concat(), input.as_bytes())
}

/// The explanation as an object, and as text, which must be there too.
fn explained(arguments: &[&str], input: &str) -> (Value, String) {
    let [json, text] = [&["--json"][..], &[]].map(|more| {
        let out = run(&[more, arguments].concat(), input);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!((&*said, out.status.code()), ("", Some(0)), "{arguments:?} {input}");
        String::from_utf8(out.stdout).unwrap()
    });
    (serde_json::from_str(&json).unwrap(), text)
}

/// A script on a built-in host, its first request opening a container, a group, a device.
fn script(host: &str, set_iommu: &str, rest: &str) -> String {
    format!(
        "{{\"built_in\":\"{host}\"}}\n{{\"op\":\"mem\"}}\n{{\"op\":\"open_container\"}}\n\
         {{\"op\":\"open_group\"}}\n{{\"op\":\"set_container\"}}\n\
         {{\"op\":\"set_iommu\",\"type\":\"{set_iommu}\"}}\n{rest}\n"
    )
}

/// The check that failed.
fn failed(explained: &Value) -> &str {
    let rules = explained["rules"].as_array().unwrap();
    let failed: Vec<&Value> = rules.iter().filter(|r| r["verdict"] == "failed").collect();
    let [one] = failed[..] else { panic!("{failed:?}") };
    one["says"].as_str().unwrap()
}

#[test]
fn a_container_of_version_1_beside_one_of_version_2() {
    // The last SET_IOMMU is not that of the container of the unmap.
    let both = |first: &str, second: &str| {
        script(
            "x86-intel",
            first,
            &format!(
                r#"{{"op":"open_container","c":1}}
{{"op":"open_group","g":1,"dev":"edu2"}}
{{"op":"set_container","g":1,"c":1}}
{{"op":"set_iommu","c":1,"type":"{second}"}}
{{"op":"map","iova":0,"size":8192,"vaddr":"buf"}}
{{"op":"unmap","iova":4096,"size":4096}}"#
            ),
        )
    };
    let cuts = |rules: &Value| rules.to_string().contains("cuts no mapping");
    let (v1, text) = explained(&["--", "-:11"], &both("type1", "type1v2"));
    assert!(!cuts(&v1["rules"]), "{v1}");
    assert!(text.contains("starts inside of the mapping 0x0..=0x1fff"), "{text}");
    let (v2, _) = explained(&["--", "-:11"], &both("type1v2", "type1"));
    assert_eq!(failed(&v2), "it cuts no mapping (type1v2)");
    assert_eq!(v2["legal"], "with all of that mapping: iova 0x0, size 0x2000");
    assert_eq!(
        (&v2["in_the_way"][0]["first"], &v2["in_the_way"][0]["since"]),
        (&"0x0".into(), &10.into())
    );
}

#[test]
fn only_what_is_in_the_same_container_is_in_the_way() {
    let rest = r#"{"op":"open_container","c":1}
{"op":"open_group","g":1,"dev":"edu2"}
{"op":"set_container","g":1,"c":1}
{"op":"set_iommu","c":1}
{"op":"map","c":1,"iova":0,"size":4096,"vaddr":"buf"}
{"op":"map","iova":0,"size":4096,"vaddr":"buf"}
{"op":"map","iova":0,"size":4096,"vaddr":"buf"}"#;
    let (json, _) = explained(&["-"], &script("x86-intel", "type1v2", rest));
    let way = json["in_the_way"].as_array().unwrap();
    assert_eq!((way.len(), &way[0]["since"]), (1, &11.into()), "{json}");
}

#[test]
fn who_has_what_is_no_address() {
    let device = r#"{"op":"get_device_fd"}
{"op":"eventfd"}
"#;
    let msi = r#"{"op":"set_irqs","index":"msi","fds":["e0"],"flags":["data_eventfd","action_trigger"]}
{"op":"set_irqs","index":"msi","count":1,"flags":["data_none","action_trigger"]}
"#;
    let line = r#"{"op":"set_irqs","index":"intx","fds":["e0"],"flags":["data_eventfd","action_trigger"]}"#;
    let unmask =
        r#"{"op":"set_irqs","index":"intx","fds":["e0"],"flags":["data_eventfd","action_unmask"]}"#;
    let cases = [
        ("{\"op\":\"set_iommu\"}".to_owned(), "the IOMMU of the container", 5),
        ("{\"op\":\"set_container\"}".to_owned(), "the group in its container", 4),
        ("{\"op\":\"open_group\",\"g\":1}".to_owned(), "the open group (edu)", 3),
        (format!("{device}{{\"op\":\"unset_container\"}}"), "an open device (edu)", 6),
        (format!("{device}{msi}{line}"), "enabled interrupts (msi)", 8),
        (format!("{device}{line}\n{unmask}\n{unmask}"), "the unmask eventfd (intx)", 9),
    ];
    for (rest, what, since) in cases {
        let (json, text) = explained(&["-"], &script("x86-intel", "type1v2", &rest));
        let way = json["in_the_way"].as_array().unwrap();
        assert_eq!(way.len(), 1, "{json}");
        assert_eq!((&way[0]["what"], &way[0]["since"]), (&what.into(), &since.into()));
        assert_eq!(way[0]["first"], Value::Null);
        assert!(text.contains(&format!("{what}, since request {since}")), "{text}");
    }
    // What was given back is in nobody's way.
    let gone = format!(
        "{device}{msi}{{\"op\":\"set_irqs\",\"index\":\"msi\",\"flags\":[\"data_none\",\"action_trigger\"]}}\n\
         {line}\n{{\"op\":\"set_irqs\",\"index\":\"msi\",\"fds\":[\"e0\"],\
         \"flags\":[\"data_eventfd\",\"action_trigger\"]}}"
    );
    let (json, _) = explained(&["-"], &script("x86-intel", "type1v2", &gone));
    assert_eq!(json["in_the_way"][0]["what"], "enabled interrupts (intx)");
}

#[test]
fn answers_that_look_odd() {
    let on_test = |rest: &str| {
        let open = r#"{"op":"open_group","g":1,"dev":"test"}
{"op":"set_container","g":1}
{"op":"get_device_fd","g":1,"dev":"test"}
{"op":"eventfd"}
"#;
        open.to_owned() + rest
    };
    let irqs = |members: &str| format!("{{\"op\":\"set_irqs\",{members}}}");
    let enable = irqs(r#""index":"msi","fds":["e0"],"flags":["data_eventfd","action_trigger"]"#);
    let edu = "{\"op\":\"get_device_fd\"}\n";
    let cases = [
        ("type1v2", r#"{"op":"unmap","iova":0,"size":4096}"#.to_owned(), "no mapping is there"),
        (
            "type1",
            r#"{"op":"map","iova":0,"size":8192,"vaddr":"buf"}
{"op":"unmap","iova":0,"size":4096}"#
                .to_owned(),
            "it removed 0x2000 bytes, more than the 0x1000 asked for",
        ),
        (
            "type1v2",
            r#"{"op":"dirty","flags":["start"]}
{"op":"dirty","flags":["get_bitmap"],"iova":0,"size":4096,"bitmap_size":8}"#
                .to_owned(),
            "no mapping is in the range: the bitmap is as it was before",
        ),
        (
            "type1v2",
            on_test(&format!(
                "{enable}\n{}",
                irqs(r#""index":"msi","start":1,"flags":["data_none","action_trigger"]"#)
            )),
            "a count of 0 disabled all vectors, whatever start is",
        ),
        (
            "type1v2",
            edu.to_owned()
                + &irqs(r#""index":"intx","fds":[-1],"flags":["data_eventfd","action_trigger"]"#),
            "INTx is enabled and has no eventfd",
        ),
        ("type1v2", on_test(&format!("{enable}\n{{\"op\":\"reset\"}}")), "MSI stays enabled"),
        (
            "type1v2",
            edu.to_owned() + r#"{"op":"region_read","region":"bar0","offset":"0xffffc","size":8}"#,
            "only 4 of 8 bytes were moved",
        ),
        (
            "type1v2",
            on_test(r#"{"op":"region_write","region":"bar0","offset":"0x2000","data":"00000000"}"#),
            "the MSI-X table is there",
        ),
        (
            "type1v2",
            edu.to_owned()
                + "{\"op\":\"region_write\",\"offset\":4,\"data\":\"0600\"}\n"
                + r#"{"op":"edu_dma","iova":"0x123000"}"#,
            "a device's DMA failed meanwhile: edu: ",
        ),
        (
            "type1v2",
            "{\"op\":\"get_info\",\"argsz\":24}".to_owned(),
            "it has capabilities that did not fit",
        ),
    ];
    for (version, rest, says) in cases {
        let script = script("x86-intel", version, &rest);
        let (json, text) = explained(&["-"], &script);
        assert_ne!(json, Value::Null, "{rest}");
        let suspicion = json["suspicion"].as_str().unwrap_or_else(|| panic!("{rest}: {json}"));
        assert!(suspicion.contains(says), "{rest}: {suspicion}");
        assert!(text.contains("\nsuspicious\n"), "{text}");
        // It is the last request of each.
        assert_eq!(json["request"], script.lines().count() - 1, "{rest}");
    }
}

#[test]
fn a_question_for_the_size_is_not_odd_once_it_is_followed_by_the_request() {
    let both = "{\"op\":\"get_info\",\"argsz\":24}\n{\"op\":\"get_info\",\"argsz\":200}";
    let (json, text) = explained(&["-"], &script("x86-intel", "type1v2", both));
    assert_eq!(json, Value::Null);
    assert!(text.starts_with("nothing was refused"), "{text}");
    // A region's capabilities say nothing that must be known: explained when asked about.
    let region = r#"{"op":"open_group","g":1,"dev":"test"}
{"op":"set_container","g":1}
{"op":"get_device_fd","g":1,"dev":"test"}
{"op":"region_info","argsz":32}"#;
    let region = script("x86-intel", "type1v2", region);
    assert_eq!(explained(&["-"], &region).0, Value::Null);
    let (json, _) = explained(&["--", "-:9"], &region);
    assert!(json["suspicion"].as_str().unwrap().contains("did not fit"), "{json}");
}

#[test]
fn the_end_of_the_address_space_before_7_3() {
    let rest = r#"{"op":"map","iova":"0xfffffffffffff000","size":4096,"vaddr":"buf"}
{"op":"unmap","iova":"0xfffffffffffff000","size":4096}"#;
    let script = script("x86-amd", "type1v2", rest);
    for kernel in ["6.1", "6.12"] {
        let (map, _) = explained(&["--dialect", kernel, "-"], &script);
        assert!(map["suspicion"].as_str().unwrap().contains("no UNMAP_DMA finds it"), "{map}");
        let (unmap, _) = explained(&["--dialect", kernel, "--", "-:7"], &script);
        assert!(unmap["suspicion"].as_str().unwrap().contains("an end of 2^64 counts as 0"));
    }
    assert_eq!(explained(&["--dialect", "7.3", "-"], &script).0, Value::Null);
}

#[test]
fn a_refused_request_may_have_changed_something() {
    let rest = r#"{"op":"get_device_fd"}
{"op":"eventfd"}
{"op":"set_irqs","index":"msi","fds":["e0"],"flags":["data_eventfd","action_trigger"]}
{"op":"set_irqs","index":"msi","fds":[99],"flags":["data_eventfd","action_trigger"]}"#;
    let (json, text) = explained(&["-"], &script("x86-intel", "type1v2", rest));
    assert!(json["effect"].as_str().unwrap().contains("have lost the eventfds"), "{json}");
    assert!(text.contains("\nchanged all the same\n"), "{text}");
    // Where it was to be enabled, it is off as before.
    let rest = rest.replace(",\"fds\":[\"e0\"]", ",\"fds\":[99]");
    let (json, _) = explained(&["-"], &script("x86-intel", "type1v2", &rest));
    assert_eq!((&json["effect"], failed(&json)), (&Value::Null, "each descriptor is open"));
    let rest = r#"{"op":"map","iova":0,"size":4096,"vaddr":"buf"}
{"op":"dirty","flags":["start"]}
{"op":"unmap","iova":0,"size":4096,"flags":["get_dirty_bitmap"],"bitmap_size":8,"bitmap_data":"0x1000"}"#;
    let (json, _) = explained(&["-"], &script("x86-intel", "type1v2", rest));
    assert!(json["effect"].as_str().unwrap().contains("are gone"), "{json}");
}

#[test]
fn what_vfio_does_not_see_has_no_checks() {
    let quiet = script("x86-intel", "type1v2", "{\"op\":\"mem\",\"name\":\"m\"}");
    let (json, text) = explained(&["--", "-:6"], &quiet);
    assert_eq!(json["rules"], Value::Null);
    assert!(text.contains("VFIO checks nothing"), "{text}");
    // A descriptor that is not open is refused by whoever looks descriptors up.
    let closed = script("x86-intel", "type1v2", "{\"op\":\"map\",\"c\":7}");
    let (json, text) = explained(&["--", "-:6"], &closed);
    assert!(json["rules"].as_array().unwrap().iter().all(|r| r["verdict"] == "not reached"));
    assert!(text.contains("VFIO_IOMMU_MAP_DMA was not reached"), "{text}");
    let (json, text) = explained(&["--", "-:5"], &script("x86-intel", "type1v2", ""));
    assert!(json["rules"].as_array().unwrap().iter().all(|r| r["verdict"] == "held"));
    assert!(text.contains("VFIO_SET_IOMMU checks, in this order"), "{text}");
    let none = script("x86-intel", "type1v2", "{\"op\":\"check_extension\",\"ext\":3}");
    assert!(explained(&["--", "-:6"], &none).1.contains("VFIO_CHECK_EXTENSION checks nothing"));
}

#[test]
fn requests_of_the_command_line_at_the_edges() {
    let on =
        |host: &str, arguments: &[&str]| explained(&[&["--host", host], arguments].concat(), "").0;
    let errno = |json: &Value| json["got"]["errno"].as_str().unwrap_or("0").to_owned();
    let cases: [(&str, &[&str], &str, &str); 12] = [
        ("x86-intel", &["--map", "0+0"], "EINVAL", "size is not 0"),
        ("x86-intel", &["--map", "0x800+4K"], "EINVAL", "iova, vaddr and size are multiples"),
        ("x86-intel", &["--map", "0+1"], "EINVAL", "iova, vaddr and size are multiples"),
        ("x86-amd", &["--map", "0+0xfffffffffffff000"], "EINVAL", "iova and vaddr plus size"),
        ("x86-intel", &["--map", "0x1000000000000+4K"], "EINVAL", "it lies within one valid"),
        ("x86-intel", &["--unmap", "0+0xffffffffffffffff"], "EINVAL", "size is a multiple of it"),
        ("x86-intel", &["--unmap", "0+0"], "EINVAL", "size is not 0"),
        ("x86-intel", &["--window", "0x8000000+64K"], "EINVAL", "no unknown flags"),
        ("arm-smmuv3-its-user", &["--window", "0x8000000+1"], "EINVAL", "iova and size are mult"),
        ("arm-smmuv3-its-user", &["--enable-msi", "edu"], "EINVAL", "to enable: where the user"),
        ("arm-smmuv3-gicv2m", &["--map", "0+4K"], "EPERM", "its interrupts are isolated"),
        ("x86-intel", &["--unmap", "4K+4K", "--map", "0+8K"], "EINVAL", "it cuts no mapping"),
    ];
    for (host, arguments, number, says) in cases {
        let json = on(host, arguments);
        assert_eq!(errno(&json), number, "{arguments:?}: {json}");
        assert!(failed(&json).starts_with(says), "{arguments:?}: {}", failed(&json));
    }
    // More memory than a process has cannot be pinned, wherever it fits.
    let json = on("x86-amd", &["--map", "0x20000000000+0x20000000000000"]);
    assert_eq!((errno(&json), failed(&json)), ("EFAULT".into(), "the memory can be pinned"));
    // Version 1; the kernel; the numbers; a device twice.
    let v1 = on("x86-intel", &["--type1", "v1", "--map", "0+8K", "--unmap", "4K+4K"]);
    assert!(v1["suspicion"].as_str().unwrap().contains("type1 version 1 stops"), "{v1}");
    let wrap = ["--dialect", "7.3", "--map", "0xfffffffffffff000+8K"];
    assert_eq!(errno(&on("x86-amd", &wrap)), "EOVERFLOW");
    let user = "arm-smmuv3-its-user";
    let own = ["--abi", "kernel", "--window", "0+64K"];
    assert_eq!(failed(&on(user, &own)), "no unknown flags");
    let old = on(user, &["--abi", "msi-v6", "--window", "0+64K"]);
    assert_eq!((errno(&old), &old["suspicion"]), ("0".into(), &Value::Null), "{old}");
    let twice = on("x86-intel", &["--enable-msi", "edu", "--enable-msi", "edu"]);
    assert_eq!(errno(&twice), "0", "{twice}");
}

#[test]
fn what_cannot_be_asked_is_said_in_a_line() {
    let many = ["--enable-msi", "edu"].repeat(65);
    let cases: [(&[&str], &str); 8] = [
        (&["--host", "x86-intel", "--map", "0+16E"], "softvfio: --map: expected IOVA+SIZE"),
        (&["--host", "x86-intel", "--map", "0x10000000000000000+1"], "softvfio: --map: expected"),
        (&["--host", "x86-intel", "--map", "+1"], "softvfio: --map: expected IOVA+SIZE"),
        (&["--host", "moon", "--map", "0+4K"], "softvfio: moon: expected a"),
        (
            &["--host", "x86-intel", "--map", "0+4K", "--device", "gpu"],
            "softvfio: expected a device",
        ),
        (&["--map", "0+4K"], "error: the following required arguments were not provided"),
        (&["--host", "x86-intel", "--type1", "v3", "--map", "0+4K"], "error: invalid value 'v3'"),
        (&["--host", "x86-intel", "--abi", "mine", "--map", "0+4K"], "error: invalid value 'mine'"),
    ];
    let many = [&["--host", "x86-intel"][..], &many].concat();
    let cases = cases.into_iter().chain([(&*many, "softvfio: expected --enable-msi at most 64")]);
    for (arguments, expected) in cases {
        let out = run(arguments, "");
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!((out.status.code(), &*out.stdout), (Some(2), &b""[..]), "{arguments:?}");
        assert!(said.starts_with(expected), "{arguments:?}: {said}");
    }
}
