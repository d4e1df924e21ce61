//! Which dialect a kernel speaks.

use iommu::Dialect;

/// The dialect of a kernel by its release (`6.12.107+deb13-amd64`), and whether it is that very
/// series and not just the nearest one we know. `None` when it is no release.
#[must_use]
pub fn dialect_of(release: &str) -> Option<(&'static Dialect, bool)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let major: u32 = parts.next()?.parse().ok()?;
    let minor: u32 = parts.next()?.parse().ok()?;
    let (name, exact) = match (major, minor) {
        (6, 1) => ("6.1", true),
        (6, 12) => ("6.12", true),
        (7, _) => ("7.3", true),
        (0..=5, _) | (6, 0..=6) => ("6.1", false),
        (6, _) => ("6.12", false),
        _ => ("7.3", false),
    };
    Dialect::named(name).map(|dialect| (dialect, exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_and_nearest() {
        let of = |release| dialect_of(release).map(|(d, exact)| (d.name, exact));
        assert_eq!(of("6.12.107+deb13-amd64"), Some(("6.12", true)));
        assert_eq!(of("6.1.0-56-amd64"), Some(("6.1", true)));
        assert_eq!(of("7.3.4+deb13-arm64"), Some(("7.3", true)));
        assert_eq!(of("7.0"), Some(("7.3", true)));
        assert_eq!(of("5.15.0"), Some(("6.1", false)));
        assert_eq!(of("6.8.0"), Some(("6.12", false)));
        assert_eq!(of("8.0"), Some(("7.3", false)));
        assert_eq!(of("linux"), None);
        assert_eq!(of(""), None);
    }
}
