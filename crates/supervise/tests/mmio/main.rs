//! Trapped register pages, with real processes.
//!
//! Each test starts this binary again as a client, below a shell that is the client's real parent
//! and says how it ended. The client maps the model's file beyond its end and does as its name says
//! (`client.rs`); the model is in this process (`model.rs`).

#![allow(unsafe_code, reason = "clients touch device memory and run single instructions")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod client;
mod forms;
mod model;
mod session;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use model::{LOG, Model};
use session::{How, LIMIT, Session};

/// The client's side of every test.
#[test]
fn client() {
    if let Ok(name) = std::env::var("TRAP_CLIENT") {
        let code = client::main(&name);
        eprintln!("client {name}: {code}");
        std::process::exit(code);
    }
}

fn run(name: &str) -> Option<Arc<Model>> {
    let mut session = Session::start(name)?;
    assert_eq!(session.exit(), 0, "{name}");
    session.finished();
    Some(session.model())
}

#[test]
fn every_form_does_what_the_processor_does() {
    let Some(model) = run("forms") else { return };
    let accesses = model.accesses.load(Ordering::SeqCst);
    println!("{accesses} accesses");
    assert!(accesses > 4680);
}

#[test]
fn accesses_arrive_in_order_with_their_widths() {
    let Some(model) = run("widths") else { return };
    let log: Vec<_> = model.log.lock().unwrap().iter().map(|a| (a.0, a.1 - LOG, a.2)).collect();
    let expected = [
        (true, 0, 1),
        (true, 2, 2),
        (true, 4, 4),
        (true, 8, 8),
        (false, 8, 4),
        // a misaligned word: byte, word, byte
        (true, 0x11, 1),
        (true, 0x12, 2),
        (true, 0x14, 1),
        // 16 bytes
        (true, 0x20, 8),
        (true, 0x28, 8),
        (false, 0x20, 8),
        (false, 0x28, 8),
        // 8 bytes over a page's end, misaligned
        (false, 0xffe, 2),
        (false, 0x1000, 4),
        (false, 0x1004, 2),
        // read, modify, write
        (false, 0x30, 4),
        (true, 0x30, 4),
        // test
        (false, 0x34, 1),
        // rep movsb of 3
        (true, 0x40, 1),
        (true, 0x41, 1),
        (true, 0x42, 1),
    ];
    assert_eq!(log, expected);
}

#[test]
fn a_loop_of_write_spin_read_is_right() {
    run("precision");
}

#[test]
fn threads_hammer() {
    let Some(model) = run("threads") else { return };
    assert_eq!(model.sum.load(Ordering::SeqCst), 8 * 2000);
}

#[test]
fn children_and_spawned_programs() {
    let Some(model) = run("fork") else { return };
    assert_eq!(model.sum.load(Ordering::SeqCst), 8 * 500);
}

#[test]
fn the_end_of_a_child_is_seen_by_its_parent_at_once() {
    run("ends");
}

#[test]
fn a_thread_that_is_not_the_first_execs() {
    run("exec");
}

#[test]
fn a_storm_of_signals() {
    run("alarm");
}

#[test]
fn bus_errors_of_the_client_stay_its_own() {
    let Some(model) = run("realbus") else { return };
    let told = model.unsupported.lock().unwrap();
    // fld dword ptr [rdi], twice
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].bytes, [0xd9, 0x07]);
}

#[test]
fn a_file_that_is_mapped_where_another_was() {
    run("remap");
}

#[test]
fn addresses_relative_to_the_instruction_and_to_gs() {
    run("addresses");
}

#[test]
fn all_signals_blocked() {
    run("blocked");
}

#[test]
fn system_calls_are_answered_by_notification() {
    let Some(model) = run("notified") else { return };
    assert_eq!(model.sum.load(Ordering::SeqCst), 1000);
}

#[test]
fn stop_and_continue() {
    let Some(mut session) = Session::start("loop") else { return };
    session.expect("READY");
    let counter = session.counter();
    for signal in [libc::SIGSTOP, libc::SIGSTOP] {
        session.kill(signal);
        // a thread in the middle of an access looks stopped, too, until we have answered it
        let start = Instant::now();
        let (mut before, mut looks) = (counter(), 0);
        while looks < 5 {
            assert!(start.elapsed() < LIMIT, "it does not stop");
            sleep(Duration::from_millis(50));
            let now = counter();
            looks = if now == before && session.all_stopped() { looks + 1 } else { 0 };
            before = now;
        }
        session.kill(libc::SIGCONT);
        let start = Instant::now();
        while counter() == before {
            assert!(start.elapsed() < LIMIT, "it does not go on");
            sleep(Duration::from_millis(1));
        }
    }
    session.say("end");
    assert_eq!(session.exit(), 0);
    session.finished();
}

#[test]
fn traced_while_it_is_stopped() {
    let how = How { stopped: true, ..How::default() };
    let Some(mut session) = Session::start_as("again", how) else { return };
    assert_eq!(session.exit(), 0);
    session.finished();
}

#[test]
fn killed_in_the_middle() {
    let Some(mut session) = Session::start("loop") else { return };
    session.expect("READY");
    session.kill(libc::SIGKILL);
    assert_eq!(session.exit(), 128 + libc::SIGKILL);
    session.finished();
}

#[test]
fn a_dropped_tracer_kills() {
    let Some(mut session) = Session::start("loop") else { return };
    session.expect("READY");
    session.drop_tracer();
    assert_eq!(session.exit(), 128 + libc::SIGKILL);
}

#[test]
fn a_dropped_tracer_kills_what_has_lost_its_first_thread() {
    let Some(mut session) = Session::start("orphan") else { return };
    session.expect("READY");
    // The model counts as long as it lives.
    session.drop_tracer();
    let counter = session.counter();
    let start = Instant::now();
    let mut before = counter();
    loop {
        sleep(Duration::from_millis(100));
        let now = counter();
        if now == before {
            break;
        }
        assert!(start.elapsed() < LIMIT, "it goes on");
        before = now;
    }
}

#[test]
fn a_child_of_ours_is_refused() {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let model = Arc::new(Model::new());
    let error = softvfio_supervise::mmio::Tracer::start(pid, model).unwrap_err();
    assert!(matches!(error, softvfio_supervise::mmio::Error::OwnChild(_)), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn cost() {
    let pinned = |tracer_core, client_core| {
        Session::start_as("cost", How { tracer_core, client_core, ..How::default() })
    };
    for (name, start) in [
        ("the same core", &(|| pinned(Some(0), Some(0))) as &dyn Fn() -> Option<Session>),
        ("different cores", &|| pinned(Some(0), Some(1))),
        ("any core", &|| pinned(None, None)),
    ] {
        let Some(mut session) = start() else { return };
        println!("tracer and client on {name}:");
        assert_eq!(session.exit(), 0);
    }
}
