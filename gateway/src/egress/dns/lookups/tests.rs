use std::future::ready;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::time::{interval, timeout};

use super::super::question::{Read, read};
use super::*;

const BOUND: Duration = Duration::from_secs(20);

/// An upstream that answers when it is told to.
struct Server(UdpSocket);

impl Server {
    async fn start() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").await.unwrap())
    }

    fn address(&self) -> Arc<[super::Server]> {
        [self.0.local_addr().unwrap().into()].into()
    }

    async fn next(&self) -> (Message, SocketAddr) {
        let mut bytes = [0; 512];
        let (length, from) = timeout(BOUND, self.0.recv_from(&mut bytes)).await.unwrap().unwrap();
        (Message::from_vec(&bytes[..length]).unwrap(), from)
    }

    /// That it was asked no more: the next that it hears is a question of now.
    async fn was_asked_no_more(&self, lookups: &Arc<Lookups>) {
        let last = asked("last.example.com.");
        tokio::select! {
            _ = lookups.ask(asker(9), &last, self.address(), None) => panic!("answered by nobody"),
            (query, _) = self.next() => assert_eq!(query.queries[0], last.query),
        }
    }

    async fn answer(&self, (query, from): (Message, SocketAddr), ttl: u32) {
        let mut message = Message::error_msg(query.metadata.id, OpCode::Query, ResponseCode::NoError);
        message.add_query(query.queries[0].clone());
        let address = RData::A(A::new(203, 0, 113, 10));
        message.add_answer(Record::from_rdata(query.queries[0].name().clone(), ttl, address));
        self.0.send_to(&message.to_vec().unwrap(), from).await.unwrap();
    }
}

fn of_room(room: usize) -> Arc<Lookups> {
    Lookups::new(NodeSockets::new(Handle::current()), room, 500, PathBuf::new())
}

fn asked(name: &str) -> Question {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    match read(&message.to_vec().unwrap()) {
        Read::Question(question) => question,
        other => panic!("{other:?}"),
    }
}

fn asker(number: u8) -> (IpAddr, u32) {
    ([198, 18, 0, number].into(), number.into())
}

fn ttl((answer, source): (Result<Response, Unanswered>, Source)) -> (u32, Source) {
    (answer.unwrap().message.answers[0].ttl, source)
}

/// Goes on with it as far as it goes without waiting.
async fn begun<T>(asking: &mut (impl Future<Output = T> + Unpin)) {
    tokio::select! {
        biased;
        _ = asking => panic!("answered by nobody"),
        () = ready(()) => {}
    }
}

#[tokio::test]
async fn equal_questions_go_up_once() {
    let (server, lookups) = (Server::start().await, of_room(1 << 20));
    let (plain, spelled) = (asked("www.example.com."), asked("wWw.eXample.com."));
    let first = lookups.ask(asker(1), &plain, server.address(), None);
    let second = async { lookups.ask(asker(2), &spelled, server.address(), None).await };
    let (first, second, ()) = tokio::join!(first, second, async { server.answer(server.next().await, 300).await });
    assert_eq!(ttl(first), (300, Source::Upstream));
    let (answer, source) = second;
    let answer = answer.unwrap();
    assert_eq!((source, answer.message.answers.len()), (Source::Joined, 1));
    assert_eq!(&answer.bytes[12..17], b"\x03wWw\x07");
    assert_eq!(ttl(lookups.ask(asker(4), &spelled, server.address(), None).await).1, Source::Cache);
    assert!(lock(lookups.known.as_ref().unwrap()).open.is_empty());
    server.was_asked_no_more(&lookups).await;
}

