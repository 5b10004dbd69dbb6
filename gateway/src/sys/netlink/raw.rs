//! Requests as rtnetlink has them, for the service namespace's pair: who asks builds the messages, because that pair needs
//! what nothing else does (peers, NOARP, address generation, AnyIP routes). One task asks at a time, of links that nobody
//! else changes often, so there is no lock and no repetition here as [`Netlink`](super::Netlink) has them.

use std::io;

pub(crate) use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
pub(crate) use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
pub(crate) use rtnetlink::packet_route::route::{RouteMessage, RouteScope, RouteType};
pub(crate) use rtnetlink::{Error, Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// A socket of the calling thread's namespace; its connection is driven by the current runtime, and ends with the handle.
pub(crate) fn open() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The kernel's error number, where the failure is the kernel's.
pub(crate) fn io_error(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
