//! Asking upstream servers, by hickory's exchanges, from the node's side.
//!
//! Owns the map of servers that failed lately, at most [`REMEMBERED`] of them: they are asked last for [`AVOIDED`].
//! When the map is full, its oldest entry goes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use config::names::InterfaceName;
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioHandle, TokioTime};
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsRequestSender, FirstAnswer};
use hickory_resolver::net::{DnsHandle, NetError};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Edns, Message, MessageType, ResponseCode,
};
use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::answer::UDP_LIMIT;
use super::question::Question;
use crate::sys::socket;
use crate::telemetry::metrics;

/// For the whole of one query: less than the five seconds after which stub resolvers ask again.
const DEADLINE: Duration = Duration::from_millis(4_500);
/// For one server while others are left.
const TURN: Duration = Duration::from_millis(1_500);
/// After this time without an answer a datagram is sent again.
const AGAIN: Duration = Duration::from_millis(700);
/// How long a server that failed is asked last.
const AVOIDED: Duration = Duration::from_secs(10);
/// Servers remembered as failed.
const REMEMBERED: usize = 256;

/// A server, and the device it is reached by: tenants' servers may have the same address.
type Server = (SocketAddr, Option<InterfaceName>);

/// The way to upstream servers.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    failed: Mutex<HashMap<Server, Instant>>,
}

/// An answer as read, and as it came.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) message: Message,
    pub(super) bytes: Vec<u8>,
}

/// Why there is no answer. The text goes to the client.
#[derive(Debug, thiserror::Error)]
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
        let node = NodeSide { device: device.cloned(), tasks: TokioHandle::default() };
        let ordered = self.ordered(servers, device);
        let (mut servfail, mut unanswered) = (None, Unanswered::NoServer);
        for (index, server) in ordered.iter().enumerate() {
            let left = end.saturating_duration_since(Instant::now());
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
                    self.note_failure(server, &error);
                    unanswered =
                        if is_timeout(&error) { Unanswered::Silent } else { Unanswered::Network(error.to_string()) };
                }
            }
        }
        servfail.ok_or(unanswered)
    }

    fn ordered(&self, servers: &[SocketAddr], device: Option<&InterfaceName>) -> Vec<Server> {
        let failed = self.lock();
        let now = Instant::now();
        let all = servers.iter().map(|server| (*server, device.cloned()));
        let (well, ill): (Vec<Server>, Vec<Server>) =
            all.partition(|server| failed.get(server).is_none_or(|since| now - *since > AVOIDED));
        well.into_iter().chain(ill).collect()
    }

    fn note_answer(&self, server: &Server) {
        if self.lock().remove(server).is_some() {
            info!(server = %server.0, "the upstream DNS server answers again");
        }
    }

    fn note_failure(&self, server: &Server, error: &NetError) {
        metrics::dns_upstream_failure();
        let mut failed = self.lock();
        if failed.len() >= REMEMBERED
            && !failed.contains_key(server)
            && let Some(oldest) = failed.iter().min_by_key(|(_, since)| **since).map(|(server, _)| server.clone())
        {
            failed.remove(&oldest);
        }
        if failed.insert(server.clone(), Instant::now()).is_none() {
            warn!(server = %server.0, %error, "an upstream DNS server does not answer; check `[dns] upstreams`, the network's `dns`, and the route there");
        }
    }

    /// A panic elsewhere cannot leave the map half-written.
    fn lock(&self) -> MutexGuard<'_, HashMap<Server, Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// Sockets of the node's namespace, bound to a device where one is given.
#[derive(Clone)]
struct NodeSide {
    device: Option<InterfaceName>,
    tasks: TokioHandle,
}

impl NodeSide {
    fn device(&self) -> Option<&[u8]> {
        self.device.as_ref().map(|device| device.as_str().as_bytes())
    }
}

type Soon<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl RuntimeProvider for NodeSide {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Datagrams;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.tasks.clone()
    }

    fn connect_tcp(&self, server: SocketAddr, _: Option<SocketAddr>, wait: Option<Duration>) -> Soon<Self::Tcp> {
        let node = self.clone();
        Box::pin(async move {
            let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.bind_device(node.device())?;
            socket.set_nodelay(true)?;
            Ok(AsyncIoTokioAsStd(timeout(wait.unwrap_or(DEADLINE), socket.connect(server)).await??))
        })
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Soon<Datagrams> {
        let node = self.clone();
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.bind_device(node.device())?;
            socket.connect(server).await?;
            Ok(Datagrams { socket, server })
        })
    }
}

/// A connected socket: other senders are not heard, and an ICMP error (a closed port) ends the wait at once. For that
/// the wait must be for errors too, which tokio's own `recv_from` does not do.
struct Datagrams {
    socket: UdpSocket,
    server: SocketAddr,
}

type Waiting<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

impl DnsUdpSocket for Datagrams {
    type Time = TokioTime;

    fn poll_recv_from(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        self.socket.poll_recv(context, &mut buffer).map_ok(|()| (buffer.filled().len(), self.server))
    }

    fn recv_from<'a, 'b, 'w>(&'a self, buffer: &'b mut [u8]) -> Waiting<'w, (usize, SocketAddr)>
    where
        'a: 'w,
        'b: 'w,
    {
        let readable = Interest::READABLE | Interest::ERROR;
        Box::pin(async move {
            Ok((self.socket.async_io(readable, || socket::receive(self.socket.as_fd(), buffer)).await?, self.server))
        })
    }

    fn poll_send_to(&self, context: &mut Context<'_>, bytes: &[u8], _: SocketAddr) -> Poll<io::Result<usize>> {
        self.socket.poll_send(context, bytes)
    }
}
