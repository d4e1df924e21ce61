//! A client's world, from within: what it finds, what comes to the listener, how it ends.
//!
//! As root the suite runs twice, the second time as uid 65534 (`as_nobody`). Where a world cannot be
//! made the tests print `skipped:` and why.

mod calls;
mod processes;
mod world;

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use softvfio_supervise::sandbox::{
    Launch, LaunchError, Launched, SysFunction, SysGroup, SysIommu, SysResource, Tree, Verdict,
    doctor,
};

const BDF: &str = "0000:01:00.0";
/// More than anything here takes, were the machine as busy as it gets.
const LIMIT: Duration = Duration::from_secs(60);

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
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 60, tv_nsec: 0 })).unwrap();
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
        assert!(begin.elapsed() < LIMIT, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A `sleep`, longer than anything waits, that is nobody else's: another suite may run beside this one.
fn sleeper(test: u32) -> String {
    sleeper_of(test, std::process::id())
}

/// That of another process. No such text is a part of another one.
fn sleeper_of(test: u32, process: u32) -> String {
    format!("sleep {}.{process:010}", 600 + test)
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
