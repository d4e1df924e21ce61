//! `softvfio run` told to stop: the program is told, then killed, and the report comes all the same.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use self::common::{SOFTVFIO, can_run};

/// More than anything here takes, were the machine as busy as it gets.
const LIMIT: Duration = Duration::from_secs(60);

/// Of Linux on x86-64.
const O_NONBLOCK: i32 = 0o4000;

/// A session that runs, killed when a test gives up.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    /// Of a shell script, as soon as it says that it is ready.
    fn start(options: &[&str], script: &str) -> Self {
        let mut command = Command::new(SOFTVFIO);
        command.args(["run", "-d", "edu,mmio=none"]).args(options);
        command.args(["--", "sh", "-c", script]).stdin(Stdio::null());
        Self::of(&mut command)
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, stdout };
        running.expect("ready");
        running
    }

    /// Reads what it prints, up to this line.
    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        while !line.trim_end().ends_with(word) {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "it ended before {word}");
        }
    }

    fn send(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// How it ended, what it printed from here on, and what it said.
    fn end(mut self) -> (ExitStatus, String, String) {
        let status = wait(&mut self.child);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (status, stdout, stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Seconds that nobody else sleeps, of a test with its own digit.
fn nap(digit: u32) -> String {
    format!("{digit}{:07}", std::process::id())
}

/// How many sleep for so long.
fn sleepers(seconds: &str) -> usize {
    let wanted = format!("sleep\0{seconds}\0");
    let entries = std::fs::read_dir("/proc").unwrap();
    let lines = entries.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| *line == wanted.as_bytes()).count()
}

fn wait_for_sleepers(seconds: &str, count: usize) {
    let deadline = Instant::now() + LIMIT;
    while sleepers(seconds) != count {
        assert!(Instant::now() < deadline, "{} sleep", sleepers(seconds));
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("softvfio-stop-{}-{test}", std::process::id()));
        // A run that was killed may have had our number.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn each_signal_ends_it_with_a_report() {
    if !can_run() {
        return;
    }
    let files = Files::new("each");
    let (report, trace) = (files.path("report.json"), files.path("trace.jsonl"));
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let options = ["--report", &report, "--trace", &trace];
        let session = Running::start(&options, "echo ready; exec sleep 600");
        session.send(name);
        let (status, _, said) = session.end();
        assert_eq!(status.code(), Some(128 + number), "{said}");
        let first = format!(
            "softvfio: told to stop by SIG{name}: the program was ended by signal {number}\n"
        );
        assert!(said.starts_with(&first) && said.contains("findings   none"), "{said}");
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
        assert_eq!(json["stopped"], serde_json::json!({"signal": number, "killed": false}));
        let replayed = Command::new(SOFTVFIO).args(["replay", &trace]).output().unwrap();
        assert!(replayed.status.success(), "{replayed:?}");
    }
}

#[test]
fn a_program_may_clear_up() {
    if !can_run() {
        return;
    }
    let script = "trap 'echo clean; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let session = Running::start(&[], script);
    session.send("TERM");
    let (status, printed, said) = session.end();
    assert_eq!((status.code(), printed.as_str()), (Some(143), "clean\n"), "{said}");
    assert!(said.contains("SIGTERM: the program ended with exit code 0"), "{said}");
}

/// Its children too, those in sessions of their own, and whatever ignores signals.
#[test]
fn a_second_signal_kills_all() {
    if !can_run() {
        return;
    }
    let nap = nap(6);
    let script = format!(
        "(trap '' TERM; exec setsid sleep {nap}) & (trap '' TERM; exec sleep {nap}) & \
         (trap '' TERM; exec sleep {nap}) & trap 'echo told' TERM; echo ready; \
         while :; do wait; done"
    );
    // Sooner than the program's time is over: a machine that has no time for us may need another try.
    let at_once = (0..10).any(|_| {
        let mut session = Running::start(&[], &script);
        wait_for_sleepers(&nap, 3);
        session.send("TERM");
        session.expect("told");
        // Later than what counts as the same wish.
        std::thread::sleep(Duration::from_millis(400));
        let begin = Instant::now();
        session.send("TERM");
        let (status, _, said) = session.end();
        let took = begin.elapsed();
        assert_eq!(status.code(), Some(143), "{said}");
        assert!(said.contains("SIGTERM: the program did not end, and was killed"), "{said}");
        assert_eq!(sleepers(&nap), 0);
        took < Duration::from_secs(4)
    });
    assert!(at_once, "the program has all of its time");
}

#[test]
fn a_program_that_does_not_end_is_killed_in_time() {
    if !can_run() {
        return;
    }
    let session = Running::start(&["--strict"], "trap '' TERM; echo ready; exec sleep 600");
    let begin = Instant::now();
    session.send("TERM");
    let (status, _, said) = session.end();
    assert!(begin.elapsed() >= Duration::from_secs(5));
    assert_eq!(status.code(), Some(143), "{said}");
    assert!(said.contains("did not end, and was killed"), "{said}");
}

/// What a program leaves in the background is waited for, until we are told to stop.
#[test]
fn what_is_left_in_the_background_is_killed() {
    if !can_run() {
        return;
    }
    let nap = nap(7);
    let script = format!("(exec >/dev/null 2>&1; trap '' TERM; exec sleep {nap}) & echo ready");
    let session = Running::start(&[], &script);
    wait_for_sleepers(&nap, 1);
    session.send("TERM");
    let (status, _, said) = session.end();
    assert_eq!((status.code(), sleepers(&nap)), (Some(143), 0), "{said}");
}

/// A pipe with a name, which takes nothing more until somebody reads it.
struct FullPipe {
    path: String,
    reader: File,
}

impl FullPipe {
    fn new(files: &Files) -> Self {
        let path = files.path("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        // Whoever has both ends waits for nobody.
        let mut both = File::options();
        let mut both = both.read(true).write(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
        while both.write(&[b'\n'; 4096]).is_ok() {}
        while both.write(b"\n").is_ok() {}
        let reader = File::open(&path).unwrap();
        Self { path, reader }
    }

    /// Whether a thread of the command is writing to it.
    fn is_waited_for(&self, session: &Running) -> bool {
        let own = format!("/proc/{}", session.child.id());
        let entries = |what: &str| std::fs::read_dir(format!("{own}/{what}")).unwrap().flatten();
        let mut fds = entries("fd").filter(|fd| {
            std::fs::read_link(fd.path()).is_ok_and(|file| file.as_os_str() == self.path.as_str())
        });
        let Some(fd) = fds.next() else { return false };
        let fd: u32 = fd.file_name().to_str().unwrap().parse().unwrap();
        // The number of write(2), and its first argument.
        let writing = format!("1 {fd:#x} ");
        entries("task").any(|task| {
            let now = std::fs::read_to_string(task.path().join("syscall"));
            now.is_ok_and(|now| now.starts_with(&writing))
        })
    }

    /// What is in it behind its fill.
    fn read(mut self) -> String {
        let mut text = String::new();
        self.reader.read_to_string(&mut text).unwrap();
        text.trim_start().to_owned()
    }
}

/// A session that is over, of a program that exits with 3, told to stop or not, which writes its report
/// to a full pipe.
fn writing(pipe: &FullPipe, told: bool) -> Running {
    let script = if told { "echo ready; exec sleep 600" } else { "echo ready; exit 3" };
    let mut session = Running::start(&["--report", &pipe.path], script);
    if told {
        session.send("TERM");
    }
    let mut said = BufReader::new(session.child.stderr.as_mut().unwrap());
    let mut line = String::new();
    while !line.contains("findings") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended before its report");
    }
    session
}

fn goes_on(session: &mut Running) {
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(session.child.try_wait().unwrap(), None, "it goes on");
}

/// A signal that comes when all is over but the report.
#[test]
fn a_report_is_written_all_the_same() {
    if !can_run() {
        return;
    }
    for (told, name, code) in [(true, "TERM", 143), (false, "TERM", 3), (false, "INT", 3)] {
        let files = Files::new(&format!("late-{told}-{name}"));
        let pipe = FullPipe::new(&files);
        let mut session = writing(&pipe, told);
        session.send(name);
        goes_on(&mut session);
        let text = pipe.read();
        let (status, ..) = session.end();
        assert_eq!(status.code(), Some(code));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["stopped"].is_null(), !told, "{text}");
    }
}

/// Nobody reads the report: a second signal ends it, and so does time.
#[test]
fn a_report_that_nobody_reads_is_given_up() {
    if !can_run() {
        return;
    }
    for again in [true, false] {
        let files = Files::new(&format!("unread-{again}"));
        let pipe = FullPipe::new(&files);
        let mut session = writing(&pipe, true);
        let begin = Instant::now();
        session.send("TERM");
        goes_on(&mut session);
        if again {
            session.send("TERM");
        }
        let (status, ..) = session.end();
        assert_eq!(status.signal(), Some(15));
        let limit = Duration::from_secs(5);
        assert_eq!(begin.elapsed() < limit, again, "{:?}", begin.elapsed());
    }
}

/// Nobody reads the trace, for which the session waits.
#[test]
fn a_trace_that_nobody_reads_is_given_up() {
    if !can_run() {
        return;
    }
    let files = Files::new("unread-trace");
    let pipe = FullPipe::new(&files);
    let disk = "0000:09:00.0";
    let client = format!("{SOFTVFIO} demo-client --nvme {disk} >/dev/null");
    let script = format!("echo ready; while {client}; do :; done");
    let device = format!("nvme,size=4M,addr={disk}");
    let mut session = Running::start(&["-d", &device, "--trace", &pipe.path], &script);
    let deadline = Instant::now() + LIMIT;
    while !pipe.is_waited_for(&session) {
        assert!(Instant::now() < deadline, "it has written its trace");
        std::thread::sleep(Duration::from_millis(5));
    }
    session.send("TERM");
    goes_on(&mut session);
    session.send("TERM");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(session.child.try_wait().unwrap(), None, "it waits for its trace");
    session.send("TERM");
    let (status, ..) = session.end();
    assert_eq!(status.signal(), Some(15));
}

/// `nohup`, and what a shell starts with `&`.
#[test]
fn what_was_ignored_stays_ignored() {
    if !can_run() {
        return;
    }
    let script = format!("trap '' HUP; exec {SOFTVFIO} run -q -- sh -c 'echo ready; sleep 0.5'");
    let session = Running::of(Command::new("sh").args(["-c", &script]));
    session.send("HUP");
    let (status, _, said) = session.end();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

/// A terminal sends Ctrl-C to the program too: `script` is the terminal.
#[test]
fn ctrl_c_is_the_programs_unless_it_comes_twice() {
    if !can_run() {
        return;
    }
    let files = Files::new("terminal");
    if !Path::new("/usr/bin/script").exists() {
        return println!("skipped: there is no script (bsdutils)");
    }
    let program = files.path("program");
    let text = "trap 'echo got it' INT\necho ready\nwhile :; do sleep 0.05; done\n";
    std::fs::write(&program, text).unwrap();
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{SOFTVFIO} run -- sh {program}"), "/dev/null"]);
    let mut session = Running::of(command.stdin(Stdio::piped()));
    let mut keys = session.child.stdin.take().unwrap();
    for _ in 0..2 {
        keys.write_all(b"\x03").unwrap();
        session.expect("got it");
        // Much later than what counts as twice: when we hear of it is not when it came.
        std::thread::sleep(Duration::from_secs(4));
        assert!(session.child.try_wait().unwrap().is_none(), "it goes on");
    }
    // Two that came too far apart, as a busy machine had it, were none: two others then.
    for _ in 0..10 {
        keys.write_all(b"\x03").unwrap();
        session.expect("got it");
        keys.write_all(b"\x03").unwrap();
        let deadline = Instant::now() + Duration::from_secs(6);
        while Instant::now() < deadline && session.child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if session.child.try_wait().unwrap().is_some() {
            break;
        }
        session.expect("got it");
    }
    let (status, printed, _) = session.end();
    assert_eq!(status.code(), Some(130), "{printed}");
    assert!(printed.contains("told to stop by SIGINT: the program did not end"), "{printed}");
}
