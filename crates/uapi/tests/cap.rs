//! Capability chains: the bytes real kernels wrote, hostile bytes, and every chain we can write.

use proptest::{collection::vec, prelude::*};
use softvfio_uapi::{
    Cap, CapAlign, CapChain, Caps,
    cap::{CAP_HEADER_SIZE, Capability, ChainError},
    read_prefix,
    region::{MsixMappableCap, RegionInfo, RegionTypeCap, SparseMmapArea, SparseMmapCap},
    type1::{DmaAvailCap, IovaRangeCap, MigrationCap, RawIovaRange, Type1Info},
};
use zerocopy::IntoBytes;

/// What Linux 6.1.192 answered on a VT-d machine with argsz 120; it leaves `pad` alone (aa), and
/// the four bytes after its 116.
const LINUX_6_1: &str = "
    7800000003000000001020400000000018000000aaaaaaaa
    0200010038000000 00000000000000000010000000000000 0000001000000000
    0300010044000000 ffff0000
    0100010000000000 0200000000000000
    0000000000000000 ffffdffe00000000 0000f0fe00000000 ffffffffffff0000
";

/// The same from Linux 6.12.107.
const LINUX_6_12: &str = "
    780000000300000000102040000000001800000000000000
    0200010038000000 00000000000000000010000000000000 0000001000000000
    0300010048000000 ffff000000000000
    0100010000000000 0200000000000000
    0000000000000000 ffffdffe00000000 0000f0fe00000000 ffffffffffff0000
";

/// Linux 7.3.4, AMD-Vi, argsz 136: three ranges, the last up to 2^64-1.
const LINUX_7_3_AMD: &str = "
    880000000300000000f0ffff7fff0f001800000000000000
    0200010038000000 00000000000000000010000000000000 0000001000000000
    0300010048000000 ffff000000000000
    0100010000000000 0300000000000000
    0000000000000000 ffffdffe00000000 0000f0fe00000000 fffffffffc000000
    0000000000010000 ffffffffffffffff
";

/// Linux 6.12.107, region of an MSI-X table, argsz 40.
const LINUX_MSIX_BAR: &str = "
    280000000f00000000000000200000000040000000000000 0000000000000000
    0300010000000000
";

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

const VTD: &[RawIovaRange] = &[
    RawIovaRange { start: 0, end: 0xfedf_ffff },
    RawIovaRange { start: 0xfef0_0000, end: 0xffff_ffff_ffff },
];

fn type1_chain(align: CapAlign, ranges: &[RawIovaRange]) -> CapChain {
    let mut chain = CapChain::new(align);
    chain.push_cap(&MigrationCap {
        pgsize_bitmap: 0x1000,
        max_dirty_bitmap_size: 0x1000_0000,
        ..MigrationCap::default()
    });
    chain.push_cap(&DmaAvailCap { avail: 0xffff });
    if !ranges.is_empty() {
        chain.push_list::<IovaRangeCap>(ranges);
    }
    chain
}

/// The chain behind the fixed structure of a recorded answer.
fn recorded_chain(text: &str) -> Vec<u8> {
    hex(text).split_off(size_of::<Type1Info>())
}

#[test]
fn unpadded_as_linux_6_1() {
    let chain = type1_chain(CapAlign::None, VTD);
    assert_eq!(24 + chain.len(), 116);
    assert_eq!(chain.emit(24), recorded_chain(LINUX_6_1));
    assert_eq!(24 + type1_chain(CapAlign::None, &[]).len(), 68);
}

#[test]
fn padded_as_linux_6_12() {
    let chain = type1_chain(CapAlign::Eight, VTD);
    assert_eq!(24 + chain.len(), 120);
    assert_eq!(chain.emit(24), recorded_chain(LINUX_6_12));
    // The last capability is padded too.
    assert_eq!(24 + type1_chain(CapAlign::Eight, &[]).len(), 72);
}

#[test]
fn ranges_up_to_the_top() {
    let ranges = [
        RawIovaRange { start: 0, end: 0xfedf_ffff },
        RawIovaRange { start: 0xfef0_0000, end: 0xfc_ffff_ffff },
        RawIovaRange { start: 0x100_0000_0000, end: u64::MAX },
    ];
    let chain = type1_chain(CapAlign::Eight, &ranges);
    assert_eq!(chain.emit(24), recorded_chain(LINUX_7_3_AMD));
}

#[test]
fn one_capability_aligned_in_an_unpadded_chain() {
    let mut chain = type1_chain(CapAlign::None, VTD);
    chain.align();
    chain.push(0x8001, 1, &[7; 4]);
    let bytes = [vec![0; 24], chain.emit(24)].concat();
    let caps: Vec<_> = Caps::new(&bytes, 24).map(Result::unwrap).collect();
    let places: Vec<_> = caps.iter().map(|cap| (cap.id, cap.offset)).collect();
    assert_eq!(places, [(2, 24), (3, 56), (1, 68), (0x8001, 120)]);
    assert_eq!(bytes.len(), 132);
}

