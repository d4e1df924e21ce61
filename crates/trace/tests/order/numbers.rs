//! Requests by number: each descriptor's own, and those that it does not have.

use std::collections::BTreeMap;

use iommu::Dialect;
use uapi::ioctl::{Request, RequestKind};

use super::{refused_of, value};

const OPEN: &str = r#"{"built_in":"x86-intel"}
{"op":"open_container"}
{"op":"open_group"}
{"op":"set_container"}
{"op":"set_iommu"}
{"op":"get_device_fd"}
"#;

#[test]
fn every_number_has_the_checks_of_its_request() {
    let kinds =
        [("c0", RequestKind::Container), ("g0", RequestKind::Group), ("d0", RequestKind::Device)];
    for dialect in Dialect::ALL {
        for (fd, kind) in kinds {
            let numbers = 0x3b60..0x3b80;
            let requests: String = numbers.clone().map(|n| value(fd, n, 0)).collect();
            // The check that failed, by number; a request that was not refused has no argument.
            let mut failed = BTreeMap::new();
            for refused in refused_of(&[OPEN, &requests].concat(), dialect) {
                let rule = refused.checks.rules[refused.failed()].says;
                let cmd = refused.outcome.asked()["cmd"].as_u64().unwrap();
                failed.insert(u32::try_from(cmd).unwrap(), (rule, refused.checks.request));
            }
            for number in numbers {
                let name = Request::new(kind, number).name();
                match failed.get(&number) {
                    Some(("there is such a request", request)) => {
                        assert!(request.ends_with("ioctl"), "{number:#x} of {fd}: {request}");
                    }
                    Some((_, request)) => assert_eq!(Some(*request), name, "{number:#x} of {fd}"),
                    None => assert!(name.is_some(), "{number:#x} of {fd}"),
                }
            }
            assert!(failed.len() > 20, "{fd}: {failed:?}");
        }
    }
}
