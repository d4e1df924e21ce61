//! Doorbells, and what devices meet that is no memory.

use alloc::string::ToString;

use super::{AMD, ARM, ARM_TOO, Fixture, INTEL, PAGE, RW};
use crate::pool::Slot;
use crate::space::MapRequest;
use crate::{
    BindRefusal, Consumer, Event, FaultReason, IovaRange, LockBudget, MmId, Pool, Prot,
    Translation, Window,
};

#[test]
fn a_doorbell_page_is_bound_once_in_a_domain() {
    // #159, #160
    let mut f = Fixture::with(&[ARM, ARM_TOO]);
    assert_eq!(f.on(|s, env| s.bind_doorbell(ARM, env).map(|d| d.iova)), Ok(0x800_0040));
    assert_eq!(f.on(|s, env| s.bind_doorbell(ARM, env).map(|d| d.iova)), Ok(0x800_0040));
    assert_eq!(f.on(|s, env| s.bind_doorbell(ARM_TOO, env).map(|d| d.iova)), Ok(0x800_1040));
    let bound = |e: &&Event| matches!(e, Event::DoorbellBound { .. });
    assert_eq!(f.events.0.iter().filter(bound).count(), 2);
    // Both groups reach both: page tables are the domain's.
    for group in [ARM, ARM_TOO] {
        let to = f.space.translate(group, 0x800_1040, Prot::WRITE);
        assert_eq!(to, Ok(Translation::Doorbell { address: 0x809_0040 }));
    }
    // A binding stays as long as its domain.
    f.detach(ARM_TOO);
    assert_eq!(f.space.domains()[0].pool().unwrap().bindings().count(), 2);
}

#[test]
fn where_interrupts_are_not_translated_the_doorbell_is_where_it_is() {
    let mut f = Fixture::with(&[INTEL]);
    assert_eq!(f.on(|s, env| s.bind_doorbell(INTEL, env).map(|d| d.iova)), Ok(0xfee0_0000));
    let to = f.space.translate(INTEL, 0xfee0_1000, Prot::WRITE);
    assert_eq!(to, Ok(Translation::Doorbell { address: 0xfee0_1000 }));
    let refusal = BindRefusal::NotAttached { group: ARM };
    assert_eq!(f.on(|s, env| s.bind_doorbell(ARM, env)), Err(refusal));
}

#[test]
fn a_window_has_an_end() {
    // #161: the kernel's allocator has none and goes on into the client's addresses.
    let range = IovaRange::sized(0x800_0000, 0x10_0000).unwrap();
    let mut pool = Pool::new(PAGE, Prot::WRITE);
    pool.add(Window { range, prot: RW, consumer: Consumer::MSI });
    for n in 0..256 {
        let slot = Slot { iova: 0x800_0000 + n * PAGE, references: 1 };
        assert_eq!(pool.bind(Consumer::MSI, n << 20), Ok(slot));
    }
    assert!(pool.bind(Consumer::MSI, 256 << 20).is_err());
}

#[test]
fn domains_that_share_a_pool_share_its_iovas() {
    // As iommufd does it (kernel-semantics 5.6): one doorbell, one IOVA in every domain.
    let range = IovaRange::sized(0x800_0000, 2 * PAGE).unwrap();
    let mut shared = Pool::new(PAGE, Prot::WRITE);
    shared.add(Window { range, prot: RW, consumer: Consumer::MSI });
    let mut installed = [alloc::vec![], alloc::vec![]];
    for (domain, doorbell) in [(0, 0x808_0000), (1, 0x809_0000), (1, 0x808_0000)] {
        installed[domain].push(shared.bind(Consumer::MSI, doorbell).unwrap().iova);
    }
    assert_eq!(installed, [alloc::vec![0x800_0000], alloc::vec![0x800_1000, 0x800_0000]]);
    assert_eq!(shared.resolve(0x800_1044), Some((Consumer::MSI, 0x809_0000)));
}

#[test]
fn a_write_only_mapping_can_be_read_where_page_tables_cannot_say_otherwise() {
    let mut f = Fixture::with(&[AMD, ARM]);
    let budget = LockBudget { mm: MmId(1), limit_pages: None };
    let range = IovaRange::sized(0x1000, PAGE).unwrap();
    let request = MapRequest { range, vaddr: 0, prot: Prot::WRITE, budget };
    f.on(|s, env| s.map(&request, env)).unwrap();
    f.space.translate(ARM, 0x1000, RW).unwrap();
    let fault = f.space.translate(AMD, 0x1000, RW).unwrap_err();
    assert_eq!(fault.reason, FaultReason::NotPermitted { prot: Prot::WRITE });
    assert_eq!(fault.to_string(), "write to 0x1000: the mapping is write-only");
}
