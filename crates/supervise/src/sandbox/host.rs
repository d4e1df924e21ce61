//! What on this machine stands in the way of namespaces and filters, and the words that remove it.

use std::fs;

/// A number in `/proc/sys`, if it is there.
pub(super) fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?.trim().parse().ok()
}

/// Within a container, as far as one can tell.
pub(super) fn in_container() -> bool {
    ["/.dockerenv", "/run/.containerenv"].iter().any(|path| fs::exists(path).unwrap_or(false))
        || status("Seccomp").is_some_and(|mode| mode == "2")
}

/// A line of `/proc/self/status`.
pub(super) fn status(key: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.split(':').next() == Some(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The profile that lets one program make user namespaces with rights in them.
pub(super) fn apparmor_profile(program: &str) -> String {
    format!(
        "abi <abi/4.0>,\ninclude <tunables/global>\n\
         profile softvfio {program} flags=(unconfined) {{\n  userns,\n}}\n"
    )
}

const CONTAINER: &str = "In a container: docker run --security-opt seccomp=unconfined --security-opt \
                         apparmor=unconfined --cap-add SYS_ADMIN --cap-add SYS_PTRACE";

/// What keeps user namespaces away here.
pub(super) fn user_namespace_advice() -> String {
    if sysctl("user.max_user_namespaces") == Some(0) {
        return "None are allowed: sysctl -w user.max_user_namespaces=10000 (or run as root)"
            .into();
    }
    if sysctl("kernel.unprivileged_userns_clone") == Some(0) {
        return "They are kept for root: sysctl -w kernel.unprivileged_userns_clone=1 (or run as root)"
            .into();
    }
    if sysctl("kernel.apparmor_restrict_unprivileged_userns") == Some(1) {
        let program = std::env::current_exe().unwrap_or_default();
        return format!(
            "AppArmor restricts them: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run \
             as root, or put this into /etc/apparmor.d/softvfio and run apparmor_parser -r \
             /etc/apparmor.d/softvfio:\n{}",
            apparmor_profile(&program.to_string_lossy())
        );
    }
    if in_container() {
        return CONTAINER.into();
    }
    "The kernel needs CONFIG_USER_NS, and no policy against user namespaces; else run as root"
        .into()
}

/// What keeps mounts away here.
pub(super) fn mount_advice() -> String {
    if sysctl("user.max_mnt_namespaces") == Some(0) {
        return "None are allowed: sysctl -w user.max_mnt_namespaces=10000".into();
    }
    if sysctl("kernel.apparmor_restrict_unprivileged_userns") == Some(1) {
        return user_namespace_advice();
    }
    if in_container() {
        return CONTAINER.into();
    }
    "Mounting within a private namespace must be allowed: as root it needs CAP_SYS_ADMIN".into()
}

/// What keeps filters away here.
pub(super) fn filter_advice() -> String {
    if in_container() {
        return CONTAINER.into();
    }
    "The kernel needs CONFIG_SECCOMP_FILTER and version 5.0 or newer (5.19 for all of it)".into()
}
