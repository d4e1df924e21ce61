//! Each form of instruction twice: on plain memory by the processor, on registers by us. Same
//! memory, registers and flags before; the same must come out.

#![allow(clippy::undocumented_unsafe_blocks, reason = "instructions on a test client's mappings")]

use std::arch::naked_asm;

use super::client::{Bars, RW, map};

/// All registers but rsp, flags, four vector registers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Context {
    gpr: [u64; 16],
    flags: u64,
    unused: u64,
    ymm: [[u8; 32]; 4],
}

struct Form {
    text: &'static str,
    run: unsafe extern "C" fn(*mut Context),
    /// Flags that the processor leaves undefined.
    undefined: u64,
}

const AF: u64 = 0x10;
const NOT_CF: u64 = 0x894;

/// `undefined flags: instructions; ...`. rbx, rsi and rdi point into memory; r9 is a small index,
/// rcx a small count, rdx a number between -1000 and 1000.
macro_rules! forms {
    ($($undefined:expr => $($text:literal)*;)*) => {
        vec![$($({
            #[unsafe(naked)]
            unsafe extern "C" fn run(_: *mut Context) {
                naked_asm!(
                    "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
                    "push rdi",
                    "vmovdqu ymm0, [rdi + 144]", "vmovdqu ymm1, [rdi + 176]",
                    "vmovdqu ymm2, [rdi + 208]", "vmovdqu ymm3, [rdi + 240]",
                    "push qword ptr [rdi + 128]", "popfq",
                    "mov rax, [rdi]", "mov rcx, [rdi + 8]", "mov rdx, [rdi + 16]",
                    "mov rbx, [rdi + 24]", "mov rbp, [rdi + 40]", "mov rsi, [rdi + 48]",
                    "mov r8, [rdi + 64]", "mov r9, [rdi + 72]", "mov r10, [rdi + 80]",
                    "mov r11, [rdi + 88]", "mov r12, [rdi + 96]", "mov r13, [rdi + 104]",
                    "mov r14, [rdi + 112]", "mov r15, [rdi + 120]", "mov rdi, [rdi + 56]",
                    $text,
                    "xchg rdi, [rsp]",
                    "mov [rdi], rax", "mov [rdi + 8], rcx", "mov [rdi + 16], rdx",
                    "mov [rdi + 24], rbx", "mov [rdi + 40], rbp", "mov [rdi + 48], rsi",
                    "mov [rdi + 64], r8", "mov [rdi + 72], r9", "mov [rdi + 80], r10",
                    "mov [rdi + 88], r11", "mov [rdi + 96], r12", "mov [rdi + 104], r13",
                    "mov [rdi + 112], r14", "mov [rdi + 120], r15",
                    "pop qword ptr [rdi + 56]",
                    "pushfq", "pop qword ptr [rdi + 128]", "cld",
                    "vmovdqu [rdi + 144], ymm0", "vmovdqu [rdi + 176], ymm1",
                    "vmovdqu [rdi + 208], ymm2", "vmovdqu [rdi + 240], ymm3",
                    "vzeroupper",
                    "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx", "ret",
                )
            }
            Form { text: $text, run, undefined: $undefined }
        },)*)*]
    };
}

