//! A client's world, from within: what it finds, what comes to the listener, how it ends.
//!
//! As root the suite runs twice, the second time as uid 65534 (`as_nobody`). Where a world cannot be
//! made the tests print `skipped:` and why.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use softvfio_supervise::sandbox::{
    Filter, Interrupts, Launch, LaunchError, Launched, SysFunction, SysGroup, SysIommu,
    SysResource, Tree, Verdict, doctor,
};

const BDF: &str = "0000:01:00.0";

fn tree() -> Tree {
    let mut config = vec![0; 256];
    config[..12].copy_from_slice(&[0x36, 0x1b, 0x10, 0, 6, 0, 0x10, 0, 2, 2, 8, 1]);
    config[0x2c..0x30].copy_from_slice(&[0xf4, 0x1a, 0x00, 0x11]);
    let mut function = SysFunction::new(BDF, 17, config);
    function.resources =
        vec![SysResource { start: 0xfe00_0000, end: 0xfe00_3fff, flags: 0x4_0200 }];
    function.reset_method = Some("flr".into());
    function.iommu = Some("dmar0".into());
    function.vfio_dev = Some(0);
    Tree {
        functions: vec![function],
        groups: vec![SysGroup {
            number: 17,
            kind: "DMA".into(),
            name: None,
            reserved_regions: "0x00000000fee00000 0x00000000feefffff msi\n".into(),
        }],
        iommus: vec![SysIommu {
            name: "dmar0".into(),
            files: vec![("intel-iommu/cap".into(), "8d2008c10ef0466".into())],
        }],
        ..Tree::default()
    }
}

/// Starts `sh -c script`; `None`, said aloud, where no world can be made.
fn start(launch: &Launch<'_>) -> Option<Launched> {
    match launch.start() {
        Ok(launched) => Some(launched),
        Err(
            error @ (LaunchError::UserNamespace { .. }
            | LaunchError::MountNamespace { .. }
            | LaunchError::Tree { .. }
            | LaunchError::Nested
            | LaunchError::Filter { .. }),
        ) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn shell(script: &str) -> [OsString; 2] {
    ["-c".into(), script.into()]
}

/// What `script` prints within `tree`, and how it ends.
fn inside(tree: &Tree, script: &str) -> Option<(String, ExitStatus)> {
    let (mut read, write) = std::io::pipe().unwrap();
    let args = shell(script);
    let output = Some(write.as_fd());
    let launch =
        Launch { args: &args, stdio: [None, output, output], ..Launch::new(tree, "sh".as_ref()) };
    let mut launched = start(&launch)?;
    drop(write);
    launched.processes.go().unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    let status = launched.processes.wait().unwrap();
    Some((text, status))
}

/// Whether anything comes to the listener before the program ends.
fn notifies(launched: &mut Launched) -> bool {
    launched.processes.go().unwrap();
    let status = launched.processes.status_fd().unwrap();
    let mut fds =
        [PollFd::new(&launched.listener, PollFlags::IN), PollFd::new(&status, PollFlags::IN)];
    loop {
        // The listener hangs up with the last process, a moment before its end is told.
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 20, tv_nsec: 0 })).unwrap();
        let [call, end] = [0, 1].map(|at: usize| fds[at].revents().contains(PollFlags::IN));
        assert!(ready > 0, "neither a call nor an end");
        if call || end {
            return call;
        }
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(20), "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A `sleep` that is nobody else's: another suite may run beside this one.
fn sleeper(test: u32) -> String {
    format!("sleep {}.{}", 60 + test, std::process::id())
}

/// Processes that have `marker` among their arguments.
fn running(marker: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(marker) && !line.contains("sandbox-") {
            found.push(line);
        }
    }
    found
}

fn have(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: no {program}");
    }
    found
}

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
    let Some((within, _)) = inside(&tree(), list) else { return };
    let host = Command::new("sh").args(["-c", list]).output().unwrap();
    let within: Vec<_> = within.lines().collect();
    for line in String::from_utf8(host.stdout).unwrap().lines() {
        assert!(within.contains(&line), "{line} is missing");
    }
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
fn identity_is_the_callers_or_root() {
    let tree = tree();
    let Some((text, _)) = inside(&tree, "id -u; id -g") else { return };
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    assert_eq!(text, format!("{uid}\n{gid}\n"));

    let (mut read, write) = std::io::pipe().unwrap();
    let launch = Launch {
        args: &["-u".into()],
        as_root: true,
        stdio: [None, Some(write.as_fd()), None],
        ..Launch::new(&tree, "id".as_ref())
    };
    let Some(mut launched) = start(&launch) else { return };
    drop(write);
    launched.processes.go().unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "0\n");
}

