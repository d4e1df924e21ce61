//! Threads, children, and descriptors on their ways between them.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::raw::{self, EduRegisters, Vfio};

const PAGE: usize = 4096;

/// Plays a role of this file.
pub(super) fn run(role: &str) -> Option<()> {
    match role {
        "threads" => threads(),
        "dup" => dup(),
        "fork" => fork(),
        "passed" => passed(),
        "exec" => exec(),
        "after exec" => after_exec(),
        "child maps" => child_maps(),
        "private" => private(),
        "alarm" => alarm(),
        "buffers" => buffers(),
        "busy" => busy(),
        "last close" => last_close(),
        "reopen" => reopen(),
        "bad descriptors" => bad_descriptors(),
        "leader gone" => leader_gone(),
        "own table" => own_table(),
        _ => return None,
    }
    Some(())
}

/// What a descriptor of a container with an IOMMU is good for.
fn use_container(container: RawFd, iova: u64) {
    let memory = raw::memory(2 * PAGE, libc::MAP_PRIVATE);
    assert_eq!(raw::request(container, raw::CHECK_EXTENSION, 3), 1);
    assert_eq!(raw::map(container, memory, iova, 2 * PAGE as u64), 0);
    assert_eq!(raw::map(container, memory, iova, PAGE as u64), -i64::from(libc::EEXIST));
    assert_eq!(raw::unmap(container, iova, 2 * PAGE as u64), 2 * PAGE as i64);
    assert_eq!(raw::unmap(container, iova, 2 * PAGE as u64), 0);
    assert_eq!(unsafe { libc::munmap(memory.cast(), 2 * PAGE) }, 0);
}

/// In a child; its exit status is 0 unless it panics.
fn child(f: impl FnOnce()) -> i32 {
    match unsafe { libc::fork() } {
        0 => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        pid => pid,
    }
}

fn wait(pid: i32) {
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the child failed");
}

fn threads() {
    let vfio = Vfio::open();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let vfio = &vfio;
            scope.spawn(move || {
                for round in 0..60 {
                    use_container(vfio.container, (n + 1) << 20);
                    let mut id = [0; 4];
                    assert_eq!(raw::pread(vfio.edu, &mut id, raw::CONFIG), 4);
                    assert_eq!(id, [0x34, 0x12, 0xe8, 0x11], "round {round}");
                    assert_eq!(raw::device_info(vfio.nvme), 0);
                    assert_eq!(raw::request(vfio.container, 0x3bff, 0), -i64::from(libc::ENOTTY));
                }
            });
        }
        // Some fork meanwhile, with the descriptors.
        for n in 0..8 {
            wait(child(|| use_container(vfio.container, (100 + n) << 20)));
        }
    });
    vfio.close();
}

/// Whether descriptors of a thread can be told from its process' (Linux 6.9).
fn threads_have_descriptors() -> bool {
    let own = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), libc::O_EXCL) };
    if own < 0 {
        println!("skipped: no pidfd of a thread: {}", std::io::Error::last_os_error());
    } else {
        raw::close(own as RawFd);
    }
    own >= 0
}

/// The first thread ends, the others go on.
fn leader_gone() {
    if !threads_have_descriptors() {
        return;
    }
    wait(child(|| {
        let vfio = Vfio::open();
        std::thread::spawn(move || {
            let state = || std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
            while !state().contains(") Z ") {
                std::thread::yield_now();
            }
            let result = std::panic::catch_unwind(|| {
                use_container(vfio.container, 0x10_0000);
                assert_eq!(raw::device_info(vfio.edu), 0);
                let edu = EduRegisters::new(vfio.edu);
                let memory = raw::memory(PAGE, libc::MAP_PRIVATE);
                assert_eq!(raw::map(vfio.container, memory, 0x10_0000, PAGE as u64), 0);
                unsafe { memory.write_bytes(0x5a, 64) };
                edu.fetch(0x10_0000, 64);
                edu.store(0x10_0100, 64);
                let copy = unsafe { std::slice::from_raw_parts(memory.add(0x100), 64) };
                assert_eq!(copy, [0x5a; 64]);
                super::hardware::two_unmasks(vfio.edu);
            });
            unsafe { libc::_exit(i32::from(result.is_err())) }
        });
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }));
}