fn all() -> Vec<Form> {
    forms! {
        0 => "mov eax, [rbx]" "mov rax, [rbx + 8]" "mov ax, [rbx]" "mov al, [rbx + 3]"
            "mov ah, [rbx]" "mov bh, [rbx + 1]\nmovzx ebx, bh" "mov sil, [rbx]" "mov r12b, [rbx + 7]"
            "mov r13w, [rbx + 2]" "mov r14d, [rbx + 2*r9]" "mov rbx, [rbx + 8*r9 - 64]"
            "mov [rbx], eax" "mov [rbx + 8], r8" "mov [rbx], ax" "mov [rbx + 5], dl"
            "mov [rbx], ah" "mov [rbx + 1], ch" "mov [rbx], dil" "mov [rbx + r9], r10b"
            "mov byte ptr [rbx], 0x85" "mov word ptr [rbx], 0x8765"
            "mov dword ptr [rbx], 0x87654321" "mov qword ptr [rbx], -2"
            "mov eax, [rbx + 3]" "mov [rbx + 1], r8" "mov rax, [rbx + 0x1ffd]"
            "mov [rbx + 0x1ffb], rax" "mov [rbx + 0x1fff], ax";
        0 => "movzx eax, byte ptr [rbx]" "movzx ax, byte ptr [rbx]" "movzx rdx, word ptr [rbx]"
            "movzx r8d, word ptr [rbx]" "movsx eax, byte ptr [rbx]" "movsx ax, byte ptr [rbx]"
            "movsx rdx, byte ptr [rbx + 1]" "movsx rdx, word ptr [rbx]"
            "movsx r8d, word ptr [rbx]" "movsxd rax, dword ptr [rbx]"
            "movbe ax, [rbx]" "movbe eax, [rbx]" "movbe r9, [rbx]" "movbe [rbx], ax"
            "movbe [rbx], edx" "movbe [rbx], r8" "movnti [rbx], eax" "movnti [rbx], r8"
            "clflush [rbx]" "prefetcht0 [rbx]";
        0 => "cmp [rbx], eax" "cmp al, [rbx]" "cmp [rbx], r8" "cmp word ptr [rbx], 0x1234"
            "cmp byte ptr [rbx], 0x80" "cmp qword ptr [rbx], -1" "cmp ah, [rbx]"
            "add [rbx], eax" "add eax, [rbx]" "add [rbx], r8" "add word ptr [rbx], ax"
            "add byte ptr [rbx], 0x7f" "lock add [rbx], r10" "add ah, [rbx]" "add [rbx], ch"
            "adc [rbx], eax" "adc rdx, [rbx]" "adc byte ptr [rbx], 1" "lock adc [rbx], r8w"
            "sub [rbx], eax" "sub rax, [rbx]" "sub byte ptr [rbx], 1" "lock sub [rbx], ax"
            "sbb [rbx], eax" "sbb r8, [rbx]" "sbb word ptr [rbx], 5" "lock sbb [rbx], r8b"
            "inc byte ptr [rbx]" "inc dword ptr [rbx]" "lock inc qword ptr [rbx]"
            "dec word ptr [rbx]" "dec qword ptr [rbx]" "lock dec dword ptr [rbx]"
            "neg byte ptr [rbx]" "neg dword ptr [rbx]" "lock neg qword ptr [rbx]"
            "not byte ptr [rbx]" "not word ptr [rbx]" "lock not qword ptr [rbx]";
        AF => "test [rbx], eax" "test [rbx], r8" "test byte ptr [rbx], 0x81" "test [rbx], ah"
            "test dword ptr [rbx], 0x80000001" "test qword ptr [rbx], -16"
            "and [rbx], eax" "and eax, [rbx]" "and byte ptr [rbx], 0xf0" "lock and [rbx], r8"
            "or [rbx], ax" "or r8, [rbx]" "or dword ptr [rbx], 1" "lock or [rbx], r8b"
            "xor [rbx], eax" "xor rax, [rbx]" "xor qword ptr [rbx], -1" "lock xor [rbx], al"
            "and dword ptr [rbx + 2], 0xffff";
        NOT_CF => "bt dword ptr [rbx], 5" "bt qword ptr [rbx], 63" "bt word ptr [rbx], 31"
            "bt [rbx], edx" "bt [rbx], rdx" "bt [rbx], dx" "bts [rbx], rdx" "bts [rbx], edx"
            "btr [rbx], dx" "btc [rbx], edx" "lock bts dword ptr [rbx], 3"
            "lock btr qword ptr [rbx], 40" "btc word ptr [rbx], 9" "lock btc [rbx], rdx";
        0 => "xchg [rbx], eax" "xchg r8, [rbx]" "xchg [rbx], ah" "lock xchg [rbx], ax"
            "cmpxchg [rbx], ecx" "lock cmpxchg [rbx], r8" "cmpxchg [rbx], dl"
            "lock cmpxchg [rbx], dx" "xadd [rbx], eax" "lock xadd [rbx], r8" "xadd [rbx], dh"
            "lock xadd [rbx], r9w"
            "push qword ptr [rbx]\npop rdx" "push word ptr [rbx]\npop dx"
            "push r8\npop qword ptr [rbx]" "push r8w\npop word ptr [rbx]"
            "push r8\nmov r11, rsp\nnot r11\nlea r11, [r11 + rbx - 7]\npop qword ptr [rsp + r11]\nmov r11, 0"
            "cmovb eax, [rbx]" "cmovg r8, [rbx]" "cmovle dx, [rbx]" "cmovns rdx, [rbx]"
            "cmovp rax, [rbx]" "cmova rax, [rbx]" "cmovge rax, [rbx]" "cmovo eax, [rbx]"
            "setb byte ptr [rbx]" "setne byte ptr [rbx]" "setl byte ptr [rbx]"
            "setbe byte ptr [rbx]" "setg byte ptr [rbx]" "setp byte ptr [rbx]";
        0 => "stosb" "stosw" "stosd" "stosq" "rep stosb" "rep stosw" "rep stosd" "rep stosq"
            "movsb" "movsw" "movsd" "movsq" "rep movsb" "rep movsw" "rep movsd" "rep movsq"
            "lodsb" "lodsw" "lodsd" "lodsq" "rep lodsw" "rep lodsd"
            "cmpsb" "cmpsw" "cmpsd" "cmpsq" "repe cmpsb" "repne cmpsb" "repe cmpsd"
            "repne cmpsq" "scasb" "scasw" "scasd" "scasq" "repe scasb" "repne scasb"
            "repne scasd" "repe scasw" "mov ecx, 1500\nrep stosb" "mov ecx, 1100\ncld\nrep movsb"
            "inc rdi\nrep movsd" "inc rsi\nrep movsq" "xor ecx, ecx\nrep movsb\nmov al, [rbx]";
        0 => "mov r11, -1\nshl r11, 32\nor rbx, r11\nmov eax, [ebx + 4]\nxor ebx, ebx"
            "mov r11, -1\nshl r11, 32\nor rbx, r11\nadd [ebx + 4*r9d], eax\nxor ebx, ebx"
            "mov r11, -1\nshl r11, 32\nor rdi, r11\naddr32 stosd"
            "mov r11, -1\nshl r11, 32\nor rdi, r11\nor rcx, r11\naddr32 rep stosb"
            "mov eax, fs:[rbx]\nxor eax, eax" ;
        0 => "movaps xmm0, [rbx]" "movups xmm1, [rbx + 3]" "movapd xmm2, [rbx]"
            "movupd xmm3, [rbx + 8]" "movdqa xmm0, [rbx]" "movdqu xmm1, [rbx + 1]"
            "lddqu xmm1, [rbx + 1]" "movntdqa xmm1, [rbx]"
            "movaps [rbx], xmm0" "movups [rbx + 3], xmm1" "movapd [rbx], xmm2"
            "movupd [rbx + 8], xmm3" "movdqa [rbx], xmm0" "movdqu [rbx + 1], xmm1"
            "movntdq [rbx], xmm1" "movntps [rbx], xmm2" "movntpd [rbx], xmm3"
            "movd xmm0, dword ptr [rbx]" "movq xmm1, qword ptr [rbx]" "movd [rbx], xmm2"
            "movq [rbx], xmm3" "movss xmm0, [rbx]" "movsd xmm1, [rbx]" "movss [rbx], xmm2"
            "movsd qword ptr [rbx], xmm3" "movlps xmm0, [rbx]" "movhps xmm1, [rbx]"
            "movlpd [rbx], xmm2" "movhpd [rbx], xmm3" "movlpd xmm2, [rbx]" "movhpd xmm3, [rbx]";
        0 => "vmovaps xmm0, [rbx]" "vmovups xmm1, [rbx + 3]" "vmovdqa xmm2, [rbx]"
            "vmovdqu xmm3, [rbx + 5]" "vmovaps ymm0, [rbx]" "vmovups ymm1, [rbx + 3]"
            "vmovdqa ymm2, [rbx]" "vmovdqu ymm3, [rbx + 0x1ff9]" "vlddqu ymm3, [rbx]"
            "vmovntdqa ymm2, [rbx]" "vmovaps [rbx], ymm0" "vmovups [rbx + 1], ymm1"
            "vmovdqa [rbx], xmm2" "vmovdqu [rbx + 0x1ff9], ymm3" "vmovntdq [rbx], ymm0"
            "vmovntps [rbx], ymm1" "vmovntpd [rbx], xmm1" "vmovd xmm0, dword ptr [rbx]"
            "vmovq xmm1, qword ptr [rbx]" "vmovd [rbx], xmm2" "vmovq [rbx], xmm3"
            "vmovss xmm0, [rbx]" "vmovsd xmm1, [rbx]" "vmovss [rbx], xmm2" "vmovsd [rbx], xmm3"
            "vmovlps xmm0, xmm1, [rbx]" "vmovhps xmm1, xmm2, [rbx]" "vmovlpd [rbx], xmm2"
            "vmovhpd [rbx], xmm3" "vmovhpd xmm3, xmm0, [rbx]";
    }
}

