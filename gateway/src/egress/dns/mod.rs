//! DNS for workloads: every query to port 53, whatever its server, is answered here.
//!
//! 1. The kernel moves a workload's packet to port 53 into the service namespace. Wildcard sockets on that
//!    namespace's thread take it, UDP ([`udp`]) and TCP ([`tcp`]), both families. Who asks is the peer address, a
//!    handle; the answer leaves from the very address that was asked.
//! 2. [`question`] reads the message. What is no single question of class IN is answered at once, or dropped when
//!    there is nothing to answer to.
//! 3. [`quota`] bounds what one asker, and all of them, may have open, [`rate`] what one may ask in a second. What servers must be asked for
//!    goes on as a task of the same thread ([`resolve`]).
//! 4. [`Resolution::permit`] decides. A refused name is NXDOMAIN with extended error 18 (Prohibited) and a short
//!    negative TTL, never REFUSED: there glibc and musl stop their search list ([`answer`]). A refused type is no data, as other
//!    types of the name may be allowed. An unknown asker gets nothing.
//! 5. [`lookups`] has the answer if the same servers were asked for it before and its time is not over ([`cache`]), or else
//!    lets one question go up for all who ask it at the time; a popular answer is asked for again before its time is over.
//!    [`rate`] bounds how often one asker makes servers be asked. [`upstream`] asks by hickory, on sockets of
//!    the node's namespace ([`node_side`], [`node_sockets`]): random id, port and spelling of the name, the next server on failure, TCP where an answer is truncated or spelt otherwise.
//!    Servers that are named `tcp://` or `tls://` are asked by connections that are kept ([`kept_connections`]), never by datagrams.
//!    What comes back goes on byte for byte but for its id, the TTLs that are left and the
//!    client's spelling of the question, so that record types nobody here knows, CNAME chains and signatures pass. Client
//!    options are not sent up; the DO, CD, AD and RD bits are. What follows is done for each asker, kept answer or not.
//! 6. [`chain`] reads the answer section. An address that no name may have (loopback, link-local, multicast,
//!    unspecified, IPv4 in IPv6, handles, any of these behind NAT64 or 6to4), also as HTTPS/SVCB hint, makes the whole answer NXDOMAIN with extended error
//!    17 (Filtered): DNS rebinding. So does one that this asker's policies would have to name first
//!    ([`Resolution::misled`]). Else the A and AAAA records of the asked name, or of what its CNAME chain leads to,
//!    are its addresses, each with the least TTL on the way. Addresses elsewhere in the message, hints included, are not
//!    learned and so open nothing; clients ask A and AAAA before they connect (RFC 9460, 3).
//! 7. Records behind the answer section with such an address are taken out: there a server of the node's may just name itself.
//!    Where the name in a handshake decides over this asker's connections to the name ([`Resolution::reads_handshakes`]),
//!    HTTPS and SVCB records lose their ECH parameters ([`edit`]); what cannot be edited is SERVFAIL. All other answers stay
//!    as they came.
//! 8. [`Resolution::learn`] puts them into the kernel's table. Only after that the answer leaves; if it fails, the answer
//!    is SERVFAIL with an extended error. A UDP answer past 1 232 bytes, or the client's own limit, is cut to nothing with TC set.
//! 9. What was kept and is handed out goes into the kernel's own table of answers ([`kept`], [`Resolution::keep`]): there the
//!    same question of the same workload ends from now on, before 1, while [`Resolution::rules`] are the same and what was learned
//!    lasts. No rate and no quota counts it, and no line of the log names it.
//!
//! Bounded things: [`Server`] owns two [`quota::Quota`]s, of queries and of TCP connections; a UDP query past its quota is
//! dropped (the client asks again), one over TCP gets SERVFAIL, a connection is closed. Past a [`rate`] every question gets
//! SERVFAIL with an extended error. [`tcp`] owns a channel of
//! answers for each connection, [`health`] a map of how servers did lately, [`lookups`] the kept answers, bounded in
//! bytes, and the open questions, [`kept_connections`] at most 64 connections to servers.

