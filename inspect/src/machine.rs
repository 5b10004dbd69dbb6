//! What one flow has shown so far. Once it is decided, it stays so, and nothing is kept but the answer.

use config::names::DnsName;

use crate::client_hello::{ClientHello, MAX_BYTES, Records};
use crate::quic;
use crate::segments::Segments;
use crate::unreadable::Unreadable;

/// Bytes that an [`Inspection`] keeps at most: the stream and the message in its records, or the CRYPTO streams, packet
/// numbers and connection IDs. What is allocated for them may be twice as much, and some KiB for keys.
pub const MAX_HELD: usize = 2 * MAX_BYTES + quic::MAX_BESIDE;

/// What a ClientHello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The name the client asks for, in lower case without a last dot. None: it sent no server_name extension.
    pub server_name: Option<DnsName>,
    /// Whether there is an encrypted_client_hello extension: the name is then the outer one, and may hide another. GREASE
    /// looks the same.
    pub ech: bool,
}

/// Where an [`Inspection`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The ClientHello is not whole yet. How long to wait is for the caller to say.
    More,
    /// The ClientHello was read.
    Shown(Hello),
    /// No name can be read, whatever comes.
    Failed(Unreadable),
}

/// What a later packet of a flow is whose ClientHello was [shown](Progress::Shown).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It repeats what was read, or adds nothing to it that a server would read as a name.
    Same,
    /// It is to be read by an inspection of its own: it begins another QUIC connection.
    Another,
    /// It contradicts what was read: the server might take it for that.
    Failed(Unreadable),
}

/// Reads one flow.
#[derive(Debug)]
pub struct Inspection {
    begins_at: Option<u32>,
    state: State,
}

#[derive(Debug)]
enum State {
    Reading(Source),
    Shown(Hello, Source),
    Failed(Unreadable),
}

#[derive(Debug)]
enum Source {
    Tcp(Tcp),
    Udp(quic::Flow),
}

#[derive(Debug)]
struct Tcp {
    segments: Segments,
    records: Records,
}

impl Inspection {
    /// A TCP stream; `first_seq` is the number of its first byte, the SYN's plus one, if the SYN was seen.
    ///
    /// Without it the lowest number counts (see [`segments`](crate::segments)). Bytes that are no ClientHello then leave it
    /// at [`Progress::More`], as what comes before them may be missing; and [`Progress::Shown`] is true of the stream from
    /// [`Self::begins_at`] on.
    pub fn tcp(first_seq: Option<u32>) -> Self {
        let tcp = Tcp { segments: Segments::new(first_seq), records: Records::default() };
        Self { begins_at: first_seq, state: State::Reading(Source::Tcp(tcp)) }
    }

    /// A flow of UDP datagrams.
    pub fn udp() -> Self {
        Self { begins_at: None, state: State::Reading(Source::Udp(quic::Flow::default())) }
    }

    /// Takes the payload of the flow's next packet from the client. `seq` is the sequence number of its first byte (a SYN
    /// counts as one number before its data); UDP has none, and any value will do.
    pub fn push(&mut self, seq: u32, payload: &[u8]) -> Progress {
        if payload.is_empty() {
            return self.progress();
        }
        let State::Reading(source) = &mut self.state else { return self.progress() };
        let read = match source {
            Source::Tcp(tcp) => {
                let read = tcp.push(seq, payload);
                self.begins_at = tcp.segments.first_seq();
                read
            }
            Source::Udp(flow) => flow.push(payload).and_then(whole),
        };
        self.state = match (read, std::mem::replace(&mut self.state, State::Failed(Unreadable::NotTls))) {
            (Ok(Some(hello)), State::Reading(source)) => State::Shown(hello, source),
            (Err(unreadable), _) => State::Failed(unreadable),
            (_, reading) => reading,
        };
        self.progress()
    }

    /// Takes the payload of a later packet, as [`Self::push`] does, once the flow has shown its name. Before that, and where it
    /// failed, every packet is to be read by another inspection.
    pub fn follow(&mut self, seq: u32, payload: &[u8]) -> Followed {
        match &mut self.state {
            State::Shown(_, Source::Tcp(tcp)) => match tcp.segments.push(seq, payload) {
                Ok(()) => Followed::Same,
                Err(misfit) => Followed::Failed(misfit.into()),
            },
            State::Shown(_, Source::Udp(flow)) => flow.follow(payload),
            State::Reading(_) | State::Failed(_) => Followed::Another,
        }
    }

    /// Of a TCP stream that has shown its name, the sequence number behind what was read without a gap.
    pub fn ends_at(&self) -> Option<u32> {
        let State::Shown(_, Source::Tcp(tcp)) = &self.state else { return None };
        let length = u32::try_from(tcp.segments.contiguous().len()).ok()?;
        Some(self.begins_at?.wrapping_add(length))
    }

    /// Of a TCP stream that has shown its name, the records that the ClientHello was in.
    pub fn hello(&self) -> Option<&[u8]> {
        let State::Shown(_, Source::Tcp(tcp)) = &self.state else { return None };
        tcp.segments.contiguous().get(..tcp.records.end())
    }

    /// What the last [`Self::push`] said.
    pub fn progress(&self) -> Progress {
        match &self.state {
            State::Reading(_) => Progress::More,
            State::Shown(hello, _) => Progress::Shown(hello.clone()),
            State::Failed(unreadable) => Progress::Failed(*unreadable),
        }
    }

    /// The sequence number of the byte at which the TCP stream was read from. Where the SYN was not seen, who lets a shown
    /// flow go must drop what comes with a lower one: a server would put it before the ClientHello.
    pub fn begins_at(&self) -> Option<u32> {
        self.begins_at
    }

    /// Bytes kept, at most [`MAX_HELD`]; none once the flow has failed.
    pub fn held(&self) -> usize {
        match &self.state {
            State::Reading(Source::Tcp(tcp)) | State::Shown(_, Source::Tcp(tcp)) => {
                tcp.segments.held() + tcp.records.held()
            }
            State::Reading(Source::Udp(flow)) | State::Shown(_, Source::Udp(flow)) => flow.held(),
            State::Failed(_) => 0,
        }
    }
}

impl Tcp {
    fn push(&mut self, seq: u32, payload: &[u8]) -> Result<Option<Hello>, Unreadable> {
        let start = self.segments.first_seq();
        self.segments.push(seq, payload)?;
        if self.segments.first_seq() != start {
            self.records = Records::default();
        }
        let stream = self.segments.contiguous();
        match self.records.read(stream).map_err(Unreadable::from).and_then(whole) {
            Err(_) if !self.segments.is_start_known() && stream.len() < MAX_BYTES => Ok(None),
            read => read,
        }
    }
}

/// RFC 6066 §3: a host name is a DNS name, never the literal of an address. One that is neither is no name that a policy
/// could speak of, and a client that sends it is not taken for one that sends none.
fn whole(hello: Option<ClientHello>) -> Result<Option<Hello>, Unreadable> {
    let Some(ClientHello { server_name, ech }) = hello else {
        return Ok(None);
    };
    let server_name = server_name.map(DnsName::try_from).transpose().map_err(|_| Unreadable::MalformedHello)?;
    Ok(Some(Hello { server_name, ech }))
}
