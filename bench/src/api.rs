//! The daemon's socket, asked without a process for each request: HTTP/1.1 on one connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

/// An open connection.
pub(crate) struct Api(BufReader<UnixStream>);

impl Api {
    pub(crate) fn connect(socket: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(socket).expect("the gateway's socket")))
    }

    /// Sends a request; [`Self::answer`] waits for what comes back.
    pub(crate) fn post(&mut self, path: &str, body: &Value) {
        let body = body.to_string();
        let head = format!("POST /v1/{path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {}\r\n\r\n", body.len());
        self.0.get_mut().write_all((head + &body).as_bytes()).expect("the gateway takes the request");
    }

    /// The answer to the last request; panics if it was refused.
    pub(crate) fn answer(&mut self) -> Value {
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("the gateway answers");
            if line.trim_end().is_empty() {
                break;
            }
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().expect("a length");
            }
            head.push(line);
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the gateway's whole answer");
        let body = String::from_utf8_lossy(&body);
        assert!(head.first().is_some_and(|line| line.contains(" 200 ")), "{head:?} {body}");
        serde_json::from_str(&body).expect("JSON")
    }
}
