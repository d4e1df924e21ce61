//! A session from Rust: what a program is given, and what comes back.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../examples/own_device.rs"]
mod own_device;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use softvfio_supervise::kinds::DeviceSpec;
use softvfio_supervise::sandbox::LaunchError;
use softvfio_supervise::session::{Output, Program, Session, SessionError};
use softvfio_supervise::watch::{Call, Request, Watch};

fn sh(script: &str) -> Program<'static> {
    Program::new("sh").args(["-c", script])
}

/// Whether no world can be made, which is said aloud.
fn cannot(why: &SessionError) -> bool {
    let not_here = matches!(
        why,
        SessionError::Launch(
            LaunchError::UserNamespace { .. }
                | LaunchError::MountNamespace { .. }
                | LaunchError::Tree { .. }
                | LaunchError::Filter { .. }
        )
    );
    if not_here {
        println!("skipped: {why}");
    }
    not_here && std::env::var_os("CI").is_none()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn with(device: &str) -> Session {
    Session::new().device(device.parse::<DeviceSpec>().unwrap().make().unwrap())
}

fn output_in(session: Session, program: &Program<'_>) -> Option<Output> {
    match session.output(program) {
        Err(why) if cannot(&why) => None,
        output => Some(output.unwrap()),
    }
}

fn output(program: &Program<'_>) -> Option<Output> {
    output_in(with("nvme,size=1M"), program)
}

/// The program under test of the example.
#[test]
fn the_driver() {
    if std::env::var_os("NUMBERS_TO_ADD").is_some() {
        own_device::main().unwrap();
    }
}

#[test]
fn the_example_with_a_device_of_its_own() {
    let program = Program::new(std::env::current_exe().unwrap());
    match own_device::test(&program.args(["the_driver", "--exact", "--nocapture"])) {
        Err(why) if why.downcast_ref().is_some_and(cannot) => {}
        tested => tested.unwrap(),
    }
}

#[test]
fn what_it_prints_is_kept() {
    // More than a pipe holds, to both, and by somebody who is left in the background.
    let script =
        "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; (sleep 0.1; echo end) & exit 3";
    let Some(Output { report, stdout, stderr, .. }) = output(&sh(script)) else { return };
    assert_eq!(report.status.code(), Some(3));
    assert_eq!((stdout.len(), stderr.len()), (300_004, 300_000));
    assert_eq!(&stdout[300_000..], b"end\n");
    assert!(report.to_string().starts_with("softvfio: "), "{report}");
    assert_eq!(report.to_string(), report.text(false));
}

#[test]
fn its_own_files_come_before_ours() {
    let (from, to) = std::io::pipe().unwrap();
    let (input, mut keys) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut keys, b"typed").unwrap();
    drop(keys);
    let program = sh("cat; echo heard >&2");
    let Some(output) = output(&program.stdin(&input).stdout(&to)) else { return };
    drop(to);
    let typed = std::io::read_to_string(from).unwrap();
    assert_eq!((&*typed, &*output.stdout, &*output.stderr), ("typed", &[][..], &b"heard\n"[..]));
}

#[test]
fn variables_and_the_working_directory() {
    let program = sh("echo $ONE $TWO ${HOME-none}; pwd; cat vendor")
        .env("ONE", "first")
        .env("ONE", "1")
        .env("TWO", "2")
        .env_remove("HOME")
        .current_dir("/sys/bus/pci/devices/0000:01:00.0");
    let Some(printed) = output(&program) else { return };
    let lines: Vec<_> = text(&printed.stdout).lines().collect();
    let &[variables, directory, vendor] = &lines[..] else {
        panic!("{lines:?} {}", text(&printed.stderr))
    };
    // The device is in the program's /sys alone.
    assert_eq!((variables, vendor), ("1 2 none", "0x1b36"));
    assert!(directory.ends_with("0000:01:00.0"), "{directory}");

    let nowhere = sh("true").current_dir("/nowhere");
    let error = Session::new().run(&nowhere).unwrap_err().to_string();
    assert_eq!(error, "/nowhere: No such file or directory (os error 2)");
}