/// A thread that shares its memory, but not its descriptors.
fn own_table() {
    if !threads_have_descriptors() {
        return;
    }
    let vfio = Vfio::open();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            let moved = unsafe { libc::fcntl(vfio.container, libc::F_DUPFD_CLOEXEC, 100) };
            let null = raw::open("/dev/null");
            assert_eq!(unsafe { libc::dup2(null, vfio.container) }, vfio.container);
            use_container(moved, 0x10_0000);
            assert_eq!(raw::request(vfio.container, raw::API_VERSION, 0), -i64::from(libc::ENOTTY));
            super::hardware::two_unmasks(vfio.edu);
            raw::close(moved);
        });
        thread.join().unwrap();
    });
    use_container(vfio.container, 0x10_0000);
    vfio.close();
}

fn dup() {
    let vfio = Vfio::open();
    for to in 200..210 {
        assert_eq!(unsafe { libc::dup2(vfio.container, to) }, to);
        use_container(to, 0x10_0000);
        raw::close(to);
        // The same number is another file now.
        let null = raw::open("/dev/null");
        assert_eq!(unsafe { libc::dup2(null, to) }, to);
        assert_eq!(raw::request(to, raw::API_VERSION, 0), -i64::from(libc::ENOTTY));
        raw::close(null);
    }
    let other = unsafe { libc::fcntl(vfio.edu, libc::F_DUPFD_CLOEXEC, 300) };
    raw::close(vfio.edu);
    assert_eq!(raw::device_info(other), 0);
    assert_eq!(EduRegisters::new(other).read(0), 0x0100_00ed);
    Vfio { edu: other, ..vfio }.close();
}

fn fork() {
    let vfio = Vfio::open();
    wait(child(|| {
        use_container(vfio.container, 0x10_0000);
        assert_eq!(raw::device_info(vfio.edu), 0);
        // Its own child outlives it.
        child(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            use_container(vfio.container, 0x20_0000);
            std::fs::write(std::env::temp_dir().join("orphan"), "").unwrap();
        });
    }));
    let left = std::env::temp_dir().join("orphan");
    while std::fs::remove_file(&left).is_err() {
        use_container(vfio.container, 0x30_0000);
    }
    vfio.close();
}

fn passed() {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    // It has none of the descriptors when it begins.
    let other = child(|| {
        let [container, device] = receive(theirs.as_fd());
        use_container(container.as_raw_fd(), 0x10_0000);
        assert_eq!(raw::device_info(device.as_raw_fd()), 0);
        rustix::io::write(&theirs, b"1").unwrap();
        // They are all that is left of the session.
        rustix::io::read(&theirs, &mut [0; 1]).unwrap();
        use_container(container.as_raw_fd(), 0x10_0000);
        assert_eq!(EduRegisters::new(device.as_raw_fd()).read(0), 0x0100_00ed);
    });
    let vfio = Vfio::open();
    let fds = [vfio.container, vfio.edu].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = [std::io::IoSlice::new(b"2")];
    sendmsg(&ours, &bytes, &mut control, SendFlags::empty()).unwrap();
    rustix::io::read(&ours, &mut [0; 1]).unwrap();
    vfio.close();
    rustix::io::write(&ours, b"1").unwrap();
    wait(other);
    // And now it is free.
    Vfio::open().close();
}

fn receive(from: BorrowedFd<'_>) -> [OwnedFd; 2] {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [std::io::IoSliceMut::new(&mut byte)];
    recvmsg(from, &mut parts, &mut control, RecvFlags::empty()).unwrap();
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    rights.flatten().collect::<Vec<_>>().try_into().unwrap()
}

