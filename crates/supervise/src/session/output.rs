//! A session whose program's words are kept.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::thread::{Scope, ScopedJoinHandle};

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
            let out = reader(scope, out).map_err(system)?;
            let err = reader(scope, err).map_err(system)?;
            let [stdin, stdout, stderr] = program.stdio;
            let stdout = stdout.unwrap_or(to_out.as_fd());
            let stderr = stderr.unwrap_or(to_err.as_fd());
            let stdio = [stdin, Some(stdout), Some(stderr)];
            let report = self.run(&Program { stdio, ..program.clone() });
            // The last that could write.
            drop((to_out, to_err));
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

/// A thread that reads to the end.
fn reader<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut from: PipeReader,
) -> io::Result<Reader<'scope>> {
    std::thread::Builder::new().name("reader".into()).spawn_scoped(scope, move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        Ok(bytes)
    })
}
