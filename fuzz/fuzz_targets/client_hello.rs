//! Any stream is a ClientHello, or none, however it is split; never a panic.
#![no_main]

#[path = "../invariants/client_hello.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::check(bytes));
