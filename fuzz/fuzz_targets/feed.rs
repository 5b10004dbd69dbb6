//! Any file of an address set is either prefixes that survive being written and read again, or problems; never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(prefixes) = config::feed::parse("fuzz.txt", bytes, usize::MAX) {
        let text: String = prefixes.iter().map(|prefix| format!("{prefix}\n")).collect();
        assert_eq!(config::feed::parse("again.txt", text.as_bytes(), usize::MAX), Ok(prefixes));
    }
});
