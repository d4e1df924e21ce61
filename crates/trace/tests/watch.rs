//! Whoever watches a replay is told what changed, and in whose address space.

use iommu::{Event, FaultReason, IovaRange};
use softvfio_trace::{Change, Options, Reader, Session, Step};
use vfio::{ContainerId, Refusal};

const SCRIPT: &str = r#"{"built_in":"arm-smmuv3-its","kernel":"6.12.1"}
{"op":"mem"}
{"op":"open_container","c":1}
{"op":"open_container","c":0}
{"op":"open_group","g":0,"dev":"edu"}
{"op":"set_container","g":0,"c":0}
{"op":"set_iommu","c":0,"type":"type1v2"}
{"op":"map","c":0,"iova":"0x10000","size":"0x1000","vaddr":"buf"}
{"op":"map","c":0,"iova":"0x8000000","size":"0x1000","vaddr":"buf"}
{"op":"get_device_fd","g":0,"d":0,"dev":"edu"}
{"op":"region_write","d":0,"region":"config","offset":4,"data":"0600"}
{"op":"edu_dma","d":0,"iova":"0x20000","size":4,"dir":"to_mem"}
{"op":"faults"}
{"op":"close","fd":"c0"}
{"op":"close","fd":"d0"}
{"op":"close","fd":"g0"}
"#;

#[test]
fn changes_name_their_container_and_refusals_are_values() {
    let mut session =
        Session::start(Reader::new(SCRIPT.as_bytes(), "s"), &Options::default()).unwrap();
    session.watch();
    let mut told: Vec<(u64, Change)> = Vec::new();
    let mut refused = Vec::new();
    while let Some(step) = session.step().unwrap() {
        let Step::Request(outcome) = step else { continue };
        told.extend(session.take_changes().map(|c| (outcome.request, c)));
        refused.extend(outcome.refusal.map(|r| (outcome.request, r)));
        if outcome.request == 7 {
            let container = session.container(ContainerId(1)).unwrap();
            assert_eq!(container.type1().unwrap().space().len(), 1);
        }
    }
    assert!(matches!(refused[..], [(8, Refusal::Map(_))]), "{refused:?}");
    let own = Some(ContainerId(1));
    let range = IovaRange::sized(0x10000, 0x1000).unwrap();
    let attached = Event::Attached { group: 1, merged: false };
    assert_eq!(told[0], (6, Change::Space { container: own, event: attached }));
    assert!(matches!(
        told[1],
        (7, Change::Space { container, event: Event::Mapped { range: r, .. } })
            if container == own && r == range
    ));
    assert!(
        told.iter().any(|(_, c)| matches!(c, Change::Fault { device, container, fault }
            if device == "edu" && *container == own
                && (fault.iova, fault.reason) == (0x20000, FaultReason::NotMapped))),
        "{told:?}"
    );
    let unmapped = Change::Space { container: own, event: Event::Unmapped { range } };
    assert!(told.contains(&(15, unmapped)), "{told:?}");
    assert!(session.take_changes().next().is_none());
}
