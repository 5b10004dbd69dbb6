//! Connections to servers that are asked by TCP or TLS, kept as long as the server keeps them (RFC 7766, 6.2; RFC 7858, 3.4).
//!
//! Owns a map of at most [`MOST`] servers, and for each the connection that is kept; no lock of these is held over a wait. A
//! further lock, which is waited for, has one question at a time open one for all. A server may close it at any time: what was
//! asked by it then is asked once more by a new one.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use config::names::{DnsName, InterfaceName};
use config::upstream::{Carrier, Upstream};
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::tls::tls_exchange;
use hickory_resolver::net::xfer::{DnsExchange, FirstAnswer};
use hickory_resolver::net::{DnsHandle, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Mutex as Turn;

use super::health::Server;
use super::node_side::NodeSide;
use super::node_sockets::NodeSockets;

/// Servers, each behind one device, whose connection is kept.
const MOST: usize = 64;
/// Questions of one connection that wait for their answers.
const ACTIVE: usize = 1024;

/// The connections.
#[derive(Debug)]
pub(super) struct KeptConnections {
    sockets: Arc<NodeSockets>,
    trust: Trust,
    servers: Mutex<HashMap<Server, Arc<Kept>>>,
}

/// Of one server.
#[derive(Debug, Default)]
struct Kept {
    connection: Mutex<Option<Arc<Connection>>>,
    opening: Turn<()>,
}

struct Connection {
    exchange: DnsExchange<NodeSide>,
    answers: AtomicU64,
    /// The task that reads and writes ends with it.
    _tasks: NodeSide,
}

impl KeptConnections {
    pub(super) fn new(sockets: Arc<NodeSockets>, roots: PathBuf) -> Self {
        Self { sockets, trust: Trust { roots, read: Mutex::default() }, servers: Mutex::default() }
    }

    /// Asks by the connection that is kept, or a new one. One that brings nobody an answer until the caller gives up
    /// is kept no longer: what stands between may have forgotten it.
    pub(super) async fn ask(
        &self,
        request: DnsRequest,
        server: &Server,
        device: Option<&InterfaceName>,
        turn: Duration,
    ) -> Result<DnsResponse, NetError> {
        let kept = self.of(server);
        let standing = lock(&kept.connection).clone();
        if let Some(standing) = standing {
            match kept.ask(&standing, request.clone()).await {
                Err(error) if !matches!(error, NetError::Timeout) => {} // closed by the server
                answered => return answered,
            }
        }
        let connection = {
            let _mine = kept.opening.lock().await;
            let opened = lock(&kept.connection).clone();
            match opened {
                Some(opened) => opened,
                None => {
                    let fresh = self.open(&server.0, NodeSide::new(&self.sockets, device.cloned(), turn), turn).await?;
                    lock(&kept.connection).insert(fresh).clone()
                }
            }
        };
        kept.ask(&connection, request).await
    }

    fn of(&self, server: &Server) -> Arc<Kept> {
        let mut servers = lock(&self.servers);
        if servers.len() >= MOST && !servers.contains_key(server) {
            servers.clear(); // more servers than anybody has: those that are asked come back
        }
        Arc::clone(servers.entry(server.clone()).or_default())
    }

    async fn open(&self, upstream: &Upstream, node: NodeSide, turn: Duration) -> Result<Arc<Connection>, NetError> {
        let address = upstream.address;
        let exchange = match &upstream.carrier {
            Carrier::Datagrams | Carrier::Tcp => {
                TcpClientStream::exchange(address, None, turn, Some(ACTIVE), node.clone()).await?
            }
            Carrier::Tls(name) => {
                let config = self.trust.config().map_err(NetError::Msg)?;
                let name = shown_name(name.as_ref(), address)?;
                tls_exchange(address, name, config, turn, Some(ACTIVE), node.clone()).await?
            }
        };
        Ok(Arc::new(Connection { exchange, answers: AtomicU64::new(0), _tasks: node }))
    }
}

impl Kept {
    async fn ask(&self, connection: &Arc<Connection>, request: DnsRequest) -> Result<DnsResponse, NetError> {
        let _trial = Trial { kept: self, connection, before: connection.answers.load(Relaxed) };
        let answer = connection.exchange.send(request).first_answer().await?;
        connection.answers.fetch_add(1, Relaxed);
        Ok(answer)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("answers", &self.answers).finish_non_exhaustive()
    }
}

/// A question on its way: a connection that brings no answer meanwhile is forgotten, also when who asks goes away.
struct Trial<'a> {
    kept: &'a Kept,
    connection: &'a Arc<Connection>,
    before: u64,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.connection.answers.load(Relaxed) == self.before {
            lock(&self.kept.connection).take_if(|kept| Arc::ptr_eq(kept, self.connection));
        }
    }
}

/// Who may vouch for a server's name: the file's certificates, read anew when it is another.
#[derive(Debug, Default)]
struct Trust {
    roots: PathBuf,
    read: Mutex<Option<((SystemTime, u64), ClientConfig)>>,
}

impl Trust {
    fn config(&self) -> Result<ClientConfig, String> {
        let wrong = |why: &dyn Display| format!("`[dns] tls_roots` {}: {why}", self.roots.display());
        let about = fs::metadata(&self.roots).map_err(|error| wrong(&error))?;
        let version = (about.modified().map_err(|error| wrong(&error))?, about.len());
        let mut read = lock(&self.read);
        match &*read {
            Some((of, config)) if *of == version => Ok(config.clone()),
            _ => {
                let pem = fs::read(&self.roots).map_err(|error| wrong(&error))?;
                let config = trusting(&pem).map_err(|why| wrong(&why))?;
                *read = Some((version, config.clone()));
                Ok(config)
            }
        }
    }
}

fn trusting(pem: &[u8]) -> Result<ClientConfig, String> {
    let roots: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(roots.map_err(|error| error.to_string())?);
    if usable == 0 {
        return Err("it holds no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|error| error.to_string())?.with_root_certificates(store).with_no_client_auth())
}

/// What the server's certificate must be for.
fn shown_name(name: Option<&DnsName>, address: SocketAddr) -> Result<ServerName<'static>, NetError> {
    match name {
        Some(name) => ServerName::try_from(name.to_string()).map_err(|error| NetError::Msg(error.to_string())),
        None => Ok(ServerName::IpAddress(address.ip().into())),
    }
}

/// A panic elsewhere cannot leave what these hold half-written.
fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