fn exec() {
    let vfio = Vfio::open();
    let memory = raw::memory(PAGE, libc::MAP_PRIVATE);
    assert_eq!(raw::map(vfio.container, memory, 0x10_0000, PAGE as u64), 0);
    let fds = [vfio.container, vfio.groups[0], vfio.groups[1], vfio.edu, vfio.nvme];
    for fd in fds {
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, 0);
    }
    let list = fds.map(|fd| fd.to_string()).join(" ");
    panic!("{}", super::becoming("after exec").env("SOFTVFIO_E2E_FDS", list).exec());
}

fn after_exec() {
    let list = std::env::var("SOFTVFIO_E2E_FDS").unwrap();
    let fds: Vec<RawFd> = list.split(' ').map(|fd| fd.parse().unwrap()).collect();
    let &[container, first, second, edu, nvme] = &*fds else { panic!("{list}") };
    // The memory went with the program; its mapping is still there.
    EduRegisters::new(edu).fetch(0x10_0000, 64);
    assert_eq!(
        raw::map(container, raw::memory(PAGE, libc::MAP_PRIVATE), 0x10_0000, PAGE as u64),
        -i64::from(libc::EEXIST)
    );
    assert_eq!(raw::unmap(container, 0x10_0000, PAGE as u64), PAGE as i64);
    use_container(container, 0x10_0000);
    round_trip(container, edu);
    Vfio { container, groups: [first, second], edu, nvme }.close();
    Vfio::open().close();
}

/// Memory goes through edu's buffer.
fn round_trip(container: RawFd, edu: RawFd) {
    let memory = raw::memory(PAGE, libc::MAP_PRIVATE);
    let bytes = unsafe { std::slice::from_raw_parts_mut(memory, PAGE) };
    assert_eq!(raw::map(container, memory, 0x40_0000, PAGE as u64), 0);
    bytes[..64].fill(0x5a);
    let registers = EduRegisters::new(edu);
    registers.fetch(0x40_0000, 64);
    registers.store(0x40_0000 + 1000, 64);
    assert_eq!(std::hint::black_box(&*bytes)[1000..1064], [0x5a; 64]);
    assert_eq!(raw::unmap(container, 0x40_0000, PAGE as u64), PAGE as i64);
}

fn child_maps() {
    let vfio = Vfio::open();
    let page = raw::memory(PAGE, libc::MAP_PRIVATE);
    let flag = raw::memory(PAGE, libc::MAP_SHARED);
    unsafe { page.write_bytes(b'P', PAGE) };
    let (container, edu) = (vfio.container, EduRegisters::new(vfio.edu));
    let stop = unsafe { &*flag.cast::<AtomicU64>() };
    let mapper = child(|| {
        // The same address, other bytes.
        unsafe { page.write_bytes(b'C', PAGE) };
        assert_eq!(raw::map(container, page, 0x10_0000, PAGE as u64), 0);
        stop.store(1, Ordering::SeqCst);
        while stop.load(Ordering::SeqCst) == 1 {
            std::thread::yield_now();
        }
        assert_eq!(unsafe { page.add(200).read_volatile() }, b'P');
    });
    while stop.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(raw::map(container, page, 0x20_0000, PAGE as u64), 0);
    edu.fetch(0x10_0000, 64);
    edu.store(0x20_0000 + 100, 64);
    edu.fetch(0x20_0000, 64);
    edu.store(0x10_0000 + 200, 64);
    assert_eq!(unsafe { page.add(100).read_volatile() }, b'C');
    assert_eq!(unsafe { page.add(200).read_volatile() }, b'P');
    stop.store(2, Ordering::SeqCst);
    wait(mapper);
    // The mapper is gone. Its mapping stays until it is removed, and is nobody else's memory.
    edu.store(0x10_0000 + 300, 64);
    assert_eq!(unsafe { page.add(300).read_volatile() }, b'P');
    assert_eq!(raw::unmap(container, 0x10_0000, PAGE as u64), PAGE as i64);
    assert_eq!(raw::unmap(container, 0x20_0000, PAGE as u64), PAGE as i64);
    vfio.close();
}

