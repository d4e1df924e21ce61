//! Records a session as a trace (docs/trace-format.md), so that it can be replayed without its
//! program.
//!
//! What a replay cannot know is not asked of it: registers of live devices, dirty pages. What has no
//! form in the format is a note, and counted. The program's addresses stand for themselves only
//! where nothing is looked up there; else they are places in memories that the replay makes.
//!
//! Requests are told in another order than they took effect when several threads ask: they are held
//! back for a while and written by number.

mod args;
mod device;
mod lines;
mod memory;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use parking_lot::Mutex;
use serde_json::{Value, json};
use vfio::{ContainerId, DeviceId, GroupId, Message, Removal};

use self::lines::Lines;
use crate::session::{MmioMode, Placed};
use crate::watch::{Request, Watch};

/// Requests that are held back.
const HELD: usize = 4096;

/// What was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Requests.
    pub requests: u64,
    /// Those of them that have no form in a trace: a note stands there.
    pub notes: u64,
}

/// Records a session.
pub struct Recorder(Mutex<State>);

/// What has a number, and what happened after it.
#[derive(Default)]
struct Held {
    request: Option<Request>,
    /// The device, if one was taken from the program.
    removed: Option<DeviceId>,
    /// Interrupts, and how often.
    messages: BTreeMap<(DeviceId, u64, u64, u32), u64>,
}

struct State {
    out: Box<dyn Write + Send>,
    lines: Lines,
    held: BTreeMap<u64, Held>,
    /// Devices that were asked for.
    leaving: BTreeSet<DeviceId>,
    joined: BTreeMap<u64, (GroupId, Option<ContainerId>)>,
    recorded: Recorded,
    failed: Option<io::Error>,
}

impl Recorder {
    /// Begins a record of a session: writes the header.
    ///
    /// `memlock` is the session's limit on locked memory; `None`: there is none.
    ///
    /// # Errors
    /// Of the writer.
    pub fn start(
        mut out: Box<dyn Write + Send>,
        placed: &Placed,
        memlock: Option<u64>,
    ) -> io::Result<Self> {
        let mut header = placed.profile.header.clone();
        header.insert("bar0_base".into(), json!(format!("{:#x}", crate::door::BAR0_BASE)));
        if let Some(Value::Object(devices)) = header.get_mut("devices") {
            for (device, placed) in devices.values_mut().zip(&placed.devices) {
                if let (Value::Object(device), MmioMode::None) = (device, placed.mmio) {
                    device.insert("mappable".into(), json!(false));
                }
            }
        }
        writeln!(out, "{}", Value::Object(header))?;
        // The process of a replay is root, whom no limit binds.
        if let Some(bytes) = memlock {
            writeln!(out, "{}", json!({"op": "rlimit_memlock", "value": format!("{bytes:#x}")}))?;
            writeln!(out, "{}", json!({"op": "setuid"}))?;
        }
        let lines = Lines::new(placed);
        Ok(Self(Mutex::new(State {
            out,
            lines,
            held: BTreeMap::new(),
            leaving: BTreeSet::new(),
            joined: BTreeMap::new(),
            recorded: Recorded::default(),
            failed: None,
        })))
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// The first of the writer, now or before.
    pub fn finish(&self) -> io::Result<Recorded> {
        let state = &mut *self.0.lock();
        while state.write_first() {}
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        state.out.flush()?;
        Ok(state.recorded)
    }
}

/// Says on the line of a request which one of the run it was: a trace has others between them, for
/// memory and eventfds.
fn say_number(lines: &mut [Value], number: u64) {
    let is = |line: &Value, member: &str| line.get("op").is_some() && line.get(member).is_some();
    let at = ["want", "op"].iter().find_map(|m| lines.iter().rposition(|line| is(line, m)));
    if let Some(Value::Object(line)) = at.and_then(|at| lines.get_mut(at)) {
        line.insert("run_request".into(), number.into());
    }
}

impl State {
    /// Writes the earliest request of those that are held.
    fn write_first(&mut self) -> bool {
        let Some((number, held)) = self.held.pop_first() else { return false };
        if let Some(request) = held.request {
            let joined = self.joined.remove(&number);
            self.recorded.requests += 1;
            let mut lines = self.lines.of(&request, joined);
            say_number(&mut lines, number);
            for line in lines {
                self.recorded.notes += u64::from(line.get("op").is_none());
                self.write(&line);
            }
        }
        if let Some(device) = held.removed {
            self.write(&json!({"op": "remove", "dev": self.lines.name(device)}));
        }
        for ((device, iova, doorbell, vector), times) in held.messages {
            self.write(&json!({
                "note": "msi",
                "dev": self.lines.name(device),
                "iova": format!("{iova:#x}"),
                "doorbell": format!("{doorbell:#x}"),
                "vector": vector,
                "times": times,
            }));
        }
        true
    }

    fn write(&mut self, line: &Value) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{line}").err();
        }
    }

    /// What has a number, to be added to.
    fn at(&mut self, number: u64) -> &mut Held {
        if self.held.len() > HELD && !self.held.contains_key(&number) {
            self.write_first();
        }
        self.held.entry(number).or_default()
    }
}

impl Watch for Recorder {
    fn request(&self, request: &Request) {
        self.0.lock().at(request.number).request = Some(request.clone());
    }

    fn message(&self, number: u64, device: DeviceId, message: &Message) {
        let key = (device, message.iova, message.doorbell, message.vector);
        *self.0.lock().at(number).messages.entry(key).or_default() += 1;
    }

    fn removal(&self, number: u64, device: DeviceId, removal: Removal) {
        let mut state = self.0.lock();
        // That it is gone follows from closing it.
        if removal == Removal::Gone && state.leaving.contains(&device) {
            return;
        }
        state.leaving.insert(device);
        state.at(number).removed = Some(device);
    }

    fn joined(&self, number: u64, group: GroupId, container: Option<ContainerId>) {
        self.0.lock().joined.insert(number, (group, container));
    }
}

#[cfg(test)]
mod tests;
