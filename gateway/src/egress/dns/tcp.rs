//! Queries over TCP (RFC 7766): length-framed, pipelined, answered in the order in which they are resolved.
//!
//! Each connection owns a channel of [`PIPELINED`] answers. A client that does not read its answers fills it, and then
//! is not read from either; what nobody takes within [`IDLE`] ends the connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::PORT;
use super::answer::{self, Extended};
use super::outcome::Outcome;
use super::question::{self, Read};
use super::quota::{Quota, Turn};
use super::resolve::Resolver;
use crate::sys::socket;

/// How long a connection may be without a whole query, and an answer without being taken.
const IDLE: Duration = Duration::from_secs(10);
/// Queries of one connection being answered at one time: each may hold an answer of 64 KiB that nobody reads.
const PIPELINED: usize = 16;
/// Connections that wait in the kernel.
const BACKLOG: u32 = 1024;
/// After an error of the system (no file descriptors, no memory) that would come again at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest query read, in bytes.
const LONGEST: usize = 4096;

/// A listener on the wildcard address. For the current thread's namespace and runtime.
pub(super) fn bind(ipv6: bool) -> io::Result<TcpListener> {
    let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = if ipv6 { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    if ipv6 {
        socket::only_ipv6(socket.as_fd())?;
        socket::free_bind(socket.as_fd())?;
    }
    socket.bind(SocketAddr::new(any, PORT))?;
    socket.listen(BACKLOG)
}

/// Serves until aborted; connections that are open then end with their idle time.
pub(super) async fn serve(listener: TcpListener, resolver: Arc<Resolver>, connections: Arc<Quota>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match connections.take(peer.ip()) {
                Some(turn) => drop(tokio::spawn(converse(stream, peer.ip(), Arc::clone(&resolver), turn))),
                None => Outcome::Overload.count(),
            },
            Err(error) => {
                debug!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, asker: IpAddr, resolver: Arc<Resolver>, _turn: Turn) {
    drop(stream.set_nodelay(true));
    let (reader, writer) = stream.into_split();
    let (answers, due) = mpsc::channel(PIPELINED);
    let read = read_all(BufReader::new(reader), asker, &resolver, answers);
    let ((), written) = tokio::join!(read, write_all(writer, due));
    if let Err(error) = written {
        debug!(%asker, %error, "a DNS connection ended");
    }
}

/// Reads until the client ends, idles, breaks the rules, or does not take its answers.
async fn read_all(
    mut reader: impl AsyncRead + Unpin,
    asker: IpAddr,
    resolver: &Arc<Resolver>,
    answers: Sender<Vec<u8>>,
) {
    while let Ok(Ok(Some(bytes))) = timeout(IDLE, frame(&mut reader)).await {
        let Ok(Ok(place)) = timeout(IDLE, answers.clone().reserve_owned()).await else { return };
        match question::read(&bytes) {
            Read::Drop => return Outcome::Malformed.count(),
            Read::Answer(answer, outcome) => {
                outcome.count();
                place.send(answer);
            }
            Read::Question(mut question) => {
                question.asked = None; // the kernel answers datagrams only
                match resolver.admit(asker) {
                    None => {
                        drop(place.send(answer::failed(&question, Extended::Other, "too many queries at one time")));
                    }
                    Some(turn) => match resolver.at_once(asker, &question) {
                        Ok(None) => {}
                        Ok(Some(answer)) => drop(place.send(answer)),
                        Err(asking) => resolver.start(asker, question, turn, asking, async move |_, answer| {
                            place.send(answer);
                        }),
                    },
                }
            }
        }
    }
}

/// One length-framed message; `None` where the client has ended between messages or the message is too long.
async fn frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match reader.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > LONGEST {
        Outcome::Malformed.count();
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

/// Writes until every place in the channel is given back, which is after reading has ended.
async fn write_all(mut writer: OwnedWriteHalf, mut due: Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(answer) = due.recv().await {
        let Ok(length) = u16::try_from(answer.len()) else { continue };
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(IDLE, writer.write_all(&framed)).await??;
    }
    writer.shutdown().await
}