mod answer;
mod cache;
mod chain;
mod edit;
mod health;
mod kept;
mod kept_connections;
mod lookups;
mod node_side;
mod node_sockets;
mod outcome;
mod question;
mod quota;
mod rate;
mod resolve;
mod tcp;
mod udp;
mod upstream;

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use config::names::{DnsName, InterfaceName};
use config::upstream::Upstream;
use hickory_resolver::proto::rr::RecordType;
use ipnetwork::{Ipv4Network, Ipv6Network};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tracing::info;

use crate::egress::tables::answers::Kept;
use crate::service::Service;
use question::Question;
use quota::Quota;
use resolve::Resolver;

pub use chain::translated;
pub use health::{Failing, Health, Seen};
pub use kept::{asked, kept};
pub use outcome::{Outcome, outcomes};

/// The port that is served.
pub const PORT: u16 = 53;

/// What the composition knows: who may resolve what, and what an answer opens. Called on the service namespace's thread and
/// on the node's runtime: nothing here may wait for longer than a system call or a short lock, or look at a namespace.
pub trait Resolution: Send + Sync + 'static {
    /// The workload behind `asker`, a handle: it has several, and one budget of questions. `None`: nobody has the handle.
    fn account(&self, asker: IpAddr) -> Option<u32>;

    /// A workload was held back, as it asked too much.
    fn held_back(&self, account: u32);

    /// Whether `asker`, a handle, may look up `name`; `qtype` as in the IANA registry.
    fn permit(&self, asker: IpAddr, name: &DnsName, qtype: u16) -> Permit;

    /// The same for the root and for names that no policy can name (other characters than a [`DnsName`] has): allowed
    /// only where every name is. Addresses that such an answer has are not learned.
    fn permit_unnamed(&self, asker: IpAddr, qtype: u16) -> Permit;

    /// Whether what `asker` opens to this name may be judged by the name in its handshake, which ECH would hide; `None` as in
    /// [`Self::permit_unnamed`].
    fn reads_handshakes(&self, asker: IpAddr, name: Option<&DnsName>) -> bool;

    /// Why a name may not lead `asker` to one of these addresses, for the person who reads it.
    fn misled(&self, asker: IpAddr, addresses: &[IpAddr]) -> Option<String>;

    /// Opens what `asker` learned about `name`: addresses, each with its TTL in seconds (0 is possible). Returns once the
    /// kernel knows them. The policy may have changed since [`Self::permit`]. An error goes into the answer as text.
    fn learn(&self, asker: IpAddr, name: &DnsName, answers: &[(IpAddr, u32)]) -> Result<(), String>;

    /// A number for all that decides about answers (policies, servers, addresses that are the node's or a tenant's): another
    /// after each change, and none during one, or where the kernel is to answer nothing.
    fn rules(&self) -> Option<NonZeroU64>;

    /// Has the kernel give `asker` this answer about `name` again, which it was just given under these rules, while they are
    /// in force and what it [learned](Self::learn) of the addresses (none but an answer's to A and AAAA) lasts.
    fn keep(&self, asker: IpAddr, rules: NonZeroU64, name: &DnsName, addresses: &[(IpAddr, u32)], kept: &Kept);
}

/// What [`Resolution::permit`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Ask these, in this order.
    Allowed {
        /// Servers with their ports.
        upstreams: Arc<[Upstream]>,
        /// The device that upstream sockets are bound to; `None` is the node's own routes.
        device: Option<InterfaceName>,
    },
    /// NXDOMAIN, with this text for the client (extended error 18); at most 128 bytes of it are sent.
    Refused {
        /// For the person who reads it.
        why: String,
    },
    /// No records of this type, with this text for the client (extended error 18): other types of the name may be asked for.
    RefusedType {
        /// For the person who reads it.
        why: String,
    },
    /// Nobody has this handle: dropped and counted.
    Unknown,
}

