//! Connections from the namespace to workloads, made on its thread and given to another runtime.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::net::TcpSocket;

use super::TG1;
use crate::sys::{interface, socket};

/// Connects on the current thread's runtime and takes the socket off it again.
pub(super) async fn connect(source: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match source {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if source.is_ipv6() {
        socket::free_bind(socket.as_fd())?;
    }
    socket::bind_without_port(socket.as_fd())?;
    socket.set_nodelay(true)?;
    socket.bind(from(source)?)?;
    socket.connect(to).await?.into_std()
}

pub(super) fn timed_out(to: SocketAddr, deadline: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no connection to handle {to} within {deadline:?}"))
}

fn from(source: IpAddr) -> io::Result<SocketAddr> {
    match source {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Ok(SocketAddrV6::new(address, 0, 0, interface::index(TG1)?).into())
        }
        other => Ok(SocketAddr::new(other, 0)),
    }
}
