//! `kind: ExposedApp`: host names served by the edge, and the workloads behind them.

use crate::names::{DnsName, Name};
use crate::resource::Selector;

/// `kind: ExposedApp`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposedApp {
    /// Namespace.
    pub namespace: Name,
    /// Name.
    pub name: Name,
    /// `spec.hosts`: exact names.
    pub hosts: Vec<DnsName>,
    /// `spec.tls`
    pub tls: Tls,
    /// `spec.routes`; exactly one, with path `/`, under passthrough.
    pub routes: Vec<Route>,
}

/// `spec.tls`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Terminated here.
    Edge {
        /// PEM chain and key, relative to the namespace's folder of `[node] files_dir`.
        certificate: Certificate,
        /// `minVersion`, default 1.2.
        min_version: TlsVersion,
        /// `clientAuth.caFile`: a client certificate is then required.
        client_ca: Option<String>,
    },
    /// Sent on by SNI, unread.
    Passthrough,
}

/// `spec.tls.certificate`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM, leaf first.
    pub cert_file: String,
    /// PEM, PKCS#8, PKCS#1 or SEC1.
    pub key_file: String,
}

/// `spec.tls.minVersion`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// "1.2"
    Tls12,
    /// "1.3"
    Tls13,
}

/// One of `spec.routes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// A path prefix of whole segments, beginning with `/`.
    pub path: String,
    /// At least one.
    pub backends: Vec<Backend>,
}

/// Workloads of the app's namespace, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// `selector`
    pub selector: Selector,
    /// TCP port, 1–65535.
    pub port: u16,
}
