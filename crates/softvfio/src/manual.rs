//! `softvfio completions` and `softvfio man`: from the same source as `--help`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Cli;
use crate::output::print;

/// The output cannot be written.
const UNWRITABLE: u8 = 2;

/// Options of `softvfio completions`.
#[derive(Args)]
#[command(after_help = "Example:
  softvfio completions bash > ~/.local/share/bash-completion/completions/softvfio")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Options of `softvfio man`.
#[derive(Args)]
#[command(after_help = "Example:
  softvfio man ~/.local/share/man/man1 && man softvfio-draw")]
pub(crate) struct Man {
    /// The folder; made when there is none.
    folder: PathBuf,
}

impl Completions {
    /// Writes them.
    pub(crate) fn run(self) -> ExitCode {
        // Into memory first: the generator panics when it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "softvfio", &mut script);
        print(&String::from_utf8_lossy(&script), 0, UNWRITABLE)
    }
}

impl Man {
    /// Writes them, and says how it went.
    pub(crate) fn run(self) -> ExitCode {
        let made = std::fs::create_dir_all(&self.folder);
        let command = Cli::command().disable_help_subcommand(true);
        match made.and_then(|()| clap_mangen::generate_to(command, &self.folder)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("softvfio: {}: cannot write: {error}", self.folder.display());
                ExitCode::from(UNWRITABLE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
