//! What the clients do.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a test client: every pointer is its mapping"
)]

use std::arch::asm;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::{null_mut, read_volatile, write_volatile};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::forms;
use super::model::{BASE, COMPUTE, DEAD, LOG, RAM, SIZE, STATUS, SUM, answer};

/// The registers, and the memory behind the first of them.
#[derive(Clone, Copy)]
pub(crate) struct Bars {
    pub(crate) trapped: *mut u8,
    pub(crate) memory: *mut u8,
}

unsafe impl Send for Bars {}
unsafe impl Sync for Bars {}

fn open() -> File {
    let path = std::env::var("TRAP_BARS").unwrap();
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

pub(crate) fn map(file: Option<&File>, offset: u64, len: u64, prot: i32) -> *mut u8 {
    let (kind, fd) = match file {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    let flags = kind | libc::MAP_32BIT;
    let at = unsafe { libc::mmap(null_mut(), len as usize, prot, flags, fd, offset as i64) };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    at.cast()
}

pub(crate) const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

impl Bars {
    fn open() -> Self {
        let file = open();
        Self { trapped: map(Some(&file), BASE, SIZE, RW), memory: map(Some(&file), 0, RAM, RW) }
    }

    fn at<T>(self, offset: u64) -> *mut T {
        self.trapped.wrapping_add(offset as usize).cast()
    }

    fn read(self, offset: u64) -> u32 {
        unsafe { read_volatile(self.at(offset)) }
    }

    fn write(self, offset: u64, value: u32) {
        unsafe { write_volatile(self.at(offset), value) }
    }

    /// Write, spin, read; how many answers were wrong.
    fn compute(self, rounds: u32) -> i32 {
        let mut wrong = 0;
        for x in 0..rounds {
            self.write(COMPUTE, x);
            while self.read(STATUS) != 0 {}
            wrong += i32::from(self.read(COMPUTE) != answer(x));
        }
        wrong
    }
}

pub(crate) fn main(name: &str) -> i32 {
    let bars = Bars::open();
    match name {
        "forms" => forms::run(bars),
        "widths" => widths(bars),
        "again" => bars.compute(500),
        "precision" => bars.compute(20_000),
        "threads" => threads(bars),
        "fork" => fork(bars),
        "ends" => ends(bars),
        "exec" => exec(bars),
        "alarm" => alarm(bars),
        "realbus" => realbus(bars),
        "remap" => remap(bars),
        "addresses" => addresses(bars),
        "blocked" => blocked(bars),
        "notified" => notified(bars),
        "loop" => endless(bars),
        "orphan" => orphan(bars),
        "cost" => cost(bars),
        _ => 99,
    }
}

/// Leaves a process whose first thread is gone.
fn orphan(bars: Bars) -> i32 {
    if unsafe { libc::fork() } == 0 {
        std::thread::spawn(move || {
            while std::fs::read_to_string("/proc/self/stat").is_ok_and(|s| !s.contains(") Z ")) {}
            std::process::exit(endless(bars))
        });
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    0
}

fn widths(bars: Bars) -> i32 {
    let log = bars.at::<u8>(LOG);
    unsafe {
        asm!(
            "mov byte ptr [rdi], 1",
            "mov word ptr [rdi + 2], 1",
            "mov dword ptr [rdi + 4], 1",
            "mov qword ptr [rdi + 8], 1",
            "mov eax, [rdi + 8]",
            "mov dword ptr [rdi + 0x11], eax",
            "movaps [rdi + 0x20], xmm0",
            "movups xmm0, [rdi + 0x20]",
            "mov rax, [rdi + 0xffe]",
            "lock or dword ptr [rdi + 0x30], 1",
            "test byte ptr [rdi + 0x34], 1",
            "add rdi, 0x40",
            "mov ecx, 3",
            "rep movsb",
            inout("rdi") log => _, inout("rsi") c"abc".as_ptr() => _,
            out("rax") _, out("rcx") _, out("xmm0") _,
        );
    }
    0
}

fn threads(bars: Bars) -> i32 {
    let counter: &AtomicU32 = unsafe { &*bars.at(0x100) };
    std::thread::scope(|scope| {
        for n in 0..8 {
            scope.spawn(move || {
                let own = 0x200 + 8 * n;
                for i in 0..2000 {
                    bars.write(SUM, 1);
                    counter.fetch_add(1, Ordering::SeqCst);
                    bars.write(own, i);
                    assert_eq!(bars.read(own), i);
                }
            });
        }
    });
    i32::from(counter.load(Ordering::SeqCst) != 8 * 2000 || bars.read(SUM) != 8 * 2000)
}

fn fork(bars: Bars) -> i32 {
    let children: Vec<_> = (0..8)
        .map(|_| match unsafe { libc::fork() } {
            0 => {
                (0..500).for_each(|_| bars.write(SUM, 1));
                unsafe { libc::_exit(3) }
            }
            child => child,
        })
        .collect();
    let mut bad = 0;
    for _ in 0..20 {
        bad += i32::from(!Command::new("true").status().unwrap().success());
    }
    for child in children {
        let mut status = 0;
        let reaped = unsafe { libc::waitpid(child, &mut status, 0) };
        bad += i32::from(reaped != child || libc::WEXITSTATUS(status) != 3);
    }
    bad
}

/// When a child's pidfd says that it has ended, its parent can wait for it. (Not so for one that is
/// killed in the middle of a stop: the kernel does not stop it again.)
fn ends(bars: Bars) -> i32 {
    let mut early = 0;
    for round in 0..300 {
        let child = unsafe { libc::fork() };
        if child == 0 {
            bars.write(SUM, 1);
            if round % 2 == 0 {
                unsafe { libc::_exit(0) };
            }
            std::process::abort();
        }
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) } as i32;
        let mut ready = libc::pollfd { fd: pidfd, events: libc::POLLIN, revents: 0 };
        unsafe { libc::poll(&mut ready, 1, -1) };
        early += i32::from(unsafe { libc::waitpid(child, null_mut(), libc::WNOHANG) } != child);
        unsafe { libc::close(pidfd) };
    }
    eprintln!("{early} of 300 could not be waited for");
    i32::from(early != 0)
}

/// The harness runs this on a thread that is not the first, and another one touches registers.
fn exec(bars: Bars) -> i32 {
    bars.write(SUM, 1);
    std::thread::spawn(move || {
        loop {
            bars.write(SUM, 1);
        }
    });
    std::thread::sleep(Duration::from_millis(20));
    let error = Command::new("/proc/self/exe")
        .args(["client", "--exact", "--nocapture", "--test-threads=1"])
        .env("TRAP_CLIENT", "again")
        .exec();
    panic!("{error}");
}

static TICKS: AtomicU64 = AtomicU64::new(0);
static FORGED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn tick(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if unsafe { (*info).si_code } == libc::SI_KERNEL {
        TICKS.fetch_add(1, Ordering::SeqCst);
    }
}

fn handle(signal: i32, handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)) {
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        assert_eq!(libc::sigaction(signal, &action, null_mut()), 0);
    }
}

