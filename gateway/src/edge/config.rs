//! What the edge serves, as plain values: exposed apps whose backends are already endpoints.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use config::names::{DnsName, Name};
use config::resource::TlsVersion;

/// Everything that is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeConfig {
    /// Apps; no host is in two of them.
    pub apps: Vec<App>,
}

/// One exposed app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its namespace, which names the folder of its files too.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
    /// Names it answers to, at least one.
    pub hosts: Vec<DnsName>,
    /// Where TLS ends.
    pub mode: Mode,
    /// Its routes; under passthrough exactly one.
    pub routes: Vec<Route>,
}

/// Where TLS ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Here.
    Edge {
        /// PEM chain, leaf first, relative to the namespace's folder.
        cert_file: String,
        /// PEM key (PKCS#8, PKCS#1 or SEC1), relative likewise.
        key_file: String,
        /// The oldest version spoken.
        min_version: TlsVersion,
        /// PEM certificates of which one must have issued the client's, relative likewise.
        client_ca: Option<String>,
    },
    /// In the backend: bytes go on by the ClientHello's server name, unread.
    Passthrough,
}

/// Requests whose path lies below `path` go to `backends`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// A prefix of whole segments: `/api` takes `/api` and `/api/x`, not `/apis`.
    pub path: String,
    /// Endpoints, taken in turn; none is a 503.
    pub backends: Vec<Endpoint>,
}

/// One address of a workload, as the edge reaches it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// `namespace/name`, for logs and status.
    pub workload: String,
    /// Source address to connect from.
    pub source: IpAddr,
    /// Where to connect: the workload's handle and the port.
    pub address: SocketAddr,
}

/// How long the edge waits for whom.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the whole ClientHello.
    pub hello: Duration,
    /// For the rest of the handshake.
    pub handshake: Duration,
    /// For a request's whole head, and between two requests of an HTTP/1 connection.
    pub head: Duration,
    /// For one endpoint to accept a connection.
    pub connect: Duration,
    /// For a backend's answer to begin after the request's last byte moved.
    pub first_byte: Duration,
    /// Without any byte in either direction.
    pub idle: Duration,
    /// An unused backend connection is kept.
    pub pooled: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            pooled: Duration::from_secs(30),
        }
    }
}

impl App {
    /// `namespace/name`
    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}
