//! For end-to-end tests: programs run by us, as each user that we can be, within a limit of time, and
//! nothing is left of them.
//!
//! A test that cannot run prints `skipped:` and why; with `CI=true` what `.ci/run` installs may not be
//! missing.

#![allow(dead_code, reason = "each test program uses a part")]

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Who runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// Whoever runs the tests.
    Own,
    /// uid 65534, which has no capabilities.
    Nobody,
}

/// Each user that we can be.
pub(crate) fn users() -> &'static [User] {
    if is_root() { &[User::Own, User::Nobody] } else { &[User::Own] }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// Something that the test needs is not there.
pub(crate) fn skip(why: &str) {
    println!("skipped: {why}");
}

/// A program that `.ci/run` installs; `None`, said aloud, where it is missing.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Some are for root's path only.
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = places.map(|place| place.join(name)).find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{name} is missing, which .ci/run installs"
        );
        skip(&format!("{name} is not installed"));
    }
    found
}

static PLACES: AtomicU32 = AtomicU32::new(0);

/// A directory that everybody may write to, removed at the end.
pub(crate) struct Place {
    dir: PathBuf,
    mark: String,
    mounts: Vec<String>,
}

impl Place {
    pub(crate) fn new(test: &str) -> Self {
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let mark = format!("e2e-{}-{number}-{test}", std::process::id());
        let dir = std::env::temp_dir().join(format!("softvfio-{mark}"));
        // A run that was killed may have had our number.
        let _ = std::fs::remove_dir_all(&dir);
        for dir in [dir.clone(), dir.join("tmp"), dir.join("run")] {
            std::fs::create_dir(&dir).unwrap();
            let mode = if dir.ends_with("run") { 0o700 } else { 0o777 };
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        Self { dir, mark, mounts: mounts() }
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file in it that everybody may write, of `size` bytes (whole MiB) that differ.
    pub(crate) fn image(&self, name: &str, size: u64) -> PathBuf {
        let path = self.file(name);
        let mut file = std::fs::File::create(&path).unwrap();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut chunk: Vec<u8> = Vec::new();
        while chunk.len() < 1 << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.extend(state.to_le_bytes());
        }
        // Each block of 4 KiB has its number in it.
        for n in 0..size >> 20 {
            for (at, block) in (n << 8..).zip(chunk.chunks_exact_mut(4096)) {
                block[..8].copy_from_slice(&u64::to_le_bytes(at));
            }
            std::io::Write::write_all(&mut file, &chunk).unwrap();
        }
        drop(file);
        self.open_to_all(&path);
        path
    }

    /// An empty file in it that everybody may write, of so many zeros.
    pub(crate) fn blank(&self, name: &str, size: u64) -> PathBuf {
        let path = self.file(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        self.open_to_all(&path);
        path
    }

    pub(crate) fn open_to_all(&self, path: &Path) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }

    /// A program to be run by somebody.
    pub(crate) fn command(&self, user: User, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if user == User::Nobody {
            command.uid(65534).gid(65534);
            let _ = std::os::unix::fs::chown(self.file("run"), Some(65534), Some(65534));
        }
        command
            .current_dir(&self.dir)
            .env("TMPDIR", self.file("tmp"))
            .env("XDG_RUNTIME_DIR", self.file("run"))
            .env("SOFTVFIO_E2E", &self.mark)
            .stdin(Stdio::null());
        command
    }

    /// Processes that were started from here and are still there.
    pub(crate) fn processes(&self) -> Vec<String> {
        let mark = format!("SOFTVFIO_E2E={}", self.mark);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(environ) = std::fs::read(entry.path().join("environ")) else { continue };
            if environ.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes()) {
                let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                found.push(format!("{} {}", entry.file_name().display(), name.trim()));
            }
        }
        found
    }

    /// Runs a command to its end, within the limit; nothing may be left of it.
    pub(crate) fn run(&self, command: &mut Command, limit: Duration) -> Finished {
        let finished = self.start(command).finish(limit);
        self.nothing_left();
        finished
    }

    /// Starts a command.
    pub(crate) fn start(&self, command: &mut Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let what = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let stderr = collect(child.stderr.take().unwrap());
        Running { what, child, stderr }
    }

    /// No process, mount or temporary file is left.
    pub(crate) fn nothing_left(&self) {
        let start = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "still there: {left:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
        let files: Vec<_> = std::fs::read_dir(self.file("tmp")).unwrap().flatten().collect();
        assert!(files.is_empty(), "left behind: {files:?}");
        let new: Vec<_> = mounts().into_iter().filter(|m| !self.mounts.contains(m)).collect();
        assert!(new.is_empty(), "left behind: {new:?}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Mounts that one of us would make.
fn mounts() -> Vec<String> {
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = |line: &&str| {
        ["vfio", "iommu_groups", " /sys/devices ", " /sys/bus/pci"].iter().any(|w| line.contains(w))
    };
    all.lines().filter(ours).map(str::to_owned).collect()
}

/// Reads a pipe to its end, elsewhere.
pub(crate) fn collect(mut pipe: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// A program that runs.
pub(crate) struct Running {
    pub(crate) what: String,
    pub(crate) child: Child,
    pub(crate) stderr: std::sync::mpsc::Receiver<String>,
}

impl Running {
    /// Waits for its end.
    pub(crate) fn finish(mut self, limit: Duration) -> Finished {
        let stdout = self.child.stdout.take().map(collect);
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break Some(status);
            }
            if start.elapsed() > limit {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let text = |pipe: std::sync::mpsc::Receiver<String>| {
            pipe.recv_timeout(Duration::from_secs(60)).unwrap_or("(held open)".into())
        };
        let (stdout, stderr) = (stdout.map(text).unwrap_or_default(), text(self.stderr));
        let what = self.what;
        let Some(status) = status else {
            panic!("{what}: not done after {limit:?}\n{stdout}\n{stderr}");
        };
        Finished { what, status, stdout, stderr }
    }
}

/// A program that ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) what: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// It must have succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        let Self { what, status, stdout, stderr } = &self;
        assert!(status.success(), "{what}: {status}\n{stdout}\n{stderr}");
        assert!(!stderr.contains("panicked"), "{what}: {stderr}");
        self
    }

    /// It must have printed this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let Self { what, stdout, stderr, .. } = &self;
        assert!(stdout.contains(text), "{what}: not {text:?}:\n{stdout}\n{stderr}");
        self
    }
}

/// Arguments of different types.
pub(crate) fn args<const N: usize>(args: [&dyn AsRef<OsStr>; N]) -> [OsString; N] {
    args.map(|arg| arg.as_ref().to_owned())
}
