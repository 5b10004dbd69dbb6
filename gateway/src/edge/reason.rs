//! How a request or a connection ended, and what its client is told: short, and nothing about the inside.

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// As it should.
    Served,
    /// The request is wrong in itself.
    BadRequest(&'static str),
    /// The host is not one that this connection was made for.
    Misdirected,
    /// CONNECT.
    Tunnel,
    /// No route covers the path.
    NoRoute,
    /// The route has no endpoint.
    NoEndpoint,
    /// All connections to the endpoints are in use.
    Busy,
    /// No endpoint tried accepts connections.
    ConnectFailed,
    /// No endpoint tried accepted the connection in time.
    ConnectTimedOut,
    /// The backend took the request and did not begin to answer in time.
    FirstByteTimedOut,
    /// The backend closed the connection or spoke no HTTP.
    BackendBroke,
    /// The backend stopped in the middle of its answer.
    BackendStalled,
    /// The client stopped in the middle of its request.
    ClientStalled,
    /// The client went away.
    ClientGone,
    /// No byte moved for too long.
    Idle,
    /// The app, the endpoint or the terms of its TLS are no longer those of this connection.
    Revoked,
    /// The daemon stopped.
    Stopped,
    /// The client named no server.
    NoServerName,
    /// The client named a server that no app has.
    UnknownServerName,
    /// The app's certificate could not be loaded yet.
    NoCertificate,
    /// The first bytes were no ClientHello.
    BadClientHello,
    /// The ClientHello did not come in time.
    ClientHelloTimedOut,
    /// TLS was not agreed on.
    HandshakeFailed,
    /// TLS was not agreed on in time.
    HandshakeTimedOut,
}

impl Reason {
    /// For the log.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::BadRequest(what) => what,
            Self::Misdirected => "the host is not of this connection's app",
            Self::Tunnel => "CONNECT is not served",
            Self::NoRoute => "no route for the path",
            Self::NoEndpoint => "no workload matches the route",
            Self::Busy => "all connections to the endpoints are in use",
            Self::ConnectFailed => "no endpoint accepts connections",
            Self::ConnectTimedOut => "no endpoint accepted the connection in time",
            Self::FirstByteTimedOut => "the backend did not begin to answer in time",
            Self::BackendBroke => "the backend broke the connection off",
            Self::BackendStalled => "the backend stopped in the middle of its answer",
            Self::ClientStalled => "the client stopped in the middle of its request",
            Self::ClientGone => "the client went away",
            Self::Idle => "idle for too long",
            Self::Revoked => "no longer what the configuration serves",
            Self::Stopped => "the daemon stopped",
            Self::NoServerName => "no server name in the ClientHello",
            Self::UnknownServerName => "no app has this server name",
            Self::NoCertificate => "the app's certificate cannot be loaded",
            Self::BadClientHello => "no ClientHello",
            Self::ClientHelloTimedOut => "the ClientHello did not come in time",
            Self::HandshakeFailed => "TLS was not agreed on",
            Self::HandshakeTimedOut => "TLS was not agreed on in time",
        }
    }

    /// For metrics: one word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::BadRequest(_) => "bad-request",
            Self::Misdirected => "misdirected",
            Self::Tunnel => "tunnel",
            Self::NoRoute => "no-route",
            Self::NoEndpoint => "no-endpoint",
            Self::Busy => "busy",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimedOut => "connect-timed-out",
            Self::FirstByteTimedOut => "first-byte-timed-out",
            Self::BackendBroke => "backend-broke",
            Self::BackendStalled => "backend-stalled",
            Self::ClientStalled => "client-stalled",
            Self::ClientGone => "client-gone",
            Self::Idle => "idle",
            Self::Revoked => "revoked",
            Self::Stopped => "stopped",
            Self::NoServerName => "no-server-name",
            Self::UnknownServerName => "unknown-server-name",
            Self::NoCertificate => "no-certificate",
            Self::BadClientHello => "bad-client-hello",
            Self::ClientHelloTimedOut => "client-hello-timed-out",
            Self::HandshakeFailed => "handshake-failed",
            Self::HandshakeTimedOut => "handshake-timed-out",
        }
    }

    /// The answer to a request that ends this way before its answer began.
    pub(super) fn answer(self) -> Response<Bytes> {
        let (status, body) = match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad request\n"),
            Self::Misdirected | Self::Revoked => (StatusCode::MISDIRECTED_REQUEST, "not served on this connection\n"),
            Self::Tunnel => (StatusCode::NOT_IMPLEMENTED, "not implemented\n"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "not found\n"),
            Self::NoEndpoint | Self::Busy | Self::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "not available now\n"),
            Self::ConnectFailed | Self::ConnectTimedOut | Self::BackendBroke => {
                (StatusCode::BAD_GATEWAY, "the app cannot be reached\n")
            }
            Self::FirstByteTimedOut | Self::BackendStalled => {
                (StatusCode::GATEWAY_TIMEOUT, "the app did not answer in time\n")
            }
            Self::ClientStalled | Self::Idle => (StatusCode::REQUEST_TIMEOUT, "the request did not come in time\n"),
            Self::Served
            | Self::ClientGone
            | Self::NoServerName
            | Self::UnknownServerName
            | Self::NoCertificate
            | Self::BadClientHello
            | Self::ClientHelloTimedOut
            | Self::HandshakeFailed
            | Self::HandshakeTimedOut => (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n"),
        };
        let mut response = Response::new(Bytes::from_static(body.as_bytes()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self, Self::Misdirected | Self::Revoked | Self::BadRequest(_) | Self::ClientStalled) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The TLS alert (RFC 8446 §6) for a connection that ends this way before a handshake; `None` just closes.
    pub(super) fn alert(self) -> Option<u8> {
        match self {
            Self::NoServerName | Self::UnknownServerName => Some(112),
            Self::NoCertificate | Self::NoEndpoint | Self::Busy | Self::ConnectFailed | Self::ConnectTimedOut => {
                Some(80)
            }
            Self::BadClientHello => Some(50),
            Self::Served
            | Self::BadRequest(_)
            | Self::Misdirected
            | Self::Tunnel
            | Self::NoRoute
            | Self::FirstByteTimedOut
            | Self::BackendBroke
            | Self::BackendStalled
            | Self::ClientStalled
            | Self::ClientGone
            | Self::Idle
            | Self::Revoked
            | Self::Stopped
            | Self::ClientHelloTimedOut
            | Self::HandshakeFailed
            | Self::HandshakeTimedOut => None,
        }
    }
}
