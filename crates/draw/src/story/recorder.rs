//! Who listens to a session: which container a change or a refusal belongs to.

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;

use iommu::{Event, IovaRange};
use serde_json::Value;
use trace::{Change, Outcome, Session};
use vfio::ContainerId;

use super::Story;
use crate::scene::{Again, Mark, MarkKind};

/// Listens to a session and keeps a [`Story`] of each container.
#[derive(Debug, Default)]
pub struct Recorder {
    stories: BTreeMap<ContainerId, Story>,
    /// Containers by the slots of requests.
    slots: HashMap<u64, ContainerId>,
    opened: u32,
    latest: Option<ContainerId>,
    requests: u64,
    faults: Vec<String>,
}

impl Recorder {
    /// Takes note of a request that was carried out.
    pub fn note<R: BufRead>(&mut self, outcome: &Outcome, session: &mut Session<R>) {
        self.requests = outcome.request;
        self.faults.clear();
        let op = outcome.op();
        if op == "open_container" && outcome.why.is_none() {
            self.slots.insert(outcome.number("c").unwrap_or(0), ContainerId(self.opened));
            self.opened += 1;
        }
        let mut attached = Vec::new();
        for change in session.take_changes() {
            match change {
                Change::Space { container, event } => {
                    let Some(id) = container.or(self.latest) else { continue };
                    if matches!(event, Event::Attached { .. } | Event::Detached { .. }) {
                        attached.push(id);
                    }
                    self.story(id).event(&event, outcome);
                }
                Change::Fault { device, container, fault } => {
                    self.faults.push(format!("{device}: {fault}"));
                    let Some(id) = container.or(self.latest) else { continue };
                    let text = format!("{device}: {fault}");
                    let (kind, at) = (MarkKind::Fault, outcome.request);
                    if !self.story(id).again(kind, at, |known| known == text) {
                        let range = IovaRange::new(fault.iova, fault.iova);
                        let again = Again::default();
                        self.story(id).mark(|| Mark { kind, request: at, range, text, again });
                    }
                }
                _ => {}
            }
        }
        for id in attached {
            self.story(id).regions(outcome.request, session);
        }
        if let Some(why) = &outcome.why {
            self.refused(op, why, outcome);
        }
    }

    /// What devices met because of the request noted last: the device, and the fault.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// The stories, the one with most to tell first.
    #[must_use]
    pub fn finish(self) -> Vec<Story> {
        let requests = self.requests;
        let mut stories: Vec<Story> = self.stories.into_values().collect();
        for story in &mut stories {
            story.requests = requests;
            story.mapped.settle(&mut story.lives);
        }
        stories.sort_by_key(|s| std::cmp::Reverse((s.lives.len(), s.marks.len())));
        stories
    }

    fn story(&mut self, id: ContainerId) -> &mut Story {
        self.latest = Some(id);
        self.stories.entry(id).or_insert_with(|| Story::new(id))
    }

    fn refused(&mut self, op: &str, why: &str, outcome: &Outcome) {
        let of_container = matches!(
            op,
            "map"
                | "unmap"
                | "dirty"
                | "get_info"
                | "set_iommu"
                | "check_extension"
                | "set_container"
        );
        let id = if of_container {
            self.slots.get(&outcome.number("c").unwrap_or(0)).copied()
        } else {
            self.latest
        };
        // An eventfd that was not signalled, memory that is not there: not about addresses.
        let Some(id) = id.filter(|_| outcome.refusal.is_some()) else { return };
        let kind = MarkKind::Refused;
        let same = |known: &str| known.strip_suffix(why).is_some_and(|head| head.starts_with(op));
        if self.story(id).again(kind, outcome.request, same) {
            return;
        }
        let mark = || {
            let errno = outcome.got.get("errno").and_then(Value::as_str).unwrap_or("refused");
            let range = match op {
                "map" | "unmap" => outcome
                    .number("iova")
                    .zip(outcome.number("size"))
                    .and_then(|(iova, size)| IovaRange::sized(iova, size)),
                _ => None,
            };
            let text = format!("{op}: {errno}: {why}");
            Mark { kind, request: outcome.request, range, text, again: Again::default() }
        };
        self.story(id).mark(mark);
    }
}

#[cfg(test)]
mod tests {
    use trace::{Options, Reader, Step};

    use super::*;

    #[test]
    fn numbers_are_those_that_were_carried_out() {
        let script = r#"{"built_in":"x86-intel","kernel":"6.12.1"}
{"op":"mem","name":"ram"}
{"op":"open_container","c":true}
{"op":"open_group"}
{"op":"set_container","c":1}
{"op":"set_iommu","type":"type1v2","c":1}
{"op":"map","iova":"010000000","size":4096,"vaddr":"ram","c":"01"}
{"op":"map","iova":"010000000","size":4096,"vaddr":"ram","c":"01"}"#;
        let reader = Reader::new(script.as_bytes(), "octal");
        let mut session = Session::start(reader, &Options::default()).unwrap();
        session.watch();
        let mut recorder = Recorder::default();
        while let Some(step) = session.step().unwrap() {
            if let Step::Request(outcome) = step {
                recorder.note(&outcome, &mut session);
            }
        }
        let [story] = &recorder.finish()[..] else { panic!("one container") };
        let [mark] = &story.marks[..] else { panic!("{:?}", story.marks) };
        let there = story.lives.iter().find(|life| life.kind == crate::Kind::Mapping).unwrap();
        assert_eq!((mark.range, there.range.first()), (Some(there.range), 0x20_0000));
    }
}
