//! What a client finds.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use softvfio_supervise::sandbox::{Launch, LaunchError, Tree};

use super::{BDF, child_only, have, inside, shell, start, tree, wait_for};

#[test]
fn files_say_what_the_function_is() {
    let script = format!(
        "cd /sys/bus/pci/devices/{BDF} && head -n 3 vendor class revision numa_node resource \
         modalias reset_method && wc -c < config && cat iommu/intel-iommu/cap"
    );
    let Some((text, status)) = inside(&tree(), &script) else { return };
    let expected = "\
==> vendor <==
0x1b36

==> class <==
0x010802

==> revision <==
0x02

==> numa_node <==
-1

==> resource <==
0x00000000fe000000 0x00000000fe003fff 0x0000000000040200
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000000000000 0x0000000000000000 0x0000000000000000

==> modalias <==
pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02

==> reset_method <==
flr
256
8d2008c10ef0466
";
    assert_eq!(text, expected);
    assert!(status.success());
}

#[test]
fn links_resolve_to_where_they_are() {
    let script = format!(
        "cd /sys/bus/pci/devices/{BDF}; D=$(readlink -f .); echo $D | sed s/pci0000:../ROOT/
         readlink -f iommu_group driver subsystem iommu driver/module
         for back in iommu_group/devices/{BDF} driver/{BDF} iommu/devices/{BDF} \
             /sys/class/vfio-dev/vfio0/device; do
             [ \"$(readlink -f $back)\" = $D ] || echo $back is not $D
         done
         readlink -f vfio-dev/vfio0/subsystem /sys/class/iommu/dmar0
         [ $(readlink -f /sys/class/vfio-dev/vfio0) = $D/vfio-dev/vfio0 ] || echo no class"
    );
    let Some((text, _)) = inside(&tree(), &script) else { return };
    let expected = "\
/sys/devices/ROOT/0000:01:00.0
/sys/kernel/iommu_groups/17
/sys/bus/pci/drivers/vfio-pci
/sys/bus/pci
/sys/devices/virtual/iommu/dmar0
/sys/module/vfio_pci
/sys/class/vfio-dev
/sys/devices/virtual/iommu/dmar0
";
    assert_eq!(text, expected);
}

#[test]
fn the_hosts_own_entries_are_all_there() {
    let list = "for d in /dev /sys /sys/* /sys/bus/* /sys/bus/pci/devices /sys/bus/pci/drivers \
                /sys/module /sys/devices/virtual /sys/kernel/iommu_groups; do \
                [ -d $d ] && ls $d | sed s,^,$d/,; done; readlink -f /sys/bus/pci/devices/*; \
                cat /sys/module/*/initstate; test -c /dev/null && echo null > /dev/null";
    let host = || {
        let listed = Command::new("sh").args(["-c", list]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    };
    // What comes or goes on the host meanwhile is not looked for.
    let before = host();
    let Some((within, _)) = inside(&tree(), list) else { return };
    let after = host();
    let [before, within] = [&before, &within].map(|text| text.lines().collect::<BTreeSet<_>>());
    let stayed = after.lines().filter(|line| before.contains(line));
    let missing: Vec<_> = stayed.filter(|line| !within.contains(line)).collect();
    assert_eq!(missing, [""; 0]);
    assert!(before.len() > 20, "{before:?}");
}

#[test]
fn a_pseudo_terminal_can_be_had() {
    let script = "exec 3<>/dev/ptmx && echo opened";
    if !Command::new("sh").args(["-c", script]).status().unwrap().success() {
        println!("skipped: this machine has no pseudo-terminals");
        return;
    }
    let Some((text, _)) = inside(&tree(), script) else { return };
    assert_eq!(text, "opened\n");
}

#[test]
fn only_the_emulated_if_wanted() {
    let tree = Tree { only_emulated: true, ..tree() };
    let script = "ls /sys/bus/pci/devices /sys/kernel/iommu_groups /dev/vfio /sys/class/iommu";
    let Some((text, _)) = inside(&tree, script) else { return };
    let expected = "\
/dev/vfio:
17
vfio

/sys/bus/pci/devices:
0000:01:00.0

/sys/class/iommu:
dmar0

/sys/kernel/iommu_groups:
17
";
    assert_eq!(text, expected);
}

#[test]
fn lspci_lists_it() {
    if !have("lspci") {
        return;
    }
    let Some((text, _)) = inside(&tree(), "lspci -nnk -s 01:00.0 2>/dev/null") else { return };
    assert!(text.starts_with("01:00.0 Non-Volatile memory controller [0108]"), "{text}");
    assert!(text.contains("[1b36:0010] (rev 02)"), "{text}");
    assert!(text.contains("Kernel driver in use: vfio-pci"), "{text}");
}

#[test]
fn plain_files_take_what_is_written_to_them() {
    let script = format!(
        "cd /sys/bus/pci && echo {BDF} > drivers/vfio-pci/unbind && echo x > devices/{BDF}/driver_override \
         && cat devices/{BDF}/driver_override && echo {BDF} > drivers_probe"
    );
    let Some((text, status)) = inside(&tree(), &script) else { return };
    assert_eq!(text, "x\n");
    assert!(status.success());
}

#[test]
fn a_descriptor_shows_the_path_it_was_opened_by() {
    let script = "exec 7<>/dev/vfio/vfio 8<>/dev/vfio/17; readlink /proc/self/fd/7 /proc/self/fd/8";
    let Some((text, _)) = inside(&tree(), script) else { return };
    assert_eq!(text, "/dev/vfio/vfio\n/dev/vfio/17\n");
}

#[test]
fn the_supervisor_reaches_the_clients_files() {
    let tree = tree();
    let args = shell("echo tag > /dev/vfio/17; sleep 60");
    let launch = Launch { args: &args, ..Launch::new(&tree, "sh".as_ref()) };
    let Some(mut launched) = start(&launch) else { return };
    launched.processes.go().unwrap();
    wait_for("the client's write", || {
        let flags = rustix::fs::OFlags::RDWR;
        let file =
            rustix::fs::openat(&launched.dev_vfio, "17", flags, rustix::fs::Mode::empty()).unwrap();
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).unwrap();
        text == "tag\n"
    });
}

#[test]
fn a_clash_is_ours_and_is_told() {
    let Some(entry) = std::fs::read_dir("/sys/bus/pci/devices").ok().and_then(|mut all| all.next())
    else {
        println!("skipped: no PCI device here");
        return;
    };
    let bdf = entry.unwrap().file_name().into_string().unwrap();
    let mut tree = tree();
    tree.functions[0].bdf.clone_from(&bdf);
    let args = shell("exit 0");
    let launch = Launch { args: &args, ..Launch::new(&tree, "sh".as_ref()) };
    let Some(launched) = start(&launch) else { return };
    assert_eq!(launched.shadowed, [PathBuf::from(format!("/sys/bus/pci/devices/{bdf}"))]);
    drop(launched);
    let Some((text, _)) = inside(&tree, &format!("cat /sys/bus/pci/devices/{bdf}/vendor")) else {
        return;
    };
    assert_eq!(text, "0x1b36\n");
}

#[test]
fn names_that_climb_are_refused() {
    for bdf in ["..", "", "a/../../b\0"] {
        let mut tree = tree();
        tree.functions[0].bdf = bdf.into();
        let error = Launch::new(&tree, "true".as_ref()).start().unwrap_err();
        assert!(matches!(error, LaunchError::BadName(_)), "{bdf:?}: {error}");
    }
}

#[test]
fn a_host_without_pci_iommu_or_modules_gets_them() {
    let name = "world::a_host_without_pci_iommu_or_modules_gets_them";
    if std::env::var_os("SOFTVFIO_BARE").is_some() {
        let script = format!(
            "ls /sys/bus /sys/kernel /sys/module && readlink -f /sys/bus/pci/devices/{BDF}/iommu_group \
             /sys/bus/pci/devices/{BDF}/driver"
        );
        let Some((text, _)) = inside(&tree(), &script) else { return };
        let expected = "\
/sys/bus:
pci

/sys/kernel:
iommu_groups

/sys/module:
vfio
vfio_iommu_type1
vfio_pci
/sys/kernel/iommu_groups/17
/sys/bus/pci/drivers/vfio-pci
";
        assert_eq!(text, expected);
        return;
    }
    if !rustix::process::getuid().is_root() {
        println!("skipped: only root can take a host's directories away");
        return;
    }
    let bare =
        "for d in bus kernel module; do mount -t tmpfs none /sys/$d || exit 9; done; exec \"$@\"";
    let program = std::env::current_exe().unwrap();
    for drop_to in [None, Some("65534")] {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", bare, "sh"]).env("SOFTVFIO_BARE", "1");
        if let Some(uid) = drop_to {
            command.args(["setpriv", "--clear-groups", "--reuid", uid, "--regid", uid]);
        }
        match command.arg(&program).args(["--exact", name]).output() {
            Ok(output) if matches!(output.status.code(), Some(9 | 126 | 127)) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{text}");
            }
            Err(error) => println!("skipped: unshare: {error}"),
        }
    }
}

#[test]
fn a_working_directory_in_sys_is_the_new_one() {
    // A process of its own: the directory is the whole process's.
    let Some(()) =
        child_only("SOFTVFIO_IN_SYS", "world::a_working_directory_in_sys_is_the_new_one")
    else {
        return;
    };
    std::env::set_current_dir("/sys/bus").unwrap();
    let Some((text, _)) = inside(&tree(), &format!("cat pci/devices/{BDF}/vendor")) else { return };
    assert_eq!(text, "0x1b36\n");
}

#[test]
fn nothing_is_left_on_the_host() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    // Somebody else may mount something meanwhile, but not each time.
    for _ in 0..10 {
        let before = mounts();
        let Some(_) = inside(&tree(), "true") else { return };
        if mounts() == before {
            return;
        }
    }
    panic!("each time something is left or gone");
}
