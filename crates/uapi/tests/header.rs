//! `include/softvfio.h` says what this crate says: asked of a C compiler.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use softvfio_uapi::cap::{CAP_HEADER_SIZE, Capability};
use softvfio_uapi::windows::*;

/// A C expression and what it must be.
type Facts = BTreeMap<String, u64>;

fn constants(facts: &mut Facts) {
    for (name, value) in [
        ("MSI_WINDOWS", SOFTVFIO_MSI_WINDOWS),
        ("DMA_FLAG_RESERVED_MSI_IOVA", SOFTVFIO_DMA_FLAG_RESERVED_MSI_IOVA),
        ("INFO_REQUIRE_MSI_MAP", SOFTVFIO_INFO_REQUIRE_MSI_MAP),
        ("INFO_CAP_RESERVED_REGIONS", ReservedRegionsCap::ID.into()),
        ("INFO_CAP_MSI_WINDOWS", MsiWindowsCap::ID.into()),
        ("RESERVED_DIRECT", RESERVED_DIRECT),
        ("RESERVED_DIRECT_RELAXABLE", RESERVED_DIRECT_RELAXABLE),
        ("RESERVED_RESERVED", RESERVED_RESERVED),
        ("RESERVED_MSI", RESERVED_MSI),
        ("RESERVED_SW_MSI", RESERVED_SW_MSI),
        ("RESERVED_WINDOW", RESERVED_WINDOW),
        ("RESERVED_GROUP_CONTAINER", RESERVED_GROUP_CONTAINER),
        ("V6_DMA_FLAG_MSI_RESERVED_IOVA", MSI_V6_DMA_FLAG_MSI_RESERVED_IOVA),
        ("V6_INFO_REQUIRE_MSI_MAP", MSI_V6_INFO_REQUIRE_MSI_MAP),
    ] {
        facts.insert(format!("SOFTVFIO_{name}"), value.into());
    }
}

/// Size and offsets of a structure; `$before` bytes of header stand before it in C.
macro_rules! structure {
    ($facts:ident, $ours:ident, $theirs:literal, $before:expr, $($field:ident)+) => {
        // Without `..`: a field that is missing here is an error.
        let _ = |s: $ours| { let $ours { $($field: _),+ } = s; };
        let size = $before + size_of::<$ours>();
        $facts.insert(format!("sizeof(struct {})", $theirs), size as u64);
        $(
            let offset = $before + offset_of!($ours, $field);
            let name = format!("offsetof(struct {}, {})", $theirs, stringify!($field));
            $facts.insert(name, offset as u64);
        )+
    };
}

fn facts() -> Facts {
    let mut facts = Facts::new();
    constants(&mut facts);
    structure!(facts, RawReservedRegion, "softvfio_reserved_region", 0,
        start last kind permission group reserved);
    structure!(facts, RawMsiWindow, "softvfio_msi_window", 0, start last used_pages permission);
    let header = CAP_HEADER_SIZE;
    structure!(facts, ReservedRegionsCap, "softvfio_reserved_regions", header, count entry_size);
    structure!(facts, MsiWindowsCap, "softvfio_msi_windows", header,
        pages_needed pages_host page_shift max_windows count reserved);
    for name in ["softvfio_reserved_regions", "softvfio_msi_windows"] {
        for (field, offset) in [("id", 0), ("version", 2), ("next", 4)] {
            facts.insert(format!("offsetof(struct {name}, {field})"), offset);
        }
    }
    facts
}

#[test]
fn the_c_header_has_the_same_numbers_and_structures() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../include");
    let header = std::fs::read_to_string(include.join("softvfio.h")).unwrap();
    let facts = facts();
    for line in header.lines() {
        let name = line.strip_prefix("#define ").and_then(|l| l.split(' ').next());
        let Some(name) = name.filter(|name| *name != "SOFTVFIO_H") else { continue };
        assert!(facts.contains_key(name), "{name} is not compared");
    }

    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!("skipped: there is no C compiler {compiler}");
        return;
    }
    let mut source = String::from("#include <softvfio.h>\n#include <stddef.h>\n");
    for (what, value) in &facts {
        writeln!(source, "_Static_assert({what} == {value}u, \"{what} is {value}\");").unwrap();
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("softvfio_header.c");
    std::fs::write(&file, source).unwrap();
    let mut command = Command::new(&compiler);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"]);
    let checked = command.arg(&include).arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
