//! Starting a client, and following it to its end.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal,
};

use super::error::{LaunchError, Stage};
use super::filter::{self, Filter};
use super::init::{self, Ends, Message, Prepared, Received};
use super::overlay::{Host, PlanError, ThisHost, plan};
use super::tree::{Facts, Tree, additions};
use crate::sys::process::{Disposition, Exec, block_signals, disposition, fork, set_disposition};

/// How to start a client.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// What it finds.
    pub tree: &'a Tree,
    /// The program, looked for as a shell does.
    pub command: &'a OsStr,
    /// Its arguments, without its name.
    pub args: &'a [OsString],
    /// Its environment; ours if `None`.
    pub env: Option<&'a [(OsString, OsString)]>,
    /// It sees itself as user 0. Nothing changes where we run as root.
    pub as_root: bool,
    /// What comes to the listener.
    pub filter: Filter,
    /// Its standard input, output and error; ours where `None`.
    pub stdio: [Option<BorrowedFd<'a>>; 3],
}

impl<'a> Launch<'a> {
    /// A program without arguments, with our environment and identity.
    pub fn new(tree: &'a Tree, command: &'a OsStr) -> Launch<'a> {
        Launch {
            tree,
            command,
            args: &[],
            env: None,
            as_root: false,
            filter: Filter::default(),
            stdio: [None; 3],
        }
    }

    /// Builds its world and stops just before the program: that begins with [`Processes::go`].
    pub fn start(&self) -> Result<Launched, LaunchError> {
        let system = |what| move |errno| LaunchError::System { what, errno };
        let (control, control_theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(system("making a socket"))?;
        let (status, status_theirs) =
            pipe_with(PipeFlags::CLOEXEC).map_err(system("making a pipe"))?;
        let (lifeline_theirs, lifeline) =
            pipe_with(PipeFlags::CLOEXEC).map_err(system("making a pipe"))?;
        let foreign = [control.as_raw_fd(), status.as_raw_fd(), lifeline.as_raw_fd()];
        let mut prepared = self.prepare(foreign)?;

        let mut ends = Some(Ends {
            control: control_theirs,
            status: status_theirs,
            lifeline: lifeline_theirs,
        });
        let mask = block_signals();
        let forked = fork(|| ends.take().map_or(1, |ends| init::run(&mut prepared, ends)));
        mask.set();
        drop(ends);
        let init = Process::open(forked.map_err(system("starting a process"))?)
            .map_err(system("opening a process"))?;
        // From here on dropping `processes` ends and reaps whatever was started.
        let mut processes = Processes {
            client: None,
            init,
            command: self.command.to_owned(),
            control: Some(control),
            status: Some(status),
            lifeline: Some(lifeline),
        };
        let (message, fds) = processes.message()?.ok_or(LaunchError::Died)?;
        match (message.stage == Stage::Ready as u32, fds) {
            (true, [Some(listener), Some(dev_vfio)]) => {
                let pid = Pid::from_raw(message.pid).ok_or(LaunchError::Died)?;
                let client = Process::open(pid).map_err(system("opening the client's process"))?;
                processes.client = Some(client);
                let shadowed = if self.tree.only_emulated { vec![] } else { clashes(&prepared) };
                Ok(Launched { listener, dev_vfio, shadowed, processes })
            }
            _ => {
                let step =
                    prepared.script.steps.get(message.index as usize).map(ToString::to_string);
                Err(self.error(message, step))
            }
        }
    }

    fn error(&self, message: Message, step: Option<String>) -> LaunchError {
        let errno = Errno::from_raw_os_error(message.errno);
        match Stage::from_number(message.stage) {
            Some(stage) => stage.error(errno, step, self.command.to_owned()),
            None => LaunchError::Died,
        }
    }

    fn prepare(&self, foreign: [i32; 3]) -> Result<Prepared, LaunchError> {
        let staging = staging().ok_or_else(|| LaunchError::NoDirectory("/tmp".into()))?;
        let added = additions(self.tree, &facts(&ThisHost));
        let script = plan(&added, &staging, &ThisHost).map_err(|error| match error {
            PlanError::NoDirectory(path) => LaunchError::NoDirectory(path),
            PlanError::BadName(path) => LaunchError::BadName(path),
        })?;
        let id_maps = if may_mount() && (is_root() || !self.as_root) {
            None
        } else {
            Some(id_maps(self.as_root)?)
        };
        let directory = std::env::current_dir()
            .ok()
            .filter(|path| path.starts_with("/dev") || path.starts_with("/sys"))
            .map(c_string)
            .transpose()?;
        // Rust's runtime ignores SIGPIPE; a program does not expect that.
        let mut reset = vec![libc::SIGPIPE];
        reset.extend(Interrupts::to_reset());
        let mut stdio = [None, None, None];
        for (slot, fd) in stdio.iter_mut().zip(self.stdio) {
            // Above the three, so that none is overwritten before it is used.
            let copy = fd.map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3)).transpose();
            *slot =
                copy.map_err(|errno| LaunchError::System { what: "copying a descriptor", errno })?;
        }
        Ok(Prepared {
            id_maps,
            stdio,
            script,
            directory,
            filter: filter::program(self.filter),
            exec: self.exec()?,
            reset,
            foreign,
        })
    }

    fn exec(&self) -> Result<Exec, LaunchError> {
        let mut args = vec![c_string(self.command)?];
        for arg in self.args {
            args.push(c_string(arg)?);
        }
        let ours: Vec<_>;
        let env = match self.env {
            Some(env) => env,
            None => {
                ours = std::env::vars_os().collect();
                &ours
            }
        };
        let mut variables = Vec::new();
        let mut path = None;
        for (name, value) in env {
            if name == "PATH" {
                path = Some(value.as_os_str());
            }
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            variables.push(c_string(variable)?);
        }
        let programs = if self.command.as_bytes().contains(&b'/') {
            vec![c_string(self.command)?]
        } else {
            let path = path.unwrap_or(OsStr::new("/bin:/usr/bin"));
            std::env::split_paths(path)
                .map(|dir| if dir.as_os_str().is_empty() { ".".into() } else { dir })
                .map(|dir: PathBuf| c_string(dir.join(self.command)))
                .collect::<Result<_, _>>()?
        };
        Ok(Exec::new(programs, args, variables))
    }
}

