//! The daemon, seen from its admin socket: JSON over HTTP/1.1; one connection a request. The API itself is [`config::api`].
//! Container engines are asked the same way.

use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use config::api::{ErrorBody, MAX_BODY};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// For an answer; longer than the daemon takes to give up by itself.
const ANSWER_TIME: Duration = Duration::from_secs(90);
/// The largest answer, and the longest line of a stream, bytes.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Why there is no answer as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The daemon does not run, or may not be asked.
    #[error("{message}; {mend}")]
    NoDaemon {
        /// What is so.
        message: String,
        /// What to do.
        mend: String,
    },
    /// The daemon refused, or what it was asked for failed.
    #[error("{message}; {mend}")]
    Refused {
        /// HTTP status, 400 or above.
        status: u16,
        /// What is wrong.
        message: String,
        /// What to do; may be empty.
        mend: String,
    },
    /// The answer did not come, or is not understood.
    #[error("{message}; {mend}")]
    NoAnswer {
        /// What is wrong.
        message: String,
        /// What to do; may be empty.
        mend: String,
    },
}

/// The daemon's socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    base: &'static str,
}

/// A stream of JSON lines.
#[derive(Debug)]
pub struct Lines<T> {
    body: Incoming,
    buffer: BytesMut,
    searched: usize,
    of: PhantomData<T>,
}

impl Client {
    /// Connects at the first request.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, base: "/v1/" }
    }

    /// A container engine's API, which is that of Docker (Podman has it too).
    pub fn of_engine(socket: PathBuf) -> Self {
        Self { socket, base: "/" }
    }

    /// Asks.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        whole(response).await
    }

    /// Asks with a body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| no_answer(format!("writing the request: {error}"), ""))?;
        if body.len() > MAX_BODY {
            return Err(no_answer(format!("the manifests are larger than {MAX_BODY} bytes"), "apply them in parts"));
        }
        whole(self.send(Method::POST, path, body.into()).await?).await
    }

    /// Asks for a stream.
    pub async fn stream<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, Error> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        if response.status().as_u16() >= 400 {
            return whole::<serde::de::IgnoredAny>(response)
                .await
                .and_then(|_| Err(not_understood("an error without a reason")));
        }
        Ok(Lines { body: response.into_body(), buffer: BytesMut::new(), searched: 0, of: PhantomData })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.no_daemon(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(cut_short)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("host", "gateway")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| no_answer(format!("writing the request: {error}"), ""))?;
        match timeout(ANSWER_TIME, sender.send_request(request)).await {
            Ok(response) => response.map_err(cut_short),
            Err(_) => Err(too_late()),
        }
    }

    fn no_daemon(&self, error: &io::Error) -> Error {
        let socket = self.socket.display();
        let (message, mend) = match error.kind() {
            io::ErrorKind::NotFound => (
                format!("the gateway is not running: there is no {socket}"),
                "start it with `gateway run`, or name its socket with --socket or TIDEGATE_SOCKET",
            ),
            io::ErrorKind::ConnectionRefused => {
                (format!("the gateway is not running: nobody listens on {socket}"), "start it with `gateway run`")
            }
            io::ErrorKind::PermissionDenied => (format!("you may not use {socket}"), "run netctl as root"),
            _ => (
                format!("connecting to {socket}: {error}"),
                "see whether the gateway runs, and whether this is its socket",
            ),
        };
        Error::NoDaemon { message, mend: mend.to_owned() }
    }
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next line; `None` when the daemon ended the stream.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                return decode(&line).map(Some);
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_ANSWER {
                return Err(not_understood("a line without an end"));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    return Err(no_answer("the gateway ended in the middle of a line", "see its log, and try again"));
                }
                Some(frame) => {
                    if let Ok(data) = frame.map_err(cut_short)?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

async fn whole<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Error> {
    let status = response.status();
    let body = match timeout(ANSWER_TIME, Limited::new(response.into_body(), MAX_ANSWER).collect()).await {
        Ok(body) => {
            body.map_err(|error| no_answer(format!("the answer was cut short: {error}"), "see the gateway's log"))?
        }
        Err(_) => return Err(too_late()),
    };
    let body = body.to_bytes();
    if status.is_success() {
        return decode(&body);
    }
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(ErrorBody { message, mend }) => Err(Error::Refused { status: status.as_u16(), message, mend }),
        Err(_) => Err(not_understood(&format!("HTTP status {status}"))),
    }
}

fn no_answer(message: impl Into<String>, mend: impl Into<String>) -> Error {
    Error::NoAnswer { message: message.into(), mend: mend.into() }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| not_understood(&error.to_string()))
}

fn not_understood(what: &str) -> Error {
    no_answer(
        format!("the answer is not understood: {what}"),
        "use the netctl of the gateway's version, and its admin socket",
    )
}

fn cut_short(error: hyper::Error) -> Error {
    no_answer(format!("the gateway hung up: {error}"), "see its log, and whether this is its admin socket")
}

fn too_late() -> Error {
    no_answer(format!("no answer within {} s", ANSWER_TIME.as_secs()), "see the gateway's log, and `netctl status`")
}