fn private() {
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }, 0);
    let vfio = Vfio::open();
    use_container(vfio.container, 0x10_0000);
    round_trip(vfio.container, vfio.edu);
    // getppid is refused from now on; all else is as before.
    let filter = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filters = [
        filter(0x20, 0, 0, 0),
        filter(0x15, 0, 1, libc::SYS_getppid as u32),
        filter(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EXDEV as u32),
        filter(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filters.as_ptr().cast_mut() };
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        assert_eq!(libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program), 0);
        assert_eq!(libc::syscall(libc::SYS_getppid), -1);
        assert_eq!(raw::errno(), libc::EXDEV);
    }
    use_container(vfio.container, 0x10_0000);
    round_trip(vfio.container, vfio.edu);
    vfio.close();
    Vfio::open().close();
}

static TICKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn tick(_: i32) {
    TICKS.fetch_add(1, Ordering::Relaxed);
}

fn alarm() {
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = tick as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, null_mut()), 0);
    }
    let vfio = Vfio::open();
    let every = libc::timeval { tv_sec: 0, tv_usec: 100 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    let set = |timer: &libc::itimerval| unsafe {
        libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, timer, 0)
    };
    // On this thread: others of this process belong to the test harness.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &signals, null_mut());
    }
    assert_eq!(set(&timer), 0);
    let memory = raw::memory(PAGE, libc::MAP_PRIVATE);
    let mut interrupted = 0;
    // EINTR is before the request has had any effect.
    let mut again = |f: &dyn Fn() -> i64| loop {
        match f() {
            value if value == -i64::from(libc::EINTR) => interrupted += 1,
            value => break value,
        }
    };
    for _ in 0..1000 {
        assert_eq!(again(&|| raw::map(vfio.container, memory, 0x10_0000, PAGE as u64)), 0);
        assert_eq!(again(&|| raw::unmap(vfio.container, 0x10_0000, PAGE as u64)), PAGE as i64);
    }
    let stop = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: 0 },
    };
    assert_eq!(set(&stop), 0);
    println!("{} alarms, EINTR {interrupted} times", TICKS.load(Ordering::Relaxed));
    assert!(TICKS.load(Ordering::Relaxed) > 10);
    vfio.close();
}

fn buffers() {
    let vfio = Vfio::open();
    let mut whole = [0; 64];
    assert_eq!(raw::pread(vfio.nvme, &mut whole, raw::CONFIG), 64);
    let (mut first, mut second) = ([0; 5], [0; 11]);
    let parts = [
        libc::iovec { iov_base: first.as_mut_ptr().cast(), iov_len: 5 },
        libc::iovec { iov_base: null_mut(), iov_len: 0 },
        libc::iovec { iov_base: second.as_mut_ptr().cast(), iov_len: 11 },
    ];
    let at = raw::CONFIG.cast_signed();
    let plain = || unsafe { libc::preadv64(vfio.nvme, parts.as_ptr(), 3, at) };
    let flags = || unsafe { libc::preadv64v2(vfio.nvme, parts.as_ptr(), 3, at, 0) };
    for read in [&plain as &dyn Fn() -> isize, &flags] {
        assert_eq!(read(), 16);
    }
    assert_eq!([&first[..], &second[..]].concat(), whole[..16]);
    // The latency timer is to be written, and so is the interrupt line.
    let line = [0x77_u8];
    let parts = [libc::iovec { iov_base: line.as_ptr().cast_mut().cast(), iov_len: 1 }];
    assert_eq!(unsafe { libc::pwritev64(vfio.nvme, parts.as_ptr(), 1, at + 0x3c) }, 1);
    let mut read = [0];
    assert_eq!(raw::pread(vfio.nvme, &mut read, raw::CONFIG + 0x3c), 1);
    assert_eq!(read, line);
    let wrong = unsafe { libc::preadv64(vfio.nvme, parts.as_ptr(), 2000, at) };
    assert_eq!((wrong, raw::errno()), (-1, libc::EINVAL));
    let wrong = unsafe { libc::preadv64(vfio.nvme, std::ptr::dangling(), 2, at) };
    assert_eq!((wrong, raw::errno()), (-1, libc::EFAULT));
    vfio.close();
}

