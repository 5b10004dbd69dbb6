//! Any message is edited or refused, and what was to be taken out is not there afterwards; never a panic.
#![no_main]

#[path = "../../gateway/src/egress/dns/edit.rs"]
#[allow(dead_code, reason = "the daemon's own")]
mod edit;
#[path = "../invariants/dns_answer.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::check(bytes));
