//! Any text is either resources that survive being written and read again, or problems; never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(parsed) = config::parse("fuzz.yaml", text) {
        for document in parsed {
            let json = document.resource.to_json().to_string();
            let again = config::parse("again.json", &json).expect("a resource reads back what it wrote");
            assert_eq!(again[0].resource, document.resource);
        }
    }
});