fn group_status(group: RawFd) -> i64 {
    let mut argument = 8_u64;
    let answer = raw::request(group, raw::GROUP_STATUS, (&raw mut argument) as u64);
    if answer == 0 { (argument >> 32).cast_signed() } else { answer }
}

fn busy() {
    let vfio = Vfio::open();
    // The kernel refuses the open; here it is the first request that is refused.
    let path = CString::new("/dev/vfio/1").unwrap();
    let second = unsafe { libc::open(path.as_ptr(), libc::O_RDWR) };
    if second >= 0 {
        assert_eq!(group_status(second), -i64::from(libc::EBUSY));
        raw::close(second);
    } else {
        assert_eq!(raw::errno(), libc::EBUSY);
    }
    assert_eq!(group_status(vfio.groups[0]), 3);
    vfio.close();
    let group = raw::open("/dev/vfio/1");
    assert_eq!(group_status(group), 1);
    raw::close(group);
}

fn last_close() {
    let vfio = Vfio::open();
    let memory = raw::memory(PAGE, libc::MAP_PRIVATE);
    assert_eq!(raw::map(vfio.container, memory, 0x10_0000, PAGE as u64), 0);
    let group = unsafe { libc::dup(vfio.groups[0]) };
    raw::close(vfio.groups[0]);
    assert_eq!(group_status(group), 3);
    // A device keeps its group, and the group its container, after their own descriptors.
    raw::close(group);
    raw::close(vfio.groups[1]);
    raw::close(vfio.container);
    let edu = EduRegisters::new(vfio.edu);
    unsafe { memory.write_bytes(7, 64) };
    edu.fetch(0x10_0000, 64);
    edu.store(0x10_0000 + 64, 64);
    assert_eq!(unsafe { memory.add(127).read_volatile() }, 7);
    let second = raw::open("/dev/vfio/1");
    assert_eq!(group_status(second), -i64::from(libc::EBUSY), "it is open still");
    raw::close(second);
    // So does a mapping of the device its device.
    raw::close(vfio.edu);
    let bar = unsafe {
        let at = raw::region(vfio.nvme, 0).cast_signed();
        libc::mmap(null_mut(), PAGE, libc::PROT_READ, libc::MAP_SHARED, vfio.nvme, at)
    };
    assert_ne!(bar, libc::MAP_FAILED);
    raw::close(vfio.nvme);
    let second = raw::open("/dev/vfio/2");
    assert_eq!(group_status(second), -i64::from(libc::EBUSY), "it is mapped still");
    raw::close(second);
    assert_eq!(unsafe { libc::munmap(bar, PAGE) }, 0);
    Vfio::open().close();
}

fn reopen() {
    for _ in 0..1000 {
        Vfio::open().close();
    }
}

fn bad_descriptors() {
    let group = raw::open("/dev/vfio/1");
    let null = raw::open("/dev/null");
    for fd in [-1, -100, -101, i32::MIN, 5000, i32::MAX] {
        let answer = raw::request(group, raw::SET_CONTAINER, (&raw const fd) as u64);
        assert_eq!(answer, -i64::from(libc::EBADF), "{fd}");
    }
    let answer = raw::request(group, raw::SET_CONTAINER, (&raw const null) as u64);
    assert_eq!(answer, -i64::from(libc::EBADFD));
    raw::close(group);
    let vfio = Vfio::open();
    // One vector of MSI with an eventfd; any negative number is none.
    for (fd, errno) in [(-2, 0), (i32::MIN, 0), (5000, libc::EBADF)] {
        let set = [24_i32, 4 | 32, 1, 0, 1, fd];
        let answer = raw::request(vfio.edu, raw::SET_IRQS, set.as_ptr() as u64);
        assert_eq!(answer, -i64::from(errno), "{fd}");
    }
    let set = [24, 4 | 32, 1, 0, 1, null];
    let answer = raw::request(vfio.edu, raw::SET_IRQS, set.as_ptr() as u64);
    assert_eq!(answer, -i64::from(libc::EINVAL));
    assert!(raw::request(-1, raw::API_VERSION, 0) == -i64::from(libc::EBADF));
    vfio.close();
}
