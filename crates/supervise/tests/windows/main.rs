//! MSI windows under a session: programs choose where their interrupts are written, and devices are
//! taken back from them.
//!
//! Each test starts this binary again as the client of a session (`client.rs`) and watches what
//! happens. A client that finds something wrong panics.

#![allow(unsafe_code, reason = "clients make bare system calls")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod client;
#[path = "../../examples/msi_window.rs"]
#[allow(dead_code, reason = "its main")]
mod example;
mod vfio;

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::vfio::device::{DeviceRefusal, IrqRefusal};
use ::vfio::{Abi, DeviceId, Message, Refusal, Removal};
use iommu::{BindRefusal, Fault, FaultReason, Prot};
use softvfio_supervise::control::{Control, DeviceState};
use softvfio_supervise::kinds::DeviceSpec;
use softvfio_supervise::session::{Program, Session, SessionError};
use softvfio_supervise::watch::{Request, Watch};

use self::client::{BASE, REGISTER};
use self::vfio::PAGE;

const CLIENT: &str = "SOFTVFIO_WINDOWS_CLIENT";

/// The client's side of every test.
#[test]
fn client_of_a_session() {
    if let Ok(name) = std::env::var(CLIENT) {
        client::run(&name);
        // The harness' own last words are nobody's.
        std::process::exit(0);
    }
}

/// What happened in a session.
#[derive(Default)]
struct Record {
    refusals: Mutex<Vec<(Refusal, i32)>>,
    faults: Mutex<Vec<(DeviceId, Fault)>>,
    removals: Mutex<Vec<(DeviceId, Removal)>>,
    interrupts: Mutex<u32>,
    messages: Mutex<Vec<(u32, Message)>>,
}

impl Watch for Record {
    fn request(&self, request: &Request) {
        if let (Some(refusal), Err(errno)) = (&request.refusal, request.answer) {
            self.refusals.lock().unwrap().push((refusal.clone(), errno));
        }
    }

    fn fault(&self, _number: u64, device: DeviceId, fault: &Fault) {
        self.faults.lock().unwrap().push((device, *fault));
    }

    fn message(&self, _number: u64, device: DeviceId, message: &Message) {
        self.messages.lock().unwrap().push((device.0, *message));
    }

    fn interrupt(&self) {
        *self.interrupts.lock().unwrap() += 1;
    }

    fn removal(&self, _number: u64, device: DeviceId, removal: Removal) {
        self.removals.lock().unwrap().push((device, removal));
    }

    fn trouble(&self, sentence: &str) {
        panic!("{sentence}");
    }
}

impl Record {
    /// The typed reasons why interrupts were not enabled.
    fn unbound(&self) -> Vec<BindRefusal> {
        let refusals = self.refusals.lock().unwrap();
        let bind = |(refusal, _): &(Refusal, i32)| match refusal {
            Refusal::Device(DeviceRefusal::Irq(IrqRefusal::Doorbell(why))) => Some(why.clone()),
            _ => None,
        };
        refusals.iter().filter_map(bind).collect()
    }

    fn faults(&self) -> Vec<(u32, u64, Prot, FaultReason)> {
        let faults = self.faults.lock().unwrap();
        faults.iter().map(|(d, f)| (d.0, f.iova, f.access, f.reason)).collect()
    }
}

fn header(host: &str) -> serde_json::Map<String, serde_json::Value> {
    trace::profile::host_header(host).unwrap()
}

/// On a built-in host; where its interrupts are not isolated, they may be used all the same.
fn session(host: &str, devices: &[&str]) -> Session {
    let mut header = header(host);
    header["module_params"]["allow_unsafe_interrupts"] = true.into();
    let make = |text: &&str| text.parse::<DeviceSpec>().unwrap().make().unwrap();
    let session = Session::new().host_header(header).only_emulated(true);
    devices.iter().map(make).fold(session, Session::device)
}

