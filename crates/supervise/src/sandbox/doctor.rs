//! Whether this machine can do what the door needs, found by doing it.
//!
//! Each check makes the real call, in a child where it would change us; the last ones are made on a
//! real client that has not begun. No version is compared: distributions move features between
//! them.

use std::fmt;

use rustix::io::Errno;
use rustix::process::{WaitOptions, waitpid};

use super::error::LaunchError;
use super::launch::{Launch, may_mount, staging};
use super::processes::Launched;
use super::tree::{SysFunction, SysGroup, Tree};
use super::{filter, host};
use crate::sys::{probe, process};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Ok,
    /// Something is missing that not every client needs.
    Warn,
    /// The door does not work here.
    Fail,
}

/// One check.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was tried.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to enable; none if nothing is missing.
    pub remedy: Option<String>,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        write!(f, "{verdict:<5}{}: {}", self.name, self.found)?;
        self.remedy.iter().try_for_each(|remedy| {
            write!(f, "\n     {}", remedy.trim_end().replace('\n', "\n     "))
        })
    }
}

/// Makes all checks.
pub fn doctor() -> Vec<Check> {
    let mut checks = vec![
        user_namespace(),
        mounts(),
        listener(),
        killable(),
        descriptors(),
        children(),
        cores(),
    ];
    let config = vec![0; 256];
    let tree = Tree {
        functions: vec![SysFunction::new("0000:01:00.0", 0, config)],
        groups: vec![SysGroup::default()],
        ..Tree::default()
    };
    // The client is a fork of us: this is at the same place there.
    let words = b"softvfio doctor".to_vec();
    let begin = std::time::Instant::now();
    let launched = Launch::new(&tree, "true".as_ref()).start();
    checks.push(whole(&launched, begin.elapsed()));
    if let Ok(launched) = &launched {
        checks.extend([memory(launched, &words), take(launched), trace(launched)]);
    }
    checks
}

/// Runs `try_it` in a child.
fn in_child(try_it: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let pid = process::fork(|| try_it().map_or_else(Errno::raw_os_error, |()| 0))?;
    let Some((_, status)) = waitpid(Some(pid), WaitOptions::empty())? else {
        return Err(Errno::CHILD);
    };
    match status.exit_status() {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        None => Err(Errno::INTR),
    }
}

fn check(
    name: &'static str,
    result: Result<(), Errno>,
    works: &str,
    otherwise: Verdict,
    remedy: impl FnOnce() -> String,
) -> Check {
    match result {
        Ok(()) => Check { name, verdict: Verdict::Ok, found: works.into(), remedy: None },
        Err(errno) => {
            let found = format!("refused: {errno}");
            Check { name, verdict: otherwise, found, remedy: Some(remedy()) }
        }
    }
}

fn user_namespace() -> Check {
    let result = in_child(|| {
        process::unshare(libc::CLONE_NEWUSER)?;
        process::write_once(c"/proc/self/setgroups", b"deny")
    });
    // Root does without.
    let (otherwise, works) = if may_mount() {
        (
            Verdict::Warn,
            "can be made (not needed: we may mount as it is; --as-root has no use here)",
        )
    } else {
        (Verdict::Fail, "can be made")
    };
    check("user namespace", result, works, otherwise, host::user_namespace_advice)
}

fn mounts() -> Check {
    let place = staging().and_then(|path| super::launch::c_string(path).ok());
    let own = may_mount();
    let result = in_child(|| {
        if !own {
            process::unshare(libc::CLONE_NEWUSER)?;
        }
        process::unshare(libc::CLONE_NEWNS)?;
        let script = super::script::Script {
            steps: vec![
                super::script::Step::Private,
                super::script::Step::Tmpfs(place.ok_or(Errno::NOENT)?),
            ],
            shadowed: vec![],
        };
        let result = script.run().map_err(|(_, errno)| errno);
        std::mem::forget(script);
        result
    });
    check("mounts of our own", result, "a tmpfs can be mounted", Verdict::Fail, || {
        if own { host::mount_advice() } else { host::user_namespace_advice() }
    })
}