#[test]
fn recorded_answers_are_read() {
    for (text, offsets) in [(LINUX_6_1, [24, 56, 68]), (LINUX_6_12, [24, 56, 72])] {
        let bytes = hex(text);
        let info: Type1Info = read_prefix(&bytes).unwrap();
        assert_eq!((info.flags, info.iova_pgsizes, info.cap_offset), (3, 0x4020_1000, 24));
        let caps: Vec<Cap> = Caps::new(&bytes, info.cap_offset).map(Result::unwrap).collect();
        assert_eq!(caps.iter().map(|cap| cap.offset).collect::<Vec<_>>(), offsets);
        assert_eq!(caps[0].read::<MigrationCap>().unwrap().pgsize_bitmap, 0x1000);
        assert_eq!(caps[1].read::<DmaAvailCap>(), Some(DmaAvailCap { avail: 0xffff }));
        assert_eq!(caps[2].read_list::<IovaRangeCap>().unwrap(), VTD);
        assert_eq!(caps[2].read::<DmaAvailCap>(), None, "another id");
    }
}

#[test]
fn recorded_region_is_read_and_written() {
    let bytes = hex(LINUX_MSIX_BAR);
    let info: RegionInfo = read_prefix(&bytes).unwrap();
    let caps: Vec<Cap> = Caps::new(&bytes, info.cap_offset).map(Result::unwrap).collect();
    assert_eq!(caps, [Cap { id: 3, version: 1, offset: 32, body: &[] }]);
    assert_eq!(caps[0].read::<MsixMappableCap>(), Some(MsixMappableCap {}));

    let mut chain = CapChain::new(CapAlign::Eight);
    chain.push_cap(&MsixMappableCap {});
    assert_eq!(chain.emit(32), bytes[32..]);
}

#[test]
fn region_capabilities_round_trip() {
    let areas = [
        SparseMmapArea { offset: 0, size: 0x1000 },
        SparseMmapArea { offset: 0x3000, size: 0x1000 },
    ];
    let kind = RegionTypeCap { kind: 0x8000_8086, subtype: 1 };
    let mut chain = CapChain::new(CapAlign::Eight);
    chain.push_list::<SparseMmapCap>(&areas);
    chain.push_cap(&kind);
    let bytes = [vec![0; 32], chain.emit(32)].concat();
    let caps: Vec<Cap> = Caps::new(&bytes, 32).map(Result::unwrap).collect();
    assert_eq!(caps[0].read_list::<SparseMmapCap>().unwrap(), areas);
    assert_eq!(caps[1].read::<RegionTypeCap>(), Some(kind));
}

#[test]
fn no_capabilities() {
    assert_eq!(Caps::new(&[0; 32], 0).next(), None);
    let chain = CapChain::new(CapAlign::Eight);
    assert!(chain.is_empty() && chain.emit(24).is_empty());
}