/// Runs a client, which says READY when `outside` may begin. `None`: no session can be had here.
fn run_beside(
    session: Session,
    name: &str,
    outside: impl FnOnce(Control) + Send + 'static,
) -> Option<(Arc<Record>, Option<i32>)> {
    let record = Arc::new(Record::default());
    let ready = session.watch(Arc::clone(&record) as Arc<dyn Watch>).place().unwrap();
    let control = ready.control();
    let (from, to) = rustix::pipe::pipe().unwrap();
    let beside = std::thread::spawn(move || {
        let mut lines = BufReader::new(std::fs::File::from(from)).lines().map_while(Result::ok);
        if lines.any(|line| line.contains("READY")) {
            outside(control);
        }
        for line in lines {
            println!("{line}");
        }
    });
    let args = ["client_of_a_session", "--exact", "--nocapture", "--test-threads=1"];
    let program = Program::new(std::env::current_exe().unwrap()).args(args);
    let outcome = ready.run(&program.env(CLIENT, name).stdout(&to));
    drop(to);
    beside.join().unwrap();
    match outcome {
        Ok(outcome) => Some((record, outcome.status.code())),
        Err(SessionError::Launch(why)) if std::env::var_os("CI").is_none() => {
            println!("skipped: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn run(session: Session, name: &str) -> Option<Arc<Record>> {
    let (record, code) = run_beside(session, name, |_| {})?;
    assert_eq!(code, Some(0), "{name}");
    Some(record)
}

fn hosts() -> impl Iterator<Item = &'static str> {
    trace::hosts::list().map(|(name, _)| name)
}

const USER_HOSTS: [&str; 3] = ["arm-smmuv3-its-user", "arm-two-its-user", "mixed"];

#[test]
fn interrupts_arrive_on_every_host() {
    for host in hosts() {
        let Some(record) = run(session(host, &["edu", "nvme,size=1M", "msi-test"]), "interrupts")
        else {
            return;
        };
        let unbound = record.unbound();
        if USER_HOSTS.contains(&host) {
            assert_eq!(unbound.len(), 3, "{host}");
            let no_window = |why: &BindRefusal| matches!(why, BindRefusal::NoWindow { .. });
            assert!(unbound.iter().all(no_window), "{host}: {unbound:?}");
            let refusals = record.refusals.lock().unwrap();
            assert!(refusals.iter().take(3).all(|(_, errno)| *errno == libc::EINVAL));
            assert!(refusals[0].0.to_string().contains("window"), "{}", refusals[0].0);
        } else {
            assert_eq!(*record.refusals.lock().unwrap(), [], "{host}");
        }
        assert_eq!(record.faults(), [], "{host}");
        assert_eq!(*record.interrupts.lock().unwrap(), 17, "{host}");
    }
}

#[test]
fn a_window_too_small_for_two_doorbells_and_a_second() {
    let devices = ["edu,iommu=edu", "msi-test,iommu=edu3"];
    let Some(record) = run(session("arm-two-its-user", &devices), "two_doorbells") else { return };
    let full = BindRefusal::WindowsFull { pages: 1, needed: 2 };
    assert_eq!(record.unbound(), [full.clone(), full.clone(), full]);
    assert_eq!(record.faults(), []);
    let at = |device, window, doorbell| {
        (device, Message { iova: window + REGISTER, doorbell, vector: 0 })
    };
    let second = at(1, BASE + 0x10_000, 0x80b_0040);
    assert_eq!(*record.messages.lock().unwrap(), [at(0, BASE, 0x809_0040), second, second]);
}

#[test]
fn a_group_that_comes_late_leaves_and_comes_again() {
    let devices = ["edu,iommu=edu", "edu,iommu=edu4"];
    let Some(record) = run(session("arm-two-its-user", &devices), "late") else { return };
    assert_eq!(record.unbound().len(), 1);
    assert_eq!(record.faults(), []);
}

#[test]
fn a_window_that_does_not_suit_a_group_that_comes_late() {
    let mut header = header("arm-smmuv3-its-user");
    header["devices"]["edu2"]["reserved_regions"] =
        serde_json::json!([["0x8090000", "0x809ffff", "reserved"]]);
    let session = session("arm-smmuv3-its-user", &["edu,iommu=edu", "edu,iommu=edu2"]);
    let Some(record) = run(session.host_header(header), "does_not_suit") else { return };
    let refusals = record.refusals.lock().unwrap();
    assert_eq!(refusals.len(), 1);
    assert!(matches!(refusals[0].0, Refusal::Attach(_)), "{}", refusals[0].0);
}

#[test]
fn groups_whose_interrupts_need_no_window_beside_one_whose_do() {
    let devices = ["edu,iommu=user", "edu,iommu=implicit", "edu,iommu=fixed"];
    let Some(record) = run(session("mixed", &devices), "other_policies") else { return };
    assert_eq!(record.unbound().len(), 1);
    assert_eq!(record.faults(), []);
}

#[test]
fn interrupts_that_are_not_isolated_are_explained() {
    let session = session("arm-smmuv3-gicv2m", &["edu"]);
    let as_it_is = session.host("arm-smmuv3-gicv2m");
    let Some(record) = run(as_it_is, "is_refused") else { return };
    let refusals = record.refusals.lock().unwrap();
    let says = refusals[0].0.to_string();
    assert!(says.contains("allow_unsafe_interrupts"), "{says}");
}

#[test]
fn the_numbers_of_2016() {
    let devices = ["edu,iommu=edu", "msi-test,iommu=edu3"];
    let session = session("arm-two-its-user", &devices).abi(Abi::MsiV6);
    let Some(record) = run(session, "of_2016") else { return };
    assert_eq!(record.unbound().len(), 2);
    assert_eq!(record.faults(), []);
}

#[test]
fn what_is_no_interrupt_is_a_fault() {
    let devices = ["edu", "msi-test"];
    let Some(record) = run(session("arm-smmuv3-its-user", &devices), "strays") else { return };
    const WINDOW: u64 = 0x80_0000;
    let doorbell = WINDOW + REGISTER;
    let (read, write) = (Prot::READ, Prot::WRITE);
    let expected = [
        (0, doorbell, write, FaultReason::UnknownVector),
        (0, doorbell, write, FaultReason::UnknownVector),
        (0, doorbell, write, FaultReason::Doorbell),
        (0, doorbell, read, FaultReason::Doorbell),
        (0, WINDOW + 0x80, write, FaultReason::UnknownVector),
        (0, doorbell + PAGE, write, FaultReason::NotMapped),
        (1, doorbell, write, FaultReason::UnknownVector),
        (1, doorbell, write, FaultReason::NotMapped),
        (1, doorbell, write, FaultReason::NotMapped),
    ];
    assert_eq!(record.faults(), expected);
    assert_eq!(*record.interrupts.lock().unwrap(), 0);
}

#[test]
fn another_devices_doorbell_is_not_ones_own() {
    let devices = ["edu,iommu=edu", "msi-test,iommu=edu3"];
    let Some(record) = run(session("arm-two-its-user", &devices), "other_doorbell") else { return };
    let fault = (0, 0x80_0000 + PAGE + REGISTER, Prot::WRITE, FaultReason::UnknownVector);
    assert_eq!(record.faults(), [fault]);
}

#[test]
fn the_example_runs_unchanged_on_every_host() {
    for host in hosts() {
        let devices = ["edu", "nvme,size=1M", "msi-test"];
        let Some(record) = run(session(host, &devices), "example") else { return };
        assert_eq!(record.unbound(), [], "{host}");
        assert_eq!(record.faults(), [], "{host}");
        assert_eq!(*record.interrupts.lock().unwrap(), 5, "{host}");
    }
}

/// qemu-img knows nothing of windows.
#[test]
fn qemu_img_runs_where_it_needs_none_and_is_explained_where_it_does() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "qemu-img is missing, which .ci/run installs");
        println!("skipped: qemu-img is not installed");
        return;
    }
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    for host in hosts() {
        let record = Arc::new(Record::default());
        let session = session(host, &["nvme,size=1M"]).watch(Arc::clone(&record) as Arc<dyn Watch>);
        let mut program =
            Program::new("qemu-img").args(["info", "-f", "raw", "nvme://0000:01:00.0/1"]);
        program.stdio = [None, Some(null.as_fd()), Some(null.as_fd())];
        let outcome = match session.place().unwrap().run(&program) {
            Err(SessionError::Launch(why)) if std::env::var_os("CI").is_none() => {
                return println!("skipped: {why}");
            }
            outcome => outcome.unwrap(),
        };
        let needs_help = USER_HOSTS.contains(&host);
        assert_eq!(outcome.status.success(), !needs_help, "{host}");
        assert_eq!(record.unbound().len(), usize::from(needs_help), "{host}");
        if let Some((refusal, errno)) = record.refusals.lock().unwrap().first() {
            let says = refusal.to_string();
            assert!(*errno == libc::EINVAL && says.contains("MSI window"), "{host}: {says}");
        }
    }
}

