//! Room for descriptors: a session has one for each eventfd that its devices hold, and some for each
//! process and open request.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What was in force.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Raises this process' soft `RLIMIT_NOFILE` to the hard one. Clients start with what was in force
/// before. Where it cannot be raised nothing changes.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_ok() {
        let _ = BEFORE.set(limit);
    }
}

/// The limit that clients start with, where that is not ours.
pub(super) fn limit_before() -> Option<Rlimit> {
    BEFORE.get().copied()
}
