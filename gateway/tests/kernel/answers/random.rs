//! Whatever a message is: the kernel answers it exactly if the daemon reads the kept question in it, and then as the daemon
//! would; and an answer that is written over while it is read is never given by halves.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Numbers that are the same with each run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn mutate(&mut self, message: &mut Vec<u8>) {
        let at = self.below(message.len());
        match self.below(8) {
            0 => message[at] ^= 1 << self.below(8),
            1 => message[at] = self.below(256) as u8,
            2 => message[at] ^= 0x20,
            3 => message.insert(at, self.below(256) as u8),
            4 if message.len() > 1 => drop(message.remove(at)),
            5 => message.truncate(at.max(1)),
            6 => message.extend_from_within(at..),
            _ => message.iter_mut().take(2).for_each(|octet| *octet = at as u8),
        }
    }
}

#[test]
fn random_messages_are_read_as_the_daemon_reads_them() {
    let node = node();
    let asks = [Ask::default(), Ask { opt: Some((1232, 0)), kind: AAAA, ..Ask::default() }, Ask::named("a.bc")];
    let all: Vec<Kept> = asks.iter().map(|ask| keep_closed(&node, ask, &[])).collect();
    let mut numbers = Numbers(0x005e_ed0f_7e57);
    let (mut hits, mut others) = (0, 0);
    for round in 0..6_000 {
        let mut question = asks[numbers.below(asks.len())].message();
        (0..numbers.below(3)).for_each(|_| numbers.mutate(&mut question));
        let (own, server) = BOTH[numbers.below(2)];
        let asked = dns::asked(&question);
        let expected = all.iter().find(|kept| Some(&kept.asked) == asked.as_ref());
        let given = answered(&node, &frame(own, server, &question));
        match (expected, given) {
            (Some(kept), Some(frame)) => {
                let given = message(&frame, own, server);
                let left = seconds_left(kept);
                assert!((left..left + 3).any(|left| given == reply(&question, kept, left)), "{round}: {question:?}");
                hits += 1;
            }
            (None, None) => others += 1,
            (expected, given) => panic!("{round}: {question:?}: {expected:?}, and the kernel says {given:?}"),
        }
    }
    assert!(hits > 1_000 && others > 1_000, "{hits} {others}");
}

#[test]
fn an_answer_that_is_replaced_is_given_whole() {
    let node = node();
    let ask = Ask::default();
    let pair = [&["192.0.2.1", "192.0.2.1", "192.0.2.1"], &["198.51.100.255", "198.51.100.255", "198.51.100.255"]];
    let pair = pair.map(|addresses| kept(&ask, addresses));
    let others: Vec<Kept> = ["b.example.com", "c.example.com"].map(|name| kept(&Ask::named(name), &[])).into();
    keep(&node, &pair[0], None);
    let (over, question) = (AtomicBool::new(false), frame(OWN4, SERVER4, &ask.message()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                pair.iter().chain(&others).for_each(|kept| keep(&node, kept, None));
            }
        });
        let mut seen = [0; 2];
        for _ in 0..6_000 {
            let Some(frame) = answered(&node, &question) else { continue };
            let given = message(&frame, OWN4, SERVER4);
            let whole = |kept: &Kept| {
                let left = seconds_left(kept);
                (left..left + 3).any(|left| given == reply(&ask.message(), kept, left))
            };
            let which = pair.iter().position(whole);
            seen[which.unwrap_or_else(|| panic!("by halves: {given:?}"))] += 1;
        }
        over.store(true, Ordering::Relaxed);
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    });
}
