//! Any two messages are a question that is read alike by all, and an answer that is kept as it is, or not; never a panic.
#![no_main]

#[path = "../invariants/dns_question.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    invariants::check(bytes);
});
