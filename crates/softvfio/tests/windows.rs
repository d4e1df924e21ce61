//! `softvfio run` and `softvfio ctl`: the example in C takes its interrupts through a window, and lets
//! go of its devices when the host asks.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SOFTVFIO: &str = env!("CARGO_BIN_EXE_softvfio");
/// More than anything here takes, were the machine as busy as it gets.
const LIMIT: Duration = Duration::from_secs(60);

/// A directory of the test's own, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("softvfio-{}-{test}", std::process::id()));
        // A run that was killed may have had our number.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    /// The example, compiled; `None` where there is no C compiler or no session can be had.
    fn example(&self) -> Option<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let program = self.0.join("msi_window");
        let source = root.join("crates/supervise/examples/msi_window.c");
        let compile = |link: &[&str]| {
            let mut cc = Command::new("cc");
            cc.args(link).arg("-I").arg(root.join("include")).arg("-o").arg(&program).arg(&source);
            cc.output().ok().filter(|done| done.status.success())
        };
        let compiled = compile(&["-static"]).or_else(|| compile(&[])).is_some();
        let usable = Command::new(SOFTVFIO).args(["run", "--", "true"]).output().unwrap();
        if compiled && usable.status.success() {
            return Some(program);
        }
        let why = String::from_utf8_lossy(&usable.stderr);
        assert!(std::env::var_os("CI").is_none(), "cc: {compiled}; {why}");
        println!("skipped: cc: {compiled}; {why}");
        None
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control")
    }

    fn trace(&self) -> PathBuf {
        self.0.join("trace.jsonl")
    }

    fn ctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(SOFTVFIO);
        command.args(["ctl", "--control"]).arg(self.socket()).args(args).output().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A session whose program waits for the host.
