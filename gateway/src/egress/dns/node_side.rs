//! The sockets that hickory's exchanges use: of the node's namespace, whatever thread uses them ([`NodeSockets`]).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use config::names::InterfaceName;
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioHandle, TokioTime};
use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::node_sockets::NodeSockets;
use crate::sys::socket;

/// Sockets of the node's namespace, bound to a device where one is given.
#[derive(Clone)]
pub(super) struct NodeSide {
    sockets: Arc<NodeSockets>,
    device: Option<InterfaceName>,
    patience: Duration,
    tasks: TokioHandle,
}

impl NodeSide {
    /// `patience` is for connecting where hickory sets no time itself.
    pub(super) fn new(sockets: &Arc<NodeSockets>, device: Option<InterfaceName>, patience: Duration) -> Self {
        Self { sockets: Arc::clone(sockets), device, patience, tasks: TokioHandle::default() }
    }

    fn device(&self) -> Option<&[u8]> {
        self.device.as_ref().map(|device| device.as_str().as_bytes())
    }
}

type Soon<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl RuntimeProvider for NodeSide {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Datagrams;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.tasks.clone()
    }

    fn connect_tcp(&self, server: SocketAddr, _: Option<SocketAddr>, wait: Option<Duration>) -> Soon<Self::Tcp> {
        let node = self.clone();
        Box::pin(async move {
            let socket = TcpSocket::from_std_stream(node.sockets.tcp(server.is_ipv6()).await?.into());
            if let Some(device) = node.device() {
                socket.bind_device(Some(device))?;
            }
            socket.set_nodelay(true)?;
            Ok(AsyncIoTokioAsStd(timeout(wait.unwrap_or(node.patience), socket.connect(server)).await??))
        })
    }

    /// `local` names no port: connecting takes a random one of the node's (`udp_lib_get_port`, net/ipv4/udp.c).
    fn bind_udp(&self, _: SocketAddr, server: SocketAddr) -> Soon<Datagrams> {
        let node = self.clone();
        Box::pin(async move {
            let socket = UdpSocket::from_std(node.sockets.udp(server.is_ipv6()).await?.into())?;
            if let Some(device) = node.device() {
                socket.bind_device(Some(device))?;
            }
            socket.connect(server).await?;
            Ok(Datagrams { socket, server })
        })
    }
}

/// A connected socket: other senders are not heard, and an ICMP error (a closed port) ends the wait at once. For that
/// the wait must be for errors too, which tokio's own `recv_from` does not do.
pub(super) struct Datagrams {
    socket: UdpSocket,
    server: SocketAddr,
}

type Waiting<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

impl DnsUdpSocket for Datagrams {
    type Time = TokioTime;

    fn poll_recv_from(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        self.socket.poll_recv(context, &mut buffer).map_ok(|()| (buffer.filled().len(), self.server))
    }

    fn recv_from<'a, 'b, 'w>(&'a self, buffer: &'b mut [u8]) -> Waiting<'w, (usize, SocketAddr)>
    where
        'a: 'w,
        'b: 'w,
    {
        let readable = Interest::READABLE | Interest::ERROR;
        Box::pin(async move {
            Ok((self.socket.async_io(readable, || socket::receive(self.socket.as_fd(), buffer)).await?, self.server))
        })
    }

    fn poll_send_to(&self, context: &mut Context<'_>, bytes: &[u8], _: SocketAddr) -> Poll<io::Result<usize>> {
        self.socket.poll_send(context, bytes)
    }
}
