//! A session's control socket: a line with a request, answered by lines.
//!
//! ```text
//!   devices                    0000:01:00.0 nvme group 1 open
//!                              ok
//!   unplug 0000:01:00.0        requested: ...            at once
//!                              ok: 0000:01:00.0 is gone  when it is
//!   unplug 0000:01:00.0 now    requested: ...
//!                              ok
//!   anything else              error: a sentence
//! ```
//!
//! The last line begins with `ok` or `error:`. Whoever may open the socket may ask; what he sends is
//! not believed, and he waits for nobody but himself.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use vfio::Removal;

use super::{Control, DeviceState};

/// The longest request, in bytes.
const MOST_BYTES: u64 = 256;
/// Who asks at the same time.
const MOST_CONNECTIONS: usize = 16;
/// How long a request may take to arrive, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket at which a session can be asked. It is removed when this is dropped.
pub struct ControlSocket {
    path: PathBuf,
    /// Device and inode of what is ours at `path`.
    identity: (u64, u64),
    listener: Arc<UnixListener>,
    over: Arc<AtomicBool>,
    waiting: Arc<Waiting>,
    thread: Option<JoinHandle<()>>,
}

impl ControlSocket {
    /// Makes the socket, for its owner only. One that a session left behind that was killed is replaced.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when somebody listens there, or it is no socket; and those of the
    /// system calls.
    pub fn open(path: &Path, control: Control) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left(path) => {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let about = fs::symlink_metadata(path)?;
        let listener = Arc::new(listener);
        let over = Arc::new(AtomicBool::new(false));
        let waiting = Arc::new(Waiting::default());
        let serve = {
            let (listener, over, waiting) =
                (Arc::clone(&listener), Arc::clone(&over), Arc::clone(&waiting));
            move || serve(&listener, &control, &over, &waiting)
        };
        let thread = std::thread::Builder::new().name("control".into()).spawn(serve)?;
        let identity = (about.dev(), about.ino());
        Ok(Self { path: path.into(), identity, listener, over, waiting, thread: Some(thread) })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|a| (a.dev(), a.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
        self.over.store(true, Ordering::Release);
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.waiting.end();
    }
}

/// Those who wait until a device is gone: they are told, also when the session ends with it.
#[derive(Default)]
struct Waiting {
    number: Mutex<usize>,
    less: Condvar,
}

impl Waiting {
    fn count<R>(&self, f: impl FnOnce() -> R) -> R {
        *self.number.lock() += 1;
        let result = f();
        *self.number.lock() -= 1;
        self.less.notify_all();
        result
    }

    fn end(&self) {
        let end = Instant::now() + Duration::from_secs(1);
        let mut number = self.number.lock();
        while *number != 0 && !self.less.wait_until(&mut number, end).timed_out() {}
    }
}

/// Whether there is a socket that nobody listens at.
fn is_left(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|a| a.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).err().is_some_and(refused)
}

fn serve(listener: &UnixListener, control: &Control, over: &AtomicBool, waiting: &Arc<Waiting>) {
    let connections = Arc::new(AtomicUsize::new(0));
    while !over.load(Ordering::Acquire) {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(_) if over.load(Ordering::Acquire) => break,
            Err(_) => {
                // Out of descriptors, perhaps: not for long.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        let (control, waiting) = (control.clone(), Arc::clone(waiting));
        let mine = Arc::clone(&connections);
        if connections.fetch_add(1, Ordering::AcqRel) >= MOST_CONNECTIONS {
            connections.fetch_sub(1, Ordering::AcqRel);
            let _ = writeln!(&stream, "error: {MOST_CONNECTIONS} others ask at this moment");
            continue;
        }
        let talk = move || {
            // Who does not read his answer is not waited for.
            let _ = answer(&stream, &control, &waiting);
            mine.fetch_sub(1, Ordering::AcqRel);
        };
        if std::thread::Builder::new().name("control".into()).spawn(talk).is_err() {
            connections.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn answer(stream: &UnixStream, control: &Control, waiting: &Waiting) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::new(stream).take(MOST_BYTES).read_until(b'\n', &mut line)?;
    let mut to = stream;
    let request = match line.strip_suffix(b"\n").map(std::str::from_utf8) {
        Some(Ok(request)) => request,
        _ => return writeln!(to, "error: expected one line of text, at most {MOST_BYTES} bytes"),
    };
    let words: Vec<&str> = request.split_ascii_whitespace().collect();
    match words[..] {
        ["devices"] => {
            for (device, state) in control.devices() {
                let state = match state {
                    DeviceState::Free => "free",
                    DeviceState::Open => "open",
                    DeviceState::Leaving => "leaving",
                    DeviceState::Gone => "gone",
                };
                writeln!(to, "{} {} group {} {state}", device.name, device.kind, device.group)?;
            }
            writeln!(to, "ok")
        }
        ["unplug", name] => match control.unplug(name) {
            Ok(removal) => {
                told(to, name, removal)?;
                waiting.count(|| wait(to, control, name))
            }
            Err(error) => writeln!(to, "error: {error}"),
        },
        ["unplug", name, "now"] => match control.unplug(name) {
            Ok(removal) => {
                told(to, name, removal)?;
                writeln!(to, "ok")
            }
            Err(error) => writeln!(to, "error: {error}"),
        },
        _ => writeln!(to, "error: expected `devices` or `unplug ADDRESS [now]`"),
    }
}

fn told(mut to: &UnixStream, name: &str, removal: Removal) -> io::Result<()> {
    match removal {
        Removal::Gone => Ok(()),
        Removal::Requested => {
            writeln!(to, "requested: the program was asked to let go of {name} (REQ interrupt)")
        }
        Removal::NoChannel => writeln!(
            to,
            "waiting: the program set no eventfd for the REQ interrupt; {name} goes when it closes it"
        ),
    }
}

/// Waits until the device is gone, or whoever asked is.
fn wait(mut to: &UnixStream, control: &Control, name: &str) -> io::Result<()> {
    to.set_nonblocking(true)?;
    let gone = loop {
        let gone = control.wait_gone(name, Duration::from_millis(200));
        match (&gone, to.read(&mut [0; 64])) {
            (Ok(true) | Err(_), _) => break gone,
            (_, Ok(0)) => return Ok(()),
            (_, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    };
    to.set_nonblocking(false)?;
    match gone {
        Ok(_) => writeln!(to, "ok: {name} is gone"),
        Err(error) => writeln!(to, "error: {error}"),
    }
}

/// Asks a session at its socket; `line` gets each line of the answer but the last, as it comes. The
/// rest of the last line is the answer: `Ok` after `ok`, `Err` after `error:`.
///
/// # Errors
/// Of the socket.
pub fn ask(
    path: &Path,
    request: &str,
    mut line: impl FnMut(&str),
) -> io::Result<Result<String, String>> {
    let mut stream = UnixStream::connect(path)?;
    writeln!(stream, "{request}")?;
    for text in BufReader::new(stream).lines() {
        let text = text?;
        if let Some(why) = text.strip_prefix("error:") {
            return Ok(Err(why.trim().into()));
        }
        if let Some(rest) = text.strip_prefix("ok") {
            return Ok(Ok(rest.trim_start_matches(':').trim().into()));
        }
        line(&text);
    }
    Ok(Err("the session ended".into()))
}
