//! Input that means harm: an error with a place, or the recording program's answer; never a panic,
//! a hang or exhausted memory.

use softvfio_trace::{Options, Reader, Session, Step};

const HEADER: &str = r#"{"kernel":"6.1.1","page_size":4096,"devices":{"edu":{"bdf":"0000:00:03.0","group":1,"driver":"vfio-pci","group_devices":["0000:00:03.0"],"reserved_regions":[["0xfee00000","0xfeefffff","msi"]],"resource":[["0xfe400000","0xfe4fffff","0x40200"]],"config":"3412e811030110001000ff00000000000000c0fd000000000000000000000000000000000000000000000000f41a00110000000040000000000000000a010000050080","config_size":256}}}"#;
const OPEN: &str = r#"
{"op":"mem","name":"buf","size":"0x400000"}
{"op":"open_container"}
{"op":"open_group","dev":"edu"}
{"op":"set_container"}
{"op":"set_iommu","type":3}
{"op":"get_device_fd","dev":"edu"}
"#;

/// The answers to `lines` on an open device, or the first error.
fn answers(lines: &str) -> Result<Vec<String>, String> {
    let text = format!("{HEADER}{OPEN}{lines}");
    let reader = Reader::new(text.as_bytes(), "f");
    let mut session = Session::start(reader, &Options::default()).map_err(|e| e.to_string())?;
    let mut answers = Vec::new();
    while let Some(step) = session.step().map_err(|e| e.to_string())? {
        if let Step::Request(outcome) = step {
            answers.push(outcome.got.to_string());
        }
    }
    Ok(answers.split_off(6))
}

fn last(lines: &str) -> String {
    answers(lines).unwrap().pop().unwrap()
}

