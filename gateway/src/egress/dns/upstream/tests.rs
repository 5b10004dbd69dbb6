use std::net::Ipv4Addr;

use hickory_resolver::proto::op::OpCode;
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;

use super::super::question::{Read, read};
use super::*;

const RIGHT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const FORGED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
/// A random spelling of it is this one once in 2^26 times.
const NAME: &str = "abcdefghijklm.nopqrstuvwxyz.";

/// One address, two transports.
struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Server {
    async fn start() -> Self {
        loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                return Self { udp, tcp };
            }
        }
    }

    fn address(&self) -> [Given; 1] {
        [self.udp.local_addr().unwrap().into()]
    }

    /// One question by datagram, answered in another spelling or in its own; the spelling that it had.
    async fn datagram(&self, address: Ipv4Addr, lower: bool) -> String {
        datagram(&self.udp, address, lower).await
    }

    /// The same by a connection.
    async fn connection(&self, address: Ipv4Addr, lower: bool) -> String {
        let (mut stream, _) = self.tcp.accept().await.unwrap();
        next(&mut stream, address, lower).await
    }
}

/// The next question of a connection, answered.
async fn next(stream: &mut TcpStream, address: Ipv4Addr, lower: bool) -> String {
    let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut bytes).await.unwrap();
    let (spelling, answer) = answered(&bytes, address, lower);
    stream.write_u16(answer.len() as u16).await.unwrap();
    stream.write_all(&answer).await.unwrap();
    spelling
}

async fn datagram(udp: &UdpSocket, address: Ipv4Addr, lower: bool) -> String {
    let mut bytes = [0; 512];
    let (length, from) = udp.recv_from(&mut bytes).await.unwrap();
    let (spelling, answer) = answered(&bytes[..length], address, lower);
    udp.send_to(&answer, from).await.unwrap();
    spelling
}

fn answered(bytes: &[u8], address: Ipv4Addr, lower: bool) -> (String, Vec<u8>) {
    let asked = Message::from_vec(bytes).unwrap();
    let mut query = asked.queries[0].clone();
    let spelling = query.name().to_string();
    if lower {
        query.set_name(query.name().to_lowercase());
    }
    let mut message = Message::error_msg(asked.metadata.id, OpCode::Query, ResponseCode::NoError);
    message.add_answer(Record::from_rdata(query.name().clone(), 172_800, RData::A(A(address))));
    message.add_query(query);
    (spelling, message.to_vec().unwrap())
}

fn upstream() -> Upstream {
    Upstream::new(NodeSockets::new(Handle::current()), PathBuf::new())
}

fn question() -> Question {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(NAME).unwrap(), RecordType::A));
    match read(&message.to_vec().unwrap()) {
        Read::Question(question) => question,
        other => panic!("{other:?}"),
    }
}

fn address(response: Result<Response, Unanswered>) -> Ipv4Addr {
    let response = response.unwrap();
    assert_eq!(response.message.queries[0].name().to_string(), NAME, "the client's spelling");
    assert_eq!(&response.bytes[12..27], b"\x0dabcdefghijklm\x0d", "and in what is handed on");
    let handed_on = Message::from_vec(&response.bytes).unwrap();
    assert_eq!(handed_on.answers[0].ttl, 86_400, "of two days one is learned");
    match &response.message.answers[0].data {
        RData::A(address) => address.0,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn names_go_up_in_a_random_spelling_each_time() {
    let (server, upstream) = (Server::start().await, upstream());
    let mut spellings = Vec::new();
    for _ in 0..3 {
        let (question, address_of) = (question(), server.address());
        let (answer, spelling) =
            tokio::join!(upstream.ask(&question, &address_of, None), server.datagram(RIGHT, false));
        assert_eq!(address(answer), RIGHT);
        assert!(spelling.eq_ignore_ascii_case(NAME) && spelling != NAME, "{spelling}");
        spellings.push(spelling);
    }
    assert_ne!(spellings[0], spellings[1]);
    assert_ne!(spellings[1], spellings[2]);
}

#[tokio::test]
async fn an_answer_that_did_not_see_the_spelling_is_not_believed() {
    let (server, upstream) = (Server::start().await, upstream());
    for _ in 0..2 {
        let (question, address_of) = (question(), server.address());
        let asking = upstream.ask(&question, &address_of, None);
        let (answer, forged, kept) =
            tokio::join!(asking, server.datagram(FORGED, true), server.connection(RIGHT, false));
        assert_eq!(address(answer), RIGHT, "what the server itself says, over TCP");
        assert_ne!(forged, NAME, "the second time too: the server was not found to change spellings");
        assert_ne!(kept, NAME);
    }
}

#[tokio::test]
async fn a_server_that_does_not_keep_spellings_is_spared_them() {
    let (server, upstream) = (Server::start().await, upstream());
    let (question, address_of) = (question(), server.address());
    let asking = upstream.ask(&question, &address_of, None);
    let (answer, ..) = tokio::join!(asking, server.datagram(RIGHT, true), server.connection(RIGHT, true));
    assert_eq!(address(answer), RIGHT);
    let (answer, spelling) = tokio::join!(upstream.ask(&question, &address_of, None), server.datagram(RIGHT, true));
    assert_eq!((address(answer), spelling.as_str()), (RIGHT, NAME), "by one datagram, as it is");
}

#[tokio::test]
async fn one_that_has_no_tcp_either_is_asked_again_as_it_likes() {
    let (Server { udp, tcp }, upstream) = (Server::start().await, upstream());
    drop(tcp);
    let (question, address_of) = (question(), [udp.local_addr().unwrap().into()]);
    let served = async { (datagram(&udp, RIGHT, true).await, datagram(&udp, RIGHT, true).await) };
    let (answer, (mixed, plain)) = tokio::join!(upstream.ask(&question, &address_of, None), served);
    assert_eq!(address(answer), RIGHT);
    assert_ne!(mixed, NAME);
    assert_eq!(plain, NAME);
}

#[tokio::test]
async fn a_connection_is_kept_until_it_brings_no_more_answers() {
    let (server, upstream) = (Server::start().await, upstream());
    let by_tcp = [Given { address: server.udp.local_addr().unwrap(), carrier: Carrier::Tcp }];
    let question = question();
    let ask = || upstream.ask(&question, &by_tcp, None);
    let served = async {
        let (mut stream, _) = server.tcp.accept().await.unwrap();
        next(&mut stream, RIGHT, false).await;
        stream
    };
    let (answer, mut first) = tokio::join!(ask(), served);
    assert_eq!(address(answer), RIGHT);
    let (answer, _) = tokio::join!(ask(), next(&mut first, RIGHT, false));
    assert_eq!(address(answer), RIGHT, "by the same");
    // It stands, and nothing comes: who asks goes away, and the next one has another.
    let unheard = async {
        first.read_u16().await.unwrap();
    };
    tokio::select! { answer = ask() => panic!("{answer:?}"), () = unheard => {} }
    let (answer, _) = tokio::join!(ask(), server.connection(RIGHT, false));
    assert_eq!(address(answer), RIGHT);
    // That one was closed by the server.
    let (answer, _) = tokio::join!(ask(), server.connection(RIGHT, false));
    assert_eq!(address(answer), RIGHT);
}