pub(super) fn c_string(text: impl AsRef<OsStr>) -> Result<CString, LaunchError> {
    let text = text.as_ref();
    CString::new(text.as_bytes()).map_err(|_| LaunchError::BadName(text.into()))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Lines for `uid_map` and `gid_map`: our own identity, under its own number or as 0.
pub(super) fn id_maps(as_root: bool) -> Result<[CString; 2], LaunchError> {
    let line = |id: u32| c_string(format!("{} {id} 1", if as_root { 0 } else { id }));
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    Ok([line(uid.as_raw())?, line(gid.as_raw())?])
}

/// A mount namespace alone is enough: more robust, and all that root needs.
pub(super) fn may_mount() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

/// A directory to build in; what is below is hidden from init alone, and only meanwhile.
pub(super) fn staging() -> Option<PathBuf> {
    ["/tmp", "/mnt", "/run", "/var", "/proc"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| std::fs::symlink_metadata(path).is_ok_and(|data| data.is_dir()))
}

pub(super) fn facts(host: &dyn Host) -> Facts {
    let buses = host.entries(Path::new("/sys/devices")).unwrap_or_default();
    let free = |name: &String| !buses.iter().any(|entry| entry.name.as_os_str() == name.as_str());
    Facts {
        cpus: std::fs::read_to_string("/sys/devices/system/cpu/online")
            .map_or_else(|_| "0".into(), |text| text.trim().to_owned()),
        root_bus: (0..0x80)
            .rev()
            .map(|bus| format!("pci0000:{bus:02x}"))
            .find(free)
            .unwrap_or_else(|| "pci0001:7f".into()),
    }
}

/// Which of the host's own devices and groups are hidden by ours.
fn clashes(prepared: &Prepared) -> Vec<PathBuf> {
    let places = ["/sys/bus/pci/devices", "/sys/kernel/iommu_groups", "/dev/vfio"].map(Path::new);
    let ours = |path: &&PathBuf| {
        path.parent().is_some_and(|parent| places.contains(&parent)) && !path.ends_with("vfio/vfio")
    };
    prepared.script.shadowed.iter().filter(ours).cloned().collect()
}

/// A client that stands before its program's first instruction.
#[derive(Debug)]
pub struct Launched {
    /// Receives its system calls, and those of all that it starts.
    pub listener: OwnedFd,
    /// `/dev/vfio` as it sees it (`O_PATH`).
    pub dev_vfio: OwnedFd,
    /// Paths of the host's own devices and groups that ours hide from it.
    pub shadowed: Vec<PathBuf>,
    /// The processes.
    pub processes: Processes,
}

/// A process that cannot be taken for another.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Its descriptor; readable when it has ended.
    pub pidfd: OwnedFd,
}

impl Process {
    fn open(pid: Pid) -> Result<Process, Errno> {
        Ok(Process { pid, pidfd: pidfd_open(pid, PidfdFlags::empty())? })
    }
}