fn alarm(bars: Bars) -> i32 {
    handle(libc::SIGALRM, tick);
    let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    unsafe {
        // libc has no setitimer for this target
        libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &timer, 0);
    }
    let wrong = bars.compute(10_000);
    let ticks = TICKS.load(Ordering::SeqCst);
    eprintln!("{ticks} alarms");
    wrong + i32::from(ticks < 10)
}

/// Where handled faults were; the handler puts memory there.
static FAULTS: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];
static SEEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn bus(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    unsafe {
        if (*info).si_code != libc::BUS_ADRERR {
            FORGED.store((*info).si_pid() as usize, Ordering::SeqCst);
            return;
        }
        let address = (*info).si_addr() as usize;
        FAULTS[SEEN.fetch_add(1, Ordering::SeqCst)].store(address, Ordering::SeqCst);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        libc::mmap((address & !0xfff) as *mut _, 4096, RW, flags, -1, 0);
    }
}

fn realbus(bars: Bars) -> i32 {
    handle(libc::SIGBUS, bus);
    let fd = unsafe { libc::memfd_create(c"other".as_ptr(), 0) };
    let other = unsafe { libc::mmap(null_mut(), 8192, RW, libc::MAP_SHARED, fd, 0) };
    let other = other.cast::<u32>();
    let dead = bars.at::<u32>(DEAD + 8);
    let unknown = [LOG + 0x1000, LOG + 0x2000].map(|at| bars.at::<u32>(at));
    unsafe {
        write_volatile(other.add(1), 5);
        write_volatile(dead, 6);
        for at in unknown {
            asm!("fld dword ptr [rdi]", "fstp st(0)", in("rdi") at);
        }
        libc::raise(libc::SIGBUS);
    }
    let expected = [other.wrapping_add(1), dead, unknown[0], unknown[1]];
    let seen = FAULTS.each_ref().map(|fault| fault.load(Ordering::SeqCst));
    assert_eq!(seen[..5], [&expected.map(|at| at as usize)[..], &[0]].concat());
    assert_eq!(FORGED.load(Ordering::SeqCst), std::process::id() as usize);
    // registers still answer
    bars.compute(10)
}

