//! What is read of a question, and kept of its answer, is what another reader of DNS messages reads there.

use std::time::Duration;

use gateway::egress::dns::{asked, kept};
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::DNSClass;
use hickory_resolver::proto::serialize::binary::BinEncodable;

/// Of answers that are kept at all: for longer than that no server has a say.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The first two bytes say how many of the others are the question. Whether the rest is an answer that is kept.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let Some((length, messages)) = bytes.split_first_chunk() else { return false };
    let Some((question, answer)) = messages.split_at_checked(u16::from_be_bytes(*length).into()) else { return false };
    let Some(asked) = asked(question) else { return false };
    if let Ok(message) = Message::from_vec(question) {
        let [query] = message.queries.as_slice() else { panic!("one question: {message:?}") };
        assert_eq!(*asked.name, *query.name().to_lowercase().to_bytes().expect("a name of a message"));
        assert_eq!((asked.kind, DNSClass::IN), (query.query_type().into(), query.query_class()));
        assert_eq!(asked.dnssec_ok, message.edns.as_ref().map(|edns| edns.flags().dnssec_ok));
    }
    let Some(kept) = kept(&asked, answer, LONGEST, Duration::ZERO) else { return false };
    assert_eq!(kept.asked, asked);
    assert!(kept.ask <= kept.expires && kept.expires <= LONGEST, "{kept:?}");
    assert!(kept.ttls.iter().all(|at| usize::from(*at) + 4 <= kept.tail.len()), "{kept:?}");
    if let Ok(message) = Message::from_vec(answer) {
        let records: Vec<_> = message.answers.iter().chain(&message.authorities).chain(&message.additionals).collect();
        assert_eq!(kept.ttls.len(), records.len(), "each has one, but an OPT");
        let given = usize::from(message.edns.is_some()) + usize::from(message.signature.is_some());
        assert_eq!(kept.counts.iter().copied().map(usize::from).sum::<usize>(), records.len() + given);
    }
    true
}
