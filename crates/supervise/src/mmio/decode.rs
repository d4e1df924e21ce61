//! What an instruction does to memory, in few words.
//!
//! Only instructions whose effect is known to the last flag are described; all others are
//! refused and the client gets its signal. 64-bit code only. Bytes come from a client: nothing panics.

use iced_x86::{
    ConditionCode, Decoder, DecoderOptions, EncodingKind, Instruction, Mnemonic, OpKind, Register,
};

use super::flags::{Alu, Unary};

/// The longest instruction.
pub(crate) const LONGEST: usize = 15;

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The instruction's memory operand.
    Memory,
    Register(Register),
    Immediate(u64),
}

/// How a moved value changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Widen {
    Zero,
    Sign,
    Swap,
}

/// What becomes of a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bit {
    Test,
    Set,
    Reset,
    Complement,
}

/// String instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Load,
    Store,
    Move,
    Compare,
    Scan,
}

/// What a vector load does to the rest of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Keep,
    /// Clear the rest of 128 bits, keep what is above.
    ZeroLow,
    Zero,
    /// From another register in 128 bits, clear what is above.
    From(usize),
}

/// An instruction's effect. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Cache control: nothing.
    Nothing,
    Move {
        to: Place,
        from: Place,
        to_size: usize,
        from_size: usize,
        how: Widen,
    },
    /// Reads in any case, writes its register in any case.
    MoveIf {
        to: Register,
        size: usize,
        condition: ConditionCode,
    },
    SetIf {
        condition: ConditionCode,
    },
    /// `keep`: the result is written; else only the flags.
    Alu {
        op: Alu,
        to: Place,
        from: Place,
        size: usize,
        keep: bool,
    },
    Unary {
        op: Unary,
        size: usize,
    },
    Bit {
        op: Bit,
        by: Place,
        size: usize,
    },
    Exchange {
        with: Register,
        size: usize,
    },
    CompareExchange {
        with: Register,
        size: usize,
    },
    ExchangeAdd {
        with: Register,
        size: usize,
    },
    Push {
        size: usize,
    },
    Pop {
        size: usize,
    },
    /// `count`: how many bytes of rcx count, with a repeat prefix.
    Text {
        op: Text,
        size: usize,
        count: Option<usize>,
    },
    /// 64 bytes from memory to where a register points.
    Block {
        to: Register,
    },
    VectorLoad {
        to: usize,
        at: usize,
        size: usize,
        rest: Rest,
    },
    VectorStore {
        from: usize,
        at: usize,
        size: usize,
    },
}

/// A described instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoded {
    pub(crate) op: Op,
    pub(crate) instruction: Instruction,
}

impl Decoded {
    /// Whether it touches vector registers.
    pub(crate) fn needs_vectors(&self) -> bool {
        matches!(self.op, Op::VectorLoad { .. } | Op::VectorStore { .. })
    }
}

/// Describe the instruction at `rip`. Refused, it is as many bytes as belong to it, or all if that
/// is not known.
pub(crate) fn decode(bytes: &[u8], rip: u64) -> Result<Decoded, &[u8]> {
    let instruction = Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return Err(bytes);
    }
    match describe(&instruction) {
        Some(op) => Ok(Decoded { op, instruction }),
        None => Err(bytes.get(..instruction.len()).unwrap_or(bytes)),
    }
}

fn describe(instruction: &Instruction) -> Option<Op> {
    match instruction.encoding() {
        EncodingKind::Legacy => text(instruction)
            .or_else(|| integer(instruction))
            .or_else(|| vector(instruction, false)),
        EncodingKind::VEX => vector(instruction, true),
        EncodingKind::EVEX if instruction.op_mask() == Register::None => vector(instruction, true),
        _ => None,
    }
}

