//! The daemon's side of the namespace helper.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use config::names::InterfaceName;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use super::{Answered, Asked, DESCRIPTOR, Request, SUBCOMMAND};
use crate::sys::netns::{Netns, NetnsError};
use crate::sys::{netlink::Netlink, netlink::NetlinkError, passing};

/// How long one request may take.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Why the helper did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It could not be started.
    #[error("cannot start the namespace helper: {0}; the gateway must be started as root (CAP_SYS_ADMIN)")]
    Start(#[source] io::Error),
    /// It said no.
    #[error("the namespace helper refused: {0}")]
    Refused(String),
    /// It is not there any more.
    #[error("the namespace helper is dead ({0}): workloads cannot be attached until the gateway is restarted")]
    Dead(String),
    /// No answer in time.
    #[error("the namespace helper did not answer within {DEADLINE:?}; look at its stack in /proc/PID/stack")]
    Late,
    /// The socket that it opened does not work.
    #[error(transparent)]
    Socket(#[from] NetlinkError),
}

/// The child, started but not spoken to: made before the runtime and before capabilities are given up.
#[derive(Debug)]
pub struct HelperProcess {
    child: Child,
    socket: OwnedFd,
}

/// The daemon's door to the helper. Dropping it ends the child.
#[derive(Debug)]
pub struct NamespaceHelper {
    socket: AsyncFd<OwnedFd>,
    last_number: Mutex<u64>,
    child: std::sync::Mutex<Child>,
}

impl HelperProcess {
    /// Starts the gateway's own program as helper.
    pub fn start() -> Result<Self, HelperError> {
        Self::start_program(Path::new("/proc/self/exe"))
    }

    /// Starts `program namespace-helper`.
    pub fn start_program(program: &Path) -> Result<Self, HelperError> {
        let (near, far) = passing::pair().map_err(HelperError::Start)?;
        let mut command = Command::new(program);
        command.arg(SUBCOMMAND).env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        let descriptor = far.as_raw_fd();
        // SAFETY: between fork and exec only these two system calls are made, on a descriptor that `far` keeps open.
        unsafe {
            command.pre_exec(move || {
                // A descriptor copied onto itself would keep its close-on-exec flag.
                let done = if descriptor == DESCRIPTOR {
                    libc::fcntl(descriptor, libc::F_SETFD, 0)
                } else {
                    libc::dup2(descriptor, DESCRIPTOR)
                };
                if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let child = command.spawn().map_err(HelperError::Start)?;
        Ok(Self { child, socket: near })
    }

    /// The child's process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Opens the door; inside a tokio runtime.
    pub fn connect(self) -> Result<NamespaceHelper, HelperError> {
        let Self { child, socket } = self;
        // SAFETY: sets a flag of a descriptor that `socket` keeps open.
        if unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
            return Err(HelperError::Start(io::Error::last_os_error()));
        }
        // SAFETY: the descriptor inside an `OwnedFd` stays the same and open until the value is dropped.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(|error| HelperError::Start(error.into()))?;
        Ok(NamespaceHelper { socket, last_number: Mutex::new(0), child: std::sync::Mutex::new(child) })
    }
}

impl NamespaceHelper {
    /// Opens the namespace at `path`; where that needs rights over a process (`/proc/PID/ns/net`), through the helper.
    pub async fn open_namespace(&self, path: &Path) -> Result<Netns, OpenError> {
        let error = match Netns::open(path) {
            Ok(netns) => return Ok(netns),
            Err(error) => error,
        };
        match process_of(path) {
            Some(process) if error.is_forbidden() => {
                let fd = self.ask(Request::OpenProcessNamespace { process }, None).await?;
                let fd = fd.ok_or_else(|| HelperError::Refused("no namespace came back".to_owned()))?;
                Netns::from_fd(fd).map_err(|_| OpenError::Path(NetnsError::Other { path: path.to_owned() }))
            }
            _ => Err(OpenError::Path(error)),
        }
    }

    /// A route socket inside a namespace.
    pub async fn netlink_inside(&self, netns: &Netns) -> Result<Netlink, HelperError> {
        let fd = self.ask(Request::OpenRouteSocket, Some(netns)).await?;
        let fd = fd.ok_or_else(|| HelperError::Refused("no socket came back".to_owned()))?;
        Ok(Netlink::from_fd(fd)?)
    }

    /// Writes the helper's fixed list of IPv6 settings for an interface inside a namespace.
    pub async fn write_settings(
        &self,
        netns: &Netns,
        interface: &InterfaceName,
        accept_router_advertisements: bool,
    ) -> Result<(), HelperError> {
        let request = Request::WriteSettings { interface: interface.clone(), accept_router_advertisements };
        self.ask(request, Some(netns)).await.map(|_| ())
    }

    /// Nothing while the child lives, else how it ended.
    pub fn ended(&self) -> Option<String> {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    async fn ask(&self, request: Request, netns: Option<&Netns>) -> Result<Option<OwnedFd>, HelperError> {
        let work = async {
            let mut last_number = self.last_number.lock().await;
            *last_number += 1;
            let asked = Asked { number: *last_number, request };
            let body = serde_json::to_vec(&asked).map_err(|error| HelperError::Refused(error.to_string()))?;
            let fd = netns.map(AsFd::as_fd);
            let sent = self.socket.async_io(tokio::io::Interest::WRITABLE, |s| passing::send(s.as_fd(), &body, fd));
            sent.await.map_err(|error| self.dead(&error))?;
            loop {
                let answer = self.socket.async_io(tokio::io::Interest::READABLE, |s| passing::receive(s.as_fd()));
                let (body, fd) = answer.await.map_err(|error| self.dead(&error))?;
                if body.is_empty() {
                    return Err(self.dead(&io::Error::from(io::ErrorKind::UnexpectedEof)));
                }
                let answered: Answered = serde_json::from_slice(&body).map_err(|e| self.dead(&e.into()))?;
                // An answer to a request that was given up at its deadline is passed over.
                if answered.number == asked.number {
                    return answered.refused.map_or(Ok(fd), |why| Err(HelperError::Refused(why)));
                }
            }
        };
        tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(HelperError::Late))
    }

    fn dead(&self, error: &io::Error) -> HelperError {
        HelperError::Dead(self.ended().unwrap_or_else(|| error.to_string()))
    }
}

impl Drop for NamespaceHelper {
    /// Ends the child and takes its exit status, so that it does not stay as a zombie.
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Why a namespace could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// By the path itself.
    #[error(transparent)]
    Path(#[from] NetnsError),
    /// By the helper.
    #[error(transparent)]
    Helper(#[from] HelperError),
}

/// The process of `/proc/PID/ns/net` or `/proc/PID/task/TID/ns/net`.
fn process_of(path: &Path) -> Option<u32> {
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        ["/", "proc", process, "ns", "net"] | ["/", "proc", _, "task", process, "ns", "net"] => process.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_in_paths() {
        assert_eq!(process_of(Path::new("/proc/71/ns/net")), Some(71));
        assert_eq!(process_of(Path::new("/proc/71/task/72/ns/net")), Some(72));
        assert_eq!(process_of(Path::new("/proc/71/ns/mnt")), None);
        assert_eq!(process_of(Path::new("/run/netns/a")), None);
        assert_eq!(process_of(Path::new("/proc/self/ns/net")), None);
    }
}
