//! Programs that use VFIO in every way that processes can, each under a supervisor of its own.
//!
//! A test starts this binary again as a supervisor (as root, and as uid 65534 when it is root itself),
//! and that starts it as the client of a session with two devices: edu, 0000:01:00.0 in group 1, and
//! nvme, 0000:02:00.0 in group 2. A client that finds something wrong panics.

#![allow(unsafe_code, reason = "clients make bare system calls")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "clients: every pointer is their own memory")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod disk;
mod fault;
mod hardware;
mod hostile;
mod killed;
mod large;
mod processes;
mod raw;
#[path = "../support/mod.rs"]
mod support;
mod vmm;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use softvfio_supervise::client::{self, inquiry};
use softvfio_supervise::kinds::DeviceSpec;
use softvfio_supervise::sandbox::{LaunchError, raise_limits};
use softvfio_supervise::session::{DEFAULT_HOST, Program, Session, SessionError};
use softvfio_supervise::watch::Watch;

use self::support::{Finished, Place, User, skip, users};

/// What a process of this binary is, when it is no test.
const ROLE: &str = "SOFTVFIO_E2E_ROLE";
/// The supervisor's devices, with blanks between, and its client's role.
const DEVICES: &str = "SOFTVFIO_E2E_DEVICES";
const HOST: &str = "SOFTVFIO_E2E_HOST";
const CLIENT: &str = "SOFTVFIO_E2E_CLIENT";
/// The supervisor has few descriptors; `raised`: as many as it can have, and files of any size.
const FEW: &str = "SOFTVFIO_E2E_FEW";
/// What libtest needs to become a process with a role.
const ARGS: [&str; 4] = ["role", "--exact", "--nocapture", "--test-threads=1"];
/// The supervisor's exit code where no session can be had.
const CANNOT: i32 = 77;
/// The line with which a client says that it is at work.
const READY: &str = "READY";

const FEW_DESCRIPTORS: u64 = 60;
/// Of files.
const FEW_BYTES: u64 = 1 << 20;

const LIMIT: Duration = Duration::from_secs(240);
/// edu by `pread` and `pwrite`.
const PLAIN: &str = "edu,mmio=none nvme,size=16M";

/// Everything that is no test.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    if role == "supervise" {
        std::process::exit(supervise());
    }
    match role.as_str() {
        "client" => well_behaved(),
        "vmm" => vmm::run(),
        "asks" => asks(),
        "writes" => killed::writes(),
        "killer" => killed::killer(),
        "suicide" => killed::suicide(),
        "hostile" => hostile::run(),
        "scribble" => hostile::scribble(),
        "hostile child" => hostile::child(),
        _ => processes::run(&role)
            .or_else(|| fault::run(&role))
            .or_else(|| hardware::run(&role))
            .or_else(|| large::run(&role))
            .expect("a role"),
    }
    std::process::exit(0);
}

fn well_behaved() {
    let devices = client::Devices { edu: Some(raw::EDU), nvme: Some(raw::NVME) };
    client::run(devices, &mut std::io::stdout()).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Asks containers of groups what may be mapped, one of which somebody has.
fn asks() {
    let group = raw::open("/dev/vfio/1");
    let mut status = [8_u32, 0];
    assert_eq!(raw::request(group, raw::GROUP_STATUS, status.as_mut_ptr() as u64), 0);
    let why = |group| inquiry::ask(group).unwrap_err().to_string();
    assert_eq!(why(1), "/dev/vfio/1: somebody has the group");
    assert!(why(9).contains("/dev/vfio/9: it is not there"), "{}", why(9));
    let other = inquiry::ask(2).unwrap();
    assert_eq!(other.ranges, [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 48) - 1)]);
    assert_eq!((other.iommu_type, other.page_sizes), ("type1v2", 0x4020_1000));
    // What was asked is free again, and what was let go can be asked.
    raw::close(group);
    assert_eq!(inquiry::ask(1).unwrap(), other);
    assert_eq!(inquiry::ask(2).unwrap(), other);
}

/// This binary, as something else.
fn becoming(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(ARGS).env(ROLE, role);
    command
}

struct Troubles;

impl Watch for Troubles {
    fn trouble(&self, sentence: &str) {
        eprintln!("trouble: {sentence}");
    }
}