fn place(i: &Instruction, operand: u32) -> Option<Place> {
    match i.op_kind(operand) {
        OpKind::Memory => Some(Place::Memory),
        OpKind::Register => {
            let register = i.op_register(operand);
            register.is_gpr().then_some(Place::Register(register))
        }
        _ => i.try_immediate(operand).ok().map(Place::Immediate),
    }
}

fn register(i: &Instruction, operand: u32) -> Option<Register> {
    match place(i, operand)? {
        Place::Register(register) => Some(register),
        _ => None,
    }
}

fn integer(i: &Instruction) -> Option<Op> {
    let is_memory = |operand| i.op_kind(operand) == OpKind::Memory;
    if !is_memory(0) && !is_memory(1) {
        return None;
    }
    let size = i.memory_size().size();
    let op = match i.mnemonic() {
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => return Some(Op::Nothing),
        Mnemonic::Mov | Mnemonic::Movnti | Mnemonic::Movdiri => moving(i, size, Widen::Zero)?,
        Mnemonic::Movdir64b => return Some(Op::Block { to: register(i, 0)? }),
        Mnemonic::Movzx => moving(i, size, Widen::Zero)?,
        Mnemonic::Movsx | Mnemonic::Movsxd => moving(i, size, Widen::Sign)?,
        Mnemonic::Movbe => moving(i, size, Widen::Swap)?,
        Mnemonic::Add => arithmetic(i, Alu::Add, size, true)?,
        Mnemonic::Adc => arithmetic(i, Alu::Adc, size, true)?,
        Mnemonic::Sub => arithmetic(i, Alu::Sub, size, true)?,
        Mnemonic::Sbb => arithmetic(i, Alu::Sbb, size, true)?,
        Mnemonic::And => arithmetic(i, Alu::And, size, true)?,
        Mnemonic::Or => arithmetic(i, Alu::Or, size, true)?,
        Mnemonic::Xor => arithmetic(i, Alu::Xor, size, true)?,
        Mnemonic::Cmp => arithmetic(i, Alu::Sub, size, false)?,
        Mnemonic::Test => arithmetic(i, Alu::And, size, false)?,
        Mnemonic::Inc => Op::Unary { op: Unary::Inc, size },
        Mnemonic::Dec => Op::Unary { op: Unary::Dec, size },
        Mnemonic::Neg => Op::Unary { op: Unary::Neg, size },
        Mnemonic::Not => Op::Unary { op: Unary::Not, size },
        Mnemonic::Bt => Op::Bit { op: Bit::Test, by: place(i, 1)?, size },
        Mnemonic::Bts => Op::Bit { op: Bit::Set, by: place(i, 1)?, size },
        Mnemonic::Btr => Op::Bit { op: Bit::Reset, by: place(i, 1)?, size },
        Mnemonic::Btc => Op::Bit { op: Bit::Complement, by: place(i, 1)?, size },
        Mnemonic::Xchg => {
            let with = register(i, if is_memory(0) { 1 } else { 0 })?;
            Op::Exchange { with, size }
        }
        Mnemonic::Cmpxchg => Op::CompareExchange { with: register(i, 1)?, size },
        Mnemonic::Xadd => Op::ExchangeAdd { with: register(i, 1)?, size },
        Mnemonic::Push => Op::Push { size },
        Mnemonic::Pop => Op::Pop { size },
        _ => match i.condition_code() {
            ConditionCode::None => return None,
            // setcc has one operand, cmovcc two; jumps have no memory operand
            condition if i.op_count() == 1 => Op::SetIf { condition },
            condition if i.op_count() == 2 && is_memory(1) => {
                Op::MoveIf { to: register(i, 0)?, size, condition }
            }
            _ => return None,
        },
    };
    matches!(size, 1 | 2 | 4 | 8).then_some(op)
}

fn moving(i: &Instruction, size: usize, how: Widen) -> Option<Op> {
    let (to, from) = (place(i, 0)?, place(i, 1)?);
    let to_size = match to {
        Place::Register(register) => register.size(),
        _ => size,
    };
    Some(Op::Move { to, from, to_size, from_size: size, how })
}