#[test]
fn ends_are_told_as_they_were() {
    let tree = tree();
    let Some((_, status)) = inside(&tree, "exit 7") else { return };
    assert_eq!(status.code(), Some(7));
    let (_, status) = inside(&tree, "kill -KILL $$").unwrap();
    assert_eq!(status.signal(), Some(9));
    let (_, status) = inside(&tree, "kill -PIPE $$").unwrap();
    assert_eq!(status.signal(), Some(13), "SIGPIPE is at its default");
}

#[test]
fn what_cannot_be_executed_is_named() {
    let tree = tree();
    for (command, errno) in [("/nowhere/at-all", 2), ("softvfio-no-such-program", 2), ("/", 13)] {
        let env = [("PATH".into(), "/usr/bin:/bin".into())];
        let launch = Launch { env: Some(&env), ..Launch::new(&tree, OsStr::new(command)) };
        let Some(mut launched) = start(&launch) else { return };
        match launched.processes.go() {
            Err(LaunchError::Exec { command: named, errno: said }) => {
                assert_eq!((named.to_str(), said.raw_os_error()), (Some(command), errno));
            }
            other => panic!("{command}: {other:?}"),
        }
    }
}

#[test]
fn a_script_without_a_first_line_is_the_shells() {
    let directory = std::env::temp_dir().join(format!("softvfio-sandbox-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let script = directory.join("script");
    std::fs::write(&script, "exit $#").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, executable).unwrap();
    let tree = tree();
    let args = ["one".into(), "two".into()];
    let launch = Launch { args: &args, ..Launch::new(&tree, script.as_os_str()) };
    let launched = start(&launch);
    if let Some(mut launched) = launched {
        launched.processes.go().unwrap();
        assert_eq!(launched.processes.wait().unwrap().code(), Some(2));
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_terminals_signals_are_the_clients() {
    let Some(()) = child_only("SOFTVFIO_SIGNALS", "the_terminals_signals_are_the_clients") else {
        return;
    };
    let interrupts = Interrupts::ignore();
    let tree = tree();
    let script = "cut -d' ' -f5 /proc/$$/stat; grep -E 'Sig(Ign|Blk)' /proc/self/status";
    let Some((text, _)) = inside(&tree, script) else { return };
    let group = rustix::process::getpgrp().as_raw_nonzero();
    // Whatever else was ignored when we were started stays so.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let [int, quit, pipe] = [2, 3, 13].map(|signal| 1 << (signal - 1));
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    assert_eq!(ignored & (int | quit | pipe), int | quit | pipe);
    let ignored = ignored & !(int | quit | pipe);
    assert_eq!(text, format!("{group}\nSigBlk:\t{:016x}\nSigIgn:\t{ignored:016x}\n", 0));

    let args = shell("sleep 60");
    let Some(mut launched) = start(&Launch { args: &args, ..Launch::new(&tree, "sh".as_ref()) })
    else {
        return;
    };
    launched.processes.go().unwrap();
    // Ctrl-C, as a terminal sends it; nobody else is in this group.
    rustix::process::kill_current_process_group(rustix::process::Signal::INT).unwrap();
    assert_eq!(launched.processes.wait().unwrap().signal(), Some(2));
    drop(interrupts);
}

#[test]
fn a_host_without_pci_iommu_or_modules_gets_them() {
    let name = "a_host_without_pci_iommu_or_modules_gets_them";
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
    let Some(()) = child_only("SOFTVFIO_IN_SYS", "a_working_directory_in_sys_is_the_new_one")
    else {
        return;
    };
    std::env::set_current_dir("/sys/bus").unwrap();
    let Some((text, _)) = inside(&tree(), &format!("cat pci/devices/{BDF}/vendor")) else { return };
    assert_eq!(text, "0x1b36\n");
}

#[test]
fn orphans_are_waited_for_and_pipes_are_not_held() {
    let begin = Instant::now();
    // `inside` reads to the end of the pipe, which the orphan does not hold.
    let sleep = sleeper(1);
    let script = format!("({sleep} </dev/null >/dev/null 2>&1 &) ; echo done");
    let Some((text, status)) = inside(&tree(), &script) else { return };
    assert_eq!((text.as_str(), status.success()), ("done\n", true));
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(running(&sleep), [""; 0], "dropping kills what is left");
}

#[test]
fn all_are_killed_when_asked() {
    let tree = tree();
    let sleep = sleeper(2);
    let args = shell(&format!("{sleep} & (setsid {sleep} &) ; sh -c '{sleep}; true'; true"));
    let launch = Launch { args: &args, ..Launch::new(&tree, "sh".as_ref()) };
    let Some(mut launched) = start(&launch) else { return };
    launched.processes.go().unwrap();
    wait_for("three sleepers", || {
        running(&sleep).iter().filter(|line| line.starts_with("sleep")).count() == 3
    });
    launched.processes.kill_all();
    assert_eq!(launched.processes.wait().unwrap().signal(), Some(9));
    launched.processes.wait_all();
    assert_eq!(running(&sleep), [""; 0]);
}

#[test]
fn a_client_that_is_not_let_go_ends_with_its_owner() {
    let tree = tree();
    let Some(launched) = start(&Launch::new(&tree, "true".as_ref())) else { return };
    let pid = launched.processes.client().pid.as_raw_nonzero();
    drop(launched);
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
}

#[test]
fn nothing_outlives_a_launcher_that_is_killed() {
    let name = "nothing_outlives_a_launcher_that_is_killed";
    let mut launcher = match child("SOFTVFIO_KILLED", name) {
        None => {
            // The launcher.
            let tree = tree();
            let sleep = sleeper(3);
            let args = shell(&format!("(setsid {sleep} &); echo ready; {sleep}; true"));
            let launch = Launch { args: &args, ..Launch::new(&tree, "sh".as_ref()) };
            match start(&launch) {
                Some(mut launched) => {
                    launched.processes.go().unwrap();
                    let _ = launched.processes.wait();
                }
                None => println!("ready"),
            }
            return;
        }
        Some(mut command) => command.stdout(Stdio::piped()).process_group(0).spawn().unwrap(),
    };
    let sleep = format!("sleep 63.{}", launcher.id());
    let mut text = Vec::new();
    let mut output = launcher.stdout.take().unwrap();
    while !text.ends_with(b"ready\n") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        text.extend(byte);
    }
    let skipped = String::from_utf8_lossy(&text).contains("skipped");
    if !skipped {
        wait_for("two sleepers", || running(&sleep).len() >= 2);
    }
    // With its whole process group, as `timeout` and shells do.
    let group = rustix::process::Pid::from_child(&launcher);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    launcher.wait().unwrap();
    wait_for("the end of all", || running(&sleep).is_empty());
}

#[test]
fn nothing_is_left_on_the_host() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let Some(_) = inside(&tree(), "true") else { return };
    assert_eq!(mounts(), before);
}

#[test]
fn a_call_of_the_shell_does_not_come() {
    let tree = tree();
    let args = shell("stty -a < /dev/null; ls /dev/vfio; head -c 10 /dev/zero; true");
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let null = Some(null.as_fd());
    let launch =
        Launch { args: &args, stdio: [None, null, null], ..Launch::new(&tree, "sh".as_ref()) };
    let Some(mut launched) = start(&launch) else { return };
    assert!(!notifies(&mut launched));
}

#[test]
fn calls_that_concern_vfio_come_from_threads_and_children_too() {
    if !have("python3") {
        return;
    }
    let tree = tree();
    let open = "import os,fcntl,mmap,threading\nfd=os.open('/dev/vfio/vfio',os.O_RDWR)\n";
    let io_uring = "import ctypes\nl=ctypes.CDLL(None,use_errno=True)\n\
                    assert l.syscall(425,0,0)==-1 and ctypes.get_errno()==38\n";
    let strict = Filter { refuse_io_uring: true, ..Filter::default() };
    let no_mmap = Filter { mmap: false, ..Filter::default() };
    let map = "os.ftruncate(fd,2<<40)\nmmap.mmap(fd,4096,offset=1<<40)\n";
    let either = Filter::default();
    // ioctl(fd, 0x3b64, 0) as a 32-bit program makes it: push rbx, registers, int 0x80, pop rbx, ret.
    let int80 = "import ctypes\nm=mmap.mmap(-1,4096,prot=7)\n\
                 m.write(b'\\x53\\xb8\\x36\\0\\0\\0\\xbb'+fd.to_bytes(4,'little')\
                 +b'\\xb9\\x64\\x3b\\0\\0\\x31\\xd2\\xcd\\x80\\x5b\\xc3')\n\
                 ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()\n";
    for (code, filter, comes) in [
        ("fcntl.ioctl(fd,0x3b64)\n", either, true),
        ("os.pread(fd,4,1<<40)\n", either, true),
        ("os.pwrite(fd,b'x',7<<40)\n", either, true),
        ("os.preadv(fd,[bytearray(4)],1<<40)\n", either, true),
        ("os.pwritev(fd,[b'x'],1<<40)\n", either, true),
        (int80, either, true),
        (map, either, true),
        (map, no_mmap, false),
        ("threading.Thread(target=lambda: os.pread(fd,4,1<<40)).start()\n", either, true),
        ("os.fork() or fcntl.ioctl(fd,0x3b64)\nos.wait()\n", either, true),
        ("os.pread(fd,4,(1<<40)-1)\n", either, false),
        ("try: os.pread(fd,4,-1)\nexcept OSError: pass\n", either, false),
        ("try: fcntl.ioctl(fd,0x5401)\nexcept OSError: pass\n", either, false),
        (io_uring, strict, false),
    ] {
        let args = ["-c".into(), format!("{open}{code}").into()];
        // What is pending when we leave fails, and Python says so.
        let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
        let stdio = [None, None, comes.then_some(null.as_fd())];
        let launch =
            Launch { args: &args, filter, stdio, ..Launch::new(&tree, "python3".as_ref()) };
        let Some(mut launched) = start(&launch) else { return };
        assert_eq!(notifies(&mut launched), comes, "{code}");
        if !comes {
            assert!(launched.processes.wait().unwrap().success(), "{code}");
        }
    }
}

#[test]
fn a_world_within_a_world_is_refused() {
    let name = "a_world_within_a_world_is_refused";
    let Some(mut inner) = child("SOFTVFIO_INNER", name) else {
        let tree = tree();
        match Launch::new(&tree, "true".as_ref()).start() {
            Err(LaunchError::Nested) => println!("refused"),
            other => println!("{other:?}"),
        }
        return;
    };
    let tree = tree();
    let args: Vec<OsString> = inner.get_args().map(ToOwned::to_owned).collect();
    let env: Vec<_> = std::env::vars_os().chain([("SOFTVFIO_INNER".into(), "1".into())]).collect();
    let (mut read, write) = std::io::pipe().unwrap();
    let program = std::env::current_exe().unwrap();
    let launch = Launch {
        args: &args,
        env: Some(&env),
        stdio: [None, Some(write.as_fd()), None],
        ..Launch::new(&tree, program.as_os_str())
    };
    inner.env_clear();
    let Some(mut launched) = start(&launch) else { return };
    drop(write);
    if launched.processes.go().is_err() {
        println!("skipped: this user cannot execute {}", program.display());
        return;
    }
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert!(text.contains("refused"), "{text}");
}

/// This test, alone, in a process of its own with `variable` set; `None` if this is that process.
fn child(variable: &str, test: &str) -> Option<Command> {
    if std::env::var_os(variable).is_some() {
        return None;
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg0("sandbox-child").args(["--exact", test, "--nocapture"]).env(variable, "1");
    Some(command)
}

/// Runs this test in a process of its own; `Some` in that process.
fn child_only(variable: &str, test: &str) -> Option<()> {
    let Some(mut command) = child(variable, test) else { return Some(()) };
    assert!(command.process_group(0).status().unwrap().success());
    None
}

#[test]
fn as_nobody() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg0("sandbox-nobody").uid(65534).gid(65534).current_dir("/");
    command.args(["--skip", "as_nobody", "--nocapture"]);
    assert!(command.status().unwrap().success(), "not as nobody");
}

#[test]
fn doctor_agrees_with_what_happens() {
    let checks = doctor();
    for check in &checks {
        println!("{check}");
    }
    let tree = tree();
    let works = Launch::new(&tree, "true".as_ref()).start().is_ok();
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    assert_eq!(works, !failed);
}
