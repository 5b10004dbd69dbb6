//! What the fuzz target `dns_question` asserts, of its corpus and of each byte of that changed.

use std::fs;

#[path = "../../../fuzz/invariants/dns_question.rs"]
mod invariants;

#[test]
fn questions_are_read_as_others_read_them_whatever_changes_on_the_way() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/dns_question");
    let entries: Vec<_> = fs::read_dir(corpus).unwrap().collect();
    assert!(entries.len() >= 5, "the corpus is there");
    for entry in entries {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(invariants::check(&bytes), "each is a pair that the kernel gets");
        for at in 0..bytes.len() {
            for flipped in [0x01, 0x20, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flipped;
                invariants::check(&changed);
            }
            invariants::check(&bytes[..at]);
        }
    }
}
