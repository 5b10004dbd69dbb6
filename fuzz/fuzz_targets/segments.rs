//! Segments of any stream, in any order, are that stream; never a panic.
#![no_main]

#[path = "../invariants/segments.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::check(bytes));
