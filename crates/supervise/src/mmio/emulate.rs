//! Doing what a described instruction does, against memory that is a trait.
//!
//! Memory comes first, registers last: an access that faults leaves the registers as they were,
//! except that a repeated string instruction keeps what it finished, as on a processor. The
//! instruction pointer moves on only when the whole instruction is done.

use iced_x86::Register;

use super::decode::{Bit, Decoded, Op, Place, Rest, Widen};
use super::flags::{self, Alu, CF};
use super::regs::{Regs, mask};
use super::text;
use super::vector::{Value, Vectors};

/// A client's memory, devices included.
pub(crate) trait Memory {
    /// Up to 64 bytes.
    fn load(&mut self, address: u64, data: &mut [u8]) -> Result<(), Stop>;
    /// Up to 64 bytes.
    fn store(&mut self, address: u64, data: &[u8]) -> Result<(), Stop>;
    /// Nothing happens unless a store there could: asked before a load with a store to follow.
    fn check_store(&mut self, address: u64, len: usize) -> Result<(), Stop>;
}

/// Why an instruction was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// An access has no answer: the client's signal is real.
    Fault,
    /// It is described, but not in this form.
    Unsupported,
}

/// Do one instruction. `vectors` is needed if the instruction says so.
pub(crate) fn execute(
    decoded: &Decoded,
    regs: &mut Regs,
    vectors: Option<&mut Vectors>,
    memory: &mut dyn Memory,
) -> Result<(), Stop> {
    if let Op::Text { op, size, count } = decoded.op {
        return text::execute(&decoded.instruction, op, size, count, regs, memory);
    }
    let mut after = *regs;
    after.rip = decoded.instruction.next_ip();
    let mut machine = Machine { decoded, regs: &mut after, memory };
    machine.run(vectors)?;
    *regs = after;
    Ok(())
}

/// The value of up to 8 bytes in memory.
pub(crate) fn load(memory: &mut dyn Memory, address: u64, size: usize) -> Result<u64, Stop> {
    let mut bytes = [0; 8];
    memory.load(address, bytes.get_mut(..size).ok_or(Stop::Unsupported)?)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Put the low `size` bytes of a value.
pub(crate) fn store(
    memory: &mut dyn Memory,
    address: u64,
    size: usize,
    value: u64,
) -> Result<(), Stop> {
    memory.store(address, value.to_le_bytes().get(..size).ok_or(Stop::Unsupported)?)
}

struct Machine<'a> {
    decoded: &'a Decoded,
    regs: &'a mut Regs,
    memory: &'a mut dyn Memory,
}

