//! What people read: who reserves what on each platform, and lines that are no requests.

use softvfio_trace::{Options, Reader, Session, Step, Tally};

/// The outcomes of `lines` on a machine with one device, as (answer, why).
fn outcomes(header: &str, reserved: &str, lines: &str) -> (Vec<(String, String)>, Tally) {
    let text = format!(
        "{{{header},\"devices\":{{\"edu\":{{\"bdf\":\"0000:00:03.0\",\"group\":1,\
         \"driver\":\"vfio-pci\",\"reserved_regions\":[{reserved}],\
         \"resource\":[[\"0xfe400000\",\"0xfe4fffff\",\"0x40200\"]],\
         \"config\":\"3412e81103011000\",\"config_size\":256}}}}}}\n\
         {{\"op\":\"mem\"}}\n{{\"op\":\"module_param\",\"name\":\"allow_unsafe_interrupts\",\"value\":\"1\"}}\n\
         {{\"op\":\"open_container\"}}\n{{\"op\":\"open_group\"}}\n{{\"op\":\"set_container\"}}\n\
         {{\"op\":\"set_iommu\"}}\n{{\"op\":\"get_device_fd\"}}\n{lines}"
    );
    let mut session = Session::start(Reader::new(text.as_bytes(), "f"), &Options::default())
        .map_err(|e| e.to_string())
        .unwrap();
    let (mut found, mut tally) = (Vec::new(), Tally::default());
    while let Some(step) = session.step().unwrap() {
        if let Step::Request(outcome) = step {
            tally.add(&outcome);
            let got = outcome.got.to_string();
            found.push((got, outcome.why.clone().unwrap_or_default()));
        }
    }
    (found.split_off(7), tally)
}

#[test]
fn every_platform_says_who_reserves_what() {
    let cases = [
        ("x86-intel", "0xfee00000", "0xfeefffff", "msi", "the MSI range of the local APICs (msi)"),
        ("x86-virtio", "0xfee00000", "0xfeefffff", "msi", "the MSI range of the local APICs (msi)"),
        (
            "x86-amd",
            "0xfd00000000",
            "0xffffffffff",
            "reserved",
            "AMD's HyperTransport range (reserved)",
        ),
        (
            "x86-amd",
            "0xfd00000000",
            "0xfdffffffff",
            "reserved",
            "a range that AMD-Vi sets aside (reserved)",
        ),
        ("arm-smmuv3", "0x8000000", "0x80fffff", "msi", "the MSI window of the SMMU (sw-msi)"),
        ("arm-smmuv3-v2m", "0x8000000", "0x80fffff", "msi", "the MSI window of the SMMU (sw-msi)"),
        ("arm-virtio", "0x8090000", "0x809ffff", "msi", "the doorbell page of the ITS (msi)"),
        ("mine", "0xfee00000", "0xfeefffff", "msi", "the MSI range of the local APICs (msi)"),
    ];
    for (platform, first, last, kind, what) in cases {
        let header = format!("\"kernel\":\"6.12.1\",\"platform\":\"{platform}\"");
        let region = format!("[\"{first}\",\"{last}\",\"{kind}\"]");
        let map =
            format!("{{\"op\":\"map\",\"iova\":\"{first}\",\"size\":4096,\"vaddr\":\"buf\"}}");
        let (found, _) = outcomes(&header, &region, &map);
        let sentence = format!("{first}..={last} is {what}; nearest legal IOVA for 0x1000 bytes: ");
        assert!(found[0].1.starts_with(&sentence), "{platform}: {}", found[0].1);
    }
}

#[test]
fn an_answer_without_an_operation_counts_and_a_note_does_not() {
    let lines =
        "{\"want\":{\"ret\":0}}\n{\"op\":[],\"want\":{\"ret\":0}}\n{\"note\":\"n\"}\n{\"op\":[]}\n";
    let (found, tally) = outcomes("\"kernel\":\"6.12.1\"", "", lines);
    assert_eq!(tally.line(), "2 answers, 0 matched, 0 known deviations");
    assert!(found.iter().all(|(_, why)| why == "the line names no operation"));
}

#[test]
fn a_negative_position_is_refused_before_the_descriptor_is_looked_at() {
    let lines = "{\"op\":\"region_read\",\"d\":3,\"region\":\"bar0\",\"offset\":-1}\n\
                 {\"op\":\"region_read\",\"d\":3,\"region\":\"bar0\",\"offset\":0}";
    let (found, _) = outcomes("\"kernel\":\"6.12.1\"", "", lines);
    assert_eq!(found[0].0, r#"{"errno":"EINVAL"}"#);
    assert_eq!(found[1].0, r#"{"errno":"EBADF"}"#);
}

#[test]
fn a_refused_mapping_of_a_region_leaves_a_hole() {
    let lines = "{\"op\":\"mem\",\"name\":\"r\",\"kind\":\"region\",\"size\":4096,\"file_offset\":\"0x70000000000\"}\n\
                 {\"op\":\"mem_protect\",\"at\":\"r\"}\n\
                 {\"op\":\"mem\",\"name\":\"s\",\"kind\":\"region\",\"size\":4096,\"d\":5}\n\
                 {\"op\":\"mem_protect\",\"at\":\"s\"}";
    let (found, _) = outcomes("\"kernel\":\"6.12.1\"", "", lines);
    let answers: Vec<&str> = found.iter().map(|(got, _)| got.as_str()).collect();
    assert_eq!(
        answers,
        [r#"{"errno":"EINVAL"}"#, r#"{"errno":"ENOMEM"}"#, r#"{"errno":"EBADF"}"#, r#"{"ret":0}"#]
    );
}

#[test]
fn a_user_cannot_unbind_and_is_told_first_that_nothing_is_bound() {
    let lines = "{\"op\":\"unbind\",\"dev\":\"edu\"}\n{\"op\":\"setuid\"}\n{\"op\":\"unbind\",\"dev\":\"edu\"}";
    let header = "\"kernel\":\"6.12.1\"";
    let (found, _) = outcomes(header, "", &lines.replace("unbind", "locked_kb"));
    assert_eq!(found.len(), 3);
    let close = "{\"op\":\"close\",\"fd\":\"d0\"}\n{\"op\":\"close\",\"fd\":\"g0\"}\n";
    let (found, _) = outcomes(header, "", &format!("{close}{lines}"));
    assert_eq!((&*found[2].0, &*found[4].0), (r#"{"ret":0}"#, r#"{"errno":"ENOENT"}"#));
}