/// Bytes of memory that are compared; pointers start in its middle.
const LEN: usize = 0x5000;

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn fill(memory: *mut u8, bytes: &[u8]) {
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len()) }
}

fn contents(memory: *const u8) -> Vec<u8> {
    unsafe { std::slice::from_raw_parts(memory, LEN) }.to_vec()
}

/// Pointers into the memory in question become offsets.
fn relative(context: &mut Context, base: *const u8) {
    for value in &mut context.gpr {
        let offset = value.wrapping_sub(base as u64);
        if offset < LEN as u64 {
            *value = 0xdead_0000_0000 + offset;
        }
    }
}

struct Case<'a> {
    /// What rbx, rsi and rdi point to: the memory in question, or else.
    pointers: [bool; 3],
    start: Context,
    bytes: &'a [u8],
    else_bytes: &'a [u8],
    other: *mut u8,
}

impl Case<'_> {
    /// `base` is where instructions go, `behind` where the bytes are.
    fn run(&self, form: &Form, base: *mut u8, behind: *mut u8) -> (Context, Vec<u8>, Vec<u8>) {
        fill(behind, self.bytes);
        fill(self.other, self.else_bytes);
        let mut context = self.start;
        for (register, inside) in [3, 6, 7].into_iter().zip(self.pointers) {
            let at = if inside { base } else { self.other } as u64;
            context.gpr[register] = at + 0x2000 + if register == 3 { 0 } else { 0x1000 / 2 };
            if form.text.contains("fs:") && register == 3 {
                let own: u64;
                unsafe { std::arch::asm!("mov {}, fs:[0]", out(reg) own) };
                context.gpr[3] = context.gpr[3].wrapping_sub(own);
            }
        }
        unsafe { (form.run)(&mut context) };
        if form.text.contains("fs:") {
            context.gpr[3] = 0;
        }
        context.flags &= !(form.undefined | 0x10000);
        relative(&mut context, base);
        (context, contents(behind), contents(self.other))
    }
}