impl Machine<'_> {
    fn run(&mut self, vectors: Option<&mut Vectors>) -> Result<(), Stop> {
        match self.decoded.op {
            Op::Nothing | Op::Text { .. } => Ok(()),
            Op::Move { to, from, to_size, from_size, how } => {
                let value = self.get(from, from_size)?;
                self.put(to, to_size, widen(value, from_size, how))
            }
            Op::MoveIf { to, size, condition } => {
                let value = self.get(Place::Memory, size)?;
                let old = self.get(Place::Register(to), size)?;
                let acts = flags::holds(condition, self.regs.flags);
                self.put(Place::Register(to), size, if acts { value } else { old })
            }
            Op::SetIf { condition } => {
                let acts = flags::holds(condition, self.regs.flags);
                self.put(Place::Memory, 1, u64::from(acts))
            }
            Op::Alu { op, to, from, size, keep } => {
                if keep {
                    self.check_store(to, size)?;
                }
                let (a, b) = (self.get(to, size)?, self.get(from, size)?);
                let (result, flags) = flags::alu(op, a, b, size, self.regs.flags);
                if keep {
                    self.put(to, size, result)?;
                }
                self.regs.flags = flags;
                Ok(())
            }
            Op::Unary { op, size } => {
                self.check_store(Place::Memory, size)?;
                let value = self.get(Place::Memory, size)?;
                let (result, flags) = flags::unary(op, value, size, self.regs.flags);
                self.put(Place::Memory, size, result)?;
                self.regs.flags = flags;
                Ok(())
            }
            Op::Bit { op, by, size } => self.bit(op, by, size),
            Op::Exchange { with, size } => {
                self.check_store(Place::Memory, size)?;
                let old = self.get(Place::Memory, size)?;
                let new = self.get(Place::Register(with), size)?;
                self.put(Place::Memory, size, new)?;
                self.put(Place::Register(with), size, old)
            }
            Op::CompareExchange { with, size } => self.compare_exchange(with, size),
            Op::ExchangeAdd { with, size } => {
                self.check_store(Place::Memory, size)?;
                let old = self.get(Place::Memory, size)?;
                let by = self.get(Place::Register(with), size)?;
                let (sum, flags) = flags::alu(Alu::Add, old, by, size, self.regs.flags);
                self.put(Place::Memory, size, sum)?;
                self.put(Place::Register(with), size, old)?;
                self.regs.flags = flags;
                Ok(())
            }
            Op::Push { size } => {
                let rsp = self.regs.gpr[4].wrapping_sub(size as u64);
                self.memory.check_store(rsp, size)?;
                let value = self.get(Place::Memory, size)?;
                store(self.memory, rsp, size, value)?;
                self.regs.gpr[4] = rsp;
                Ok(())
            }
            Op::Pop { size } => {
                let rsp = self.regs.gpr[4];
                // an address that uses rsp uses what it is after the pop
                self.regs.gpr[4] = rsp.wrapping_add(size as u64);
                self.check_store(Place::Memory, size)?;
                let value = load(self.memory, rsp, size)?;
                self.put(Place::Memory, size, value)
            }
            Op::Block { to } => {
                let mut block = [0; 64];
                let from = self.address()?;
                let to = self.regs.get(to).ok_or(Stop::Unsupported)?;
                self.memory.check_store(to, block.len())?;
                self.memory.load(from, &mut block)?;
                self.memory.store(to, &block)
            }
            Op::VectorLoad { to, at, size, rest } => {
                let vectors = vectors.ok_or(Stop::Unsupported)?;
                self.vector_load(vectors, to, at, size, rest)
                    .and_then(|value| vectors.set(to, &value).ok_or(Stop::Unsupported))
            }
            Op::VectorStore { from, at, size } => {
                let value = vectors.and_then(|v| v.get(from)).ok_or(Stop::Unsupported)?;
                let data = value.get(at..at + size).ok_or(Stop::Unsupported)?;
                let address = self.address()?;
                self.memory.store(address, data)
            }
        }
    }

    /// Where the memory operand is.
    fn address(&self) -> Result<u64, Stop> {
        let i = &self.decoded.instruction;
        let operand = (0..i.op_count())
            .find(|operand| i.op_kind(*operand) == iced_x86::OpKind::Memory)
            .ok_or(Stop::Unsupported)?;
        let plain = i
            .virtual_address(operand, 0, |register, _, _| self.regs.address_part(register))
            .ok_or(Stop::Unsupported)?;
        Ok(plain)
    }

    fn check_store(&mut self, place: Place, size: usize) -> Result<(), Stop> {
        if place != Place::Memory {
            return Ok(());
        }
        let address = self.address()?;
        self.memory.check_store(address, size)
    }

    fn get(&mut self, place: Place, size: usize) -> Result<u64, Stop> {
        match place {
            Place::Memory => {
                let address = self.address()?;
                load(self.memory, address, size)
            }
            Place::Register(register) => self.regs.get(register).ok_or(Stop::Unsupported),
            Place::Immediate(value) => Ok(value & mask(size)),
        }
    }

    fn put(&mut self, place: Place, size: usize, value: u64) -> Result<(), Stop> {
        match place {
            Place::Memory => {
                let address = self.address()?;
                store(self.memory, address, size, value)
            }
            Place::Register(register) => self.regs.set(register, value).ok_or(Stop::Unsupported),
            Place::Immediate(_) => Err(Stop::Unsupported),
        }
    }

    /// A register counts bits from the address, both ways; an immediate stays in the operand.
    fn bit(&mut self, op: Bit, by: Place, size: usize) -> Result<(), Stop> {
        let bits = 8 * size as u64;
        let number = self.get(by, size)?;
        let mut address = self.address()?;
        if let Place::Register(_) = by {
            let signed = widen(number, size, Widen::Sign) as i64;
            let elements = signed.div_euclid(bits as i64);
            address = address.wrapping_add_signed(elements.wrapping_mul(size as i64));
        }
        let bit = 1 << (number % bits);
        if op != Bit::Test {
            self.memory.check_store(address, size)?;
        }
        let value = load(self.memory, address, size)?;
        let result = match op {
            Bit::Test => value,
            Bit::Set => value | bit,
            Bit::Reset => value & !bit,
            Bit::Complement => value ^ bit,
        };
        if op != Bit::Test {
            store(self.memory, address, size, result)?;
        }
        self.regs.flags = self.regs.flags & !CF | if value & bit != 0 { CF } else { 0 };
        Ok(())
    }

    /// The processor writes memory in both cases; a device sees the store of its own value, too.
    fn compare_exchange(&mut self, with: Register, size: usize) -> Result<(), Stop> {
        let accumulator = match size {
            1 => Register::AL,
            2 => Register::AX,
            4 => Register::EAX,
            _ => Register::RAX,
        };
        self.check_store(Place::Memory, size)?;
        let old = self.get(Place::Memory, size)?;
        let expected = self.get(Place::Register(accumulator), size)?;
        let new = self.get(Place::Register(with), size)?;
        let (_, flags) = flags::alu(Alu::Sub, expected, old, size, self.regs.flags);
        if old == expected {
            self.put(Place::Memory, size, new)?;
        } else {
            self.put(Place::Memory, size, old)?;
            self.put(Place::Register(accumulator), size, old)?;
        }
        self.regs.flags = flags;
        Ok(())
    }

    fn vector_load(
        &mut self,
        vectors: &Vectors,
        to: usize,
        at: usize,
        size: usize,
        rest: Rest,
    ) -> Result<Value, Stop> {
        let address = self.address()?;
        let old = vectors.get(to).ok_or(Stop::Unsupported)?;
        let mut value = match rest {
            Rest::Zero => [0; 64],
            Rest::Keep | Rest::ZeroLow => old,
            Rest::From(other) => vectors.get(other).ok_or(Stop::Unsupported)?,
        };
        let (low, high) = value.split_at_mut(16);
        match rest {
            Rest::ZeroLow => low.fill(0),
            Rest::From(_) => high.fill(0),
            Rest::Keep | Rest::Zero => {}
        }
        self.memory.load(address, value.get_mut(at..at + size).ok_or(Stop::Unsupported)?)?;
        Ok(value)
    }
}

/// A value of `size` bytes as 8.
fn widen(value: u64, size: usize, how: Widen) -> u64 {
    match how {
        Widen::Zero => value,
        Widen::Swap => value.swap_bytes() >> (64 - 8 * size.clamp(1, 8)),
        Widen::Sign => {
            let unused = 64 - 8 * size.clamp(1, 8);
            ((value << unused) as i64 >> unused) as u64
        }
    }
}

#[cfg(test)]
mod tests;
