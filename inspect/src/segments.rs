//! The first flight of a TCP stream, put in order by sequence numbers (RFC 9293 §3.4), which wrap around.
//!
//! Where the stream starts is known when its SYN was seen. When it was not, the lowest number seen so far counts, and an
//! earlier segment may still come: it moves the start, and whoever reads must read again from there. Then
//! - bytes that are no ClientHello prove nothing, as they may be the middle of one: no failure may be concluded from them;
//! - bytes that are one are the server's truth only if nothing comes before [`Segments::first_seq`]. Whoever lets the flow go
//!   must see to that, by dropping what lies before.
//!
//! Two copies of the same bytes that differ are an error in either case.

use crate::pieces::Pieces;

pub use crate::pieces::Misfit;

/// Puts the segments of one direction in order.
#[derive(Debug)]
pub struct Segments {
    first: First,
    pieces: Pieces,
}

#[derive(Clone, Copy, Debug)]
enum First {
    Known(u32),
    Lowest(Option<u32>),
}

impl Segments {
    /// `first_seq` is the number of the stream's first byte, the SYN's plus one, if the SYN was seen.
    pub fn new(first_seq: Option<u32>) -> Self {
        let first = first_seq.map_or(First::Lowest(None), First::Known);
        Self { first, pieces: Pieces::default() }
    }

    /// Takes a segment's payload, whose first byte has the number `seq`. Bytes before a known start are left out, as a
    /// receiver does with them; so are those more than [`MAX_BYTES`](crate::client_hello::MAX_BYTES) past the start.
    pub fn push(&mut self, seq: u32, payload: &[u8]) -> Result<(), Misfit> {
        if payload.is_empty() {
            return Ok(());
        }
        let first = self.start_for(seq);
        if is_before(seq, first) {
            let early = first.wrapping_sub(seq) as usize;
            self.pieces.insert(0, payload.get(early..).unwrap_or_default())?;
        } else {
            self.pieces.insert(seq.wrapping_sub(first) as usize, payload)?;
        }
        Ok(())
    }

    /// The stream from its start to the first gap. It grows at its end only, as long as [`Self::first_seq`] is the same.
    pub fn contiguous(&self) -> &[u8] {
        self.pieces.contiguous()
    }

    /// The number of the stream's first byte, as far as is known.
    pub fn first_seq(&self) -> Option<u32> {
        match self.first {
            First::Known(first) => Some(first),
            First::Lowest(lowest) => lowest,
        }
    }

    /// Whether nothing can come before [`Self::first_seq`].
    pub fn is_start_known(&self) -> bool {
        match self.first {
            First::Known(_) => true,
            First::Lowest(_) => false,
        }
    }

    /// Bytes kept.
    pub fn held(&self) -> usize {
        self.pieces.held()
    }

    fn start_for(&mut self, seq: u32) -> u32 {
        match self.first {
            First::Known(first) => first,
            First::Lowest(Some(lowest)) if !is_before(seq, lowest) => lowest,
            First::Lowest(lowest) => {
                if let Some(lowest) = lowest {
                    self.pieces.shift(lowest.wrapping_sub(seq) as usize);
                }
                self.first = First::Lowest(Some(seq));
                seq
            }
        }
    }
}

/// Numbers are compared by the shorter way around.
fn is_before(seq: u32, other: u32) -> bool {
    (seq.wrapping_sub(other) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_around() {
        let mut segments = Segments::new(Some(u32::MAX - 1));
        segments.push(1, b"def").unwrap();
        assert_eq!(segments.contiguous(), b"");
        segments.push(u32::MAX - 1, b"abc").unwrap();
        assert_eq!(segments.contiguous(), b"abcdef");
        assert_eq!(segments.push(0, b"cX"), Err(Misfit::Conflict));
    }

    #[test]
    fn what_lies_before_a_known_start_is_left_out() {
        let mut segments = Segments::new(Some(100));
        segments.push(99, b"?").unwrap();
        segments.push(90, b"?").unwrap();
        assert_eq!((segments.held(), segments.first_seq()), (0, Some(100)));
        segments.push(98, b"??ab").unwrap();
        segments.push(102, b"c").unwrap();
        assert_eq!(segments.contiguous(), b"abc");
        assert!(segments.is_start_known());
    }

    #[test]
    fn without_a_known_start_the_lowest_counts() {
        let mut segments = Segments::new(None);
        segments.push(7, b"").unwrap();
        assert_eq!(segments.first_seq(), None, "a segment without payload says nothing");
        segments.push(1, b"cd").unwrap();
        assert_eq!((segments.contiguous(), segments.first_seq()), (&b"cd"[..], Some(1)));
        segments.push(u32::MAX, b"ab").unwrap();
        assert_eq!((segments.contiguous(), segments.first_seq()), (&b"abcd"[..], Some(u32::MAX)));
        assert_eq!(segments.push(u32::MAX - 1, b"xX"), Err(Misfit::Conflict));
        assert!(!segments.is_start_known());
    }

    #[test]
    fn a_number_far_off_costs_nothing() {
        let mut segments = Segments::new(Some(0));
        segments.push(i32::MAX as u32, b"far ahead").unwrap();
        segments.push(i32::MIN as u32, b"far behind").unwrap();
        assert_eq!(segments.held(), 0);
    }
}
