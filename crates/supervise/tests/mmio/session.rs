//! A client below a shell below this process, traced.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use softvfio_supervise::mmio::{Error, Tracer};

use super::model::Model;

/// The inner shell says who it is and waits; what it becomes is the client. `timeout` is its
/// parent; the outer shell tells how it ended.
const SHELLS: &str = r#"timeout --foreground -k 1 600 \
    sh -c 'echo $$; read line || exit; exec "$0" "$@"' "$@"; echo "exit $?""#;

/// More than anything here takes, were the machine as busy as it gets.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How a session starts.
#[derive(Clone, Copy, Default)]
pub(crate) struct How {
    pub(crate) tracer_core: Option<usize>,
    pub(crate) client_core: Option<usize>,
    /// Trace it when it is in a job control stop, then continue it.
    pub(crate) stopped: bool,
}

pub(crate) struct Session {
    outer: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    client: Pid,
    model: Arc<Model>,
    tracer: Option<Tracer>,
}

impl Session {
    /// None, and a word: ptrace is not permitted here.
    pub(crate) fn start(name: &str) -> Option<Self> {
        Self::start_as(name, How::default())
    }

    /// The same, in another way.
    pub(crate) fn start_as(name: &str, how: How) -> Option<Self> {
        let model = Arc::new(Model::new());
        let mut outer = Command::new("sh")
            .args(["-c", SHELLS, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["client", "--exact", "--nocapture", "--test-threads=1"])
            .env("TRAP_CLIENT", name)
            .env("TRAP_BARS", model.path())
            .env("TRAP_CORE", how.client_core.map(|core| core.to_string()).unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = outer.stdin.take();
        let mut stdout = BufReader::new(outer.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let client = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        if how.stopped {
            kill_process(client, Signal::STOP).unwrap();
            while !all_stopped(client) {}
        }
        let bars = model.clone();
        let start = move || {
            if let Some(core) = how.tracer_core {
                let mut set = CpuSet::new();
                set.set(core);
                let _ = sched_setaffinity(None, &set);
            }
            Tracer::start(client, bars)
        };
        // the tracer's thread inherits the core of the thread that starts it
        let tracer = match std::thread::spawn(start).join().unwrap() {
            Err(Error::Refused { error, .. })
                if error.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                println!("skipped: {error} when tracing a child");
                None
            }
            tracer => Some(tracer.unwrap()),
        };
        let mut session = Self { outer, stdin, stdout, client, model, tracer };
        session.tracer.as_ref()?;
        if how.stopped {
            kill_process(client, Signal::CONT).unwrap();
        }
        session.say("go");
        Some(session)
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Read until a line holds a word; the line from there.
    pub(crate) fn expect(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it ended before {word}");
            if let Some(at) = line.find(word) {
                return line[at..].trim().to_owned();
            }
        }
    }

    /// How the client's parent saw it end.
    pub(crate) fn exit(&mut self) -> i32 {
        let line = self.expect("exit ");
        self.outer.wait().unwrap();
        line["exit ".len()..].parse().unwrap()
    }

    pub(crate) fn kill(&self, signal: i32) {
        kill_process(self.client, Signal::from_named_raw(signal).unwrap()).unwrap();
    }

    /// Whether all threads are in a stop.
    pub(crate) fn all_stopped(&self) -> bool {
        all_stopped(self.client)
    }

    /// How many accesses there were.
    pub(crate) fn counter(&self) -> impl Fn() -> u64 + use<> {
        let model = self.model.clone();
        move || model.accesses.load(Ordering::SeqCst)
    }

    /// The tracer must end by itself.
    pub(crate) fn finished(&mut self) {
        let tracer = self.tracer.take().unwrap();
        let start = Instant::now();
        while !tracer.is_finished() {
            assert!(start.elapsed() < LIMIT, "the tracer goes on");
            sleep(Duration::from_millis(1));
        }
        assert!(tracer.traps() <= self.model.accesses.load(Ordering::SeqCst));
        tracer.wait();
    }

    pub(crate) fn drop_tracer(&mut self) {
        self.tracer = None;
    }

    pub(crate) fn model(self) -> Arc<Model> {
        self.model.clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // a client that is still there dies with it; one that was not traced sees its input end
        self.tracer = None;
        self.stdin = None;
        let _ = self.outer.wait();
    }
}

fn all_stopped(client: Pid) -> bool {
    let tasks = format!("/proc/{}/task", client.as_raw_nonzero());
    std::fs::read_dir(tasks).unwrap().all(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with(['t', 'T'])
    })
}