fn arithmetic(i: &Instruction, op: Alu, size: usize, keep: bool) -> Option<Op> {
    Some(Op::Alu { op, to: place(i, 0)?, from: place(i, 1)?, size, keep })
}

fn text(i: &Instruction) -> Option<Op> {
    if !i.is_string_instruction() {
        return None;
    }
    let op = match i.mnemonic() {
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => Text::Load,
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => Text::Store,
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => Text::Move,
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => Text::Compare,
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => Text::Scan,
        _ => return None,
    };
    let narrow = (0..i.op_count())
        .any(|operand| matches!(i.op_kind(operand), OpKind::MemorySegESI | OpKind::MemoryESEDI));
    let repeats = i.has_rep_prefix() || i.has_repne_prefix();
    let count = repeats.then_some(if narrow { 4 } else { 8 });
    Some(Op::Text { op, size: i.memory_size().size(), count })
}

/// A vector register's number.
fn vector_register(i: &Instruction, operand: u32) -> Option<usize> {
    let register = i.op_register(operand);
    (i.op_kind(operand) == OpKind::Register && register.is_vector_register())
        .then(|| register.number())
}

fn vector(i: &Instruction, vex: bool) -> Option<Op> {
    // how much of the register, and where: all that memory holds, the low part, the high part
    let (whole, at) = match i.mnemonic() {
        Mnemonic::Movaps | Mnemonic::Movups | Mnemonic::Movapd | Mnemonic::Movupd => (true, 0),
        Mnemonic::Movdqa | Mnemonic::Movdqu | Mnemonic::Lddqu | Mnemonic::Movntdqa => (true, 0),
        Mnemonic::Movntdq | Mnemonic::Movntps | Mnemonic::Movntpd => (true, 0),
        Mnemonic::Vmovaps | Mnemonic::Vmovups | Mnemonic::Vmovapd | Mnemonic::Vmovupd => (true, 0),
        Mnemonic::Vmovdqa | Mnemonic::Vmovdqu | Mnemonic::Vlddqu => (true, 0),
        Mnemonic::Vmovntdqa | Mnemonic::Vmovntdq | Mnemonic::Vmovntps => (true, 0),
        Mnemonic::Vmovntpd | Mnemonic::Vmovdqu8 | Mnemonic::Vmovdqu16 => (true, 0),
        Mnemonic::Vmovdqu32 | Mnemonic::Vmovdqu64 => (true, 0),
        Mnemonic::Vmovdqa32 | Mnemonic::Vmovdqa64 => (true, 0),
        Mnemonic::Movd | Mnemonic::Movq | Mnemonic::Movss | Mnemonic::Movsd => (true, 0),
        Mnemonic::Vmovd | Mnemonic::Vmovq | Mnemonic::Vmovss | Mnemonic::Vmovsd => (true, 0),
        Mnemonic::Movlps | Mnemonic::Movlpd | Mnemonic::Vmovlps | Mnemonic::Vmovlpd => (false, 0),
        Mnemonic::Movhps | Mnemonic::Movhpd | Mnemonic::Vmovhps | Mnemonic::Vmovhpd => (false, 8),
        _ => return None,
    };
    let size = i.memory_size().size();
    if !matches!(size, 4 | 8 | 16 | 32 | 64) {
        return None;
    }
    if i.op0_kind() == OpKind::Memory {
        return Some(Op::VectorStore { from: vector_register(i, 1)?, at, size });
    }
    let last = i.op_count().checked_sub(1)?;
    if i.op_kind(last) != OpKind::Memory {
        return None;
    }
    let rest = match (whole, vex) {
        (true, true) => Rest::Zero,
        (true, false) => Rest::ZeroLow,
        (false, true) => Rest::From(vector_register(i, 1)?),
        (false, false) => Rest::Keep,
    };
    Some(Op::VectorLoad { to: vector_register(i, 0)?, at, size, rest })
}
