use super::*;

/// As strace 6.1 of Debian 12 writes it.
const STRACE: &str = r#"15303 openat(AT_FDCWD, "/dev/vfio/vfio", O_RDWR|O_CLOEXEC) = 3
15303 openat(AT_FDCWD, "/dev/vfio/12", O_RDWR) = 4</dev/vfio/12>
15303 ioctl(3, VFIO_GET_API_VERSION, 0) = 0
15303 ioctl(3, 0x3b65 /* VFIO_CHECK_EXTENSION */, 0x3) = 1
15303 ioctl(4, VFIO_GROUP_SET_CONTAINER, 0x7ffca479d150) = 0
15303 ioctl(3, VFIO_SET_IOMMU, 0x3)     = 0
15303 ioctl(3, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO or VFIO_IOMMU_GET_INFO or VFIO_IOMMU_SPAPR_TCE_GET_INFO, 0x7ffca479d1a0) = 0
15303 ioctl(3, VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA, 0x7ffca479d150) = -1 EINVAL (Invalid argument)
[pid 15304] ioctl(4, VFIO_GROUP_GET_DEVICE_FD, 0x7ffca479d150 <unfinished ...>
15303 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 9, 0) = 0x7f0000000000
[pid 15304] <... ioctl resumed>) = 5
15303 pwrite64(5, "\6\0", 2, 7696581394436) = 2
15303 12:00:00.5 pread64(5, "", 4, 7696581394432)  = 4
15303 pwrite64(5, "aaaa"..., 64, 0) = 64
15303 mmap(NULL, 4096, PROT_READ, MAP_SHARED, 5, 0) = 0x7f0000000000
15303 close(4) = 0
15303 close(77) = 0
"#;

const QEMU: &str = r#"qemu-system-x86_64: warning: something
4711@1700000000.123456:vfio_attach_device  (0000:01:00.0) group 7
vfio_listener_region_add_ram region_add [ram] 0x0 - 0x7fffffff [0x7f0000000000]
vfio_listener_region_add_ram region_add [ram] 0x100000000 - 0x1ffffffff [0x7f1000000000]
qemu-system-x86_64: vfio_container_dma_map(0x5555, 0x100000000, 0x100000000, 0x7f1000000000) = -22 (Invalid argument)
vfio_pci_write_config  (0000:01:00.0, @0x4, 0x6, len=0x2)
vfio_region_write  (0000:01:00.0:region0+0x14, 0x460001, 4)
vfio_region_read  (0000:01:00.0:region0+0x1c, 4) = 0x1
vfio_msi_enable  (0000:01:00.0) Enabled 1 MSI vectors
vfio_msix_vector_do_use  (0000:01:00.0) vector 0 used
vfio_iommu_map_notify iommu MAP @ 0x200000000 - 0x200000fff
vfio_listener_region_del region_del 0x0 - 0x7fffffff
vfio_region_write nonsense
"#;

fn read(text: &str, format: Format) -> Imported {
    import(text.as_bytes(), format, "log").unwrap()
}

fn requests(imported: &Imported) -> Vec<String> {
    let lines = imported.lines("t", None).unwrap();
    lines.iter().filter(|l| l.get("op").is_some()).map(Value::to_string).collect()
}

#[test]
fn strace_carries_requests_without_structures() {
    let imported = read(STRACE, Format::Strace);
    assert_eq!(
        requests(&imported),
        [
            r#"{"op":"open_container","c":0,"want":{"ret":0}}"#,
            r#"{"op":"open_group","g":0,"dev":"0000:00:0c.0","want":{"ret":0}}"#,
            r#"{"op":"api_version","c":0,"want":{"ret":0}}"#,
            r#"{"op":"check_extension","c":0,"raw_ext":"0x3","want":{"ret":1}}"#,
            r#"{"op":"set_container","g":0,"c":0,"want":{"ret":0}}"#,
            r#"{"op":"set_iommu","c":0,"type":3,"want":{"ret":0}}"#,
            r#"{"op":"get_info","c":0}"#,
            r#"{"op":"get_device_fd","g":0,"d":0,"dev":"0000:00:0c.0","want":{"ret":0}}"#,
            r#"{"op":"region_write","d":0,"region":7,"offset":"0x4","data":"0600"}"#,
            r#"{"op":"region_read","d":0,"region":7,"offset":"0x0","size":4}"#,
            r#"{"op":"close","fd":"g0","want":{"ret":0}}"#,
        ]
    );
    let missing: Vec<(&str, &[u64])> =
        imported.missing.iter().map(|(what, lines)| (what.as_str(), &lines[..])).collect();
    assert_eq!(
        missing,
        [
            ("VFIO_IOMMU_MAP_DMA (EINVAL): strace shows no structure", &[8][..]),
            ("mmap of a region: accesses through it are in no log", &[15]),
            ("pwrite64 of more than strace shows (see its option -s)", &[14]),
        ]
    );
}

