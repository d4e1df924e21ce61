//! A program to be run.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

/// A program to be run, as [`std::process::Command`] describes one.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// Looked for as a shell does.
    pub command: OsString,
    /// Its arguments, without its name.
    pub args: Vec<OsString>,
    /// Its environment; ours when absent.
    pub env: Option<Vec<(OsString, OsString)>>,
    /// Its working directory, from where a relative `command` is looked for too; ours when absent.
    pub directory: Option<PathBuf>,
    /// Its standard input, output and error; ours where absent.
    pub stdio: [Option<BorrowedFd<'a>>; 3],
}

impl<'a> Program<'a> {
    /// A program, in our environment.
    pub fn new(command: impl AsRef<OsStr>) -> Self {
        let command = command.as_ref().to_owned();
        Self { command, args: Vec::new(), env: None, directory: None, stdio: [None; 3] }
    }

    /// With this argument too.
    #[must_use]
    pub fn arg(self, arg: impl AsRef<OsStr>) -> Self {
        self.args([arg])
    }

    /// With these arguments too.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// With a variable in its environment, in the place of one of that name.
    #[must_use]
    pub fn env(self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let pair = (name.as_ref().to_owned(), value.as_ref().to_owned());
        let mut program = self.env_remove(&pair.0);
        program.env.get_or_insert_default().push(pair);
        program
    }

    /// Without a variable of our environment.
    #[must_use]
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        let env = self.env.get_or_insert_with(|| std::env::vars_os().collect());
        env.retain(|(known, _)| known != name.as_ref());
        self
    }

    /// In this working directory: one that the program finds, so it may be in `/sys` too.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// With this standard input.
    #[must_use]
    pub fn stdin(mut self, file: &'a impl AsFd) -> Self {
        self.stdio[0] = Some(file.as_fd());
        self
    }

    /// With this standard output.
    #[must_use]
    pub fn stdout(mut self, file: &'a impl AsFd) -> Self {
        self.stdio[1] = Some(file.as_fd());
        self
    }

    /// With this standard error.
    #[must_use]
    pub fn stderr(mut self, file: &'a impl AsFd) -> Self {
        self.stdio[2] = Some(file.as_fd());
        self
    }
}
