//! Puts the beginning of a byte stream together from pieces that come in any order, repeated and overlapping.
//!
//! The first copy of a byte is kept; a second one that differs is a [`Misfit`]. Of a stream only the first [`MAX_BYTES`] are
//! looked at: what lies past them is left out, so that the order in which pieces come does not change what is read.

use crate::client_hello::MAX_BYTES;

/// Pieces with gaps between them that are kept of one stream.
pub(crate) const MAX_PIECES: usize = 64;

/// Why bytes cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Bytes that are there already are different ones.
    #[error("two copies of the same bytes differ")]
    Conflict,
    /// The stream would be in more than 64 pieces.
    #[error("the bytes are in more than 64 pieces")]
    TooMany,
}

/// Sorted, and neither touching nor overlapping.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Vec<Piece>);

#[derive(Debug)]
struct Piece {
    start: usize,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> usize {
        self.start + self.bytes.len()
    }

    /// Adds what `bytes`, which begin at `start` within this piece or at its end, have past it.
    fn extend(&mut self, start: usize, bytes: &[u8]) {
        if let Some(more) = bytes.get(self.end() - start..) {
            self.bytes.extend_from_slice(more);
        }
    }

    fn contradicts(&self, start: usize, bytes: &[u8]) -> bool {
        let (from, to) = (self.start.max(start), self.end().min(start + bytes.len()));
        from < to && self.bytes[from - self.start..to - self.start] != bytes[from - start..to - start]
    }
}

impl Pieces {
    /// Takes `bytes` at `start`; whether any of them were not there before. After an error nothing has changed.
    pub(crate) fn insert(&mut self, start: usize, bytes: &[u8]) -> Result<bool, Misfit> {
        let bytes = &bytes[..bytes.len().min(MAX_BYTES.saturating_sub(start))];
        if bytes.is_empty() {
            return Ok(false);
        }
        let first = self.0.partition_point(|piece| piece.end() < start);
        let past = self.0.partition_point(|piece| piece.start <= start + bytes.len());
        let touched = &self.0[first..past];
        if touched.iter().any(|piece| piece.contradicts(start, bytes)) {
            return Err(Misfit::Conflict);
        }
        if touched.is_empty() && self.0.len() == MAX_PIECES {
            return Err(Misfit::TooMany);
        }
        let before = self.held();
        if touched.first().is_some_and(|piece| piece.start <= start) {
            self.0[first].extend(start, bytes);
        } else {
            self.0.insert(first, Piece { start, bytes: bytes.to_vec() });
        }
        self.join(first);
        Ok(self.held() > before)
    }

    /// The stream from its start to the first gap.
    pub(crate) fn contiguous(&self) -> &[u8] {
        self.0.first().filter(|piece| piece.start == 0).map_or(&[], |piece| &piece.bytes)
    }

    /// Bytes kept.
    pub(crate) fn held(&self) -> usize {
        self.0.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// Says that the stream starts `by` bytes earlier than was thought.
    pub(crate) fn shift(&mut self, by: usize) {
        self.0.retain_mut(|piece| {
            piece.start = piece.start.saturating_add(by);
            piece.bytes.truncate(MAX_BYTES.saturating_sub(piece.start));
            !piece.bytes.is_empty()
        });
    }

    /// Joins the piece at `first` with those behind it that it reaches.
    fn join(&mut self, first: usize) {
        let (joined, behind) = self.0[first..].split_first_mut().expect("a piece was put there");
        let reached = behind.iter().take_while(|piece| piece.start <= joined.end()).count();
        // The reach does not grow by joining: those behind neither touch nor overlap each other.
        for piece in &behind[..reached] {
            joined.extend(piece.start, &piece.bytes);
        }
        self.0.drain(first + 1..first + 1 + reached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pieces: &Pieces) -> Vec<(usize, &[u8])> {
        pieces.0.iter().map(|piece| (piece.start, piece.bytes.as_slice())).collect()
    }

    #[test]
    fn pieces_join_where_they_touch() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.insert(4, b"ef"), Ok(true));
        assert_eq!(pieces.insert(8, b"i"), Ok(true));
        assert_eq!(pieces.insert(0, b"ab"), Ok(true));
        assert_eq!(whole(&pieces), [(0, &b"ab"[..]), (4, b"ef"), (8, b"i")]);
        assert_eq!(pieces.contiguous(), b"ab");
        assert_eq!(pieces.insert(1, b"bcdefgh"), Ok(true));
        assert_eq!(whole(&pieces), [(0, &b"abcdefghi"[..])]);
        assert_eq!(pieces.insert(3, b"def"), Ok(false));
        assert_eq!(pieces.held(), 9);
    }

    #[test]
    fn bytes_that_differ_change_nothing() {
        let mut pieces = Pieces::default();
        pieces.insert(2, b"cd").unwrap();
        pieces.insert(6, b"gh").unwrap();
        for (start, bytes) in [(0, &b"abX"[..]), (3, b"Xe"), (0, b"abcdefgX"), (2, b"cX"), (7, b"X")] {
            assert_eq!(pieces.insert(start, bytes), Err(Misfit::Conflict), "at {start}");
        }
        assert_eq!(whole(&pieces), [(2, &b"cd"[..]), (6, b"gh")]);
    }

    #[test]
    fn bounds_hold() {
        let mut pieces = Pieces::default();
        for piece in 0..MAX_PIECES {
            pieces.insert(piece * 2, b"x").unwrap();
        }
        assert_eq!(pieces.insert(MAX_PIECES * 2, b"x"), Err(Misfit::TooMany));
        assert_eq!(pieces.insert(1, b"x"), Ok(true), "what fills a gap is taken");
        assert_eq!(pieces.insert(MAX_BYTES - 1, b"xy"), Ok(true), "there is room for one now");
        assert_eq!(pieces.insert(MAX_BYTES, b"y"), Ok(false));
        assert_eq!(pieces.insert(usize::MAX, b"y"), Ok(false));
        assert_eq!(pieces.held(), MAX_PIECES + 2);
    }

    #[test]
    fn an_earlier_start_moves_everything() {
        let mut pieces = Pieces::default();
        pieces.insert(0, b"cd").unwrap();
        pieces.insert(MAX_BYTES - 3, b"xyz").unwrap();
        pieces.shift(2);
        assert_eq!(whole(&pieces), [(2, &b"cd"[..]), (MAX_BYTES - 1, b"x")]);
        assert_eq!(pieces.contiguous(), b"");
        pieces.shift(usize::MAX);
        assert_eq!(pieces.held(), 0);
    }
}