#[test]
fn a_device_is_taken_back() {
    let devices = session("arm-smmuv3-its-user", &["edu"]);
    let ended = run_beside(devices, "lets_go", |control| {
        assert_eq!(control.devices()[0].1, DeviceState::Open);
        let unknown = control.unplug("0000:09:00.0").unwrap_err().to_string();
        assert_eq!(unknown, "there is no device 0000:09:00.0 (there are: 0000:01:00.0)");
        assert_eq!(control.unplug("01:00.0"), Ok(Removal::Requested));
        assert_eq!(control.wait_gone("01:00.0", Duration::from_secs(60)), Ok(true));
        assert_eq!(control.devices()[0].1, DeviceState::Gone);
        assert_eq!(control.unplug("01:00.0"), Ok(Removal::Gone));
    });
    let Some((record, code)) = ended else { return };
    assert_eq!(code, Some(0));
    let removals = record.removals.lock().unwrap();
    let edu = |removal| (DeviceId(0), removal);
    let expected = [Removal::Requested, Removal::Gone, Removal::Gone].map(edu);
    assert_eq!(*removals, expected);
    assert_eq!(record.faults(), []);
}

#[test]
fn a_device_is_taken_from_who_cannot_be_asked() {
    let devices = session("arm-smmuv3-its-user", &["edu,group=1", "edu,group=1"]);
    let ended = run_beside(devices, "cannot_be_asked", |control| {
        assert_eq!(control.unplug("0000:01:00.0"), Ok(Removal::NoChannel));
        assert_eq!(control.wait_gone("0000:01:00.0", Duration::from_secs(60)), Ok(true));
    });
    let Some((record, code)) = ended else { return };
    assert_eq!(code, Some(0));
    let removals: Vec<_> = record.removals.lock().unwrap().iter().map(|(_, r)| *r).collect();
    assert_eq!(removals, [Removal::NoChannel, Removal::Gone]);
}

