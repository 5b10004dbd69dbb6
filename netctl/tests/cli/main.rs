//! The real binary against recorded answers.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world fails")]

mod edges;
mod playback;
mod transcripts;
