//! Clients: programs of the system, and raw TLS for what they would never send.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::world::World;

/// A raw TLS connection.
pub(crate) type Raw = StreamOwned<ClientConnection, TcpStream>;

impl World {
    /// `curl` to this world's host, with more arguments; its output is the body, a line `code version`.
    pub(crate) fn curl(&self, path: &str, arguments: &[&str]) -> Output {
        let url = format!("https://{}{path}", self.host);
        self.command("curl")
            .args(arguments)
            .args(["--connect-to", &format!("::{}", self.listen())])
            .arg(url)
            .output()
            .unwrap()
    }

    /// The body and `code version` of a `curl`.
    pub(crate) fn fetch(&self, path: &str, arguments: &[&str]) -> (String, String) {
        let output = self.curl(path, arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, end) = text.rsplit_once('\u{1}').unwrap_or_else(|| {
            panic!("curl {path} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        });
        (body.to_owned(), end.to_owned())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-sS", "--max-time", "20", "-w", "\u{1}%{http_code} %{http_version}"]);
        command.arg("--cacert").arg(self.ca.certificate());
        command
    }

    /// `openssl s_client` to the edge with more arguments and nothing to send; everything it says.
    pub(crate) fn s_client(&self, arguments: &str) -> String {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &self.listen().to_string(), "-CAfile"])
            .arg(self.ca.certificate())
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// A TLS connection that names `host` and trusts this world's authority.
    pub(crate) fn raw(&self, host: &str, alpn: &[&[u8]]) -> Raw {
        let mut stream = StreamOwned::new(self.tls(host, alpn), self.tcp());
        stream.flush().unwrap();
        stream
    }

    /// The client's half of TLS.
    pub(crate) fn tls(&self, host: &str, alpn: &[&[u8]]) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca.certificate()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        ClientConnection::new(Arc::new(config), ServerName::try_from(host.to_owned()).unwrap()).unwrap()
    }

    /// A TCP connection to the edge; nothing on it takes longer than ten seconds.
    pub(crate) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.listen()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends bytes on a new HTTP/1.1 connection and reads until the edge closes it.
    pub(crate) fn say(&self, request: &str) -> String {
        let mut stream = self.raw(&self.host, &[b"http/1.1"]);
        let _ = stream.write_all(request.as_bytes());
        read_all(&mut stream)
    }
}

/// Reads to the end, however it ends.
pub(crate) fn read_all(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "no end: {:?}", String::from_utf8_lossy(&bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one answer of known length, and leaves the connection open.
pub(crate) fn read_answer(stream: &mut impl Read) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    let length = text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}
