//! Asking upstream servers, by hickory's exchanges, from the node's side.
//!
//! Owns the map of how servers did lately, at most [`REMEMBERED`] of them; when it is full, the one heard of longest ago
//! goes. A server that fails is asked last for [`AVOIDED`]. A query that times out while others are answered is that
//! name's fault, not the server's: no workload can make a server look dead.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::names::InterfaceName;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsRequestSender, FirstAnswer};
use hickory_resolver::net::{DnsHandle, NetError};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Edns, Message, MessageType, ResponseCode,
};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::answer::UDP_LIMIT;
use super::node_side::NodeSide;
use super::question::Question;
use crate::telemetry::metrics;

/// For the whole of one query: less than the five seconds after which stub resolvers ask again.
const DEADLINE: Duration = Duration::from_millis(4_500);
/// For one server while others are left.
const TURN: Duration = Duration::from_millis(1_500);
/// After this time without an answer a datagram is sent again.
const AGAIN: Duration = Duration::from_millis(700);
/// How long a server that failed is asked last.
const AVOIDED: Duration = Duration::from_secs(10);
/// Least time between two warnings about one server.
const QUIET: Duration = Duration::from_secs(60);
/// Servers remembered.
const REMEMBERED: usize = 256;

/// A server, and the device it is reached by: tenants' servers may have the same address.
type Server = (SocketAddr, Option<InterfaceName>);

/// The way to upstream servers.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    health: Mutex<HashMap<Server, Health>>,
}

/// How a server did lately.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    answered: Option<Instant>,
    failed: Option<Instant>,
    warned: Option<Instant>,
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
}

impl Upstream {
    /// Asks the servers in order, those that failed lately last. The first answer that is neither SERVFAIL nor REFUSED
    /// is it; a SERVFAIL stands if no server does better.
    pub(super) async fn ask(
        &self,
        question: &Question,
        servers: &[SocketAddr],
        device: Option<&InterfaceName>,
    ) -> Result<Response, Unanswered> {
        let end = Instant::now() + DEADLINE;
        let node = NodeSide::new(device.cloned(), DEADLINE);
        let ordered = self.ordered(servers, device);
        let (mut servfail, mut unanswered) = (None, Unanswered::NoServer);
        for (index, server) in ordered.iter().enumerate() {
            let start = Instant::now();
            let left = end.saturating_duration_since(start);
            if left.is_zero() {
                break;
            }
            let turn = if index + 1 < ordered.len() { TURN.min(left) } else { left };
            match timeout(turn, exchange(question, server.0, &node, turn)).await.unwrap_or(Err(NetError::Timeout)) {
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

    fn ordered(&self, servers: &[SocketAddr], device: Option<&InterfaceName>) -> Vec<Server> {
        let health = self.lock();
        let all = servers.iter().map(|server| (*server, device.cloned()));
        let (well, ill): (Vec<Server>, Vec<Server>) = all.partition(|server| {
            let failed = health.get(server).and_then(|health| health.failed);
            failed.is_none_or(|since| since.elapsed() > AVOIDED)
        });
        well.into_iter().chain(ill).collect()
    }

    fn note_answer(&self, server: &Server) {
        let mut health = self.lock();
        let health = entry(&mut health, server);
        health.answered = Some(Instant::now());
        if health.failed.take().is_some() {
            debug!(server = %server.0, "the upstream DNS server answers again");
        }
    }

    fn note_failure(&self, server: &Server, start: Instant, error: &NetError) {
        metrics::dns_upstream_failure();
        let mut health = self.lock();
        let health = entry(&mut health, server);
        if health.answered.is_some_and(|answered| answered >= start) {
            return;
        }
        let now = Instant::now();
        health.failed = Some(now);
        if health.warned.is_none_or(|warned| now - warned > QUIET) {
            health.warned = Some(now);
            warn!(server = %server.0, %error, "an upstream DNS server does not answer; check `[dns] upstreams`, the network's `dns`, and the route there");
        }
    }

    /// A panic elsewhere cannot leave the map half-written.
    fn lock(&self) -> MutexGuard<'_, HashMap<Server, Health>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry<'a>(all: &'a mut HashMap<Server, Health>, server: &Server) -> &'a mut Health {
    if all.len() >= REMEMBERED
        && !all.contains_key(server)
        && let Some(oldest) =
            all.iter().min_by_key(|(_, health)| health.answered.max(health.failed)).map(|(server, _)| server.clone())
    {
        all.remove(&oldest);
    }
    all.entry(server.clone()).or_default()
}

/// One server: UDP from a port of the kernel's choice with a random id, then TCP if the answer was cut.
async fn exchange(
    question: &Question,
    server: SocketAddr,
    node: &NodeSide,
    turn: Duration,
) -> Result<Response, NetError> {
    let mut udp = UdpClientStream::builder(server, node.clone())
        .with_timeout(Some(turn))
        .with_max_retries(4)
        .with_os_port_selection(true)
        .build();
    let response = checked(question, udp.send_message(request(question)).first_answer().await?)?;
    if !response.message.metadata.truncation {
        return Ok(response);
    }
    let tcp = TcpClientStream::exchange(server, None, turn, Some(1), node.clone()).await?;
    checked(question, tcp.send(request(question)).first_answer().await?)
}

/// What goes up: the question, its flags, and an OPT record of our own if the client sent one, so that one comes back.
fn request(question: &Question) -> DnsRequest {
    let mut message = Message::query();
    message.metadata.recursion_desired = question.recursion_desired;
    message.metadata.checking_disabled = question.checking_disabled;
    message.metadata.authentic_data = question.authentic_data;
    message.add_query(question.query.clone());
    if let Some(client) = question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_LIMIT).set_dnssec_ok(client.dnssec_ok);
        message.set_edns(edns);
    }
    let mut options = DnsRequestOptions::default();
    options.retry_interval = AGAIN;
    DnsRequest::new(message, options)
}

/// The id was compared by hickory, over TCP only that; the question must be ours too (RFC 5452, 9.1).
fn checked(question: &Question, response: DnsResponse) -> Result<Response, NetError> {
    let (message, bytes) = response.into_parts();
    if message.metadata.message_type != MessageType::Response || message.queries != [question.query.clone()] {
        return Err(NetError::Message("an answer to another question"));
    }
    Ok(Response { message, bytes })
}

fn is_timeout(error: &NetError) -> bool {
    match error {
        NetError::Timeout => true,
        NetError::Io(error) => error.kind() == io::ErrorKind::TimedOut,
        _ => false,
    }
}
