//! Segments in any order, overlapping and repeated, are the stream; a copy that differs is an error.

use inspect::segments::{Misfit, Segments};
use inspect::{Inspection, MAX_HELD, Progress};

const FIRST: u32 = u32::MAX - 20;

/// The first byte is how many pairs of bytes follow: where a segment begins, and how long it is, in sixteenths of the rest,
/// which is the stream.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&count, rest)) = bytes.split_first() else {
        return;
    };
    let Some((pairs, stream)) = rest.split_at_checked(usize::from(count % 32) * 2) else {
        return;
    };
    let at = |byte: u8| usize::from(byte) * stream.len() / 255;
    let mut pieces: Vec<_> =
        pairs.chunks(2).map(|pair| at(pair[0])..(at(pair[0]) + at(pair[1])).min(stream.len())).collect();
    pieces.push(0..stream.len());

    let (mut known, mut lowest) = (Segments::new(Some(FIRST)), Segments::new(None));
    let (mut flow, mut last) = (Inspection::tcp(Some(FIRST)), Progress::More);
    for piece in &pieces {
        let seq = FIRST.wrapping_add(piece.start as u32);
        known.push(seq, &stream[piece.clone()]).expect("at most 33 pieces, which agree");
        lowest.push(seq, &stream[piece.clone()]).expect("at most 33 pieces, which agree");
        assert!(stream.starts_with(known.contiguous()));
        let now = flow.push(seq, &stream[piece.clone()]);
        assert!(last == Progress::More || last == now, "what was decided stays");
        assert!(flow.held() <= MAX_HELD);
        last = now;
    }
    let kept = &stream[..stream.len().min(inspect::client_hello::MAX_BYTES)];
    assert_eq!((known.contiguous(), lowest.contiguous()), (kept, kept));
    assert_eq!(Inspection::tcp(Some(FIRST)).push(FIRST, stream), last);
    if let Some(first) = kept.first() {
        assert_eq!(known.push(FIRST, &[!first]), Err(Misfit::Conflict));
    }
}
