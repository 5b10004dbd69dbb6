//! A ClientHello, or why there is none, is the same however the stream is split; what is kept is what was pushed.

use inspect::client_hello::{ClientHello, Malformed, Reader, message};

/// The last byte says how long the pieces are.
pub(crate) fn check(stream: &[u8]) {
    let step = stream.last().map_or(1, |&last| usize::from(last) + 1);
    let whole = read(stream, stream.len().max(1));
    assert_eq!(read(stream, step), whole);
    assert_eq!(read(stream, 1), whole);
    // Behind the header of the first record: a prefix may not be whole, but never says something else.
    let bare = stream.get(5..).unwrap_or_default();
    if let Ok(Some(hello)) = message(bare) {
        for length in 0..bare.len() {
            let cut = message(&bare[..length]).expect("a longer one is well-formed");
            assert!(cut.is_none() || cut.as_ref() == Some(&hello));
        }
    }
}

fn read(stream: &[u8], step: usize) -> Result<Option<ClientHello>, Malformed> {
    let mut reader = Reader::default();
    let mut last = Ok(None);
    for piece in stream.chunks(step) {
        let now = reader.push(piece);
        assert!(last == Ok(None) || last == now, "what was read stays");
        last = now;
    }
    assert_eq!(reader.into_bytes(), stream);
    last
}
