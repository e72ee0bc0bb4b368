//! The one change to Wine's programs: how much of each thread's stack `ntdll` clears before the thread's first
//! instruction.
//!
//! Wine 10 (`dlls/ntdll/signal_x86_64.c`, at the start of a thread) writes zeros over 960 KiB, because
//! some old programs read what the loader has left on the stack. The stack is fresh memory otherwise, so those zeros cost
//! 241 pages in each thread: 21 of the 47 MiB of an idle container. The loader's own traces lie in the top 64 KiB.

/// The displacement -0xf0000 as the instruction `lea` holds it.
const WHOLE: [u8; 4] = (-0xf0000i32).to_le_bytes();
/// -0x10000.
const TOP: [u8; 4] = (-0x10000i32).to_le_bytes();
/// Opcode of `lea`.
const LEA: u8 = 0x8d;
/// `rep stos`, and how far behind the `lea` it may lie.
const STORE: [[u8; 2]; 2] = [[0x48, 0xab], [0xf3, 0xab]];
const NEAR: usize = 32;

/// Has `ntdll` clear 64 KiB; false, and nothing changed, if it does not hold exactly one such instruction.
pub(super) fn clear_less(ntdll: &mut [u8]) -> bool {
    let is_lea = |at: usize| {
        at >= 2 && ntdll[at - 2] == LEA && {
            let behind = &ntdll[at + 4..ntdll.len().min(at + 4 + NEAR)];
            behind.windows(2).any(|pair| STORE.iter().any(|store| pair == store))
        }
    };
    let mut places =
        (0..ntdll.len().saturating_sub(4)).filter(|at| ntdll[*at..*at + 4] == WHOLE && is_lea(*at));
    match (places.next(), places.next()) {
        (Some(at), None) => {
            drop(places);
            ntdll[at..at + 4].copy_from_slice(&TOP);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `lea -0xf0000(%rcx),%rdi; mov %rdi,%rsp; sub %rdi,%rcx; xor %eax,%eax; shr $3,%rcx; rep stosq`, as in Debian's.
    const CODE: &[u8] =
        b"\x48\x8d\xb9\x00\x00\xf1\xff\x48\x89\xfc\x48\x29\xf9\x31\xc0\x48\xc1\xe9\x03\xf3\x48\xab";

    #[test]
    fn only_the_one_instruction_changes() {
        let mut code = [&b"\x00\x00\xf1\xff"[..], CODE, &[0x90; 8]].concat();
        let before = code.clone();
        assert!(clear_less(&mut code));
        assert_eq!(code[..7], before[..7]);
        assert_eq!(code[7..11], [0, 0, 0xff, 0xff]);
        assert_eq!(code[11..], before[11..]);
    }

    #[test]
    fn none_or_two_change_nothing() {
        let mut twice = [CODE, CODE].concat();
        let before = twice.clone();
        assert!(!clear_less(&mut twice));
        assert_eq!(twice, before);
        assert!(!clear_less(&mut [0; 64]));
        assert!(!clear_less(&mut []));
    }
}
