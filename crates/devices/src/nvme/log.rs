//! Log pages (NVM Express 1.4, 5.14.1).

use super::command::{admin, nvm, put};
use super::events::Events;
use super::features::{Features, TEMPERATURE};
use super::identify::FIRMWARE;
use super::stats::NvmeStats;

/// Log page identifiers (figure 191).
pub(super) mod lid {
    pub(crate) const ERRORS: u8 = 0x01;
    pub(crate) const HEALTH: u8 = 0x02;
    pub(crate) const FIRMWARE: u8 = 0x03;
    pub(crate) const COMMANDS: u8 = 0x05;
}

/// Critical warning: the temperature has reached a threshold.
const TEMPERATURE_WARNING: u8 = 1 << 1;

/// Bytes of the longest page.
const LONGEST: usize = 4096;

/// A log page, and how many of the bytes it has.
pub(super) fn page(
    id: u8,
    events: &Events,
    features: &Features,
    stats: &NvmeStats,
) -> Option<([u8; LONGEST], usize)> {
    let mut bytes = [0; LONGEST];
    let len = match id {
        lid::ERRORS => errors(&mut bytes, events),
        lid::HEALTH => health(&mut bytes, events, features, stats),
        lid::FIRMWARE => {
            put(&mut bytes, 0, &[1]); // AFI: slot 1
            put(&mut bytes, 8, b"        ");
            put(&mut bytes, 8, FIRMWARE.as_bytes());
            512
        }
        lid::COMMANDS => commands(&mut bytes),
        _ => return None,
    };
    Some((bytes, len))
}

/// Error information (figure 194): newest first, 64 bytes each.
fn errors(bytes: &mut [u8], events: &Events) -> usize {
    for (to, error) in bytes.as_chunks_mut::<64>().0.iter_mut().zip(events.errors()) {
        put(to, 0, &error.count.to_le_bytes());
        put(to, 8, &error.sqid.to_le_bytes());
        put(to, 10, &error.cid.to_le_bytes());
        put(to, 12, &(error.status.bits() << 1).to_le_bytes());
        // Not a parameter's fault that could be told.
        put(to, 14, &[0xff, 0xff]);
        put(to, 16, &error.lba.to_le_bytes());
        put(to, 24, &error.nsid.to_le_bytes());
    }
    super::events::ERRORS.saturating_mul(64)
}

/// SMART / health information (figure 195).
fn health(bytes: &mut [u8], events: &Events, features: &Features, stats: &NvmeStats) -> usize {
    // Thousands of 512 bytes, rounded up.
    let units = |bytes: u64| bytes.div_ceil(512_000).to_le_bytes();
    put(bytes, 0, &[if features.temperature_warns() { TEMPERATURE_WARNING } else { 0 }]);
    put(bytes, 1, &TEMPERATURE.to_le_bytes());
    put(bytes, 3, &[100, 10]); // available spare, its threshold
    put(bytes, 32, &units(stats.bytes_read));
    put(bytes, 48, &units(stats.bytes_written));
    put(bytes, 64, &stats.reads.to_le_bytes());
    put(bytes, 80, &stats.writes.to_le_bytes());
    put(bytes, 160, &stats.media_errors.to_le_bytes());
    put(bytes, 176, &events.error_count().to_le_bytes());
    512
}

/// Commands supported and effects (figure 201): a dword for each admin and each I/O opcode.
fn commands(bytes: &mut [u8]) -> usize {
    const SUPPORTED: u32 = 1;
    const CHANGES_BLOCKS: u32 = 2;
    for opcode in [
        admin::DELETE_SQ,
        admin::CREATE_SQ,
        admin::GET_LOG_PAGE,
        admin::DELETE_CQ,
        admin::CREATE_CQ,
        admin::IDENTIFY,
        admin::ABORT,
        admin::SET_FEATURES,
        admin::GET_FEATURES,
        admin::ASYNC_EVENT,
    ] {
        put(bytes, usize::from(opcode) << 2, &SUPPORTED.to_le_bytes());
    }
    for (opcode, effects) in [
        (nvm::FLUSH, SUPPORTED),
        (nvm::WRITE, SUPPORTED | CHANGES_BLOCKS),
        (nvm::READ, SUPPORTED),
        (nvm::COMPARE, SUPPORTED),
        (nvm::WRITE_ZEROES, SUPPORTED | CHANGES_BLOCKS),
        (nvm::DATASET_MANAGEMENT, SUPPORTED | CHANGES_BLOCKS),
    ] {
        put(bytes, (usize::from(opcode) << 2).saturating_add(1024), &effects.to_le_bytes());
    }
    LONGEST
}
