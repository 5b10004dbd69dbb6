//! Real QUIC: a server and clients of quinn, each in its namespace. A connection's one stream is answered with the server
//! name that the client asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::namespace::Namespace;
use crate::peers::certificates::Pair;
use crate::peers::tls;
use crate::wait::patience;

/// Longest wait for a handshake and an answer.
const PATIENCE: Duration = Duration::from_secs(3);
const PROTOCOL: &[u8] = b"tidegate-test";

/// A running server.
#[derive(Debug)]
pub struct QuicServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl QuicServer {
    /// Starts it at these addresses, with this certificate.
    pub fn start(namespace: &Namespace, addresses: &[SocketAddr], pair: &Pair) -> Self {
        let certificates = CertificateDer::pem_file_iter(&pair.certificate).expect("a certificate");
        let certificates = certificates.collect::<Result<Vec<_>, _>>().expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth();
        let mut config = config.with_single_cert(certificates, key).expect("a pair");
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).expect("QUIC's suite")));
        let sockets = namespace.enter(|| addresses.iter().map(bound).collect::<Vec<_>>());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async move {
                for socket in sockets {
                    let endpoint = endpoint(socket, Some(config.clone()));
                    tokio::spawn(async move {
                        while let Some(incoming) = endpoint.accept().await {
                            tokio::spawn(answer(incoming));
                        }
                    });
                }
                let _ended = stopped.await;
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for QuicServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

async fn answer(incoming: Incoming) -> Option<()> {
    let connection = incoming.await.ok()?;
    let asked = connection.handshake_data()?.downcast::<HandshakeData>().ok()?.server_name?;
    let (mut send, mut receive) = connection.accept_bi().await.ok()?;
    let heard = receive.read_to_end(1 << 20).await.ok()?;
    send.write_all(format!("{asked} {}", heard.len()).as_bytes()).await.ok()?;
    send.finish().ok()?;
    connection.closed().await;
    Some(())
}

/// One socket of a client, which may ask for several names one after the other.
#[derive(Debug)]
pub struct QuicClient {
    runtime: Runtime,
    endpoint: Endpoint,
}

impl QuicClient {
    /// Opens it, of the far end's family, to trust that authority.
    pub fn new(namespace: &Namespace, far: IpAddr, authority: &Path) -> Self {
        let mut config = tls::config(authority);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let own = match far {
            IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = namespace.enter(|| bound(&own));
        let runtime = runtime();
        let endpoint = runtime.block_on(async {
            let mut endpoint = endpoint(socket, None);
            endpoint.set_default_client_config(ClientConfig::new(Arc::new(
                QuicClientConfig::try_from(config).expect("QUIC's suite"),
            )));
            endpoint
        });
        Self { runtime, endpoint }
    }

    /// Connects, sends so many bytes, and answers what the server says, or why it says nothing.
    pub fn ask(&self, far: SocketAddr, name: &str, bytes: usize) -> Result<String, String> {
        self.runtime.block_on(async {
            let asked = async {
                let connecting = self.endpoint.connect(far, name).map_err(|error| error.to_string())?;
                let connection = connecting.await.map_err(|error| error.to_string())?;
                let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
                send.write_all(&vec![7; bytes]).await.map_err(|error| error.to_string())?;
                send.finish().map_err(|error| error.to_string())?;
                let said = receive.read_to_end(1 << 16).await.map_err(|error| error.to_string())?;
                connection.close(0u8.into(), b"");
                Ok(String::from_utf8_lossy(&said).into_owned())
            };
            tokio::time::timeout(PATIENCE * patience(), asked).await.unwrap_or_else(|_| Err("no answer".to_owned()))
        })
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn bound(address: &SocketAddr) -> UdpSocket {
    UdpSocket::bind(address).unwrap_or_else(|error| panic!("bind {address}: {error}"))
}

fn endpoint(socket: UdpSocket, server: Option<ServerConfig>) -> Endpoint {
    Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime)).expect("an endpoint")
}