struct Waiting {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Waiting {
    fn start(place: &Place, program: &Path, devices: &[&str]) -> Self {
        let mut command = Command::new(SOFTVFIO);
        command.args(["run", "--host", "arm-smmuv3-its-user", "--control"]).arg(place.socket());
        command.arg("--trace").arg(place.trace());
        devices.iter().for_each(|device| _ = command.args(["--device", device]));
        command.arg("--").arg(program).arg("--wait").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "it ended before {word}");
        }
    }

    fn ends_well(mut self) {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_device_is_unplugged_from_a_command_line() {
    let place = Place::new("unplug");
    let Some(program) = place.example() else { return };
    let devices = ["edu", "nvme,size=1M"];
    let mut session = Waiting::start(&place, &program, &devices);
    session.expect("0000:01:00.0: waiting");
    let listed = text(&place.ctl(&["devices"]).stdout);
    assert_eq!(listed, "0000:01:00.0 edu group 1 open\n0000:02:00.0 nvme group 2 open\n");
    let mode = std::fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let unknown = place.ctl(&["unplug", "0000:07:00.0"]);
    assert_eq!(unknown.status.code(), Some(1));
    let says =
        "softvfio: there is no device 0000:07:00.0 (there are: 0000:01:00.0, 0000:02:00.0)\n";
    assert_eq!(text(&unknown.stderr), says);

    // The example waits for its first device first: the second is not closed yet, though asked for.
    let json = |args: &[&str]| -> (serde_json::Value, Option<i32>) {
        let out = place.ctl(args);
        (serde_json::from_slice(&out.stdout).unwrap(), out.status.code())
    };
    let (asked, code) = json(&["unplug", "0000:02:00.0", "--no-wait", "--json"]);
    let members = (&asked["asked"], &asked["gone"], &asked["error"]);
    let expected = (&"requested".into(), &false.into(), &serde_json::Value::Null);
    assert_eq!((code, members), (Some(0), expected));
    let listed = text(&place.ctl(&["devices"]).stdout);
    assert!(listed.ends_with("0000:02:00.0 nvme group 2 leaving\n"), "{listed}");

    let (listed, _) = json(&["devices", "--json"]);
    let second = serde_json::json!({"address": "0000:02:00.0", "kind": "nvme", "group": 2, "state": "leaving"});
    assert_eq!((&listed["format"], &listed["devices"][1]), (&"softvfio-ctl/1".into(), &second));
    let (unknown, code) = json(&["--json", "unplug", "0000:07:00.0"]);
    assert_eq!((code, &unknown["gone"]), (Some(1), &false.into()));
    assert!(unknown["error"].as_str().unwrap().starts_with("there is no device 0000:07:00.0"));

    let taken = place.ctl(&["unplug", "01:00.0"]);
    assert!(taken.status.success());
    assert!(text(&taken.stdout).ends_with("01:00.0 is gone\n"), "{}", text(&taken.stdout));
    session.expect("the windows are gone");
    session.ends_well();
    assert!(!place.socket().exists());
    let late = place.ctl(&["devices"]);
    assert_eq!(late.status.code(), Some(1));

    // The record has where MSIs were written, and what was taken; it is replayed without either.
    let trace = std::fs::read_to_string(place.trace()).unwrap();
    let lines = |word: &str| trace.lines().filter(|line| line.contains(word)).count();
    let msi = r#""dev":"edu0","iova":"0x200040","doorbell":"0x8090040","vector":0,"times":1"#;
    assert!(lines(r#""note":"msi""#) >= 3 && lines(msi) >= 1, "{trace}");
    assert_eq!(lines(r#""op":"remove""#), 2);
    let replayed = Command::new(SOFTVFIO).arg("replay").arg(place.trace()).output().unwrap();
    assert!(replayed.status.success(), "{}", text(&replayed.stdout));
}

#[test]
fn the_socket_takes_anything() {
    let place = Place::new("garbage");
    let Some(program) = place.example() else { return };
    // What a session that was killed leaves is replaced.
    drop(UnixListener::bind(place.socket()).unwrap());
    let mut session = Waiting::start(&place, &program, &["edu"]);
    session.expect("0000:01:00.0: waiting");

    let send = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(place.socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        // It may hang up in the middle of this.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        text(&answer)
    };
    for bytes in
        [&b"\n"[..], b"unplug\n", b"unplug a b\n", b"unplug 0000:01:00.0 never\n", b"DEVICES\n"]
    {
        let answer = send(bytes);
        assert!(answer.starts_with("error: expected `devices` or"), "{answer}");
    }
    for bytes in [&b""[..], b"devices", b"\xff\xfe\n", &[0; 100]] {
        let answer = send(bytes);
        assert!(answer.starts_with("error: expected one line"), "{answer}");
    }
    send(&vec![b'x'; 1 << 20]);
    assert!(send(b"unplug \0\n").starts_with("error: there is no device"));
    // Many who say nothing hold up others no longer than it takes them to be turned away.
    let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(place.socket()).unwrap()).collect();
    drop(silent);
    let begin = Instant::now();
    while !send(b"devices\n").ends_with("ok\n") {
        assert!(begin.elapsed() < LIMIT, "they hold up others");
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        let mut bytes = Vec::new();
        for _ in 0..state % 64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(state as u8);
        }
        state = state.wrapping_add(1);
        send(&bytes);
    }
    // A second session cannot have the socket.
    let mut second = Command::new(SOFTVFIO);
    second.args(["run", "--control"]).arg(place.socket()).args(["--", "true"]);
    let refused = second.output().unwrap();
    assert_eq!(refused.status.code(), Some(125));
    assert!(text(&refused.stderr).contains("in use"), "{}", text(&refused.stderr));

    assert!(place.ctl(&["unplug", "0000:01:00.0"]).status.success());
    session.ends_well();
    assert!(!place.socket().exists());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let place = Place::new("file");
    std::fs::write(place.socket(), "mine").unwrap();
    let mut run = Command::new(SOFTVFIO);
    run.args(["run", "--control"]).arg(place.socket()).args(["--", "true"]);
    assert_eq!(run.output().unwrap().status.code(), Some(125));
    assert_eq!(std::fs::read_to_string(place.socket()).unwrap(), "mine");
}

/// Each console block of the section, in its order; lines without a `$` are what the command prints.
#[test]
fn the_page_shows_what_happens() {
    let place = Place::new("page");
    if place.example().is_none() {
        return;
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/msi-windows.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("Live: ")).unwrap();
    let mut background: Option<Waiting> = None;
    let mut seen = 0;
    for block in section.split("```console,ignore\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for part in block.split("$ ").skip(1) {
            let (command, shown) = part.split_once('\n').unwrap();
            // The C compiler's is done.
            let Some(args) = command.strip_prefix("softvfio ") else { continue };
            seen += 1;
            let words: Vec<&str> = args.split_whitespace().collect();
            let mut run = Command::new(SOFTVFIO);
            run.current_dir(&place.0).stderr(Stdio::null());
            if let [words @ .., "&"] = &words[..] {
                let mut child = run.args(words).stdout(Stdio::piped()).spawn().unwrap();
                let stdout = BufReader::new(child.stdout.take().unwrap());
                let session = background.insert(Waiting { child, stdout });
                session.expect("waiting until");
                continue;
            }
            let done = run.args(&words).output().unwrap();
            assert_eq!(text(&done.stdout), shown, "{command}");
            // qemu-img is the one that fails.
            assert_eq!(done.status.success(), !args.contains("qemu-img"), "{command}");
        }
    }
    assert_eq!(seen, 7);
    background.unwrap().ends_well();
}
