//! `softvfio trace`: traces from what other programs log.

use std::ffi::OsString;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use trace::import::{Format, Imported, format_of, import};

use crate::input::{cannot_open, shown};
use crate::output::if_read;
use crate::progress;

/// The input cannot be read, or nothing of it can be used.
const UNREADABLE: u8 = 2;
/// Bytes that must be enough to tell who wrote a log.
const HEAD: u64 = 1 << 20;
/// Line numbers that are shown of each kind.
const SHOWN: usize = 6;

/// What to do with traces.
#[derive(Subcommand)]
pub(crate) enum Trace {
    /// Turn an strace, or a log of QEMU, into a trace, as far as it carries one.
    Import(Import),
}

/// Options of `softvfio trace import`.
#[derive(Args)]
#[command(after_help = "Examples:
  strace -f -s 4096 -e trace=openat,close,ioctl,mmap,pread64,pwrite64 \\
    -o s.log program
  softvfio trace import s.log > s.jsonl
  qemu-system-aarch64 ... -trace 'vfio*' -D q.log
  softvfio trace import q.log --host arm-smmuv3-its | softvfio draw -

What is missing is said on standard error: strace shows no structures, so it has
no mappings; QEMU logs no answers but failures. Exit status: 0, or 2 when
nothing can be imported.")]
pub(crate) struct Import {
    /// The log; `-` is standard input.
    file: OsString,
    /// Who wrote it; found out from its lines when not said.
    #[arg(long, value_enum)]
    format: Option<Writer>,
    /// The built-in host to put into the header; its devices take the places of the log's, in order.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

/// Who writes logs.
#[derive(Clone, Copy, ValueEnum)]
enum Writer {
    Strace,
    Qemu,
}

impl Trace {
    /// Does it, and says how it went.
    pub(crate) fn run(self) -> ExitCode {
        let Self::Import(import) = self;
        match import.import() {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("softvfio: {why}");
                ExitCode::from(UNREADABLE)
            }
        }
    }
}

impl Import {
    fn import(&self) -> Result<(), String> {
        let file = &*shown(&self.file);
        let (mut reader, bar) = progress::reader(&self.file).map_err(|error| error.to_string())?;
        let mut head = Vec::new();
        let format = match self.format {
            Some(Writer::Strace) => Format::Strace,
            Some(Writer::Qemu) => Format::Qemu,
            None => self.recognized(&mut reader, &mut head)?,
        };
        let imported = import(io::Cursor::new(head).chain(reader), format, file);
        bar.finish_and_clear();
        let imported = imported.map_err(|error| error.to_string())?;
        let name = file.rsplit('/').next().unwrap_or(file);
        let lines = imported
            .lines(name, self.host.as_deref())
            .map_err(|expected| format!("--host: expected {expected}"))?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let written = lines.iter().try_for_each(|line| writeln!(out, "{line}"));
        if_read(written.and_then(|()| out.flush()))
            .map_err(|error| format!("cannot write: {error}"))?;
        self.report(&imported);
        Ok(())
    }

    /// Who wrote a log, by the first line that says it.
    fn recognized(
        &self,
        reader: &mut Box<dyn BufRead + Send>,
        head: &mut Vec<u8>,
    ) -> Result<Format, String> {
        while (head.len() as u64) < HEAD {
            let from = head.len();
            let read = reader.take(HEAD).read_until(b'\n', head);
            if read.map_err(|error| cannot_open(&self.file, &error).to_string())? == 0 {
                break;
            }
            if let Some(format) = format_of(String::from_utf8_lossy(&head[from..]).trim_end()) {
                return Ok(format);
            }
        }
        let file = shown(&self.file);
        Err(format!("{file}: expected strace's or QEMU's log, found neither (see --format)"))
    }

    /// What was made of the log, and what could not be.
    fn report(&self, imported: &Imported) {
        let file = &*shown(&self.file);
        let (requests, read) = (imported.requests, imported.read);
        eprintln!("softvfio: {file}: {requests} requests from {read} lines");
        if let Some(host) = &self.host {
            let header = trace::hosts::header(host).unwrap_or_default();
            let devices = header.get("devices").and_then(|d| d.as_object());
            let names = devices.into_iter().flat_map(|d| d.keys());
            for ((device, group), name) in imported.devices().iter().zip(names) {
                eprintln!("softvfio: {file}: {name} takes the place of {device} (group {group})");
            }
        }
        for what in &imported.assumed {
            eprintln!("softvfio: {file}: assumed: {what}");
        }
        for (what, lines) in &imported.missing {
            let shown: Vec<String> = lines.iter().take(SHOWN).map(u64::to_string).collect();
            let more = if lines.len() > SHOWN { ", ..." } else { "" };
            let plural = if lines.len() == 1 { "line" } else { "lines" };
            let shown = shown.join(", ");
            eprintln!(
                "softvfio: {file}: missing: {} of {what} ({plural} {shown}{more})",
                lines.len()
            );
        }
    }
}
