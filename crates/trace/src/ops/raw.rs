//! Any request number on any descriptor.

use uapi::Errno;

use super::arg::size;
use super::{Answer, Arg, Done, Failure, Op, Sys};
use crate::process::ARENA;
use crate::request::low32;

pub(super) fn ioctl(op: &mut Op<'_>) -> Done {
    let word = op.request.text_or("fd", "c0")?;
    let fd = *op.any_fd("fd", &word)?;
    let request = low32(op.request.number("cmd", 0)?);
    let Some(data) = op.request.bytes("data", usize::try_from(ARENA).unwrap_or(0))? else {
        let value = op.request.number("value", 0)?;
        return Ok(Answer::of(&issue(op, fd, request, value)));
    };
    let arg = Arg::new(op)?;
    op.world.process.store(arg.at, &data)?;
    let result = issue(op, fd, request, arg.at);
    let mut answer = Answer::of(&result);
    let shown = size(op.request, "out", data.len() as u64, ARENA)?;
    answer.put_bytes("data", &arg.bytes(op, 0, shown)?);
    Ok(answer)
}

/// Issues a request, past what the kernel answers for every file.
fn issue(op: &mut Op<'_>, fd: i32, request: u32, value: u64) -> Sys {
    op.world.note_decoding();
    if op.world.process.file(fd).is_some() {
        if let Some(answer) = any_file(op, request, value) {
            return answer;
        }
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
