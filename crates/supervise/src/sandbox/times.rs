//! Where the time of a start goes.
//!
//! `cargo test --release -p softvfio-supervise --lib times -- --nocapture`; the whole of
//! it, beside a plain start: `cargo run --release -p softvfio-supervise --example within -- --rounds
//! 20 true`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{WaitOptions, waitpid};

use super::additions::additions;
use super::launch::{facts, may_mount, staging};
use super::overlay::{ThisHost, plan};
use super::script::Step;
use super::tree::{SysFunction, SysGroup, Tree};
use super::{filter, host};
use crate::sys::{filter::install, process};

#[test]
fn times() {
    let tree = Tree {
        functions: vec![SysFunction::new("0000:01:00.0", 17, vec![0; 256])],
        groups: vec![SysGroup { number: 17, kind: "DMA".into(), ..SysGroup::default() }],
        ..Tree::default()
    };
    let mut lap = laps();
    let added = additions(&tree, &facts(&ThisHost));
    lap("what is added");
    let script = plan(&added, &staging().unwrap(), &ThisHost).unwrap();
    lap("listing the host, planning");
    let program = filter::program(filter::Filter::default());
    lap("the filter's program");
    let maps = super::launch::id_maps(false).unwrap();
    let begin = Instant::now();
    let pid = process::fork(|| {
        // Allocates, prints: good enough for one thread of a test.
        println!("{:>9.1?}  fork", begin.elapsed());
        let mut lap = laps();
        if !may_mount() {
            process::unshare(libc::CLONE_NEWUSER).unwrap();
            process::write_once(c"/proc/self/setgroups", b"deny").unwrap();
            process::write_once(c"/proc/self/uid_map", maps[0].as_bytes()).unwrap();
            process::write_once(c"/proc/self/gid_map", maps[1].as_bytes()).unwrap();
            lap("user namespace");
        }
        process::unshare(libc::CLONE_NEWNS).unwrap();
        lap("mount namespace");
        let mut kinds: BTreeMap<&str, (u32, Duration)> = BTreeMap::new();
        for step in &script.steps {
            let begin = Instant::now();
            step.run().unwrap();
            let slot = kinds.entry(kind(step)).or_default();
            slot.0 += 1;
            slot.1 += begin.elapsed();
        }
        for (kind, (count, time)) in &kinds {
            println!("{time:>9.1?}  {count} x {kind}");
        }
        lap("all of the tree");
        let listener = install(&program).unwrap();
        lap("filter");
        drop(listener);
        0
    })
    .unwrap();
    waitpid(Some(pid), WaitOptions::empty()).unwrap();
    println!("{:>9.1?}  fork to the end of the child", begin.elapsed());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let uid = host::status("Uid").unwrap_or_default();
    println!("uid {uid}; {mounts} mounts on this host; {} steps", script.steps.len());
    assert!(Path::new("/sys/bus").exists());
}

fn laps() -> impl FnMut(&str) {
    let mut last = Instant::now();
    move |what| {
        println!("{:>9.1?}  {what}", last.elapsed());
        last = Instant::now();
    }
}

fn kind(step: &Step) -> &'static str {
    match step {
        Step::Private => "all mounts private",
        Step::Tmpfs(_) => "tmpfs",
        Step::Mkdir(_) => "directory",
        Step::File { .. } => "file",
        Step::Symlink { .. } => "link",
        Step::BindSelf(_) => "directory made a mount",
        Step::BindDir { .. } => "host's directory",
        Step::BindFile { .. } => "host's file",
        Step::Move { .. } => "move into place",
    }
}
