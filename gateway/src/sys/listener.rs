//! Listening sockets: an IPv6 wildcard that leaves IPv4 to its own socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use tokio::net::{TcpListener, TcpSocket};

use super::socket::only_ipv6;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// Listens on `address`; must be called inside a tokio runtime. An IPv6 socket takes IPv6 only, so that `0.0.0.0:443`
/// and `[::]:443` stand beside each other whatever `net.ipv6.bindv6only` says.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if address.is_ipv6() {
        only_ipv6(socket.as_fd())?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_families_share_a_port() {
        let four = listen("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = four.local_addr().unwrap().port();
        listen(format!("[::]:{port}").parse().unwrap()).unwrap();
    }
}
