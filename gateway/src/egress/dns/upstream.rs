//! Asking upstream servers, by hickory's exchanges, from the node's side.
//!
//! Who is asked first, and who is spared what, is [`Health`]'s to say.
//!
//! Names go up in a random spelling, which a forged answer would have to guess beside id and port ("0x20",
//! draft-vixie-dnsext-dns0x20). What comes back spelt otherwise is asked for again over TCP. Where TCP shows that it is
//! the server that does not keep the spelling, it is spared that for an hour.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::names::InterfaceName;
use config::upstream::{Carrier, Upstream as Given};
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsRequestSender, FirstAnswer};
use hickory_resolver::net::{DnsHandle, NetError};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Edns, Message, MessageType, Query, ResponseCode,
};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::answer::UDP_LIMIT;
use super::cache::wire;
use super::health::{Health, Server, Told};
use super::kept_connections::KeptConnections;
use super::node_side::NodeSide;
use super::node_sockets::NodeSockets;
use super::question::Question;
use crate::telemetry::metrics;

/// For the whole of one query: less than the five seconds after which stub resolvers ask again.
const DEADLINE: Duration = Duration::from_millis(4_500);
/// For one server while others are left.
const TURN: Duration = Duration::from_millis(1_500);
/// After this time without an answer a datagram is sent again.
const AGAIN: Duration = Duration::from_millis(700);

/// The way to upstream servers.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) health: Health,
    pub(super) sockets: Arc<NodeSockets>,
    connections: KeptConnections,
}

/// An answer as read, and as it came.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) message: Message,
    pub(super) bytes: Vec<u8>,
}

/// Why there is no answer. The text goes to the client.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("no upstream DNS server is set")]
    NoServer,
    #[error("the upstream DNS servers refuse to answer this node")]
    Refused,
    #[error("no upstream DNS server answered in time")]
    Silent,
    #[error("no upstream DNS server could be asked: {0}")]
    Network(String),
    #[error("this workload asks too many questions a second")]
    TooMany,
}

impl Upstream {
    pub(super) fn new(sockets: Arc<NodeSockets>, tls_roots: PathBuf) -> Self {
        let connections = KeptConnections::new(Arc::clone(&sockets), tls_roots);
        Self { health: Health::default(), sockets, connections }
    }

    /// Asks the servers in order, those that failed lately last. The first answer that is neither SERVFAIL nor REFUSED
    /// is it; a SERVFAIL stands if no server does better.
    pub(super) async fn ask(
        &self,
        question: &Question,
        servers: &[Given],
        device: Option<&InterfaceName>,
    ) -> Result<Response, Unanswered> {
        let end = Instant::now() + DEADLINE;
        let ordered = self.health.ordered(servers, device, Instant::now());
        let (mut servfail, mut unanswered) = (None, Unanswered::NoServer);
        for (index, server) in ordered.iter().enumerate() {
            let start = Instant::now();
            let left = end.saturating_duration_since(start);
            if left.is_zero() {
                break;
            }
            let turn = if index + 1 < ordered.len() { TURN.min(left) } else { left };
            match timeout(turn, self.exchange(question, server, device, turn)).await.unwrap_or(Err(NetError::Timeout)) {
                Ok(response) => {
                    self.note_answer(server);
                    match response.message.metadata.response_code {
                        ResponseCode::ServFail => servfail = Some(response),
                        ResponseCode::Refused => unanswered = Unanswered::Refused,
                        _ => return Ok(response),
                    }
                }
                Err(error) => {
                    self.note_failure(server, start, &error);
                    unanswered =
                        if is_timeout(&error) { Unanswered::Silent } else { Unanswered::Network(error.to_string()) };
                }
            }
        }
        servfail.ok_or(unanswered)
    }

    async fn exchange(
        &self,
        question: &Question,
        server: &Server,
        device: Option<&InterfaceName>,
        turn: Duration,
    ) -> Result<Response, NetError> {
        match server.0.carrier {
            Carrier::Datagrams => {
                let node = NodeSide::new(&self.sockets, device.cloned(), DEADLINE);
                self.by_datagrams(question, server, &node, turn).await
            }
            Carrier::Tcp | Carrier::Tls(_) => {
                let request = request(question, &question.query, false);
                checked(question, self.connections.ask(request, server, device, turn).await?)
            }
        }
    }