fn listener() -> Check {
    let allow = filter::allow_all();
    let result = in_child(|| probe::set_filter(&allow, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER));
    check("seccomp listener", result, "calls can be answered", Verdict::Fail, || match result {
        Err(Errno::BUSY) => LaunchError::Nested.to_string(),
        _ => host::filter_advice(),
    })
}

fn killable() -> Check {
    let allow = filter::allow_all();
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let result = in_child(|| probe::set_filter(&allow, flags));
    let works = "a signal does not break off a request that is worked on";
    check("requests done once", result, works, Verdict::Warn, || {
        "Linux 5.19 brings it; without it a program with frequent signals may see a request done twice"
            .into()
    })
}

fn descriptors() -> Check {
    let allow = filter::allow_all();
    let result = in_child(|| probe::send_descriptor(&allow));
    check("descriptors for clients", result, "an answer can carry one", Verdict::Fail, || {
        "It needs Linux 5.14 (SECCOMP_ADDFD_FLAG_SEND)".into()
    })
}

fn children() -> Check {
    let found = std::fs::read("/proc/thread-self/children");
    let result = found.map(drop).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO));
    check(
        "list of children",
        result,
        "all that a client starts can be ended",
        Verdict::Warn,
        || {
            "The kernel needs CONFIG_PROC_CHILDREN, and /proc must be mounted; without it what a client \
         left behind may outlive softvfio"
            .into()
        },
    )
}

fn cores() -> Check {
    let cores = crate::cores();
    let (verdict, remedy) = if cores >= 2 {
        (Verdict::Ok, None)
    } else {
        (Verdict::Warn, Some("With one core device and client take turns: allow a second".into()))
    };
    Check { name: "cores", verdict, found: cores.to_string(), remedy }
}

fn whole(launched: &Result<Launched, LaunchError>, time: std::time::Duration) -> Check {
    let name = "a client's world";
    match launched {
        Ok(launched) => {
            let hidden: Vec<_> =
                launched.shadowed.iter().map(|path| path.display().to_string()).collect();
            let mut found = format!("built in {:.1} ms", time.as_secs_f64() * 1e3);
            if !hidden.is_empty() {
                found += &format!("; an emulated function would hide {}", hidden.join(", "));
            }
            Check { name, verdict: Verdict::Ok, found, remedy: None }
        }
        Err(error) => {
            Check { name, verdict: Verdict::Fail, found: error.to_string(), remedy: None }
        }
    }
}

fn memory(launched: &Launched, words: &[u8]) -> Check {
    let copy = probe::copy_memory(launched.processes.client().pid, words);
    let result = copy.and_then(|copy| if copy == words { Ok(()) } else { Err(Errno::IO) });
    check("a client's memory", result, "can be read and written", Verdict::Fail, access_advice)
}

fn take(launched: &Launched) -> Check {
    let client = launched.processes.client();
    let result = match probe::take_descriptor(std::os::fd::AsFd::as_fd(&client.pidfd), 0) {
        // It has no standard input: that is an answer too.
        Err(Errno::BADF) => Ok(()),
        other => other,
    };
    check("a client's descriptors", result, "can be shared", Verdict::Fail, access_advice)
}

fn trace(launched: &Launched) -> Check {
    let pid = launched.processes.client().pid;
    let result = in_child(|| probe::trace(pid));
    let works = "registers with side effects can be trapped";
    check("tracing (trap mode)", result, works, Verdict::Warn, access_advice)
}

fn access_advice() -> String {
    match host::sysctl("kernel.yama.ptrace_scope") {
        Some(3) => {
            "Yama forbids all tracing: kernel.yama.ptrace_scope=1 in /etc/sysctl.d, and a reboot (3 \
             cannot be left otherwise)"
                .into()
        }
        Some(scope @ 1..) => {
            format!("Yama's scope is {scope}: sysctl -w kernel.yama.ptrace_scope=0, or run as root")
        }
        _ if host::in_container() => {
            "In a container: docker run --cap-add SYS_PTRACE --security-opt seccomp=unconfined".into()
        }
        _ => "The kernel needs CONFIG_CROSS_MEMORY_ATTACH, pidfd_getfd (5.6) and ptrace, and no policy \
              against them"
            .into(),
    }
}
