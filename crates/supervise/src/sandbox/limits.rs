//! Limits of this process that are not meant for what a session does: descriptors, of which it has one
//! for each eventfd that its devices hold, and the size of files, as a device's has 17 TiB of holes.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const RAISED: [Resource; 2] = [Resource::Nofile, Resource::Fsize];

/// A limit, and what was in force.
pub(super) type Limits = [Option<(Resource, Rlimit)>; RAISED.len()];

static BEFORE: OnceLock<Limits> = OnceLock::new();

/// Raises this process' soft `RLIMIT_NOFILE` and `RLIMIT_FSIZE` to the hard ones. Clients start with what
/// was in force before. What cannot be raised stays.
pub fn raise_limits() {
    BEFORE.get_or_init(|| {
        RAISED.map(|resource| {
            let before = getrlimit(resource);
            let raised = Rlimit { current: before.maximum, ..before };
            let changed = before != raised && setrlimit(resource, raised).is_ok();
            changed.then_some((resource, before))
        })
    });
}

/// The limits that clients start with, where those are not ours.
pub(super) fn limits_before() -> Limits {
    BEFORE.get().copied().unwrap_or_default()
}
