use super::*;
use crate::mmio::decode::decode;
use crate::mmio::vector::Layout;

const LAYOUT: Layout = Layout { ymm: Some(576), zmm: Some(1152), upper: Some(1664) };

/// 256 bytes that repeat; every store is checked for its width.
struct Flat {
    bytes: [u8; 256],
    accesses: usize,
}

impl Memory for Flat {
    fn load(&mut self, address: u64, data: &mut [u8]) -> Result<(), Stop> {
        assert!(data.len() <= 64);
        self.accesses += 1;
        for (n, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes[(address as usize).wrapping_add(n) % 256];
        }
        if address % 1021 == 7 { Err(Stop::Fault) } else { Ok(()) }
    }

    fn store(&mut self, address: u64, data: &[u8]) -> Result<(), Stop> {
        assert!(data.len() <= 64);
        self.accesses += 1;
        for (n, byte) in data.iter().enumerate() {
            self.bytes[(address as usize).wrapping_add(n) % 256] = *byte;
        }
        Ok(())
    }

    fn check_store(&mut self, _address: u64, len: usize) -> Result<(), Stop> {
        assert!((1..=64).contains(&len));
        Ok(())
    }
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn random_bytes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let prefixes = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x48, 0x0f, 0xc5, 0xc4, 0x64, 0x65];
    let (mut done, mut described) = (0, 0);
    for _ in 0..150_000 {
        let mut bytes = [0; 15];
        bytes.fill_with(|| next(&mut state) as u8);
        for byte in bytes.iter_mut().take((next(&mut state) % 4) as usize) {
            *byte = prefixes[next(&mut state) as usize % prefixes.len()];
        }
        let len = 1 + next(&mut state) as usize % 15;
        let Ok(decoded) = decode(&bytes[..len], next(&mut state)) else { continue };
        described += 1;
        let mut regs = Regs { rip: decoded.instruction.ip(), ..Regs::default() };
        regs.gpr.fill_with(|| next(&mut state) >> (next(&mut state) % 64));
        regs.flags = next(&mut state);
        let mut vectors = Vectors::new(vec![0; 2688], LAYOUT);
        let mut memory = Flat { bytes: [next(&mut state) as u8; 256], accesses: 0 };
        let before = regs;
        let result = execute(&decoded, &mut regs, Some(&mut vectors), &mut memory);
        let text = matches!(decoded.op, Op::Text { .. });
        match result {
            Ok(()) if text => done += 1,
            Ok(()) => {
                assert_eq!(regs.rip, decoded.instruction.next_ip());
                assert!(memory.accesses <= 2, "{decoded:?}");
                done += 1;
            }
            Err(_) => assert_eq!(regs.rip, before.rip),
        }
        assert!(memory.accesses <= 2048);
    }
    assert!(done > 5_000 && described >= done, "{done} of {described}");
}

#[test]
fn refused_forms() {
    for bytes in [
        &[0xff, 0x10][..],                     // call [rax]
        &[0xff, 0x20],                         // jmp [rax]
        &[0x0f, 0xfc, 0x00],                   // paddb mm0, [rax]
        &[0x0f, 0x7f, 0x00],                   // movq [rax], mm0
        &[0xd9, 0x00],                         // fld dword [rax]
        &[0x62, 0xf1, 0x7c, 0x49, 0x28, 0x00], // vmovaps zmm0{k1}, [rax]
        &[0x8e, 0x18],                         // mov ds, [rax]
        &[0x89, 0xc8],                         // mov eax, ecx
        &[0x8b],                               // cut off
    ] {
        assert!(decode(bytes, 0).is_err(), "{bytes:x?}");
    }
}

/// What no test machine may have.
#[test]
fn long_vectors() {
    let mut memory = Flat { bytes: core::array::from_fn(|n| n as u8), accesses: 0 };
    let mut vectors = Vectors::new(vec![0xee; 2688], LAYOUT);
    let mut regs = Regs::default();
    let mut run = |bytes: &[u8], regs: &mut Regs, vectors: &mut Vectors| {
        execute(&decode(bytes, 0).unwrap(), regs, Some(vectors), &mut memory).unwrap();
        memory.bytes
    };
    regs.gpr[0] = 1;
    // vmovdqu64 zmm17, [rax]; vmovdqu8 ymm17, [rax]; vmovdqu xmm1, [rax]; movups xmm2, [rax]
    run(&[0x62, 0xe1, 0xfe, 0x48, 0x6f, 0x08], &mut regs, &mut vectors);
    assert_eq!(vectors.get(17), Some(core::array::from_fn(|n| n as u8 + 1)));
    run(&[0x62, 0xe1, 0x7f, 0x28, 0x6f, 0x08], &mut regs, &mut vectors);
    let zeroed = |len| core::array::from_fn(|n| if n < len { n as u8 + 1 } else { 0 });
    assert_eq!(vectors.get(17), Some(zeroed(32)));
    run(&[0xc5, 0xfa, 0x6f, 0x08], &mut regs, &mut vectors);
    assert_eq!(vectors.get(1), Some(zeroed(16)));
    run(&[0x0f, 0x10, 0x10], &mut regs, &mut vectors);
    assert_eq!(
        vectors.get(2),
        Some(core::array::from_fn(|n| if n < 16 { n as u8 + 1 } else { 0xee }))
    );
    // vmovdqu64 [rax], zmm0; movdir64b rcx, [rax]
    let after = run(&[0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x00], &mut regs, &mut vectors);
    assert_eq!(after[..66], [&[0][..], &[0xee; 64], &[65]].concat());
    regs.gpr[1] = 128;
    let after = run(&[0x66, 0x0f, 0x38, 0xf8, 0x08], &mut regs, &mut vectors);
    assert_eq!(after[127..193], [&[127][..], &[0xee; 64], &[192]].concat());
}
