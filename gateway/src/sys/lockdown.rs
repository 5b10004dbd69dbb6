//! What the kernel forbids even to root (`man 7 kernel_lockdown`).

use std::fs;

const STATE: &str = "/sys/kernel/security/lockdown";

/// Whether BPF programs may read the kernel's memory: not under `confidentiality`. Where nothing says so, they may.
pub fn lets_programs_read() -> bool {
    !fs::read_to_string(STATE).is_ok_and(|state| is_confidential(&state))
}

fn is_confidential(state: &str) -> bool {
    state.contains("[confidentiality]")
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_chosen_word_counts() {
        assert!(!super::is_confidential("[none] integrity confidentiality\n"));
        assert!(!super::is_confidential("none [integrity] confidentiality\n"));
        assert!(super::is_confidential("none integrity [confidentiality]\n"));
    }
}
