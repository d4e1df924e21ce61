//! Who uses what, and whether it was closed or merely left behind.
//!
//! An object that is closed when all of its users have ended, or are ending, was left to the kernel.

use std::collections::{BTreeMap, BTreeSet};

use crate::watch::Target;

/// Processes, and what they asked of which object.
#[derive(Default)]
pub(super) struct Users {
    of: BTreeMap<Target, BTreeSet<i32>>,
    /// Those that said that they end.
    ended: BTreeSet<i32>,
}

impl Users {
    /// A process has asked something.
    pub(super) fn asked(&mut self, pid: i32, target: Target) {
        // A number that is used again is another process.
        self.ended.remove(&pid);
        self.of.entry(target).or_default().insert(pid);
    }

    /// A process is about to end.
    pub(super) fn exiting(&mut self, pid: i32) {
        if self.of.values().any(|users| users.contains(&pid)) {
            self.ended.insert(pid);
        }
    }

    /// The object was closed: whether nobody did it of himself.
    pub(super) fn was_left(&mut self, target: Target) -> bool {
        // Of what nobody asked anything it is not known.
        let users = self.of.remove(&target).unwrap_or_default();
        !users.is_empty() && users.iter().all(|pid| self.has_ended(*pid))
    }

    /// Whether a process has ended, or is ending.
    pub(super) fn has_ended(&self, pid: i32) -> bool {
        self.ended.contains(&pid) || !is_running(pid)
    }
}

/// Whether a process has a thread that is not on its way out.
fn is_running(pid: i32) -> bool {
    /// `PF_EXITING` of the kernel's thread flags.
    const EXITING: u64 = 4;
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().any(|task| {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { return false };
        // The name, in parentheses, may have anything in it.
        let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
        let mut fields = rest.split(' ');
        let state = fields.next();
        let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(0);
        !matches!(state, Some("Z" | "X")) && flags & EXITING == 0
    })
}

#[cfg(test)]
mod tests {
    use vfio::ContainerId;

    use super::*;

    #[test]
    fn what_is_closed_before_the_end_was_closed() {
        let own = std::process::id().cast_signed();
        let [a, b, c] = [0, 1, 2].map(|n| Target::Container(ContainerId(n)));
        let mut users = Users::default();
        users.asked(own, a);
        users.asked(own, b);
        users.asked(i32::MAX, b);
        users.asked(own, c);
        assert!(!users.was_left(a));
        users.exiting(own);
        assert!(users.was_left(b) && users.was_left(c));
    }

    #[test]
    fn a_process_that_was_killed_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(is_running(pid));
        child.kill().unwrap();
        while is_running(pid) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_running(pid));
    }
}
