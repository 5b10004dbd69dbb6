//! Backends on raw sockets: they see exactly what the edge sends, and answer exactly what the test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    /// As framed: chunk sizes, chunks and trailers stay in.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

/// A backend; its threads end with the connections.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
}

/// What to do with a connection whose request has been read: `false` closes it.
type Answer = Arc<dyn Fn(&Seen, &mut TcpStream) -> bool + Send + Sync>;

impl Backend {
    /// Answers each request by `answer`.
    pub(crate) fn start(
        address: SocketAddr,
        answer: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (seen, peers) = (Arc::default(), Arc::<Mutex<Vec<_>>>::default());
        let backend = Self { address, seen: Arc::clone(&seen), peers: peers.clone() };
        let answer: Answer = Arc::new(answer);
        std::thread::spawn(move || {
            while let Ok((stream, peer)) = listener.accept() {
                let connection = peers.lock().unwrap().len();
                peers.lock().unwrap().push(peer);
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || serve(connection, stream, &seen, &*answer));
            }
        });
        backend
    }

    /// Says `name` to everybody.
    pub(crate) fn saying(address: SocketAddr, name: &'static str) -> Self {
        Self::start(address, move |_, stream| respond(stream, "200 OK", &[], name))
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Who has connected so far.
    pub(crate) fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap().clone()
    }
}

/// Writes an answer of known length.
pub(crate) fn respond(stream: &mut TcpStream, status: &str, fields: &[&str], body: &str) -> bool {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).is_ok()
}

fn serve(
    connection: usize,
    stream: TcpStream,
    seen: &Mutex<Vec<Seen>>,
    answer: &dyn Fn(&Seen, &mut TcpStream) -> bool,
) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(connection, &mut reader) {
        seen.lock().unwrap().push(request.clone());
        if !answer(&request, &mut writer) {
            return;
        }
    }
}

fn read(connection: usize, reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut request = Seen { connection, line: line(reader)?, fields: Vec::new(), body: Vec::new() };
    loop {
        let field = line(reader)?;
        let Some((name, value)) = field.split_once(':') else { break };
        request.fields.push((name.to_owned(), value.trim().to_owned()));
    }
    if request.all("transfer-encoding") == ["chunked"] {
        loop {
            let head = line(reader)?;
            let length = usize::from_str_radix(head.split(';').next()?, 16).ok()?;
            request.body.extend(format!("{head}\r\n").bytes());
            if length == 0 {
                break;
            }
            let start = request.body.len();
            request.body.resize(start + length + 2, 0);
            reader.read_exact(&mut request.body[start..]).ok()?;
        }
        loop {
            let trailer = line(reader)?;
            request.body.extend(format!("{trailer}\r\n").bytes());
            if trailer.is_empty() {
                return Some(request);
            }
        }
    }
    let length = request.all("content-length").first().and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
    Some(line.trim_end_matches(['\r', '\n']).to_owned())
}