#[test]
fn qemu_carries_mappings() {
    let imported = read(QEMU, Format::Qemu);
    assert_eq!(
        requests(&imported),
        [
            r#"{"op":"mem","name":"guest","kind":"shared","size":"0x100000000"}"#,
            r#"{"op":"open_container"}"#,
            r#"{"op":"open_group","g":0,"dev":"0000:01:00.0"}"#,
            r#"{"op":"set_container","g":0}"#,
            r#"{"op":"set_iommu","type":"type1v2"}"#,
            r#"{"op":"get_device_fd","g":0,"d":0,"dev":"0000:01:00.0"}"#,
            r#"{"op":"map","iova":"0x0","size":"0x80000000","vaddr":"guest"}"#,
            r#"{"op":"map","iova":"0x100000000","size":"0x100000000","vaddr":"guest","want":{"errno":"EINVAL"}}"#,
            r#"{"op":"region_write","d":0,"region":"config","offset":"0x4","data":"0600"}"#,
            r#"{"op":"region_write","d":0,"region":0,"offset":"0x14","data":"01004600"}"#,
            r#"{"op":"region_read","d":0,"region":0,"offset":"0x1c","size":4}"#,
            r#"{"op":"eventfd","e":0}"#,
            r#"{"op":"set_irqs","d":0,"index":"msi","flags":["data_eventfd","action_trigger"],"start":0,"fds":["e0"]}"#,
            r#"{"op":"map","iova":"0x200000000","size":"0x1000","vaddr":"guest"}"#,
            r#"{"op":"unmap","iova":"0x0","size":"0x80000000"}"#,
        ]
    );
    let missing: Vec<&str> = imported.missing.keys().map(String::as_str).collect();
    assert_eq!(
        missing,
        [
            "MSI-X: the log does not say which vectors are enabled",
            "vfio_region_write: in a form that is not known"
        ]
    );
}

#[test]
fn what_was_imported_can_be_replayed() {
    for (text, format) in [(STRACE, Format::Strace), (QEMU, Format::Qemu)] {
        for host in [None, Some("x86-amd")] {
            let lines = read(text, format).lines("t", host).unwrap();
            let text: Vec<String> = lines.iter().map(Value::to_string).collect();
            let text = text.join("\n");
            let reader = crate::Reader::new(text.as_bytes(), "t");
            let mut session = crate::Session::start(reader, &crate::Options::default()).unwrap();
            session.need_known_operations();
            let mut why = Vec::new();
            while let Some(step) = session.step().unwrap() {
                if let crate::Step::Request(outcome) = step {
                    why.extend(outcome.why.map(|w| format!("{}: {w}", outcome.text)));
                }
            }
            // Registers and interrupts are the device's, of which a log knows nothing.
            let of_device = |w: &&String| w.contains("region_") || w.contains("set_irqs");
            assert!(why.iter().all(|w| of_device(&w)), "{host:?}: {why:#?}");
        }
    }
}

#[test]
fn who_wrote_a_log_is_seen() {
    assert_eq!(format_of("4711@1.5:vfio_attach_device  (x) group 7"), Some(Format::Qemu));
    assert_eq!(format_of("[pid 7] ioctl(3, 0x3b64, 0) = 0"), Some(Format::Strace));
    for other in ["", "hello", "a = b", "{\"op\":\"map\"}", "Usage: x(y) z"] {
        assert_eq!(format_of(other), None, "{other}");
    }
}

#[test]
fn nonsense_is_refused_or_passed_over_without_panic() {
    for format in [Format::Strace, Format::Qemu] {
        for text in ["", "\n\n", "\u{0}(", "ioctl(", "ioctl() = ", "x(\") = 0", "a(b) = -1"] {
            assert!(import(text.as_bytes(), format, "log").is_err(), "{text}");
        }
        // Every beginning and every hole of a log.
        for text in [STRACE, QEMU] {
            for at in 0..text.len() {
                let _ = import(&text.as_bytes()[..at], format, "log");
                let hole = [&text.as_bytes()[..at], &text.as_bytes()[at + 1..]].concat();
                let _ = import(hole.as_slice(), format, "log");
            }
        }
    }
    let error = import(&b"write(1, \"x\", 1) = 1\n"[..], Format::Strace, "log").unwrap_err();
    let text = "log: expected the strace of a program that opens /dev/vfio/vfio, found none of its \
                requests";
    assert_eq!(error.to_string(), text);
}
