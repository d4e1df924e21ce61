//! A session whose program's words are kept.

use std::io::{self, PipeReader};
use std::os::fd::AsFd;
use std::thread::{Scope, ScopedJoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

use super::{Program, Ready, SessionError};
use crate::report::Report;

/// What became of a program, and what it printed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// What happened.
    pub report: Report,
    /// What it, and all that it started, wrote to standard output; nothing where that went elsewhere
    /// ([`Program::stdout`]).
    pub stdout: Vec<u8>,
    /// The same of standard error.
    pub stderr: Vec<u8>,
}

impl Ready {
    /// As [`run`](Self::run), and keeps what the program printed.
    ///
    /// # Errors
    /// [`SessionError`]: nothing is left running then.
    pub fn output(self, program: &Program<'_>) -> Result<Output, SessionError> {
        let system = |error| SessionError::System { what: "keeping what is printed", error };
        std::thread::scope(|scope| {
            let (out, to_out) = io::pipe().map_err(system)?;
            let (err, to_err) = io::pipe().map_err(system)?;
            // Both hear of the session's end.
            let (over, running) = io::pipe().map_err(system)?;
            let over_too = over.try_clone().map_err(system)?;
            let out = reader(scope, out, over).map_err(system)?;
            let err = reader(scope, err, over_too).map_err(system)?;
            let [stdin, stdout, stderr] = program.stdio;
            let stdout = stdout.unwrap_or(to_out.as_fd());
            let stderr = stderr.unwrap_or(to_err.as_fd());
            let stdio = [stdin, Some(stdout), Some(stderr)];
            let report = self.run(&Program { stdio, ..program.clone() });
            drop((to_out, to_err, running));
            let read = |thread: Reader<'_>| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    .map_err(system)
            };
            Ok(Output { report: report?, stdout: read(out)?, stderr: read(err)? })
        })
    }
}

type Reader<'scope> = ScopedJoinHandle<'scope, io::Result<Vec<u8>>>;

/// A thread that reads to the end, or as far as was written when `over` hangs up: who is not of the
/// session may have been given the other end.
fn reader<'scope>(
    scope: &'scope Scope<'scope, '_>,
    from: PipeReader,
    over: PipeReader,
) -> io::Result<Reader<'scope>> {
    std::thread::Builder::new().name("reader".into()).spawn_scoped(scope, move || {
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        loop {
            let mut fds = [PollFd::new(&from, PollFlags::IN), PollFd::new(&over, PollFlags::IN)];
            retry_on_intr(|| poll(&mut fds, None))?;
            let [written, is_over] = fds.map(|fd| !fd.revents().is_empty());
            if is_over && !written {
                return Ok(bytes);
            }
            match rustix::io::read(&from, &mut buffer[..]) {
                Ok(0) => return Ok(bytes),
                Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    })
}