    /// One server: UDP from a port of the kernel's choice with a random id and spelling, then TCP if the answer was cut or
    /// spelt otherwise.
    async fn by_datagrams(
        &self,
        question: &Question,
        server: &Server,
        node: &NodeSide,
        turn: Duration,
    ) -> Result<Response, NetError> {
        let address = server.0.address;
        let mixed = self.health.keeps_spelling(server, Instant::now());
        let asked = if mixed { respelt(&question.query) } else { question.query.clone() };
        match by_udp(request(question, &asked, mixed), address, node, turn).await {
            Err(NetError::QueryCaseMismatch) => {}
            came => {
                let response = checked(question, came?)?;
                if !response.message.metadata.truncation {
                    return Ok(response);
                }
                return checked(question, by_tcp(request(question, &asked, false), address, node, turn).await?);
            }
        }
        // A forged answer, or a server that does not keep the spelling.
        match by_tcp(request(question, &asked, false), address, node, turn).await {
            Ok(response) => {
                if !response.queries.iter().all(|query| query.name().eq_case(asked.name())) {
                    self.note_respelling(server);
                }
                checked(question, response)
            }
            // Who can forge a datagram cannot keep a connection from coming about: it is the server that has no TCP.
            Err(error) if !is_timeout(&error) => {
                self.note_respelling(server);
                let request = request(question, &question.query, false);
                checked(question, by_udp(request, address, node, turn).await?)
            }
            Err(error) => Err(error),
        }
    }

    fn note_respelling(&self, server: &Server) {
        debug!(server = %server.0.with_port(), "the upstream DNS server does not keep the spelling of names");
        self.health.note_respelling(server, Instant::now());
    }

    fn note_answer(&self, server: &Server) {
        if self.health.note_answer(server, Instant::now()) == Told::AnswersAgain {
            debug!(server = %server.0.with_port(), "the upstream DNS server answers again");
        }
    }

    fn note_failure(&self, server: &Server, start: Instant, error: &NetError) {
        metrics::dns_upstream_failure();
        if self.health.note_failure(server, start, Instant::now(), &error.to_string()) == Told::Fails {
            warn!(server = %server.0.with_port(), %error, "an upstream DNS server does not answer; check `[dns] upstreams`, the network's `dns`, and the route there");
        }
    }
}

async fn by_udp(
    request: DnsRequest,
    server: SocketAddr,
    node: &NodeSide,
    turn: Duration,
) -> Result<DnsResponse, NetError> {
    let mut udp = UdpClientStream::builder(server, node.clone())
        .with_timeout(Some(turn))
        .with_max_retries(4)
        .with_os_port_selection(true)
        .build();
    udp.send_message(request).first_answer().await
}

async fn by_tcp(
    request: DnsRequest,
    server: SocketAddr,
    node: &NodeSide,
    turn: Duration,
) -> Result<DnsResponse, NetError> {
    let tcp = TcpClientStream::exchange(server, None, turn, Some(1), node.clone()).await?;
    tcp.send(request).first_answer().await
}

/// The same question in a random spelling.
fn respelt(query: &Query) -> Query {
    let mut name = query.name().clone();
    name.randomize_label_case();
    let mut query = query.clone();
    query.set_name(name);
    query
}

/// What goes up: the question in this spelling, its flags, and an OPT record of our own if the client sent one, so that one
/// comes back. `strict`: what comes back must have that spelling.
fn request(question: &Question, asked: &Query, strict: bool) -> DnsRequest {
    let mut message = Message::query();
    message.metadata.recursion_desired = question.recursion_desired;
    message.metadata.checking_disabled = question.checking_disabled;
    message.metadata.authentic_data = question.authentic_data;
    message.add_query(asked.clone());
    if let Some(client) = question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_LIMIT).set_dnssec_ok(client.dnssec_ok);
        message.set_edns(edns);
    }
    let mut options = DnsRequestOptions::default();
    options.retry_interval = AGAIN;
    options.case_randomization = strict;
    DnsRequest::new(message, options)
}

/// The id was compared by hickory, over TCP only that; the question must be ours too (RFC 5452, 9.1). From here on it has the
/// client's spelling, and no TTL is longer than what is learned for it.
fn checked(question: &Question, response: DnsResponse) -> Result<Response, NetError> {
    let (mut message, mut bytes) = response.into_parts();
    if message.metadata.message_type != MessageType::Response || message.queries != [question.query.clone()] {
        return Err(NetError::Message("an answer to another question"));
    }
    wire::hand_out(&mut bytes, &wire::spelling(question.query.name()), Duration::ZERO);
    message.queries = vec![question.query.clone()];
    Ok(Response { message, bytes })
}

fn is_timeout(error: &NetError) -> bool {
    match error {
        NetError::Timeout => true,
        NetError::Io(error) => error.kind() == io::ErrorKind::TimedOut,
        _ => false,
    }
}
