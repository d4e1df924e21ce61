//! Which calls come to the listener.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::AsFd;

use softvfio_supervise::sandbox::{Filter, Launch, LaunchError};

use super::{child, have, notifies, shell, start, tree};

#[test]
fn a_call_of_the_shell_does_not_come() {
    let tree = tree();
    let args = shell("stty -a < /dev/null; ls /dev/vfio; head -c 10 /dev/zero; true");
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let null = Some(null.as_fd());
    let launch =
        Launch { args: &args, stdio: [None, null, null], ..Launch::new(&tree, "sh".as_ref()) };
    let Some(mut launched) = start(&launch) else { return };
    assert!(!notifies(&mut launched));
}

#[test]
fn calls_that_concern_vfio_come_from_threads_and_children_too() {
    if !have("python3") {
        return;
    }
    let tree = tree();
    let open = "import os,fcntl,mmap,threading\nfd=os.open('/dev/vfio/vfio',os.O_RDWR)\n";
    let io_uring = "import ctypes\nl=ctypes.CDLL(None,use_errno=True)\n\
                    assert l.syscall(425,0,0)==-1 and ctypes.get_errno()==38\n";
    let strict = Filter { refuse_io_uring: true, ..Filter::default() };
    let no_mmap = Filter { mmap: false, ..Filter::default() };
    let map = "os.ftruncate(fd,2<<40)\nmmap.mmap(fd,4096,offset=1<<40)\n";
    let either = Filter::default();
    // ioctl(fd, 0x3b64, 0) as a 32-bit program makes it: push rbx, registers, int 0x80, pop rbx, ret.
    let int80 = "import ctypes\nm=mmap.mmap(-1,4096,prot=7)\n\
                 m.write(b'\\x53\\xb8\\x36\\0\\0\\0\\xbb'+fd.to_bytes(4,'little')\
                 +b'\\xb9\\x64\\x3b\\0\\0\\x31\\xd2\\xcd\\x80\\x5b\\xc3')\n\
                 ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()\n";
    for (code, filter, comes) in [
        ("fcntl.ioctl(fd,0x3b64)\n", either, true),
        ("os.pread(fd,4,1<<40)\n", either, true),
        ("os.pwrite(fd,b'x',7<<40)\n", either, true),
        ("os.preadv(fd,[bytearray(4)],1<<40)\n", either, true),
        ("os.pwritev(fd,[b'x'],1<<40)\n", either, true),
        (int80, either, true),
        (map, either, true),
        (map, no_mmap, false),
        ("threading.Thread(target=lambda: os.pread(fd,4,1<<40)).start()\n", either, true),
        ("os.fork() or fcntl.ioctl(fd,0x3b64)\nos.wait()\n", either, true),
        ("os.pread(fd,4,(1<<40)-1)\n", either, false),
        ("try: os.pread(fd,4,-1)\nexcept OSError: pass\n", either, false),
        ("try: fcntl.ioctl(fd,0x5401)\nexcept OSError: pass\n", either, false),
        (io_uring, strict, false),
    ] {
        let args = ["-c".into(), format!("{open}{code}").into()];
        // What is pending when we leave fails, and Python says so.
        let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
        let stdio = [None, None, comes.then_some(null.as_fd())];
        let launch =
            Launch { args: &args, filter, stdio, ..Launch::new(&tree, "python3".as_ref()) };
        let Some(mut launched) = start(&launch) else { return };
        assert_eq!(notifies(&mut launched), comes, "{code}");
        if !comes {
            assert!(launched.processes.wait().unwrap().success(), "{code}");
        }
    }
}

#[test]
fn a_world_within_a_world_is_refused() {
    let name = "calls::a_world_within_a_world_is_refused";
    let Some(mut inner) = child("SOFTVFIO_INNER", name) else {
        let tree = tree();
        match Launch::new(&tree, "true".as_ref()).start() {
            Err(LaunchError::Nested) => println!("refused"),
            other => println!("{other:?}"),
        }
        return;
    };
    let tree = tree();
    let args: Vec<OsString> = inner.get_args().map(ToOwned::to_owned).collect();
    let env: Vec<_> = std::env::vars_os().chain([("SOFTVFIO_INNER".into(), "1".into())]).collect();
    let (mut read, write) = std::io::pipe().unwrap();
    let program = std::env::current_exe().unwrap();
    let launch = Launch {
        args: &args,
        env: Some(&env),
        stdio: [None, Some(write.as_fd()), None],
        ..Launch::new(&tree, program.as_os_str())
    };
    inner.env_clear();
    let Some(mut launched) = start(&launch) else { return };
    drop(write);
    if launched.processes.go().is_err() {
        println!("skipped: this user cannot execute {}", program.display());
        return;
    }
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert!(text.contains("refused"), "{text}");
}