fn supervise() -> i32 {
    let [devices, client] = [DEVICES, CLIENT].map(|name| std::env::var(name).unwrap());
    if let Ok(few) = std::env::var(FEW) {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = Rlimit { current: Some(FEW_DESCRIPTORS), ..getrlimit(Resource::Nofile) };
        setrlimit(Resource::Nofile, limit).unwrap();
        if few == "raised" {
            let limit = Rlimit { current: Some(FEW_BYTES), ..getrlimit(Resource::Fsize) };
            setrlimit(Resource::Fsize, limit).unwrap();
            raise_limits();
        }
    }
    let mut session = Session::new().watch(Arc::new(Troubles));
    if let Ok(host) = std::env::var(HOST) {
        // A GICv2m does not isolate interrupts.
        session = session.host(&host).allow_unsafe_interrupts(host == "arm-smmuv3-gicv2m");
    }
    for device in devices.split(' ') {
        session = session.device(device.parse::<DeviceSpec>().unwrap().make().unwrap());
    }
    let mut program = Program::new("/proc/self/exe").args(ARGS);
    let env = std::env::vars_os().filter(|(name, _)| name != ROLE);
    program.env = Some(env.chain([(ROLE.into(), client.into())]).collect());
    match session.place().unwrap().run(&program) {
        Ok(outcome) => {
            println!("supervisor: done");
            let status = outcome.status;
            status.code().or(status.signal().map(|signal| 128 + signal)).unwrap()
        }
        Err(SessionError::Launch(
            error @ (LaunchError::UserNamespace { .. }
            | LaunchError::MountNamespace { .. }
            | LaunchError::Nested
            | LaunchError::Filter { .. }),
        )) => {
            eprintln!("{error}");
            CANNOT
        }
        Err(error) => panic!("{error}"),
    }
}

/// A session's supervisor, to be run.
fn session(place: &Place, user: User, devices: &str, client: &str) -> Command {
    let mut command = place.command(user, "/proc/self/exe");
    command.args(ARGS).env(ROLE, "supervise").env(DEVICES, devices).env(CLIENT, client);
    command
}

/// A client's session as each user; what came of it, where sessions can be had.
fn run(devices: &str, client: &str) -> Vec<Finished> {
    run_on(DEFAULT_HOST, devices, client)
}

/// The same on a host.
fn run_on(host: &str, devices: &str, client: &str) -> Vec<Finished> {
    let place = Place::new(client);
    let mut all = Vec::new();
    for user in users() {
        let mut session = session(&place, *user, devices, client);
        let finished = place.run(session.env(HOST, host), LIMIT);
        if finished.status.code() == Some(CANNOT) {
            skip(&format!("{user:?}: {}", finished.stderr));
            continue;
        }
        let why = finished.stdout.lines().find(|line| line.starts_with("skipped: "));
        why.into_iter().for_each(|why| println!("{why}"));
        all.push(finished);
    }
    all
}

/// The client finds nothing wrong.
fn succeeds(devices: &str, client: &str) {
    succeeds_on(DEFAULT_HOST, devices, client);
}

/// The same on a host.
fn succeeds_on(host: &str, devices: &str, client: &str) {
    for finished in run_on(host, devices, client) {
        let finished = finished.success();
        assert!(!finished.stderr.contains("trouble"), "{}", finished.stderr);
    }
}

#[test]
fn the_bundled_client() {
    succeeds("edu nvme,size=16M", "client");
    succeeds("edu,mmio=trap nvme,size=16M,mmio=trap", "client");
}

#[test]
fn containers_are_asked_and_groups_given_back() {
    succeeds(PLAIN, "asks");
}

#[test]
fn the_crate_vfio_ioctls() {
    // The hosts that need no help with MSIs.
    for host in [
        DEFAULT_HOST,
        "x86-intel-39bit",
        "x86-amd",
        "arm-smmuv3-its",
        "arm-smmuv3-gicv2m",
        "virtio-iommu",
        "virtio-iommu-sw-msi",
    ] {
        succeeds_on(host, PLAIN, "vmm");
    }
}

#[test]
fn threads() {
    succeeds(PLAIN, "threads");
}

#[test]
fn descriptors_that_are_duplicated_inherited_passed_and_kept_over_exec() {
    for client in ["dup", "fork", "passed", "exec"] {
        succeeds(PLAIN, client);
    }
}

#[test]
fn a_child_maps_its_own_memory() {
    succeeds(PLAIN, "child maps");
}

#[test]
fn a_client_that_cannot_be_dumped_and_filters_its_own_calls() {
    succeeds(PLAIN, "private");
}

#[test]
fn alarms_at_10_khz_change_no_answer() {
    succeeds(PLAIN, "alarm");
}

