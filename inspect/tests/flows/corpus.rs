//! The fuzz targets' corpus, with what they assert, on a toolchain that does not fuzz.

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/invariants/client_hello.rs"]
mod client_hello;
#[path = "../../../fuzz/invariants/quic_initial.rs"]
mod quic_initial;
#[path = "../../../fuzz/invariants/segments.rs"]
mod segments;

#[test]
fn the_corpus_holds() {
    replay("client_hello", client_hello::check);
    replay("quic_initial", quic_initial::check);
    replay("segments", segments::check);
}

/// Every file, and every file with one byte changed here and there.
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 1, "{} is empty", folder.display());
    for file in files {
        let bytes = fs::read(&file).unwrap();
        check(&bytes);
        for at in (0..bytes.len()).step_by(13) {
            let mut changed = bytes.clone();
            changed[at] = !changed[at];
            check(&changed);
        }
    }
}
