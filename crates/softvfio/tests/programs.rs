//! Programs of others under `softvfio run`, as each user that we can be: qemu-img, guests of QEMU,
//! DPDK's, pciutils', one in C that is linked statically, and our own demonstration.

#[path = "programs/guest.rs"]
mod guest;
#[path = "../../supervise/tests/support/mod.rs"]
mod support;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use self::support::{Finished, Place, User, args, program, skip, users};

const LIMIT: Duration = Duration::from_secs(240);
const DISK: &str = "nvme://0000:01:00.0/1";

/// The command, where everybody may run it.
fn softvfio() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_softvfio"));
        let place = Place::new("anybody");
        let mut command = place.command(*users().last().unwrap(), built);
        let works = command.arg("--version").stdout(Stdio::null()).status();
        if works.is_ok_and(|status| status.success()) {
            return built.to_owned();
        }
        let copy = std::env::temp_dir().join(format!("softvfio-copy-{}", std::process::id()));
        // By a child: one that another test starts had our descriptor for a while, and a program that
        // is written to cannot be executed.
        assert!(Command::new("cp").args([built, &copy]).status().unwrap().success());
        copy
    })
}

/// Whether a user can have sessions here.
fn can_run(place: &Place, user: User) -> bool {
    let mut command = place.command(user, softvfio());
    let finished = place.run(command.args(["run", "--", "true"]), LIMIT);
    if finished.status.code() == Some(125) {
        skip(&format!("{user:?}: {}", finished.stderr));
    } else {
        assert!(finished.status.success(), "{}", finished.stderr);
    }
    finished.status.success()
}

/// `softvfio run` with devices, and the program behind.
fn within(place: &Place, user: User, devices: &[&str], program: &[OsString]) -> Command {
    let mut command = place.command(user, softvfio());
    command.arg("run");
    devices.iter().for_each(|device| _ = command.args(["--device", device]));
    command.arg("--").args(program);
    command
}

/// Runs a program for each user that can.
fn each_user(test: &str, f: impl Fn(&Place, User)) {
    let place = Place::new(test);
    for user in users() {
        if can_run(&place, *user) {
            f(&place, *user);
        }
    }
}

fn nvme(file: &Path) -> String {
    format!("nvme,file={}", file.display())
}

fn qemu_img(place: &Place, user: User, disk: &Path, args: &[OsString]) -> Finished {
    let program = [&["qemu-img".into()], args].concat();
    place.run(&mut within(place, user, &[&nvme(disk)], &program), LIMIT).success()
}

fn same(first: &Path, second: &Path) {
    let same = Command::new("cmp").args([first, second]).status().unwrap();
    assert!(same.success(), "{} and {} differ", first.display(), second.display());
}

/// From an image to the disk, and from the disk to another image.
fn convert(place: &Place, user: User, size: u64) {
    let image = place.image("image", size);
    let disk = place.blank("disk", size);
    let [convert, raw, n] = ["convert", "raw", "-n"].map(OsString::from);
    let [f, o] = ["-f", "-O"].map(OsString::from);
    let begin = [convert, f, raw.clone(), o, raw];
    let there = [&begin[..], &[n], &args([&image, &DISK])].concat();
    qemu_img(place, user, &disk, &there);
    same(&image, &disk);
    std::fs::remove_file(&image).unwrap();
    let back = place.blank("back", 0);
    qemu_img(place, user, &disk, &[&begin[..], &args([&DISK, &back])].concat());
    same(&disk, &back);
    std::fs::remove_file(&back).unwrap();
    std::fs::remove_file(&disk).unwrap();
}

#[test]
fn qemu_img_info() {
    if program("qemu-img").is_none() {
        return;
    }
    each_user("info", |place, user| {
        let disk = place.blank("disk", 64 << 20);
        qemu_img(place, user, &disk, &args([&"info", &DISK])).says("virtual size: 64 MiB");
    });
}

#[test]
fn qemu_img_convert_64_mib() {
    if program("qemu-img").is_none() {
        return;
    }
    each_user("convert", |place, user| convert(place, user, 64 << 20));
}

/// Once, as the last user: in CI, or where `SOFTVFIO_E2E_GIB` is set.
#[test]
fn qemu_img_convert_1_gib() {
    if program("qemu-img").is_none() {
        return;
    }
    let wanted = ["CI", "SOFTVFIO_E2E_GIB"].iter().any(|name| std::env::var_os(name).is_some());
    if !wanted {
        return skip("1 GiB is for CI, or SOFTVFIO_E2E_GIB=1");
    }
    let place = Place::new("gib");
    let user = *users().last().unwrap();
    if can_run(&place, user) {
        convert(&place, user, 1 << 30);
    }
}