pub(crate) fn run(bars: Bars) -> i32 {
    if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("movbe") {
        eprintln!("skipped: the forms need AVX2 and MOVBE");
        return 0;
    }
    let plain = map(None, 0, LEN as u64, RW);
    let other = map(None, 0, LEN as u64, RW);
    let mut state = 0x1234_5678_9abc_def1;
    let (mut bad, mut cases) = (0, 0);
    let forms = all();
    for form in &forms {
        let mut wrong = None;
        for round in 0..18 {
            let few = round % 3 == 1;
            let mut random = |_| {
                let byte = next(&mut state) as u8;
                if few { byte & byte >> 3 & byte >> 5 & 1 } else { byte }
            };
            let bytes: Vec<u8> = (0..LEN).map(&mut random).collect();
            let else_bytes: Vec<u8> = (0..LEN).map(&mut random).collect();
            let mut gpr = [0; 16];
            gpr.fill_with(|| next(&mut state));
            gpr[1] = next(&mut state) % 40;
            gpr[2] = (next(&mut state) % 2001).wrapping_sub(1000);
            gpr[4] = 0;
            gpr[9] = next(&mut state) % 9;
            if few {
                gpr[0] = u64::from(bytes[0x2000]);
            } else if round % 3 == 2 {
                gpr[0] = u64::from_le_bytes(bytes[0x2000..0x2008].try_into().unwrap());
            }
            let mut ymm = [[0; 32]; 4];
            ymm.as_flattened_mut().fill_with(|| next(&mut state) as u8);
            // the status flags and the direction
            let flags = next(&mut state) & 0xcd5 | 0x202;
            let start = Context { gpr, flags, unused: 0, ymm };
            let pointers = [true, round % 2 == 0, round % 4 < 2];
            let case = Case { pointers, start, bytes: &bytes, else_bytes: &else_bytes, other };
            let expected = case.run(form, plain, plain);
            let found = case.run(form, bars.trapped, bars.memory);
            cases += 1;
            if expected != found {
                wrong = Some((start, expected, found));
            }
        }
        if let Some((start, expected, found)) = wrong {
            bad += 1;
            eprintln!("{}: wrong", form.text.replace('\n', "; "));
            eprintln!("  start    {:x?} {:x}", start.gpr, start.flags);
            eprintln!("  expected {:x?} {:x}", expected.0.gpr, expected.0.flags);
            eprintln!("  found    {:x?} {:x}", found.0.gpr, found.0.flags);
            for (n, (a, b)) in [(&expected.1, &found.1), (&expected.2, &found.2)].iter().enumerate()
            {
                if let Some(at) = (0..LEN).find(|at| a[*at] != b[*at]) {
                    eprintln!("  memory {n} at {at:#x}: {:x} for {:x}", b[at], a[at]);
                }
            }
            if expected.0.ymm != found.0.ymm {
                eprintln!("  expected {:x?}\n  found    {:x?}", expected.0.ymm, found.0.ymm);
            }
        }
    }
    eprintln!("{} forms, {cases} cases, {bad} forms wrong", forms.len());
    bad
}
