//! What arithmetic does to the status flags (Intel SDM volume 1, 3.4.3, and each instruction's page).
//!
//! Flags that a processor leaves undefined get the value that AMD's and Intel's agree on where they
//! do: AF is cleared by logic.

use super::regs::mask;

pub(crate) const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
pub(crate) const ZF: u64 = 1 << 6;
pub(crate) const SF: u64 = 1 << 7;
pub(crate) const OF: u64 = 1 << 11;
/// String instructions go down.
pub(crate) const DF: u64 = 1 << 10;
const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// Two operands in, one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alu {
    Add,
    Adc,
    Sub,
    Sbb,
    And,
    Or,
    Xor,
}

/// One operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Inc,
    Dec,
    Neg,
    Not,
}

fn of_result(result: u64, size: usize) -> u64 {
    let mut flags = 0;
    if (result as u8).count_ones().is_multiple_of(2) {
        flags |= PF;
    }
    if result & mask(size) == 0 {
        flags |= ZF;
    }
    if sign(result, size) {
        flags |= SF;
    }
    flags
}

fn sign(value: u64, size: usize) -> bool {
    value >> (8 * size - 1) & 1 != 0
}

fn when(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}

fn add(a: u64, b: u64, carry: bool, size: usize) -> (u64, u64) {
    let wide = u128::from(a) + u128::from(b) + u128::from(carry);
    let result = wide as u64 & mask(size);
    let flags = of_result(result, size)
        | when(wide > u128::from(mask(size)), CF)
        | (a ^ b ^ result) & AF
        | when(sign((a ^ result) & (b ^ result), size), OF);
    (result, flags)
}

fn sub(a: u64, b: u64, borrow: bool, size: usize) -> (u64, u64) {
    let result = a.wrapping_sub(b).wrapping_sub(u64::from(borrow)) & mask(size);
    let flags = of_result(result, size)
        | when(u128::from(a) < u128::from(b) + u128::from(borrow), CF)
        | (a ^ b ^ result) & AF
        | when(sign((a ^ b) & (a ^ result), size), OF);
    (result, flags)
}

/// The result and all flags. Operands are `size` bytes; what is above is ignored.
pub(crate) fn alu(op: Alu, a: u64, b: u64, size: usize, flags: u64) -> (u64, u64) {
    let (a, b) = (a & mask(size), b & mask(size));
    let carry = flags & CF != 0;
    let logic = |result| (result, of_result(result, size));
    let (result, status) = match op {
        Alu::Add => add(a, b, false, size),
        Alu::Adc => add(a, b, carry, size),
        Alu::Sub => sub(a, b, false, size),
        Alu::Sbb => sub(a, b, carry, size),
        Alu::And => logic(a & b),
        Alu::Or => logic(a | b),
        Alu::Xor => logic(a ^ b),
    };
    (result, flags & !STATUS | status)
}

/// The result and all flags.
pub(crate) fn unary(op: Unary, a: u64, size: usize, flags: u64) -> (u64, u64) {
    let a = a & mask(size);
    let keep_carry =
        |(result, status): (u64, u64)| (result, flags & !(STATUS & !CF) | status & !CF);
    match op {
        Unary::Inc => keep_carry(add(a, 1, false, size)),
        Unary::Dec => keep_carry(sub(a, 1, false, size)),
        Unary::Neg => alu(Alu::Sub, 0, a, size, flags),
        Unary::Not => (!a & mask(size), flags),
    }
}

/// Whether a condition code's instruction acts.
pub(crate) fn holds(condition: iced_x86::ConditionCode, flags: u64) -> bool {
    use iced_x86::ConditionCode as C;
    let is = |flag| flags & flag != 0;
    match condition {
        C::None => true,
        C::o => is(OF),
        C::no => !is(OF),
        C::b => is(CF),
        C::ae => !is(CF),
        C::e => is(ZF),
        C::ne => !is(ZF),
        C::be => is(CF | ZF),
        C::a => !is(CF | ZF),
        C::s => is(SF),
        C::ns => !is(SF),
        C::p => is(PF),
        C::np => !is(PF),
        C::l => is(SF) != is(OF),
        C::ge => is(SF) == is(OF),
        C::le => is(ZF) || is(SF) != is(OF),
        C::g => !is(ZF) && is(SF) == is(OF),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_and_overflows() {
        assert_eq!(alu(Alu::Add, 0xff, 1, 1, 0), (0, CF | PF | AF | ZF));
        assert_eq!(alu(Alu::Add, 0x7f, 1, 1, 2), (0x80, 2 | AF | SF | OF));
        assert_eq!(alu(Alu::Adc, u64::MAX, 0, 8, CF), (0, CF | PF | AF | ZF));
        assert_eq!(alu(Alu::Sub, 0, 1, 4, 0), (0xffff_ffff, CF | PF | AF | SF));
        assert_eq!(alu(Alu::Sbb, 0, u64::MAX, 8, CF), (0, CF | PF | AF | ZF));
        assert_eq!(unary(Unary::Dec, 0x80, 1, CF), (0x7f, CF | OF | AF));
        assert_eq!(unary(Unary::Not, 0, 2, CF), (0xffff, CF));
        assert_eq!(unary(Unary::Neg, 0, 2, CF), (0, PF | ZF));
    }
}