#[test]
fn who_does_not_let_go_is_asked_again() {
    let ended = run_beside(session("x86-intel", &["edu"]), "is_slow", |control| {
        let began = Instant::now();
        assert_eq!(control.unplug("0000:01:00.0"), Ok(Removal::Requested));
        assert_eq!(control.wait_gone("0000:01:00.0", Duration::from_millis(50)), Ok(false));
        assert_eq!(control.devices()[0].1, DeviceState::Leaving);
        // The session's end is the device's.
        assert_eq!(control.wait_gone("0000:01:00.0", Duration::from_secs(60)), Ok(true));
        assert!(began.elapsed() >= Duration::from_secs(10));
    });
    let Some((record, code)) = ended else { return };
    assert_eq!(code, Some(0));
    let removals: Vec<_> = record.removals.lock().unwrap().iter().map(|(_, r)| *r).collect();
    assert_eq!(removals, [Removal::Requested, Removal::Requested, Removal::Gone]);
}

/// Takes its time to hear that a device was asked for.
struct Slow;

impl Watch for Slow {
    fn removal(&self, _number: u64, _device: DeviceId, removal: Removal) {
        if removal == Removal::Requested {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn what_was_asked_for_is_told_before_it_is_gone() {
    let session = session("x86-intel", &["edu"]).watch(Arc::new(Slow));
    let ended = run_beside(session, "lets_go_at_once", |control| {
        for _ in 0..2 {
            assert_eq!(control.unplug("0000:01:00.0"), Ok(Removal::Requested));
        }
        assert_eq!(control.wait_gone("0000:01:00.0", Duration::from_secs(60)), Ok(true));
    });
    let Some((record, code)) = ended else { return };
    assert_eq!(code, Some(0));
    let removals: Vec<_> = record.removals.lock().unwrap().iter().map(|(_, r)| *r).collect();
    assert_eq!(removals, [Removal::Requested, Removal::Requested, Removal::Gone]);
}

#[test]
fn a_program_that_ends_lets_go() {
    let ended = run_beside(session("x86-intel", &["edu"]), "is_killed", |control| {
        assert_eq!(control.unplug("0000:01:00.0"), Ok(Removal::Requested));
        assert_eq!(control.wait_gone("0000:01:00.0", Duration::from_secs(60)), Ok(true));
    });
    let Some((record, code)) = ended else { return };
    assert_eq!(code, None);
    let removals: Vec<_> = record.removals.lock().unwrap().iter().map(|(_, r)| *r).collect();
    assert_eq!(removals, [Removal::Requested, Removal::Gone]);
}

#[test]
fn a_session_can_be_asked_before_and_after() {
    let ready = session("x86-intel", &["edu"]).place().unwrap();
    let control = ready.control();
    assert_eq!(control.unplug("0000:01:00.0").unwrap_err().to_string(), NOT_YET);
    assert_eq!(control.devices()[0].1, DeviceState::Free);
    match ready.run(&Program::new("true")) {
        Err(SessionError::Launch(why)) => return println!("skipped: {why}"),
        ended => assert!(ended.unwrap().status.success()),
    }
    assert_eq!(control.unplug("0000:01:00.0").unwrap_err().to_string(), "the session is over");
    assert_eq!(control.wait_gone("0000:01:00.0", Duration::ZERO), Ok(true));
}

const NOT_YET: &str = "the program has not started yet";

/// The example in C prints what the one in Rust prints.
#[test]
fn the_example_in_c_is_the_same() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = std::env::temp_dir().join(format!("msi_window-{}", std::process::id()));
    let compile = |link: &[&str]| {
        let mut cc = Command::new("cc");
        cc.args(link).args(["-Wall", "-Wextra", "-Werror", "-O1", "-I"]).arg(root.join("include"));
        cc.arg("-o").arg(&program).arg(root.join("crates/supervise/examples/msi_window.c"));
        cc.output()
    };
    let compiled = match compile(&["-static"]) {
        Ok(done) if !done.status.success() => compile(&[]),
        done => done,
    };
    match compiled {
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "cc is missing");
            return println!("skipped: cc: {error}");
        }
        Ok(done) => {
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    }
    for host in hosts() {
        let devices = ["edu", "nvme,size=1M", "msi-test"];
        let printed = |program: &Program<'_>| match session(host, &devices).output(program) {
            Err(SessionError::Launch(why)) if std::env::var_os("CI").is_none() => {
                println!("skipped: {why}");
                None
            }
            output => {
                let output = output.unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                assert!(output.report.status.success(), "{host}: {text}");
                Some(text)
            }
        };
        let Some(in_c) = printed(&Program::new(&program)) else { break };
        let args = ["client_of_a_session", "--exact", "--nocapture", "--test-threads=1"];
        let rust = Program::new(std::env::current_exe().unwrap()).args(args);
        let in_rust = printed(&rust.env(CLIENT, "example")).unwrap();
        // What the harness says comes first.
        let at = in_rust.find("windows on this host").unwrap();
        assert_eq!(in_rust[at..], in_c, "{host}");
    }
    std::fs::remove_file(&program).unwrap();
}
