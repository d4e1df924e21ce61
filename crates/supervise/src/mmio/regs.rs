//! A thread's general registers, by the names that instructions use.
//!
//! Writing follows the processor: 32 bits clear the upper half, 8 and 16 leave the rest.

use iced_x86::Register;
use libc::user_regs_struct;

/// General registers, flags, and the bases of the two segments that have one in 64-bit mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Regs {
    /// In the processor's order: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub(crate) gpr: [u64; 16],
    pub(crate) rip: u64,
    pub(crate) flags: u64,
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
}

impl Regs {
    /// From what ptrace returns.
    pub(crate) fn from_user(u: &user_regs_struct) -> Self {
        let gpr = [
            u.rax, u.rcx, u.rdx, u.rbx, u.rsp, u.rbp, u.rsi, u.rdi, u.r8, u.r9, u.r10, u.r11,
            u.r12, u.r13, u.r14, u.r15,
        ];
        Self { gpr, rip: u.rip, flags: u.eflags, fs_base: u.fs_base, gs_base: u.gs_base }
    }

    /// Into what ptrace takes. Segments are not changed.
    pub(crate) fn to_user(self, u: &mut user_regs_struct) {
        [
            u.rax, u.rcx, u.rdx, u.rbx, u.rsp, u.rbp, u.rsi, u.rdi, u.r8, u.r9, u.r10, u.r11,
            u.r12, u.r13, u.r14, u.r15,
        ] = self.gpr;
        u.rip = self.rip;
        u.eflags = self.flags;
    }

    /// A register's value, zero extended. None: not a general register.
    pub(crate) fn get(&self, register: Register) -> Option<u64> {
        let whole = *self.gpr.get(index(register)?)?;
        Some(if is_high(register) { whole >> 8 & 0xff } else { whole & mask(register.size()) })
    }

    /// Change a register. None: not a general register.
    pub(crate) fn set(&mut self, register: Register, value: u64) -> Option<()> {
        let whole = self.gpr.get_mut(index(register)?)?;
        let mask = mask(register.size());
        *whole = match register.size() {
            4 | 8 => value & mask,
            _ if is_high(register) => *whole & !0xff00 | (value & 0xff) << 8,
            _ => *whole & !mask | value & mask,
        };
        Some(())
    }

    /// What a register adds to an address: a general register's value or a segment's base.
    pub(crate) fn address_part(&self, register: Register) -> Option<u64> {
        match register {
            Register::ES | Register::CS | Register::SS | Register::DS => Some(0),
            Register::FS => Some(self.fs_base),
            Register::GS => Some(self.gs_base),
            Register::None => Some(0),
            _ => self.get(register),
        }
    }
}

/// All ones in the low `size` bytes.
pub(crate) fn mask(size: usize) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 }
}

fn index(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

fn is_high(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths() {
        let mut regs = Regs::default();
        regs.gpr[3] = 0x1122_3344_5566_7788;
        assert_eq!(regs.get(Register::BH), Some(0x77));
        assert_eq!(regs.get(Register::BL), Some(0x88));
        assert_eq!(regs.get(Register::BX), Some(0x7788));
        regs.set(Register::BH, 0xfffe).unwrap();
        assert_eq!(regs.gpr[3], 0x1122_3344_5566_fe88);
        regs.set(Register::BX, 1).unwrap();
        assert_eq!(regs.gpr[3], 0x1122_3344_5566_0001);
        regs.set(Register::EBX, u64::MAX).unwrap();
        assert_eq!(regs.gpr[3], 0xffff_ffff);
        regs.set(Register::R15L, 7).unwrap();
        assert_eq!(regs.get(Register::R15), Some(7));
        assert_eq!(regs.get(Register::XMM0), None);
        assert_eq!(regs.get(Register::SPL), Some(0));
    }
}
