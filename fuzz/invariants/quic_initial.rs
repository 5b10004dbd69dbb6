//! Any datagram is read or is not, and what was decided stays; a CRYPTO stream shows the same however it is split.

use inspect::{Inspection, MAX_HELD, Progress};

use crate::initial::{Initial, crypto};

/// Once as datagrams of which the first byte gives the length, and once as a handshake message that is cut there.
pub(crate) fn check(bytes: &[u8]) {
    let step = bytes.first().map_or(1, |&step| usize::from(step) * 5 + 1);
    verdict(bytes.chunks(bytes.len().max(1)));
    verdict(bytes.chunks(step));
    verdict(std::iter::once(sealed(0, bytes).as_slice()));

    let message = bytes.get(1..2000.min(bytes.len())).unwrap_or_default();
    let whole = sealed(0, &crypto(0, message));
    let (front, back) = message.split_at(step.min(message.len()));
    let (front, back) = (sealed(1, &crypto(0, front)), sealed(2, &crypto(front.len(), back)));
    let expected = verdict(std::iter::once(whole.as_slice()));
    for order in [[&front, &back], [&back, &front]] {
        assert_eq!(verdict(order.into_iter().map(Vec::as_slice)), expected);
    }
}

fn sealed(number: u64, frames: &[u8]) -> Vec<u8> {
    Initial { number, number_length: 4, at_least: 0, ..Initial::default() }.seal(&frames[..frames.len().min(15_000)])
}

fn verdict<'a>(datagrams: impl Iterator<Item = &'a [u8]>) -> Progress {
    let mut flow = Inspection::udp();
    let mut last = Progress::More;
    for datagram in datagrams {
        let now = flow.push(0, datagram);
        assert!(last == Progress::More || last == now, "what was decided stays");
        assert!(flow.held() <= MAX_HELD);
        last = now;
    }
    last
}
