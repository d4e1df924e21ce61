//! Built-in hosts: headers that describe machines, by name. Their sources are in `docs/hosts.md`.

use serde_json::{Map, Value};

use crate::machine::BadHeader;

/// Names and headers.
const HOSTS: &[(&str, &str)] = &[
    ("x86-intel", include_str!("../data/hosts/x86-intel.json")),
    ("x86-intel-39bit", include_str!("../data/hosts/x86-intel-39bit.json")),
    ("x86-amd", include_str!("../data/hosts/x86-amd.json")),
    ("arm-smmuv3-its", include_str!("../data/hosts/arm-smmuv3-its.json")),
    ("arm-smmuv3-gicv2m", include_str!("../data/hosts/arm-smmuv3-gicv2m.json")),
    ("arm-smmuv3-its-user", include_str!("../data/hosts/arm-smmuv3-its-user.json")),
    ("arm-two-its-user", include_str!("../data/hosts/arm-two-its-user.json")),
    ("virtio-iommu", include_str!("../data/hosts/virtio-iommu.json")),
    ("virtio-iommu-sw-msi", include_str!("../data/hosts/virtio-iommu-sw-msi.json")),
    ("mixed", include_str!("../data/hosts/mixed.json")),
];

/// The names, and what each is in a sentence.
pub fn list() -> impl Iterator<Item = (&'static str, String)> {
    HOSTS.iter().map(|(name, _)| {
        let about = header(name).and_then(|h| h.get("about")?.as_str().map(str::to_owned));
        (*name, about.unwrap_or_default())
    })
}

/// The header of the host of that name, as a trace on it would have.
#[must_use]
pub fn header(name: &str) -> Option<Map<String, Value>> {
    let (_, text) = HOSTS.iter().find(|(known, _)| *known == name)?;
    // A test reads each.
    serde_json::from_str(text).ok()
}

/// The names, for a message.
#[must_use]
pub fn names() -> String {
    HOSTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// Takes what a header with a `built_in` leaves out from the built-in host of that name.
pub(crate) fn complete(members: &mut Map<String, Value>) -> Result<(), BadHeader> {
    let Some(name) = members.get("built_in") else { return Ok(()) };
    let Some(host) = name.as_str().and_then(header) else {
        let found: String = name.to_string().chars().take(40).collect();
        let expected = format!("built_in to be one of {}, found {found}", names());
        return Err(BadHeader { member: "built_in".into(), expected });
    };
    for (name, value) in host {
        members.entry(name).or_insert(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Facts, Header, Machine};

    #[test]
    fn every_host_can_be_built() {
        for (name, about) in list() {
            assert!(about.len() > 20 && !about.ends_with('.'), "{name}: {about}");
            let header = Header::read(&header(name).unwrap()).unwrap();
            let machine = Machine::build(&header, &Facts::default(), None, None).unwrap();
            assert_eq!(machine.notes, [""; 0], "{name}");
            let named = |n: &str| machine.devices.iter().any(|d| d.name == n);
            assert!(named("edu") && named("edu2") && named("edu3") && named("test"), "{name}");
            let user = name.ends_with("user") || name == "mixed";
            assert_eq!(machine.abi == vfio::Abi::Reviewed, user, "{name}");
            let mut groups: Vec<u32> = machine.devices.iter().map(|d| d.group).collect();
            groups.sort_unstable();
            groups.dedup();
            assert_eq!(groups.len(), machine.devices.len(), "{name}");
        }
    }

    #[test]
    fn a_header_takes_from_its_built_in_host_what_it_leaves_out() {
        let mut members = Map::new();
        members.insert("built_in".into(), "x86-amd".into());
        members.insert("kernel".into(), "6.1.0".into());
        complete(&mut members).unwrap();
        assert_eq!(
            (&members["kernel"], &members["host"]["iommu"]),
            (&"6.1.0".into(), &"amd-vi".into())
        );
        members.insert("built_in".into(), "moon".into());
        assert!(complete(&mut members).unwrap_err().expected.contains("arm-two-its-user"));
    }
}