#[test]
fn vectors_of_buffers() {
    succeeds(PLAIN, "buffers");
}

#[test]
fn a_group_is_open_once() {
    succeeds(PLAIN, "busy");
}

#[test]
fn the_last_close_counts_and_counts_at_once() {
    succeeds(PLAIN, "last close");
    succeeds(PLAIN, "reopen");
}

#[test]
fn the_bus_of_a_device_can_be_reset() {
    succeeds(PLAIN, "hot reset");
}

#[test]
fn bar_0_is_at_0_for_those_who_do_not_ask() {
    succeeds("edu,mmio=none nvme,size=16M,mmio=poll", "bar 0 at 0");
    succeeds("edu,mmio=none nvme,size=16M,mmio=trap", "bar 0 at 0");
}

#[test]
fn a_devices_file_is_as_long_as_its_regions() {
    succeeds("edu,mmio=trap nvme,size=16M", "asks for the size");
}

#[test]
fn disks_have_serial_numbers_of_their_own() {
    succeeds("nvme,size=16M nvme,size=16M", "two disks");
}

#[test]
fn an_unmask_eventfd_is_there_until_its_last_descriptor_is_closed() {
    succeeds(PLAIN, "unmask");
}

#[test]
fn the_fault_handler_of_a_client_can_use_vfio_while_dma_waits_for_it() {
    for devices in [PLAIN, "edu,mmio=trap nvme,size=16M,mmio=trap", "edu nvme,size=16M"] {
        for client in ["fault of edu", "fault of nvme"] {
            succeeds(devices, client);
        }
    }
}

#[test]
fn the_fault_handler_of_a_client_can_use_a_device_while_a_request_on_it_waits() {
    succeeds(PLAIN, "fault of an argument");
}

#[test]
fn killed_while_writing_what_was_told_is_in_the_file() {
    killed_while("writes", 200);
}

#[test]
fn killed_while_writing_much_at_a_time_what_was_told_is_in_the_file() {
    killed_while("large writes", 60);
}

fn killed_while(writes: &str, rounds: usize) {
    let place = Place::new("killer");
    for user in users() {
        let disk = place.blank("disk", 16 << 20);
        let devices = format!("edu nvme,file={}", disk.display());
        let mut command = session(&place, *user, &devices, "killer");
        // So many in all, whoever we are.
        let rounds = rounds / users().len();
        command.env("SOFTVFIO_E2E_WRITES", writes);
        command.env("SOFTVFIO_E2E_DISK", &disk).env("SOFTVFIO_E2E_ROUNDS", rounds.to_string());
        let finished = place.run(&mut command, LIMIT);
        if finished.status.code() == Some(CANNOT) {
            return skip(&finished.stderr);
        }
        print!("{}", finished.success().stdout);
    }
}

/// The client finds nothing wrong with two disks of 16 MiB.
fn succeeds_with_disks(client: &str) {
    let place = Place::new("disks");
    for user in users() {
        let disk = place.blank("disk", 16 << 20);
        let other = place.blank("other", 16 << 20);
        let devices = format!("nvme,file={} nvme,file={}", other.display(), disk.display());
        let mut command = session(&place, *user, &devices, client);
        let finished = place.run(command.env("SOFTVFIO_E2E_DISK", &disk), LIMIT);
        if finished.status.code() == Some(CANNOT) {
            return skip(&finished.stderr);
        }
        let finished = finished.success();
        assert!(!finished.stderr.contains("trouble"), "{}", finished.stderr);
        print!("{}", finished.stdout);
    }
}

#[test]
fn two_disks_at_a_time_and_commands_of_all_sizes_at_all_places() {
    succeeds_with_disks("sizes and places");
}

#[test]
fn the_file_of_a_disk_changes_while_commands_go_on() {
    succeeds_with_disks("the file changes");
}