/// Somebody who is not of the session has the other end: it is not waited for.
#[test]
fn what_is_held_elsewhere_is_not_waited_for() {
    let path = std::env::temp_dir().join(format!("softvfio-session-{}", std::process::id()));
    let fifo = path.display().to_string();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let script = format!("echo $$ > {fifo}; echo before; cat {fifo}; echo after");
    // Without a session this thread waits for ever.
    let keeper = std::thread::spawn(move || {
        let pid = std::fs::read_to_string(&fifo).unwrap();
        let open = |path: &str| std::fs::File::options().write(true).open(path).unwrap();
        let kept = open(&format!("/proc/{}/fd/1", pid.trim()));
        std::io::Write::write_all(&mut open(&fifo), b"kept\n").unwrap();
        kept
    });
    let ended = output(&sh(&script));
    std::fs::remove_file(&path).unwrap();
    let Some(output) = ended else { return };
    assert_eq!(text(&output.stdout), "before\nkept\nafter\n", "{}", text(&output.stderr));
    drop(keeper.join().unwrap());
}

/// Python compares what it maps with the file's size.
#[test]
fn python_maps_registers_that_trap() {
    if Command::new("python3").arg("--version").output().is_err() {
        return println!("skipped: python3 is not installed");
    }
    let script = r#"
import fcntl, mmap, os, struct
container = os.open("/dev/vfio/vfio", os.O_RDWR)
group = os.open("/dev/vfio/1", os.O_RDWR)
fcntl.ioctl(group, 0x3b68, struct.pack("i", container))
fcntl.ioctl(container, 0x3b66, 1)
device = fcntl.ioctl(group, 0x3b6a, bytearray(b"0000:01:00.0\0"))
region = bytearray(struct.pack("IIIIQQ", 32, 0, 0, 0, 0, 0))
fcntl.ioctl(device, 0x3b6c, region)
_, flags, _, _, size, offset = struct.unpack("IIIIQQ", region)
os.pwrite(device, b"\x06\0", (7 << 40) + 4)
registers = mmap.mmap(device, size, offset=offset)
print(hex(memoryview(registers).cast("I")[0]), flags & 4)
"#;
    let python = Program::new("python3").args(["-c", script]);
    let Some(output) = output_in(with("edu,mmio=trap"), &python) else { return };
    assert_eq!(text(&output.stdout), "0x10000ed 4\n", "{}", text(&output.stderr));
}

#[test]
fn what_takes_too_long_is_killed() {
    let within = |limit, script| output_in(Session::new().time_limit(limit), &sh(script));
    // One that waits in the background too, after the program's own end.
    for (script, code) in [("echo ready; sleep 600", None), ("(sleep 600) & echo ready", Some(0))] {
        // A busy machine needs longer to begin.
        for limit in [300, 3_000, 30_000].map(Duration::from_millis) {
            let Some(Output { report, stdout, .. }) = within(limit, script) else { return };
            assert_eq!(report.timed_out, Some(limit), "{report}");
            if limit < Duration::from_secs(30)
                && (text(&stdout), report.status.code()) != ("ready\n", code)
            {
                continue;
            }
            assert_eq!((text(&stdout), report.status.code()), ("ready\n", code), "{report}");
            break;
        }
    }
    let Some(in_time) = within(Duration::from_secs(600), "true") else { return };
    assert_eq!((in_time.report.timed_out, in_time.report.status.code()), (None, Some(0)));
    let Some(unlimited) = within(Duration::MAX, "true") else { return };
    assert_eq!(unlimited.report.timed_out, None);
}

/// A relative program is looked for from where it is to run.
#[test]
fn a_relative_program() {
    let program = Program::new("./sh").arg("-c").arg("pwd").current_dir("/bin");
    let Some(printed) = output(&program) else { return };
    assert!(text(&printed.stdout).trim().ends_with("/bin"), "{printed:?}");
}

/// Runs a session of its own when another one's program opens something, and waits for it.
struct Starts;

impl Watch for Starts {
    fn request(&self, request: &Request) {
        if matches!(request.call, Call::Open) {
            std::thread::spawn(|| Session::new().run(&sh("true")).unwrap()).join().unwrap();
        }
    }
}

/// The program under test of the next one.
#[test]
fn who_opens() {
    if std::env::var_os("OPENS").is_some() {
        vfio_ioctls::VfioContainer::new(None).unwrap();
        println!("opened");
    }
}

#[test]
fn a_session_starts_while_another_one_tells_of_an_open() {
    let program = Program::new(std::env::current_exe().unwrap())
        .args(["who_opens", "--exact", "--nocapture"])
        .env("OPENS", "");
    let session = Session::new().watch(Arc::new(Starts)).time_limit(Duration::from_secs(60));
    let Some(output) = output_in(session, &program) else { return };
    assert!(text(&output.stdout).contains("opened"), "{}", output.report);
}
