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
  softvfio completions fish > ~/.config/fish/completions/softvfio.fish")]
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
    use clap::Parser;

    use super::*;
    use crate::output::HELP_WIDTH;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Lines of `--help` that begin with our name, of a command and those below it.
    fn examples(command: &clap::Command) -> Vec<String> {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let own = text.lines().filter_map(|line| line.strip_prefix("  "));
        let mut all: Vec<String> = own.map(str::to_owned).collect();
        all.extend(command.get_subcommands().flat_map(examples));
        all
    }

    /// The words on the command line of a command and of those below it.
    fn paths(command: &clap::Command, path: &[String]) -> Vec<Vec<String>> {
        let path = [path, &[command.get_name().to_owned()]].concat();
        let below = command.get_subcommands().flat_map(|below| paths(below, &path));
        below.chain([path.clone()]).collect()
    }

    #[test]
    fn help_fits_a_terminal() {
        let paths = paths(&Cli::command(), &[]);
        assert!(paths.len() > 15, "{paths:?}");
        for (path, flag) in paths.iter().flat_map(|path| [(path, "-h"), (path, "--help")]) {
            let asked = Cli::try_parse_from(path.iter().map(String::as_str).chain([flag]));
            let asked = asked.err().unwrap();
            let text = crate::output::help(&asked, &std::io::stderr());
            let whole = asked.render().to_string();
            let text = console::strip_ansi_codes(&text);
            assert!(text.split_whitespace().eq(whole.split_whitespace()), "{path:?}");
            for line in text.lines() {
                let wide = line.chars().count();
                assert!(wide <= HELP_WIDTH, "{path:?} {flag}: {wide}: {line}");
            }
            // What follows the options is broken by us, as command lines must not be.
            for line in whole.lines().skip_while(|line| !line.starts_with("Example")) {
                assert!(line.chars().count() <= HELP_WIDTH, "{path:?}: {line}");
            }
        }
    }

    #[test]
    fn the_examples_of_help_are_command_lines() {
        let mut seen = 0;
        for line in examples(&Cli::command()) {
            let line = line.split("  ").next().unwrap_or_default();
            for part in line.split(['|', ';', '&']) {
                let words: Vec<&str> = part.split_whitespace().collect();
                let end =
                    words.iter().position(|word| matches!(*word, "<" | ">")).unwrap_or(words.len());
                if words.first() == Some(&"softvfio") {
                    let parsed = Cli::try_parse_from(&words[..end]);
                    assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
                    seen += 1;
                }
            }
        }
        assert!(seen > 20, "{seen}");
    }
}