/// A small file system, gone at the end. Other tests take what has our name for left behind.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new() -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("e2e-small-{}", std::process::id()));
        // A run that was killed may have had our number.
        unsafe { libc::umount2(Self::name(&dir).as_ptr(), libc::MNT_DETACH) };
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let (kind, options) = (c"tmpfs".as_ptr(), c"size=8m,mode=777".as_ptr().cast());
        let name = Self::name(&dir);
        let answer = unsafe { libc::mount(kind, name.as_ptr(), kind, 0, options) };
        let mount = Self(dir);
        (answer == 0).then_some(mount)
    }

    fn name(dir: &std::path::Path) -> std::ffi::CString {
        std::ffi::CString::new(dir.to_str().unwrap()).unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unsafe { libc::umount2(Self::name(&self.0).as_ptr(), libc::MNT_DETACH) };
        std::fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn a_file_system_with_less_room_than_the_disk() {
    let Some(small) = Mount::new() else {
        return skip("a file system cannot be mounted here");
    };
    let disk = small.0.join("disk");
    std::fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    let devices = format!("edu nvme,file={}", disk.display());
    let place = Place::new("full");
    let mut command = session(&place, User::Own, &devices, "fills");
    let finished = place.run(command.env("SOFTVFIO_E2E_DISK", &disk), LIMIT);
    if finished.status.code() == Some(CANNOT) {
        return skip(&finished.stderr);
    }
    finished.success().says("16 of 32");
}

#[test]
fn the_fault_handler_of_a_client_can_use_vfio_while_large_dma_waits_for_it() {
    succeeds_with_disks("large faults");
}

#[test]
fn an_exec_while_dma_waits_for_the_old_programs_memory() {
    succeeds_with_disks("exec in a write");
    succeeds_with_disks("exec in a read");
}

#[test]
fn killed_while_large_dma_waits_for_its_memory() {
    for finished in run("edu nvme,size=16M", "dies in a fault") {
        if !finished.stdout.contains("skipped: ") {
            let (code, errors) = (finished.status.code(), &finished.stderr);
            assert_eq!(code, Some(128 + libc::SIGKILL), "{errors}");
            assert!(!errors.contains("panicked") && finished.stdout.contains("supervisor: done"));
        }
    }
}

#[test]
fn killed_in_the_middle_of_dma() {
    for _ in 0..5 {
        for finished in run(PLAIN, "suicide") {
            let (code, errors) = (finished.status.code(), &finished.stderr);
            assert_eq!(code, Some(128 + libc::SIGKILL), "{errors}");
            assert!(!errors.contains("panicked") && finished.stdout.contains("supervisor: done"));
        }
    }
}

#[test]
fn nothing_outlives_a_supervisor_that_is_killed() {
    let place = Place::new("killed");
    for user in users() {
        for round in 0..5 {
            let disk = place.blank("disk", 16 << 20);
            let devices = format!("edu nvme,file={}", disk.display());
            let mut running = place.start(&mut session(&place, *user, &devices, "writes"));
            let mut stdout = BufReader::new(running.child.stdout.take().unwrap());
            let mut line = String::new();
            while stdout.read_line(&mut line).unwrap() > 0 && !line.contains(READY) {}
            if !line.contains(READY) {
                let finished = running.finish(LIMIT);
                assert_eq!(finished.status.code(), Some(CANNOT), "{}", finished.stderr);
                skip(&finished.stderr);
                break;
            }
            std::thread::sleep(Duration::from_millis(3 * round));
            running.child.kill().unwrap();
            running.child.wait().unwrap();
            place.nothing_left();
        }
    }
}

#[test]
fn a_process_whose_first_thread_is_gone_and_a_thread_with_its_own_descriptors() {
    for devices in [PLAIN, "edu nvme,size=16M"] {
        succeeds(devices, "leader gone");
        succeeds(devices, "own table");
    }
}

#[test]
fn a_supervisor_has_other_limits_than_its_client_or_says_that_they_are_too_few() {
    let place = Place::new("few");
    for user in users() {
        for (few, client) in [("raised", "many eventfds"), ("kept", "too many eventfds")] {
            let finished = place.run(session(&place, *user, PLAIN, client).env(FEW, few), LIMIT);
            if finished.status.code() == Some(CANNOT) {
                skip(&finished.stderr);
                continue;
            }
            let finished = finished.success();
            let told = finished.stderr.contains("no descriptor left");
            assert_eq!(told, few == "kept", "{}", finished.stderr);
        }
    }
}

#[test]
fn descriptors_that_are_none() {
    succeeds(PLAIN, "bad descriptors");
}

#[test]
fn what_a_client_leaves_in_polled_registers_is_gone_with_it() {
    succeeds("edu nvme,size=16M", "scribble");
}

#[test]
fn a_hostile_client_harms_itself_only() {
    for devices in ["edu nvme,size=16M", "edu nvme,size=16M,mmio=trap"] {
        for finished in run(devices, "hostile") {
            finished.success().says("supervisor: done");
        }
    }
}

/// Says that the client is at work.
fn ready() {
    println!("\n{READY}");
    std::io::stdout().flush().unwrap();
}