#[test]
fn qemu_img_bench() {
    if program("qemu-img").is_none() {
        return;
    }
    each_user("bench", |place, user| {
        let disk = place.blank("disk", 64 << 20);
        for (depth, size, count) in [
            ("1", "4096", "500"),
            ("32", "4096", "2000"),
            ("64", "4096", "2000"),
            ("1", "131072", "100"),
            ("32", "131072", "200"),
            ("64", "131072", "200"),
        ] {
            for write in [false, true] {
                let mut bench =
                    ["bench", "-f", "raw", "-t", "none", "-d", depth, "-s", size, "-c", count]
                        .map(OsString::from)
                        .to_vec();
                bench.extend(write.then(|| "-w".into()));
                bench.push(DISK.into());
                qemu_img(place, user, &disk, &bench).says("Run completed in");
            }
        }
    });
}

#[test]
fn lspci_lists_the_devices() {
    if program("lspci").is_none() {
        return;
    }
    each_user("lspci", |place, user| {
        let lspci = args([&"lspci", &"-nnk"]);
        let finished = place.run(&mut within(place, user, &["nvme", "edu"], &lspci), LIMIT);
        let finished = finished.success();
        let mut lines = finished.stdout.lines().skip_while(|line| !line.starts_with("01:00.0"));
        let first = lines.next().unwrap_or_default();
        assert!(first.contains("[0108]"), "{}", finished.stdout);
        assert!(lines.any(|line| line.starts_with("02:00.0") && line.contains("[1234:11e8]")));
        let bound = finished.stdout.matches("Kernel driver in use: vfio-pci").count();
        assert!(bound >= 2, "{}", finished.stdout);
    });
}

#[test]
fn dpdk_devbind_lists_the_devices() {
    if program("dpdk-devbind.py").is_none() || program("lspci").is_none() {
        return;
    }
    each_user("devbind", |place, user| {
        let devbind = args([&"dpdk-devbind.py", &"--status"]);
        let devices = ["ioat", "nvme"];
        let finished = place.run(&mut within(place, user, &devices, &devbind), LIMIT).success();
        let bound = |line: &&str| line.starts_with("0000:01:00.0 ");
        let line = finished.stdout.lines().find(bound).unwrap_or_default();
        assert!(line.contains("drv=vfio-pci"), "{}", finished.stdout);
        assert!(finished.stdout.contains("DMA devices using DPDK-compatible driver"));
    });
}

fn dmadev_autotest(device: &str) {
    // DPDK's runtime directory takes one at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    if program("dpdk-test").is_none() {
        return;
    }
    each_user("dpdk", |place, user| {
        let test = ["dpdk-test", "--no-huge", "-m", "512", "--iova-mode=va", "-a", "0000:01:00.0"];
        let mut command = within(place, user, &[device], &test.map(OsString::from));
        command.env("DPDK_TEST", "dmadev_autotest");
        let finished = place.run(&mut command, LIMIT);
        finished.says("### Test dmadev instance 0 [0000:01:00.0]").success().says("Test OK");
    });
}

/// Into errors too: version 3.4 reports them, and DPDK tests how.
#[test]
fn dpdk_drives_ioat() {
    dmadev_autotest("ioat");
}

#[test]
fn a_client_in_c_linked_statically() {
    let place = Place::new("static");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client.c");
    let client = place.file("client");
    let cc = ["-static", "-O1", "-Wall", "-Werror", "-pthread", "-o"];
    let Some(compiler) = program("cc") else { return };
    let compiled = Command::new(compiler).args(cc).arg(&client).arg(source).output().unwrap();
    let errors = String::from_utf8_lossy(&compiled.stderr);
    if errors.contains("cannot find -lc") {
        return skip("there is no static libc");
    }
    assert!(compiled.status.success(), "{errors}");
    place.open_to_all(&client);
    for user in users() {
        if !can_run(&place, *user) {
            continue;
        }
        for devices in [["edu", "nvme,size=16M"], ["edu,mmio=none", "nvme,size=16M"]] {
            let program = [client.clone().into_os_string()];
            let finished = place.run(&mut within(&place, *user, &devices, &program), LIMIT);
            finished.success().says("done");
        }
    }
}

#[test]
fn the_demonstration() {
    each_user("demo", |place, user| {
        let finished = place.run(place.command(user, softvfio()).arg("demo"), LIMIT).success();
        let told =
            ["0000:01:00.0  edu", "10! = 3628800", "written, flushed, read back", "softvfio run"];
        told.into_iter().fold(finished, Finished::says);
    });
}

#[test]
fn a_program_ends_as_it_does_without_us() {
    each_user("ends", |place, user| {
        for (script, code) in [("exit 3", 3), ("kill -9 $$", 137), ("sleep 0.1 & exit 4", 4)] {
            let program = args([&"sh", &"-c", &script]);
            let finished = place.run(&mut within(place, user, &["edu"], &program), LIMIT);
            assert_eq!(finished.status.code(), Some(code), "{script}");
        }
        let finished = place.run(&mut within(place, user, &["moon"], &args([&"true"])), LIMIT);
        assert_eq!(finished.status.code(), Some(125));
        assert!(finished.stderr.contains("there is no device \"moon\""), "{}", finished.stderr);
    });
}