#[test]
fn headers_that_cannot_be_used_have_a_place() {
    let error = |text: &str| {
        let started = Session::start(Reader::new(text.as_bytes(), "f"), &Options::default());
        started.err().unwrap().to_string()
    };
    assert_eq!(error(""), "f:1: expected a header on the first line, found an empty file");
    assert!(error("{}").starts_with("f:1:1: expected a header that describes the machine"));
    assert!(error(r#"{"op":"map"}"#).starts_with("f:1:7: expected a header before"));
    let cases = [
        (r#"{"devices":[]}"#, "f:1:12: expected devices to be an object"),
        (r#"{"devices":{"a":7}}"#, "f:1:12: expected devices.a to be an object"),
        (r#"{"devices":{"a":{"bdf":"x"}}}"#, "devices.a.bdf to be an address like"),
        (r#"{"devices":{"a":{"bdf":"0000:00:03.0","group":-1}}}"#, "devices.a.group to be"),
        (r#"{"devices":{},"page_size":1000}"#, "f:1:27: expected page_size to be a power"),
        (r#"{"devices":{},"page_size":1e30}"#, "page_size to be a number"),
        (r#"{"devices":{},"kernel":"mine"}"#, "f:1:24: expected kernel to be a release"),
        (r#"{"devices":{},"machine":"vax"}"#, "machine to be aarch64 or x86_64, found vax"),
        (r#"{"devices":{},"host":{"aperture":[["0x5","0x4"]]}}"#, "host.aperture to be"),
        (r#"{"devices":{},"host":{"pgsizes":0}}"#, "host.pgsizes to be"),
        (r#"{"devices":{},"host":{"msi":"ours"}}"#, "host.msi to be implicit, fixed or user"),
        (r#"{"devices":{},"host":{"msi":"user","max_windows":4294967296}}"#, "host.max_windows to"),
        (r#"{"devices":{},"host":{"iommus":{}}}"#, "host.iommus to be 1 to 64"),
        (r#"{"devices":{},"host":{"iommus":[]}}"#, "host.iommus to be an object"),
        (r#"{"devices":{},"host":{"iommus":{"a":7}}}"#, "host.iommus.a to be an object"),
        (r#"{"devices":{},"host":{"iommus":{"a":{"msi":1}}}}"#, "host.iommus.a.msi to be"),
        (r#"{"devices":{"a":{"bdf":"0000:00:03.0","group":1,"iommu":"b"}}}"#, "devices.a.iommu to"),
        (
            r#"{"host":{"iommus":{"a":{},"b":{}}},"devices":{"a":{"bdf":"0000:00:03.0","group":1}}}"#,
            "f:1:46: expected devices.a.iommu to be the name of one of host.iommus",
        ),
        (
            r#"{"devices":{"a":{"bdf":"0000:00:03.0","group":1},"b":{"bdf":"0000:00:03.1","group":1,"doorbell":4096}}}"#,
            "devices.b.iommu and doorbell to be those of the other devices in its group",
        ),
        (
            r#"{"devices":{"a":{"bdf":"0000:00:03.0","group":1,"controller":"bell"}}}"#,
            "devices.a.controller to be a known interrupt controller",
        ),
        (r#"{"built_in":"moon"}"#, "f:1:13: expected built_in to be one of x86-intel, "),
        (r#"{"devices":{},"abi":7}"#, "f:1:21: expected abi to be a string"),
        (r#"{"devices":{},"module_params":{"dma_entry_limit":4294967296}}"#, "dma_entry_limit"),
    ];
    for (text, what) in cases {
        assert!(error(text).contains(what), "{text}: {}", error(text));
    }
}

#[test]
fn members_that_cannot_be_used_have_a_place() {
    let error = |lines: &str| answers(lines).unwrap_err();
    assert_eq!(
        error(r#"{"op":"map","iova":"0x10000000000000000"}"#),
        "f:8:20: expected a number of at most 64 bits, found iova \"0x10000000000000000\""
    );
    let cases = [
        (r#"{"op":"close","fd":"z9"}"#, "a descriptor: c0-c7"),
        (r#"{"op":"close","fd":"é"}"#, "a descriptor: c0-c7"),
        (r#"{"op":"map","c":8}"#, "a slot below 8"),
        (r#"{"op":"eventfd","e":64}"#, "a slot below 64"),
        (r#"{"op":"map","vaddr":"nothing"}"#, "the name of a memory"),
        (r#"{"op":"map","vaddr":"buf+x"}"#, "name+offset"),
        (r#"{"op":"map","flags":{"a":1}}"#, "not an object"),
        (r#"{"op":"map","flags":["sideways"]}"#, "numbers and words of read, write, vaddr"),
        (r#"{"op":"mem","kind":"soft"}"#, "anon, shared, hole or region"),
        (r#"{"op":"mem","name":""}"#, "a name"),
        (r#"{"op":"mem_read","size":"0x100000000"}"#, "at most 1048576 bytes"),
        (r#"{"op":"region_read","size":8193}"#, "at most 8192 bytes"),
        (r#"{"op":"region_write","data":"0g"}"#, "hexadecimal digits"),
        (r#"{"op":"open_group","dev":"gpu"}"#, "one of the header's devices: edu"),
        (r#"{"op":"get_info","arg":"tail:x"}"#, "null or tail:N"),
        (r#"{"op":"set_irqs","fds":"e0"}"#, "a list"),
        (r#"{"op":"ioctl","fd":"c0","cmd":"no"}"#, "a number"),
        (r#"{"op":7"#, "a JSON object"),
    ];
    for (line, what) in cases {
        assert!(error(line).contains(what), "{line}: {}", error(line));
    }
    let many = format!(r#"{{"op":"set_irqs","fds":[{}-1]}}"#, "-1,".repeat(2000));
    assert!(error(&many).contains("a list of at most 1100"));
}

#[test]
fn absurd_memory_is_refused_and_large_memory_costs_nothing() {
    let mem = |size: &str| last(&format!(r#"{{"op":"mem","name":"a","size":"{size}"}}"#));
    assert_eq!(mem("0x1000000000000000"), r#"{"errno":"ENOMEM"}"#);
    assert_eq!(mem("0xffffffffffffffff"), r#"{"errno":"ENOMEM"}"#);
    assert_eq!(mem("0x0"), r#"{"errno":"EINVAL"}"#);
    let tera = r#"{"op":"rlimit_memlock","value":"0xffffffffffffffff"}
{"op":"mem","name":"t","size":"0x10000000000"}
{"op":"mem_fill","at":"t","size":"0x10000000000","byte":7}
{"op":"map","iova":"0x100000000","size":"0xff00000000","vaddr":"t"}
{"op":"locked_kb"}
{"op":"mem_read","at":"t+0xffffffff00","size":4}
{"op":"mem","name":"r","size":"0x10000000000","prot":"r"}
{"op":"unmap","iova":0,"size":0,"flags":["all"]}
{"op":"map","iova":"0x100000000","size":"0xff00000000","vaddr":"r","flags":["read"]}
{"op":"mem_unmap","at":"r","size":"0x10000000000"}
{"op":"mem_protect","at":"t","size":"0x10000000000","prot":"none"}
{"op":"unmap","iova":0,"size":0,"flags":["all"]}"#;
    let answers = answers(tera).unwrap();
    assert_eq!(answers[4], r#"{"ret":0,"kb":1069547520}"#);
    assert_eq!(answers[5], r#"{"ret":0,"data":"07070707"}"#);
    assert_eq!(answers[11], r#"{"ret":0,"size":"0xff00000000"}"#);
}

#[test]
fn what_would_kill_the_process_says_so() {
    let killed = |signal: &str| format!(r#"{{"killed":"{signal}"}}"#);
    let cases = [
        (r#"{"op":"mem_read","at":"0x10"}"#, "SIGSEGV"),
        (r#"{"op":"mem_fill","at":"buf","size":"0xffffffffffffffff"}"#, "SIGSEGV"),
        (r#"{"op":"get_info","arg":"tail:16","argsz":16,"raw":true}"#, "SIGSEGV"),
        (
            "{\"op\":\"mem\",\"name\":\"s\",\"kind\":\"shared\",\"size\":\"0x4000\",\"file_size\":1}\n\
             {\"op\":\"mem_read\",\"at\":\"s+0x1000\"}",
            "SIGBUS",
        ),
        (
            "{\"op\":\"region_write\",\"offset\":4,\"data\":\"0000\"}\n\
             {\"op\":\"mem\",\"name\":\"b\",\"kind\":\"region\",\"size\":\"0x1000\"}\n\
             {\"op\":\"mem_read\",\"at\":\"b\"}",
            "SIGBUS",
        ),
    ];
    for (lines, signal) in cases {
        assert_eq!(last(lines), killed(signal), "{lines}");
    }
}

#[test]
fn every_operation_stands_extreme_numbers() {
    let operations = [
        "mem",
        "mem_unmap",
        "mem_protect",
        "mem_fill",
        "open_container",
        "open_iommufd",
        "close",
        "api_version",
        "check_extension",
        "set_iommu",
        "group_status",
        "set_container",
        "unset_container",
        "get_device_fd",
        "map",
        "unmap",
        "dirty",
        "get_info",
        "device_info",
        "region_info",
        "irq_info",
        "set_irqs",
        "reset",
        "eventfd",
        "eventfd_read",
        "eventfd_write",
        "region_write",
        "edu_dma",
        "ioctl",
        "rlimit_memlock",
        "setuid",
        "locked_kb",
        "module_param",
        "bind",
        "unbind",
        "remove",
    ];
    let members = [
        "size",
        "align",
        "file_size",
        "iova",
        "argsz",
        "flags",
        "index",
        "start",
        "count",
        "value",
        "bitmap_size",
        "bitmap_pgsize",
        "bitmap_data",
        "offset",
        "cmd",
        "raw_ext",
        "type",
        "uid",
        "at",
        "vaddr",
        "file_offset",
        "fds_at",
    ];
    let values =
        ["0", "1", "-1", "0x7fffffffffffffff", "0x8000000000000000", "0xfffffffffffff000", "null"];
    for operation in operations {
        for member in members {
            let lines: String = values
                .iter()
                .map(|v| {
                    format!("{{\"op\":\"{operation}\",\"dev\":\"edu\",\"{member}\":\"{v}\",\"data\":\"00\"}}\n")
                })
                .collect();
            // An answer or an error: anything but a panic.
            let _ = answers(&lines);
            let list = lines.replace("\"data\":\"00\"", "\"data\":[1,2,3],\"arg\":\"tail:7\"");
            let _ = answers(&list);
        }
    }
}

#[test]
fn the_largest_bitmaps_are_answered() {
    let query = |size: &str| {
        last(&format!(
            "{{\"op\":\"map\",\"iova\":0,\"size\":\"0x400000\",\"vaddr\":\"buf\"}}\n\
             {{\"op\":\"dirty\",\"flags\":[\"start\"]}}\n\
             {{\"op\":\"dirty\",\"flags\":[\"get_bitmap\"],\"iova\":0,\"size\":\"0x400000\",\
             \"bitmap_size\":\"{size}\"}}"
        ))
    };
    let full = format!(r#"{{"ret":0,"bitmap":"{}"}}"#, "ff".repeat(128));
    assert_eq!(query("0x10000000"), full);
    assert_eq!(query("0x10000008"), r#"{"errno":"EINVAL"}"#);
    assert_eq!(query("0xffffffffffffffff"), r#"{"errno":"EINVAL"}"#);
}
