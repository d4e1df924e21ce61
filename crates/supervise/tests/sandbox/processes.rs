//! Who a client is, how it ends, and what ends with it.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use softvfio_supervise::sandbox::{Launch, LaunchError, Signals};

use super::{
    LIMIT, child, child_only, inside, running, shell, sleeper, sleeper_of, start, tree, wait_for,
};

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
    // A run that was killed may have had our number.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).unwrap();
    let script = directory.join("script");
    // By a child: one that another test starts had our descriptor for a while, and what is written to
    // cannot be executed.
    let write = "echo 'exit $#' > \"$0\" && chmod 755 \"$0\"";
    let written = Command::new("sh").args(["-c", write]).arg(&script).status().unwrap();
    assert!(written.success());
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
    let Some(()) =
        child_only("SOFTVFIO_SIGNALS", "processes::the_terminals_signals_are_the_clients")
    else {
        return;
    };
    let signals = Signals::take().unwrap();
    assert!(Signals::take().is_err(), "one has them");
    let tree = tree();
    let script = "cut -d' ' -f5 /proc/$$/stat; grep -E 'Sig(Ign|Blk)' /proc/self/status";
    let Some((text, _)) = inside(&tree, script) else { return };
    let group = rustix::process::getpgrp().as_raw_nonzero();
    // Whatever else was ignored when we were started stays so.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let [quit, pipe] = [3, 13].map(|signal| 1 << (signal - 1));
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    assert_eq!(ignored & (quit | pipe), quit | pipe);
    let ignored = ignored & !(quit | pipe);
    assert_eq!(text, format!("{group}\nSigBlk:\t{:016x}\nSigIgn:\t{ignored:016x}\n", 0));

    // Not a shell: one may lose the signal between its fork and its exec.
    let args = ["600".into()];
    let launch = Launch { args: &args, ..Launch::new(&tree, "sleep".as_ref()) };
    let Some(mut launched) = start(&launch) else { return };
    launched.processes.go().unwrap();
    // Ctrl-C, as a terminal sends it; nobody else is in this group.
    rustix::process::kill_current_process_group(rustix::process::Signal::INT).unwrap();
    assert_eq!(launched.processes.wait().unwrap().signal(), Some(2));
    drop(signals);
}

#[test]
fn orphans_are_waited_for_and_pipes_are_not_held() {
    let begin = Instant::now();
    // `inside` reads to the end of the pipe, which the orphan does not hold.
    let sleep = sleeper(1);
    let script = format!("({sleep} </dev/null >/dev/null 2>&1 &) ; echo done");
    let Some((text, status)) = inside(&tree(), &script) else { return };
    assert_eq!((text.as_str(), status.success()), ("done\n", true));
    // It sleeps for much longer.
    assert!(begin.elapsed() < 5 * LIMIT);
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

/// A `SIGTERM` for the whole group or control group: whether all ends, and when, is the launcher's to say.
#[test]
fn what_ends_others_does_not_end_everything() {
    let tree = tree();
    let args = shell("read line; exit 7");
    let (input, mut tell) = std::io::pipe().unwrap();
    let stdio = [Some(input.as_fd()), None, None];
    let launch = Launch { args: &args, stdio, ..Launch::new(&tree, "sh".as_ref()) };
    let Some(mut launched) = start(&launch) else { return };
    let client = launched.processes.client().pid.as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{client}/stat")).unwrap();
    let init = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap();
    let init = rustix::process::Pid::from_raw(init.parse().unwrap()).unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::TERM).unwrap();
    launched.processes.go().unwrap();
    rustix::process::kill_process(init, rustix::process::Signal::TERM).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    tell.write_all(b"\n").unwrap();
    assert_eq!(launched.processes.wait().unwrap().code(), Some(7));
}

#[test]
fn a_client_that_is_not_let_go_ends_with_its_owner() {
    let tree = tree();
    let Some(launched) = start(&Launch::new(&tree, "true".as_ref())) else { return };
    let pid = launched.processes.client().pid.as_raw_nonzero();
    drop(launched);
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
}

/// Its program may begin much later, and others wait for the last close of what was ours.
#[test]
fn a_client_that_is_not_let_go_has_nothing_of_ours() {
    let (mut read, write) = std::io::pipe().unwrap();
    let (tree, args) = (tree(), shell("echo here"));
    let stdio = [None, Some(write.as_fd()), None];
    let launch = Launch { args: &args, stdio, ..Launch::new(&tree, "sh".as_ref()) };
    let (other, others) = std::io::pipe().unwrap();
    let Some(mut launched) = start(&launch) else { return };
    drop((write, others));
    let mut fds = [PollFd::new(&other, PollFlags::IN)];
    let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "it has the other end");
    // What is meant for it it has.
    launched.processes.go().unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "here\n");
}

/// What the two processes open for themselves does not come where the program's input goes.
#[test]
fn a_launcher_may_keep_its_own_input_to_itself() {
    let name = "processes::a_launcher_may_keep_its_own_input_to_itself";
    let Some(()) = child_only("SOFTVFIO_INPUT", name) else { return };
    let stdin = std::io::stdin();
    rustix::io::fcntl_setfd(&stdin, rustix::io::FdFlags::CLOEXEC).unwrap();
    let (input, mut keys) = std::io::pipe().unwrap();
    keys.write_all(b"typed\n").unwrap();
    let (mut read, write) = std::io::pipe().unwrap();
    let (tree, args) = (tree(), shell("read line; echo $line"));
    let stdio = [Some(input.as_fd()), Some(write.as_fd()), None];
    let launch = Launch { args: &args, stdio, ..Launch::new(&tree, "sh".as_ref()) };
    let Some(mut launched) = start(&launch) else { return };
    drop(write);
    let dev_vfio = rustix::fs::fstat(&launched.dev_vfio).unwrap();
    assert_eq!(
        rustix::fs::FileType::from_raw_mode(dev_vfio.st_mode),
        rustix::fs::FileType::Directory
    );
    launched.processes.go().unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "typed\n");
}

#[test]
fn nothing_outlives_a_launcher_that_is_killed() {
    let name = "processes::nothing_outlives_a_launcher_that_is_killed";
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
    let sleep = sleeper_of(3, launcher.id());
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
