//! Starting a client.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::additions::{Facts, additions};
use super::error::{LaunchError, Stage};
use super::filter::{self, Filter};
use super::init::{self, Ends, Message, Prepared};
use super::limits::limits_before;
use super::overlay::{Host, PlanError, ThisHost, plan};
use super::processes::{Launched, Process, Processes};
use super::signals::Signals;
use super::tree::Tree;
use crate::sys::process::{Exec, block_signals, fork, starting};

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
    /// Its working directory, as it finds it; ours if `None`.
    pub directory: Option<&'a Path>,
    /// It sees itself as user 0. Nothing changes where we run as root.
    pub as_root: bool,
    /// What comes to the listener.
    pub filter: Filter,
    /// With [`Launched::full`].
    pub full: bool,
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
            directory: None,
            as_root: false,
            filter: Filter::default(),
            full: false,
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
        let alone = starting();
        let forked = fork(|| ends.take().map_or(1, |ends| init::run(&mut prepared, ends)));
        drop(alone);
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
            (true, [Some(listener), Some(dev_vfio), full]) => {
                let pid = Pid::from_raw(message.pid).ok_or(LaunchError::Died)?;
                let client = Process::open(pid).map_err(system("opening the client's process"))?;
                processes.client = Some(client);
                let shadowed = if self.tree.only_emulated { vec![] } else { clashes(&prepared) };
                Ok(Launched { listener, dev_vfio, full, shadowed, processes })
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
            Some(Stage::Directory) => {
                let directory = self.directory.unwrap_or(Path::new("")).to_owned();
                LaunchError::Directory { directory, errno }
            }
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
        let ours = std::env::current_dir()
            .ok()
            .filter(|path| path.starts_with("/dev") || path.starts_with("/sys"));
        let directory = match (self.directory, ours) {
            (Some(wanted), Some(ours)) => Some(ours.join(wanted)),
            (wanted, ours) => wanted.map(Path::to_owned).or(ours),
        };
        // Rust's runtime ignores SIGPIPE; a program does not expect that.
        let mut reset = vec![libc::SIGPIPE];
        reset.extend(Signals::to_reset());
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
            directory: directory.map(c_string).transpose()?,
            must_go: self.directory.is_some(),
            filter: filter::program(self.filter),
            exec: self.exec()?,
            full: self.full,
            reset,
            limits: limits_before(),
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
