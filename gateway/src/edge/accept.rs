//! A client's first steps: accepted, its ClientHello read, its app found by the server name, and handed on: to
//! [`tunnel`] under passthrough, else through a handshake to [`http`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::names::DnsName;
use inspect::client_hello::Reader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::client_stream::ClientStream;
use super::http::{self, Connection};
use super::outcome::Outcome;
use super::reason::Reason;
use super::shared::{MAX_CONNECTIONS, Phase, Place, Shared};
use super::table::{Ends, Served};
use super::tunnel;
use super::upstream::ConnectError;

/// Pause after an accept that failed for want of something (file descriptors, memory).
const PAUSE: Duration = Duration::from_millis(100);
const READ: usize = 4096;

/// Accepts until the edge drains.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut room = shared.connections.subscribe();
    let draining = shared.reaches(Phase::Draining);
    tokio::pin!(draining);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            () = &mut draining => return,
            accepted = async {
                let _ = room.wait_for(|count| *count < MAX_CONNECTIONS).await;
                listener.accept().await
            } => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                failing = false;
                let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                tokio::spawn(serve(stream, client, shared.clone(), Place::take(&shared)));
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "connections cannot be accepted; raise the limit of open files");
                }
                tokio::select! {
                    () = &mut draining => return,
                    () = sleep(PAUSE) => {}
                }
            }
        }
    }
}

/// Errors of a connection that died before it was accepted (accept(2)).
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | Interrupted | NetworkDown | NetworkUnreachable
    )
}

async fn serve(mut stream: TcpStream, client: SocketAddr, shared: Arc<Shared>, place: Place) {
    let mut outcome = Outcome::connection(client);
    let found = tokio::select! {
        found = find(&mut stream, &shared) => found,
        () = shared.reaches(Phase::Ended) => Err(Reason::Stopped),
    };
    let (first, host, served) = match found {
        Ok(found) => found,
        Err(reason) => {
            return refuse(ClientStream::new(Vec::new(), stream, shared), outcome, reason).await;
        }
    };
    let stream = ClientStream::new(first, stream, shared.clone());
    outcome.of(served.label.clone(), host.as_str());
    match &served.ends {
        Ends::Backend => pass_through(stream, &host, &served, outcome, &shared).await,
        Ends::Here(identity) => {
            let Some(loaded) = identity.loaded() else {
                return refuse(stream, outcome, Reason::NoCertificate).await;
            };
            let handshake = TlsAcceptor::from(loaded.tls.clone()).accept(stream);
            let reason = tokio::select! {
                done = timeout(shared.timeouts.handshake, handshake) => match done {
                    Ok(Ok(tls)) => {
                        let app = served.label.clone();
                        let connection = Connection::new(shared, client, host, app, loaded.terms.clone(), place);
                        return http::serve(tls, Arc::new(connection), outcome).await;
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(app = %served.label, %client, %error, "TLS was not agreed on");
                        Reason::HandshakeFailed
                    }
                    Err(_) => Reason::HandshakeTimedOut,
                },
                () = shared.reaches(Phase::Ended) => Reason::Stopped,
            };
            outcome.end(reason);
        }
    }
}

/// Reads the ClientHello and finds the app it names.
async fn find(stream: &mut TcpStream, shared: &Shared) -> Result<(Vec<u8>, DnsName, Arc<Served>), Reason> {
    let mut reader = Reader::default();
    let hello = timeout(shared.timeouts.hello, async {
        let mut bytes = [0; READ];
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return Err(Reason::ClientGone),
                Ok(length) => match reader.push(&bytes[..length]) {
                    Ok(Some(hello)) => return Ok(hello),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(%error, "no ClientHello");
                        return Err(Reason::BadClientHello);
                    }
                },
            }
        }
    });
    let hello = hello.await.unwrap_or(Err(Reason::ClientHelloTimedOut))?;
    let name = hello.server_name.ok_or(Reason::NoServerName)?;
    let host = DnsName::try_from(name).map_err(|_| Reason::UnknownServerName)?;
    let served = shared.table.borrow().app(&host).cloned().ok_or(Reason::UnknownServerName)?;
    stream.set_nodelay(true).map_err(|_| Reason::ClientGone)?;
    Ok((reader.into_bytes(), host, served))
}

/// Ends a connection before a handshake, with the alert that fits (RFC 8446 §6; a record of TLS 1.2's version number).
async fn refuse(mut stream: ClientStream, outcome: Outcome, reason: Reason) {
    if let Some(alert) = reason.alert() {
        let fatal = 2;
        // Seven bytes fit any fresh send buffer: this does not wait.
        let _ = stream.write_all(&[21, 3, 3, 0, 2, fatal, alert]).await;
    }
    outcome.end(reason);
}

async fn pass_through(stream: ClientStream, host: &DnsName, served: &Served, mut outcome: Outcome, shared: &Shared) {
    let candidates = served.routes.find("/").map(|backends| backends.candidates()).unwrap_or_default();
    let mut reason = Reason::NoEndpoint;
    for upstream in candidates {
        outcome.tries(&upstream);
        let connected = match upstream.place() {
            Ok(place) => upstream.connect(shared).await.map(|backend| (place, backend)),
            Err(busy) => Err(busy),
        };
        match connected {
            Ok((_place, backend)) => {
                let revoked = shared.becomes(|table| !table.serves(host, &served.label, &upstream.endpoint));
                return tunnel::run(stream, backend, outcome, shared, revoked).await;
            }
            Err(error) => reason = no_connection(&upstream.endpoint.workload, &error),
        }
    }
    refuse(stream, outcome, reason).await;
}

/// Says in the log why an endpoint could not be reached, and gives the reason for the record.
pub(super) fn no_connection(workload: &str, error: &ConnectError) -> Reason {
    tracing::debug!(workload, %error, "endpoint not reached");
    match error {
        ConnectError::Busy => Reason::Busy,
        ConnectError::Failed(_) | ConnectError::Http(_) => Reason::ConnectFailed,
        ConnectError::TimedOut => Reason::ConnectTimedOut,
    }
}
