//! One build for both runs: with `SOFTVFIO_PLANTED` a bug is on.

use std::env;

use iommu::planted::Bug;

/// The variable: `ioat`, `nvme`, `trace`, `vfio`, or a [`Bug`] of the engine by name.
pub const VARIABLE: &str = "SOFTVFIO_PLANTED";

/// Plants the bug that the environment names, if any.
///
/// # Panics
/// When there is no such bug.
pub fn from_environment() {
    let Ok(name) = env::var(VARIABLE) else { return };
    match name.as_str() {
        "ioat" => devices::planted::plant(Some(devices::planted::Bug::LinksIgnored)),
        "nvme" => devices::planted::plant(Some(devices::planted::Bug::FullQueueLooksEmpty)),
        "vfio" => vfio::planted::plant(true),
        "trace" => trace::planted::plant(true),
        name => {
            let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
            iommu::planted::plant(Some(bug.expect("a bug of the engine")));
        }
    }
}
