//! String instructions: one element at a time, each an access of its own.
//!
//! A repeated one stops after [`MOST`] elements with the instruction pointer where it was and the
//! count registers telling how far it came; the client then traps again, and signals get a turn.

use iced_x86::Instruction;

use super::decode::Text;
use super::emulate::{Memory, Stop, load, store};
use super::flags::{self, Alu, DF, ZF};
use super::regs::{Regs, mask};

/// Elements per trap.
const MOST: usize = 1024;

/// Do a string instruction. `count`: the bytes of rcx that count, if it repeats.
pub(super) fn execute(
    instruction: &Instruction,
    op: Text,
    size: usize,
    count: Option<usize>,
    regs: &mut Regs,
    memory: &mut dyn Memory,
) -> Result<(), Stop> {
    let Some(width) = count else {
        element(instruction, op, size, regs, memory)?;
        regs.rip = instruction.next_ip();
        return Ok(());
    };
    for _ in 0..MOST {
        if regs.gpr[1] & mask(width) == 0 {
            regs.rip = instruction.next_ip();
            return Ok(());
        }
        element(instruction, op, size, regs, memory)?;
        let left = regs.gpr[1].wrapping_sub(1) & mask(width);
        regs.gpr[1] = left;
        let ended = match op {
            Text::Compare | Text::Scan => (regs.flags & ZF != 0) == instruction.has_repne_prefix(),
            _ => false,
        };
        if left == 0 || ended {
            regs.rip = instruction.next_ip();
            return Ok(());
        }
    }
    Ok(())
}

fn element(
    instruction: &Instruction,
    op: Text,
    size: usize,
    regs: &mut Regs,
    memory: &mut dyn Memory,
) -> Result<(), Stop> {
    let accumulator = regs.gpr[0] & mask(size);
    let mut after = *regs;
    let (source, target) = (address(instruction, regs, false), address(instruction, regs, true));
    match op {
        Text::Load => {
            let value = load(memory, source?, size)?;
            after.gpr[0] = match size {
                4 | 8 => value,
                _ => after.gpr[0] & !mask(size) | value,
            };
        }
        Text::Store => store(memory, target?, size, accumulator)?,
        Text::Move => {
            let target = target?;
            memory.check_store(target, size)?;
            let value = load(memory, source?, size)?;
            store(memory, target, size, value)?;
        }
        Text::Compare => {
            let a = load(memory, source?, size)?;
            let b = load(memory, target?, size)?;
            after.flags = flags::alu(Alu::Sub, a, b, size, regs.flags).1;
        }
        Text::Scan => {
            let b = load(memory, target?, size)?;
            after.flags = flags::alu(Alu::Sub, accumulator, b, size, regs.flags).1;
        }
    }
    let step = if regs.flags & DF != 0 { (size as u64).wrapping_neg() } else { size as u64 };
    for (is_target, register) in [(false, 6), (true, 7)] {
        if let Some((_, width)) = operand(instruction, is_target) {
            let moved = regs.gpr[register].wrapping_add(step);
            after.gpr[register] = moved & mask(width);
        }
    }
    *regs = after;
    Ok(())
}

/// The operand that rsi or rdi points to, and how wide the pointer is.
fn operand(instruction: &Instruction, is_target: bool) -> Option<(u32, usize)> {
    use iced_x86::OpKind as K;
    (0..instruction.op_count()).find_map(|operand| {
        let width = match (instruction.op_kind(operand), is_target) {
            (K::MemorySegRSI, false) | (K::MemoryESRDI, true) => 8,
            (K::MemorySegESI, false) | (K::MemoryESEDI, true) => 4,
            _ => return None,
        };
        Some((operand, width))
    })
}

fn address(instruction: &Instruction, regs: &Regs, is_target: bool) -> Result<u64, Stop> {
    let (operand, _) = operand(instruction, is_target).ok_or(Stop::Unsupported)?;
    instruction
        .virtual_address(operand, 0, |register, _, _| regs.address_part(register))
        .ok_or(Stop::Unsupported)
}
