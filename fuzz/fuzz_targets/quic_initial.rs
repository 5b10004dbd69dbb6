//! Any datagrams, and any frames in Initial packets that open, have one verdict; never a panic.
#![no_main]

#[path = "../../inspect/tests/flows/initial.rs"]
mod initial;
#[path = "../invariants/quic_initial.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::check(bytes));
