//! Identify data structures (NVM Express 1.4, 5.15.2).

use super::command::put;
use super::config::BlockSize;
use super::events::{ERRORS, REQUESTS};
use super::features::{CRITICAL_TEMPERATURE, WARNING_TEMPERATURE};
use super::regs::VERSION;

/// Bytes of each structure.
pub(super) const SIZE: usize = 4096;

/// The longest transfer is 4096 << MDTS bytes: 512 KiB.
pub(super) const MDTS: u8 = 7;

/// The model number.
const MODEL: &str = "softvfio NVMe controller";
/// The firmware revision.
pub(super) const FIRMWARE: &str = "1.0";

/// Optional commands: Compare, Dataset Management, Write Zeroes, select in Get Features.
const ONCS: u16 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4;

/// ASCII, padded with spaces.
fn text<const N: usize>(from: &str) -> [u8; N] {
    let mut to = [b' '; N];
    let printable = from.bytes().filter(|b| (0x20..0x7f).contains(b));
    to.iter_mut().zip(printable).for_each(|(to, from)| *to = from);
    to
}

/// The controller (figure 247).
pub(super) fn controller(serial: &str, namespaces: u32) -> [u8; SIZE] {
    let (serial, model) = (text::<20>(serial), text::<40>(MODEL));
    let mut bytes = [0; SIZE];
    for (offset, data) in [
        (0, &[0x36, 0x1b, 0xf4, 0x1a][..]), // VID, SSVID
        (4, &serial),
        (24, &model),
        (64, &text::<8>(FIRMWARE)),
        (72, &[6]),                   // RAB: bursts of 64 commands
        (73, &[0x00, 0x54, 0x52]),    // IEEE: QEMU's prefix
        (77, &[MDTS]),                // MDTS
        (80, &VERSION.to_le_bytes()), // VER
        (111, &[1]),                  // CNTRLTYPE: I/O controller
        (258, &[3]),                  // ACL: 4 Aborts
        (259, &[REQUESTS.saturating_sub(1) as u8]),
        (260, &[0x03]), // FRMW: one slot, read-only
        (261, &[0x06]), // LPA: commands supported and effects, offsets
        (262, &[ERRORS.saturating_sub(1) as u8]),
        (266, &WARNING_TEMPERATURE.to_le_bytes()),
        (268, &CRITICAL_TEMPERATURE.to_le_bytes()),
        (512, &[0x66, 0x44]), // SQES, CQES: 64 and 16 bytes
        (516, &namespaces.to_le_bytes()),
        (520, &ONCS.to_le_bytes()),
        (525, &[0x07]), // VWC: present, Flush takes all namespaces
        // SUBNQN (7.9): the name of controllers without a name.
        (768, b"nqn.2014.08.org.nvmexpress:1b361af4"),
        (803, &serial),
        (823, &model),
        (2048, &2500_u16.to_le_bytes()), // PSD0: 25 W
    ] {
        put(&mut bytes, offset, data);
    }
    bytes
}

/// A namespace (figure 245).
pub(super) fn namespace(
    blocks: u64,
    block_size: BlockSize,
    read_only: bool,
    ids: &UniqueIds,
) -> [u8; SIZE] {
    let size = blocks.to_le_bytes();
    let bytes_total = u128::from(blocks) << block_size.shift();
    let mut bytes = [0; SIZE];
    for (offset, data) in [
        (0, &size[..]), // NSZE
        (8, &size),     // NCAP
        (16, &size),    // NUSE
        (25, &[1]),     // NLBAF: two formats
        (26, &[block_size.format()]),
        (33, &[0x09]), // DLFEAT: reads zeroes, Write Zeroes deallocates
        (48, &bytes_total.to_le_bytes()),
        (99, &[u8::from(read_only)]), // NSATTR
        (104, &ids.nguid),
        (120, &ids.eui64),
        (130, &[9]),  // LBAF0: 512 bytes
        (134, &[12]), // LBAF1: 4096 bytes
    ] {
        put(&mut bytes, offset, data);
    }
    bytes
}

/// The active namespaces behind `after` (5.15.2.3): all ids are active.
pub(super) fn active_list(after: u32, namespaces: u32) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let ids = after.saturating_add(1)..=namespaces;
    for (to, id) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(ids) {
        *to = id.to_le_bytes();
    }
    bytes
}

/// A namespace's unique ids (5.15.2.4): type, length, two reserved bytes, value.
pub(super) fn descriptors(ids: &UniqueIds) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    put(&mut bytes, 0, &[1, 8]);
    put(&mut bytes, 4, &ids.eui64);
    put(&mut bytes, 12, &[2, 16]);
    put(&mut bytes, 16, &ids.nguid);
    bytes
}

/// What tells one namespace from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UniqueIds {
    eui64: [u8; 8],
    nguid: [u8; 16],
}

impl UniqueIds {
    /// The same for the same serial number and namespace, always.
    pub(super) fn of(serial: &str, nsid: u32) -> Self {
        // FNV-1a (Fowler, Noll, Vo), 64 bits.
        let hash = serial.bytes().chain(nsid.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3_u64)
        });
        let mut eui64 = hash.to_be_bytes();
        // The vendor's prefix, as in the controller's IEEE field.
        put(&mut eui64, 0, &[0x52, 0x54, 0x00]);
        let mut nguid = [0; 16];
        put(&mut nguid, 0, &nsid.to_be_bytes());
        put(&mut nguid, 8, &eui64);
        Self { eui64, nguid }
    }
}