/// What [`Launch::start`] started. Dropping it ends all of it.
#[derive(Debug)]
pub struct Processes {
    client: Option<Process>,
    init: Process,
    command: OsString,
    control: Option<OwnedFd>,
    status: Option<OwnedFd>,
    lifeline: Option<OwnedFd>,
}

impl Processes {
    /// The program's process.
    pub fn client(&self) -> &Process {
        self.client.as_ref().unwrap_or(&self.init)
    }

    /// The process above it, which adopts its orphans.
    pub fn init(&self) -> &Process {
        &self.init
    }

    /// Lets the program begin, and waits until it has, or could not. A tracer may attach before; if
    /// it stops the client, it must not be the thread that calls this.
    pub fn go(&mut self) -> Result<(), LaunchError> {
        let Some(control) = &self.control else { return Ok(()) };
        // A client that has died meanwhile is found below.
        let _ = rustix::net::send(control, &[1], SendFlags::NOSIGNAL);
        let answer = self.message()?;
        self.control = None;
        match answer {
            // The descriptor was closed by the exec, or with the process: its status tells.
            None => Ok(()),
            Some((message, _)) => {
                let errno = Errno::from_raw_os_error(message.errno);
                Err(match Stage::from_number(message.stage) {
                    Some(stage) => stage.error(errno, None, self.command.clone()),
                    None => LaunchError::Died,
                })
            }
        }
    }

    /// Readable when [`Processes::wait`] would not block. `None` after it has answered.
    pub fn status_fd(&self) -> Option<BorrowedFd<'_>> {
        self.status.as_ref().map(AsFd::as_fd)
    }

    /// Waits for the program's end. What it left behind may still run.
    pub fn wait(&mut self) -> Result<ExitStatus, LaunchError> {
        let Some(status) = self.status.take() else { return Err(LaunchError::Died) };
        let mut bytes = [0; 4];
        loop {
            match rustix::io::read(&status, &mut bytes) {
                Ok(4) => return Ok(ExitStatus::from_raw(i32::from_ne_bytes(bytes))),
                Err(Errno::INTR) => {}
                Ok(_) => return Err(LaunchError::Died),
                Err(errno) => {
                    return Err(LaunchError::System { what: "reading the status", errno });
                }
            }
        }
    }

    /// Kills the program and all that it started. Returns at once; [`Processes::wait_all`] waits.
    pub fn kill_all(&self) {
        // It fails if everything has ended.
        let _ = pidfd_send_signal(&self.init.pidfd, Signal::TERM);
    }

    /// Waits until nothing of what was started is left.
    pub fn wait_all(&mut self) {
        loop {
            match rustix::process::waitid(
                WaitId::PidFd(self.init.pidfd.as_fd()),
                WaitIdOptions::EXITED,
            ) {
                Err(Errno::INTR) => {}
                // Reaped now, or before.
                _ => return,
            }
        }
    }

    fn message(&self) -> Result<Option<Received>, LaunchError> {
        let Some(control) = &self.control else { return Ok(None) };
        Message::receive(control.as_fd())
            .map_err(|errno| LaunchError::System { what: "hearing from the client", errno })
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // init kills all when the lifeline hangs up; a client that was not let go gives up.
        self.lifeline = None;
        self.control = None;
        self.kill_all();
        self.wait_all();
    }
}

/// While it lives this process ignores `SIGINT` and `SIGQUIT`: a terminal sends them to the client
/// too, and they are meant for it. Clients start with what was in force before.
#[derive(Debug)]
pub struct Interrupts(());

const HELD: [(i32, u8); 2] = [(libc::SIGINT, 1), (libc::SIGQUIT, 2)];
/// Signals of [`HELD`] that were at their default before.
static RESET: AtomicU8 = AtomicU8::new(0);

impl Interrupts {
    /// Begins to ignore them, unless something else than the default is in force.
    pub fn ignore() -> Interrupts {
        for (signal, bit) in HELD {
            if disposition(signal) == Ok(Disposition::Default) {
                set_disposition(signal, true);
                RESET.fetch_or(bit, Ordering::SeqCst);
            }
        }
        Interrupts(())
    }

    fn to_reset() -> impl Iterator<Item = i32> {
        let bits = RESET.load(Ordering::SeqCst);
        HELD.into_iter().filter(move |(_, bit)| bits & bit != 0).map(|(signal, _)| signal)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        for signal in Interrupts::to_reset() {
            set_disposition(signal, false);
        }
        RESET.store(0, Ordering::SeqCst);
    }
}
