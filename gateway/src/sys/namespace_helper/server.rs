//! The child's side: take a request, do it inside the namespace, come back.
//!
//! Settings it writes for an interface, all of them fixed here except for the one that follows the router:
//! `accept_ra` (2 with a router on the segment, else 0), `autoconf` 0, `use_tempaddr` 0, `addr_gen_mode` 0 (the
//! link-local address comes from the MAC), `accept_dad` 0 and `dad_transmits` 0 (addresses are assigned, not probed
//! for), `disable_ipv6` 0, and `disable_ipv6` 0 of `lo`.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use config::names::InterfaceName;
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};

use super::{Answered, Asked, Request};
use crate::sys::netns::{Identity, Netns};
use crate::sys::sysctl::{Sysctl, SysctlError, has_ipv6};
use crate::sys::{caps, passing};

/// Serves the other end of the socket `descriptor` until it is closed. Must be called first thing in a process of one
/// thread that the daemon has started.
pub fn run(descriptor: i32) -> ! {
    let code = match serve(descriptor) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("namespace helper: {error}");
            1
        }
    };
    std::process::exit(code)
}

fn serve(descriptor: i32) -> io::Result<()> {
    // SAFETY: the process has just begun; the daemon has put its end of the pair there and nothing here owns it yet.
    // Descriptors above are nobody's. Ignoring a signal runs no handler.
    let socket = unsafe {
        libc::close_range(descriptor as libc::c_uint + 1, libc::c_uint::MAX, 0);
        // It must outlive an interrupt at the terminal: the daemon says when it ends, by closing the pair.
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        OwnedFd::from_raw_fd(descriptor)
    };
    caps::keep(caps::HELPER)?;
    let home = Netns::current()?;
    loop {
        let (body, fd) = match passing::receive(socket.as_fd()) {
            Ok(message) => message,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if body.is_empty() {
            return Ok(());
        }
        let asked: Asked = serde_json::from_slice(&body)?;
        let (refused, fd) = match answer(&home, asked.request, fd) {
            Ok(fd) => (None, fd),
            Err(Failure::Refused(why)) => (Some(why), None),
            Err(Failure::Lost(error)) => return Err(error),
        };
        let body = serde_json::to_vec(&Answered { number: asked.number, refused })?;
        passing::send(socket.as_fd(), &body, fd.as_ref().map(AsFd::as_fd))?;
    }
}

enum Failure {
    /// Told to the daemon.
    Refused(String),
    /// This process stands in a namespace that is not its own: it must end.
    Lost(io::Error),
}

fn refused(doing: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Refused(format!("cannot {doing}: {error}"))
}

fn answer(home: &Netns, request: Request, fd: Option<OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    match (request, fd) {
        (Request::OpenProcessNamespace { process }, None) => {
            let path = format!("/proc/{process}/ns/net");
            let file = std::fs::File::open(path).map_err(|e| refused("open the process's namespace", e))?;
            let netns = Netns::from_fd(file.into()).map_err(|e| refused("open the process's namespace", e))?;
            not_home(home.identity(), &netns)?;
            netns.as_fd().try_clone_to_owned().map(Some).map_err(|e| refused("pass the namespace on", e))
        }
        (Request::OpenRouteSocket, Some(fd)) => inside(home, fd, || {
            let socket = Socket::new(NETLINK_ROUTE).map_err(|e| refused("open a netlink socket", e))?;
            socket.as_fd().try_clone_to_owned().map(Some).map_err(|e| refused("pass the socket on", e))
        }),
        (Request::WriteSettings { interface, accept_router_advertisements }, Some(fd)) => {
            inside(home, fd, || write_settings(&interface, accept_router_advertisements).map(|()| None))
        }
        (Request::OpenProcessNamespace { .. }, Some(_)) => Err(refused("serve", "a descriptor too many")),
        (Request::OpenRouteSocket | Request::WriteSettings { .. }, None) => {
            Err(refused("serve", "the namespace's descriptor is missing"))
        }
    }
}

fn inside<T>(home: &Netns, fd: OwnedFd, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let netns = Netns::from_fd(fd).map_err(|_| refused("serve", "the descriptor is not a network namespace"))?;
    not_home(home.identity(), &netns)?;
    netns.enter().map_err(|e| refused("enter the namespace", e))?;
    let result = work();
    home.enter().map_err(Failure::Lost)?;
    result
}

fn not_home(home: Identity, netns: &Netns) -> Result<(), Failure> {
    if netns.identity() == home {
        return Err(refused("serve", "that is the node's own network namespace"));
    }
    Ok(())
}

fn write_settings(interface: &InterfaceName, accept_router_advertisements: bool) -> Result<(), Failure> {
    if !has_ipv6() {
        return Ok(());
    }
    let refused = |error: SysctlError| Failure::Refused(error.to_string());
    let accept_ra = if accept_router_advertisements { 2 } else { 0 };
    let values = [
        ("accept_ra", accept_ra),
        ("autoconf", 0),
        ("use_tempaddr", 0),
        ("addr_gen_mode", 0),
        ("accept_dad", 0),
        ("dad_transmits", 0),
        ("disable_ipv6", 0),
    ];
    for (key, value) in values {
        Sysctl::ipv6(interface, key).write(value).map_err(refused)?;
    }
    let lo = InterfaceName::try_from("lo".to_owned()).map_err(|e| Failure::Refused(e.to_string()))?;
    Sysctl::ipv6(&lo, "disable_ipv6").write(0).map_err(refused)
}
