//! Any request number on any descriptor.

use uapi::Errno;

use super::arg::size;
use super::{Answer, Arg, Done, Failure, Op, Stop, Sys};
use crate::request::low32;

/// Bytes of a structure.
const MAX_DATA: usize = 0x1000;

pub(super) fn ioctl(op: &mut Op<'_>) -> Done {
    let word = op.request.text_or("fd", "c0")?;
    let fd = *op.any_fd("fd", &word)?;
    let request = low32(op.request.number("cmd", 0)?);
    let Some(data) = op.request.bytes("data", MAX_DATA)? else {
        let value = op.request.number("value", 0)?;
        return Ok(Answer::of(&issue(op, fd, request, value)));
    };
    let arg = Arg::new(op)?;
    arg.put(op, 0, &data)?;
    let fds = fds(op)?;
    let place = op.request.number("fds_at", 8)?;
    let places = || (0..).map(|i: u64| place.wrapping_add(i * 4));
    let inside = |at: u64| at.checked_add(4).is_some_and(|end| end <= arg.room());
    for (at, fd) in places().zip(&fds) {
        if inside(at) {
            arg.put(op, at, &fd.to_le_bytes())?;
        }
    }
    let result = issue(op, fd, request, arg.passed);
    let mut answer = Answer::of(&result);
    let shown = size(op.request, "out", data.len() as u64, u64::MAX)?;
    let room = usize::try_from(arg.room()).unwrap_or(0);
    let mut bytes = arg.bytes(op, 0, shown.min(room))?;
    // Numbers of files are shown as the request had them before they were put in.
    for (at, _) in places().zip(&fds) {
        let range = usize::try_from(at).ok().and_then(|at| Some(at..at.checked_add(4)?));
        if let Some(range) = range.filter(|_| inside(at))
            && let (Some(to), Some(from)) = (bytes.get_mut(range.clone()), data.get(range))
        {
            to.copy_from_slice(from);
        }
    }
    answer.put_bytes("data", &bytes);
    Ok(answer)
}

/// The descriptors of `fds`.
fn fds(op: &mut Op<'_>) -> Result<Vec<i32>, Stop> {
    let Some(list) = op.request.list("fds")? else { return Ok(Vec::new()) };
    list.iter().map(|text| op.fd_of("fds", text)).collect()
}

/// Issues a request, past what the kernel answers for every file.
fn issue(op: &mut Op<'_>, fd: i32, request: u32, value: u64) -> Sys {
    op.world.note_decoding();
    if op.world.process.file(fd).is_some()
        && let Some(answer) = any_file(op, request, value)
    {
        return answer;
    }
    op.world.ioctl(fd, request, value)
}

/// Requests that the kernel answers before it asks the file (fs/ioctl.c), as far as they touch
/// nothing that requests here can see.
fn any_file(op: &mut Op<'_>, request: u32, value: u64) -> Option<Sys> {
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    const FIONBIO: u32 = 0x5421;
    const FIOASYNC: u32 = 0x5452;
    let mut word = [0; 4];
    match request {
        FIOCLEX | FIONCLEX => Some(Ok(0)),
        FIONBIO | FIOASYNC => Some(match op.world.process.load(value, &mut word) {
            Err(_) => Err(Failure::new(Errno::EFAULT, "the argument's memory is not accessible")),
            // No file of ours can be told to signal.
            Ok(()) if request == FIOASYNC && word != [0; 4] => {
                Err(Failure::new(Errno::ENOTTY, "the file cannot signal"))
            }
            Ok(()) => Ok(0),
        }),
        _ => None,
    }
}
