//! A session with its devices in their places: a program runs in it, to the end of all that it started.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use vfio::System;

use super::bars::TrappedBars;
use super::limit::TimeLimit;
use super::stop::Stopper;
use super::{Placed, Program, SessionError};
use crate::control::Control;
use crate::door::{self, Door, MmioMode, Parts};
use crate::mmio::Tracer;
use crate::report::{Report, Reporter};
use crate::sandbox::{self, Filter, Launch, Launched, Signals, Tree};
use crate::watch::Watch;

/// What a thread of a session does.
type Work = Box<dyn FnOnce(&Arc<Door>) + Send>;

/// A session whose devices have their places.
pub struct Ready {
    pub(super) control: Control,
    pub(super) placed: Placed,
    pub(super) system: System,
    pub(crate) slots: Vec<door::Slot>,
    pub(super) tree: Tree,
    pub(super) watch: Vec<Arc<dyn Watch>>,
    pub(super) memlock: Option<u64>,
    pub(super) time_limit: Option<Duration>,
    pub(super) as_root: bool,
    pub(super) signals: Option<Arc<Signals>>,
}

impl Ready {
    /// The machine and its devices.
    #[must_use]
    pub const fn placed(&self) -> &Placed {
        &self.placed
    }

    /// Somebody is told what happens.
    #[must_use]
    pub fn watch(mut self, watch: Arc<dyn Watch>) -> Self {
        self.watch.push(watch);
        self
    }

    /// These signals stop it: the program is told, all is killed when that has not ended after
    /// [`GRACE`](super::GRACE) or a second signal comes, and the report says so. A terminal's interrupt is the
    /// program's, unless it comes twice. Whoever keeps them until the report is written wants
    /// [`Aftermath`](super::Aftermath).
    #[must_use]
    pub fn stop_on(mut self, signals: Arc<Signals>) -> Self {
        self.signals = Some(signals);
        self
    }

    /// The session from outside, for another thread: while the program runs.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Runs a program to its end, and to the end of all that it started.
    ///
    /// # Errors
    /// [`SessionError`]: nothing is left running then.
    pub fn run(self, program: &Program<'_>) -> Result<Report, SessionError> {
        let traps = self.slots.iter().any(|slot| slot.mode == MmioMode::Trap);
        let launch = Launch {
            args: &program.args,
            env: program.env.as_deref(),
            directory: program.directory.as_deref(),
            as_root: self.as_root,
            stdio: program.stdio,
            filter: Filter { exits: true, ..Filter::default() },
            full: traps,
            ..Launch::new(&self.tree, &program.command)
        };
        let Launched { listener, dev_vfio, full, shadowed, mut processes } = launch.start()?;
        let system = |what| move |error| SessionError::System { what, error };
        let reporter = Arc::new(Reporter::new(&self.placed));
        let mut watch = self.watch;
        watch.push(Arc::clone(&reporter) as Arc<dyn Watch>);
        let watch: Arc<dyn Watch> = Arc::new(watch);
        let mut slots = self.slots;
        if let Some(full) = &full {
            // Long, for programs that look before they map.
            for slot in slots.iter_mut().filter(|slot| slot.mode == MmioMode::Trap) {
                let name = format!("vfio-device {}", slot.name);
                // An empty one does for the others.
                if let Ok(file) = sandbox::file_without_room(full.as_fd(), &name, door::FILE_END) {
                    slot.put_file(file);
                }
            }
        }
        let door = Door::new(Parts {
            listener,
            dev_vfio,
            system: self.system,
            slots,
            watch,
            memlock: self.memlock,
        });
        let door = Arc::new(door.map_err(system("preparing /dev/vfio"))?);
        let running = self.control.start(&door);
        let stopper = match self.signals {
            Some(signals) => {
                let started = Stopper::start(signals, processes.killer()?);
                Some(started.map_err(system("starting a thread"))?)
            }
            None => None,
        };
        let limit = match self.time_limit {
            Some(limit) => {
                let started = TimeLimit::start(limit, processes.killer()?);
                Some(started.map_err(system("starting a thread"))?)
            }
            None => None,
        };
        let tracer = match traps {
            true => {
                let bars = Arc::new(TrappedBars::new(Arc::clone(&door)));
                Some(Tracer::start(processes.client().pid, bars)?)
            }
            false => None,
        };
        let mut threads = Vec::new();
        let mut spawn = |name: String, work: Work| {
            let door = Arc::clone(&door);
            let spawned = std::thread::Builder::new().name(name).spawn(move || work(&door));
            spawned.map(|thread| threads.push(thread))
        };
        let spawned = (|| {
            spawn("receive".into(), Box::new(Door::receive_all))?;
            for n in 0..door.devices() {
                spawn(format!("device {n}"), Box::new(move |door| door.work(n)))?;
            }
            if crate::cores() > 1 {
                // It may be missing.
                let _ = spawn("copy".into(), Box::new(|door| door.help_to_copy()));
            }
            spawn("watcher".into(), Box::new(|door| door.watch_events()))
        })();
        let ended = spawned.map_err(system("starting a thread")).and_then(|()| {
            processes.go()?;
            Ok(processes.wait()?)
        });
        // What it left in the background goes on until it is done, unless all was to stop; after a
        // failure nothing does.
        let stopped = || stopper.as_ref().and_then(Stopper::stopped);
        if ended.is_err() || stopped().is_some() {
            processes.kill_all();
        }
        processes.wait_all();
        // What is done from here on takes none of the program's time.
        let timed_out = limit.and_then(TimeLimit::finish);
        if let Some(tracer) = tracer {
            tracer.wait();
        }
        door.stop();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        door.close_all();
        drop(running);
        let mut report = reporter.report(ended?, shadowed);
        report.stopped = stopper.and_then(Stopper::finish);
        report.timed_out = timed_out;
        Ok(report)
    }
}