#[tokio::test]
async fn who_leaves_takes_nothing_from_the_others() {
    let (server, lookups) = (Server::start().await, of_room(1 << 20));
    let question = asked("www.example.com.");
    let mut first = Box::pin(lookups.ask(asker(1), &question, server.address(), None));
    begun(&mut first).await;
    let [mut second, mut third] =
        [2, 3].map(|number| Box::pin(lookups.ask(asker(number), &question, server.address(), None)));
    begun(&mut second).await;
    begun(&mut third).await;
    drop(first);
    // What the first one sent may come before what is sent in its place.
    let answering = async {
        loop {
            server.answer(server.next().await, 300).await;
        }
    };
    let both = async { tokio::join!(second, third) };
    let (second, third) = tokio::select! { both = both => both, () = answering => unreachable!() };
    assert_eq!((ttl(second), ttl(third)), ((300, Source::Upstream), (300, Source::Joined)));
    assert!(lock(lookups.known.as_ref().unwrap()).open.is_empty());
}

#[tokio::test]
async fn what_is_not_kept_is_shared_by_those_who_wait_only() {
    let (server, lookups) = (Server::start().await, of_room(1 << 20));
    let question = asked("www.example.com.");
    for _round in 0..2 {
        let first = lookups.ask(asker(1), &question, server.address(), None);
        let second = lookups.ask(asker(2), &question, server.address(), None);
        let (first, second, ()) = tokio::join!(first, second, async { server.answer(server.next().await, 0).await });
        assert_eq!((ttl(first), ttl(second)), ((0, Source::Upstream), (0, Source::Joined)));
    }
    let off = of_room(0);
    for _round in 0..2 {
        let asking = off.ask(asker(1), &question, server.address(), None);
        let (answer, ()) = tokio::join!(asking, async { server.answer(server.next().await, 300).await });
        assert_eq!(ttl(answer), (300, Source::Upstream), "switched off");
    }
}

#[tokio::test]
async fn another_view_is_asked_for_itself() {
    let (here, there, lookups) = (Server::start().await, Server::start().await, of_room(1 << 20));
    let question = asked("www.example.com.");
    for (server, seconds) in [(&here, 300), (&there, 200)] {
        let asking = lookups.ask(asker(1), &question, server.address(), None);
        let (answer, ()) = tokio::join!(asking, async { server.answer(server.next().await, seconds).await });
        assert_eq!(ttl(answer), (seconds, Source::Upstream));
    }
    here.was_asked_no_more(&lookups).await;
    there.was_asked_no_more(&lookups).await;
}

#[tokio::test]
async fn a_failure_is_not_asked_for_again_at_once() {
    let lookups = of_room(1 << 20);
    let closed = Server::start().await;
    let address = closed.address();
    drop(closed);
    let question = asked("www.example.com.");
    for source in [Source::Upstream, Source::Cache] {
        let (answer, from) = lookups.ask(asker(1), &question, Arc::clone(&address), None).await;
        assert!(matches!(answer, Err(Unanswered::Network(_))), "{answer:?}");
        assert_eq!(from, source);
    }
}

#[tokio::test]
async fn a_popular_answer_is_asked_for_ahead_of_its_end() {
    const SECONDS: u32 = 4;
    let (server, lookups) = (Server::start().await, of_room(1 << 20));
    let question = asked("www.example.com.");
    let first = lookups.ask(asker(1), &question, server.address(), None);
    let (first, ()) = tokio::join!(first, async { server.answer(server.next().await, SECONDS).await });
    first.0.unwrap();

    let mut pace = interval(Duration::from_millis(10));
    let ahead = loop {
        let (left, source) = ttl(lookups.ask(asker(1), &question, server.address(), None).await);
        assert_eq!(source, Source::Cache, "{left} seconds are left");
        tokio::select! {
            biased;
            query = server.next() => break query,
            _ = pace.tick() => {}
        }
    };
    assert_eq!(
        ttl(lookups.ask(asker(2), &question, server.address(), None).await),
        (1, Source::Cache),
        "the present answer"
    );
    server.was_asked_no_more(&lookups).await;
    server.answer(ahead, SECONDS).await;
    timeout(BOUND, async {
        while ttl(lookups.ask(asker(1), &question, server.address(), None).await) != (SECONDS, Source::Cache) {
            pace.tick().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(lock(lookups.known.as_ref().unwrap()).ahead, 0);
}