/// A structure of 8 bytes, then headers of (id, next) right behind each other.
fn headers(entries: &[(u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    for (id, next) in entries {
        bytes.extend([id.to_le_bytes(), 1u16.to_le_bytes()].concat());
        bytes.extend(next.to_le_bytes());
    }
    bytes
}

/// The ids read, then the error that ended it.
fn outcome(bytes: &[u8], first: u32) -> (Vec<u16>, Option<ChainError>) {
    let mut caps = Caps::new(bytes, first);
    let (mut ids, mut error) = (vec![], None);
    for cap in &mut caps {
        match cap {
            Ok(cap) => ids.push(cap.id),
            Err(why) => assert_eq!(error.replace(why), None, "one error at most"),
        }
    }
    assert_eq!(caps.next(), None, "fused");
    (ids, error)
}

#[test]
fn truncated_chains() {
    let bytes = headers(&[(1, 16), (2, 24)]);
    let truncated = |offset| Some(ChainError::Truncated { offset });
    assert_eq!(outcome(&bytes, 8), (vec![1, 2], truncated(24)), "next is just past the end");
    assert_eq!(outcome(&bytes[..23], 8), (vec![1], truncated(16)), "half a header");
    assert_eq!(outcome(&bytes[..8], 8), (vec![], truncated(8)), "no header");
    assert_eq!(outcome(&bytes, u32::MAX), (vec![], truncated(u32::MAX as usize)));
    assert_eq!(outcome(&headers(&[(1, u32::MAX)]), 8).1, truncated(u32::MAX as usize));
    assert_eq!(outcome(&[], 1), (vec![], truncated(1)));
}

#[test]
fn looping_chains() {
    let backward = |from, to| Some(ChainError::Backward { from, to });
    assert_eq!(outcome(&headers(&[(1, 8)]), 8), (vec![], backward(8, 8)), "onto itself");
    assert_eq!(outcome(&headers(&[(1, 16), (2, 8)]), 8), (vec![1], backward(16, 8)), "a circle");
    assert_eq!(outcome(&headers(&[(1, 15), (2, 0)]), 8), (vec![], backward(8, 15)), "into itself");
    assert_eq!(outcome(&headers(&[(1, 1)]), 8), (vec![], backward(8, 1)), "before the chain");
}

#[test]
fn lists_announcing_more_than_there_is() {
    for count in [3, u32::MAX] {
        let mut body = [count.to_le_bytes(), [0; 4]].concat();
        body.extend(VTD.as_bytes());
        let mut chain = CapChain::new(CapAlign::Eight);
        chain.push(IovaRangeCap::ID, 1, &body);
        let bytes = [vec![0; 24], chain.emit(24)].concat();
        let cap = Caps::new(&bytes, 24).next().unwrap().unwrap();
        assert_eq!(cap.read::<IovaRangeCap>().unwrap().nr_iovas, count);
        assert_eq!(cap.read_list::<IovaRangeCap>(), None);
    }
}

#[test]
fn errors_are_sentences() {
    let (_, error) = outcome(&headers(&[(1, 8)]), 8);
    assert_eq!(error.unwrap().to_string(), "the capability at 8 points back to 8");
    let (_, error) = outcome(&[], 24);
    assert_eq!(error.unwrap().to_string(), "the capability at 24 is not wholly inside the buffer");
}

fn aligns() -> impl Strategy<Value = CapAlign> {
    prop_oneof![Just(CapAlign::None), Just(CapAlign::Eight)]
}

proptest! {
    /// What is written is read back: ids, versions, bodies (padding follows), ascending offsets.
    #[test]
    fn chains_round_trip(
        align in aligns(),
        base in (1u32..8).prop_map(|words| words * 8),
        entries in vec((any::<u16>(), any::<u16>(), vec(any::<u8>(), 0..40), any::<bool>()), 0..12),
    ) {
        let mut chain = CapChain::new(align);
        for (id, version, body, aligned) in &entries {
            if *aligned {
                chain.align();
            }
            chain.push(*id, *version, body);
        }
        let emitted = chain.emit(base);
        prop_assert_eq!(emitted.len(), chain.len());
        prop_assert_eq!(chain.is_empty(), entries.is_empty());

        let bytes = [vec![0xaa; base as usize], emitted].concat();
        let first = if chain.is_empty() { 0 } else { base };
        let caps: Vec<Cap> = Caps::new(&bytes, first).map(Result::unwrap).collect();
        prop_assert_eq!(caps.len(), entries.len());
        let mut end = base as usize;
        for (cap, (id, version, body, aligned)) in caps.iter().zip(&entries) {
            prop_assert_eq!((cap.id, cap.version), (*id, *version));
            prop_assert!(cap.offset >= end);
            if *aligned || align == CapAlign::Eight {
                prop_assert_eq!(cap.offset % 8, 0);
            } else {
                prop_assert_eq!(cap.offset, end);
            }
            end = cap.offset + CAP_HEADER_SIZE + body.len();
            let (there, padding) = cap.body.split_at(body.len());
            prop_assert_eq!(there, &body[..]);
            prop_assert!(padding.len() < 8 && padding.iter().all(|byte| *byte == 0));
        }
    }

    /// No bytes make the reader panic, or take more steps than there are headers' worth of bytes.
    #[test]
    fn any_bytes_end(bytes in vec(any::<u8>(), 0..200), first in 0u32..210) {
        let steps = Caps::new(&bytes, first).count();
        prop_assert!(steps <= bytes.len() / CAP_HEADER_SIZE + 1);
    }

    /// The same where most links lead somewhere inside.
    #[test]
    fn any_links_end(links in vec((any::<u16>(), 0u32..200), 0..24), first in 0u32..200) {
        let bytes = headers(&links);
        let mut last = None;
        for cap in Caps::new(&bytes, first).filter_map(Result::ok) {
            prop_assert!(last.is_none_or(|last| last + CAP_HEADER_SIZE <= cap.offset));
            prop_assert!(cap.offset + CAP_HEADER_SIZE + cap.body.len() <= bytes.len());
            let _ = (cap.read_list::<IovaRangeCap>(), cap.read::<MigrationCap>());
            last = Some(cap.offset);
        }
    }
}