/// Bounds of the server, and which addresses are handles.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `[node] handles_v4`
    pub handles_v4: Ipv4Network,
    /// `[node] handles_v6`
    pub handles_v6: Ipv6Network,
    /// Queries being answered at one time.
    pub queries: usize,
    /// Of these, for one handle.
    pub queries_per_asker: usize,
    /// Open TCP connections.
    pub connections: usize,
    /// Of these, from one handle.
    pub connections_per_asker: usize,
    /// Bytes of answers that are kept; 0 keeps none.
    pub cache: usize,
    /// Queries a second of one workload, without those that the kernel answers; four seconds' worth may come at once.
    pub queries_per_second: u32,
    /// Certificates (PEM) of who may vouch for servers that are asked by TLS.
    pub tls_roots: PathBuf,
    /// Of these, the ones for which servers are asked; what looks like a tunnel's counts ten times.
    pub lookups_per_second: u32,
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A socket of the service namespace.
    #[error(
        "cannot listen on {what} port {PORT} in the service namespace: {source}; see who has it with `nsenter --net=<runtime_dir>/netns/service ss -lnup`"
    )]
    Listen {
        /// Transport and family.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The service namespace's thread is gone.
    #[error("the service namespace's thread has ended; restart the gateway")]
    Stopped,
}

/// The running server; dropping it stops listening. What is being answered ends on its own deadline of some seconds, and
/// only then its UDP socket is closed.
pub struct Server {
    listeners: Vec<AbortHandle>,
    resolver: Arc<Resolver>,
    health: Health,
}

impl Limits {
    /// The usual bounds.
    pub fn new(handles_v4: Ipv4Network, handles_v6: Ipv6Network) -> Self {
        Self {
            handles_v4,
            handles_v6,
            queries: 8192,
            queries_per_asker: 1024,
            connections: 2048,
            connections_per_asker: 64,
            cache: 16 << 20,
            queries_per_second: 5_000,
            tls_roots: "/etc/ssl/certs/ca-certificates.crt".into(),
            lookups_per_second: 500,
        }
    }
}

impl Server {
    /// Listens in the service namespace and answers until dropped. `node` is a runtime whose threads live in the
    /// node's namespace, which upstream servers are asked from.
    pub async fn start(
        service: &Service,
        node: Handle,
        resolution: Arc<dyn Resolution>,
        limits: Limits,
    ) -> Result<Self, DnsError> {
        let queries = Quota::new(limits.queries, limits.queries_per_asker);
        let connections = Quota::new(limits.connections, limits.connections_per_asker);
        let started = service.spawn(async move {
            let resolver = Arc::new(Resolver::new(node, resolution, &limits, queries));
            Ok((listen(&resolver, &connections)?, resolver))
        });
        let (listeners, resolver) = started.await.map_err(|_| DnsError::Stopped)??;
        let health = resolver.health();
        Ok(Self { listeners, resolver, health })
    }

    /// Asks for a name's addresses as if a workload had, which `asker` is a handle of: by its policy, within its budget, and
    /// what comes is learned for it. Nobody gets the answer.
    pub fn ask_for(&self, asker: IpAddr, name: &DnsName, ipv6: bool) {
        let kind = if ipv6 { RecordType::AAAA } else { RecordType::A };
        if let (Some(question), Some(turn)) = (Question::own(name, kind), self.resolver.admit(asker))
            && let Err(asking) = self.resolver.at_once(asker, &question)
        {
            self.resolver.start(asker, question, turn, asking, |_, _| std::future::ready(()));
        }
    }

    /// How the servers do that are asked.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listeners.iter().for_each(AbortHandle::abort);
    }
}

/// Runs on the service namespace's thread. Every socket is bound before the first is served.
fn listen(resolver: &Arc<Resolver>, connections: &Arc<Quota>) -> Result<Vec<AbortHandle>, DnsError> {
    let (mut datagrams, mut streams) = (Vec::new(), Vec::new());
    for (ipv6, udp, tcp) in [(false, "UDP over IPv4", "TCP over IPv4"), (true, "UDP over IPv6", "TCP over IPv6")] {
        match udp::bind(ipv6) {
            Err(error) if ipv6 && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                info!("the kernel has no IPv6: DNS is served over IPv4 only");
                continue;
            }
            socket => datagrams.push(socket.map_err(|source| DnsError::Listen { what: udp, source })?),
        }
        streams.push(tcp::bind(ipv6).map_err(|source| DnsError::Listen { what: tcp, source })?);
    }
    let datagrams =
        datagrams.into_iter().map(|socket| tokio::spawn(udp::serve(socket, Arc::clone(resolver))).abort_handle());
    let streams = streams
        .into_iter()
        .map(|socket| tokio::spawn(tcp::serve(socket, Arc::clone(resolver), Arc::clone(connections))).abort_handle());
    Ok(datagrams.chain(streams).collect())
}