/// One address: registers, then another file beyond its end, then registers at another offset.
fn remap(bars: Bars) -> i32 {
    handle(libc::SIGBUS, bus);
    let file = open();
    let at = map(Some(&file), BASE, 4096, RW).cast::<u32>();
    let put = |fd, offset: u64| unsafe {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        assert_eq!(libc::mmap(at.cast(), 4096, RW, flags, fd, offset as i64), at.cast());
    };
    let other = unsafe { libc::memfd_create(c"other".as_ptr(), 0) };
    for round in 0..100 {
        put(file.as_raw_fd(), BASE + 0x1000 * u64::from(round % 4));
        unsafe { write_volatile(at.add(1), round) };
        let memory = bars.memory.wrapping_add(4 + 0x1000 * (round as usize % 4));
        assert_eq!(unsafe { read_volatile(memory.cast::<u32>()) }, round);
        put(other, 0);
        SEEN.store(0, Ordering::SeqCst);
        unsafe { write_volatile(at.add(1), !round) };
        assert_eq!(SEEN.load(Ordering::SeqCst), 1, "round {round}");
        assert_eq!(unsafe { read_volatile(memory.cast::<u32>()) }, round);
    }
    0
}

/// Relative to the instruction, and to the base of gs.
fn addresses(bars: Bars) -> i32 {
    bars.write(0x80, 0x1234_5678);
    let code = map(None, 0, 4096, RW | libc::PROT_EXEC);
    // mov eax, [rip + distance]; ret
    let distance = bars.at::<u8>(0x80) as i64 - (code as i64 + 6);
    let bytes = [&[0x8b, 0x05][..], &(distance as i32).to_le_bytes(), &[0xc3]].concat();
    let load = unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), code, bytes.len());
        std::mem::transmute::<*mut u8, extern "C" fn() -> u32>(code)
    };
    assert_eq!(load(), 0x1234_5678);
    const ARCH_SET_GS: i32 = 0x1001;
    let mut found: u32;
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, bars.at::<u8>(0x70)), 0);
        asm!("mov {0:e}, gs:[{1}]", out(reg) found, in(reg) 0x10_usize);
    }
    assert_eq!(found, 0x1234_5678);
    0
}

/// A thread that blocks all signals, as libraries do.
fn blocked(bars: Bars) -> i32 {
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        assert_eq!(libc::pthread_sigmask(libc::SIG_SETMASK, &all, null_mut()), 0);
    }
    bars.compute(100)
}

/// A thread's getppid is answered by another thread, between and during its accesses.
fn notified(bars: Bars) -> i32 {
    const ROUNDS: i64 = 1000;
    const NEW_LISTENER: u64 = 1 << 3;
    const RECV: u64 = 3 << 30 | 80 << 16 | (b'!' as u64) << 8;
    const SEND: u64 = 3 << 30 | 24 << 16 | (b'!' as u64) << 8 | 1;
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let listener: libc::c_long = receiver.recv().unwrap();
        for round in 0..ROUNDS {
            // id, tid, flags, seccomp_data
            let mut request = [0_u64; 10];
            assert_eq!(unsafe { libc::ioctl(listener as i32, RECV, &mut request) }, 0);
            bars.write(SUM, 1);
            // id, value, error and flags
            let mut answer = [request[0], 1000 + round as u64, 0];
            assert_eq!(unsafe { libc::ioctl(listener as i32, SEND, &mut answer) }, 0);
        }
    });
    let filter = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // if the system call's number is getppid's: notify; else: allow
    let filters = [
        filter(0x20, 0, 0, 0),
        filter(0x15, 0, 1, libc::SYS_getppid as u32),
        filter(0x06, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        filter(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filters.as_ptr().cast_mut() };
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        sender.send(libc::syscall(libc::SYS_seccomp, mode, NEW_LISTENER, &program)).unwrap();
    }
    let mut wrong = 0;
    for round in 0..ROUNDS {
        wrong += bars.compute(1);
        let answer = unsafe { libc::syscall(libc::SYS_getppid) };
        wrong += i32::from(answer != 1000 + round);
    }
    server.join().unwrap();
    wrong
}

fn endless(bars: Bars) -> i32 {
    for n in 0..3 {
        std::thread::spawn(move || {
            loop {
                bars.write(0x400 + 4 * n, 1);
            }
        });
    }
    println!("READY");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    0
}

fn cost(bars: Bars) -> i32 {
    if let Ok(core) = std::env::var("TRAP_CORE").unwrap().parse() {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
    let time = |name: &str, access: &dyn Fn()| {
        const ROUNDS: u32 = 500;
        (0..100).for_each(|_| access());
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| access());
        eprintln!("  {name}: {:.1} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    };
    time("a load", &|| _ = bars.read(SUM));
    time("a store", &|| bars.write(SUM, 1));
    time("a load of 16 bytes", &|| unsafe {
        asm!("movups xmm0, [rdi]", in("rdi") bars.at::<u8>(0), out("xmm0") _);
    });
    let mut buffer = [0_u8; 256];
    time("rep movsb of 256 bytes", &|| unsafe {
        asm!("rep movsb", inout("rcx") 256_usize => _, inout("rsi") bars.at::<u8>(0) => _,
            inout("rdi") buffer.as_ptr() => _);
    });
    std::hint::black_box(&mut buffer);
    0
}
