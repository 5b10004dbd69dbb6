//! `/proc/sys/net` of the calling thread's network namespace (kernel: `Documentation/networking/ip-sysctl.rst`).
//!
//! `net` is one folder for all namespaces; what is in it, `ipv4` for one, the kernel keeps once for each namespace under
//! that one name, and passes by all others when it looks for one (`proc_sys_compare` in `fs/proc/proc_sysctl.c`): that
//! costs more the more namespaces there are, and is done once. A thread holds these folders of the namespace that it
//! worked in last.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use config::names::InterfaceName;
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};

/// One setting of the network stack, all of them whole numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    path: String,
}

/// A setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {doing} {key}: {source}; is /proc/sys mounted writable for this process, and does the kernel have this setting?"
)]
pub struct SysctlError {
    doing: &'static str,
    key: Sysctl,
    source: io::Error,
}

impl Sysctl {
    /// `net.ipv4.ip_forward`
    pub fn ipv4_forward() -> Self {
        Self { path: "ipv4/ip_forward".to_owned() }
    }

    /// `net.ipv6.conf.all.forwarding`
    pub fn ipv6_forward() -> Self {
        Self { path: "ipv6/conf/all/forwarding".to_owned() }
    }

    /// `net.ipv4.conf.LINK.KEY`
    pub fn ipv4(link: &InterfaceName, key: &'static str) -> Self {
        Self { path: format!("ipv4/conf/{link}/{key}") }
    }

    /// `net.ipv6.conf.LINK.KEY`
    pub fn ipv6(link: &InterfaceName, key: &'static str) -> Self {
        Self { path: format!("ipv6/conf/{link}/{key}") }
    }

    /// One of fixed names, by its path below `/proc/sys/net`.
    pub fn named(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }

    /// Its value; `None` where the kernel does not have it.
    pub fn read(&self) -> Result<Option<i32>, SysctlError> {
        let text = match fs::read_to_string(self.file()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SysctlError { doing: "read", key: self.clone(), source }),
        };
        let number = text.trim().parse().map_err(io::Error::other);
        number.map(Some).map_err(|source| SysctlError { doing: "understand", key: self.clone(), source })
    }

    /// Sets it; false if it had that value already.
    pub fn ensure(&self, value: i32) -> Result<bool, SysctlError> {
        if self.read()? == Some(value) { Ok(false) } else { self.write(value).map(|()| true) }
    }

    /// Sets it.
    pub fn write(&self, value: i32) -> Result<(), SysctlError> {
        fs::write(self.file(), value.to_string()).map_err(|source| SysctlError {
            doing: "write",
            key: self.clone(),
            source,
        })
    }

    fn file(&self) -> PathBuf {
        let below = |(family, key)| held_folder(family).map(|folder| folder.join(key)).ok();
        self.path.split_once('/').and_then(below).unwrap_or_else(|| Path::new(FOLDER).join(&self.path))
    }
}

const FOLDER: &str = "/proc/sys/net";

/// Of a namespace, which has a number that no other ever has: the folders that a thread has looked into, by name.
type Held = (u64, BTreeMap<String, File>);

thread_local! {
    static HELD: RefCell<Held> = const { RefCell::new((0, BTreeMap::new())) };
}

fn held_folder(name: &str) -> io::Result<PathBuf> {
    let now = super::netns::cookie(Socket::new(NETLINK_ROUTE)?.as_fd())?;
    HELD.with_borrow_mut(|(namespace, folders)| {
        if *namespace != now {
            folders.clear();
            *namespace = now;
        }
        if !folders.contains_key(name) {
            folders.insert(name.to_owned(), File::open(Path::new(FOLDER).join(name))?);
        }
        Ok(PathBuf::from(format!("/proc/self/fd/{}", folders[name].as_raw_fd())))
    })
}

/// Whether the kernel speaks IPv6.
pub fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Whether bridged frames are shown to iptables (`br_netfilter` with its switches on), by family. A forward policy of
/// drop then stops, for instance, neighbour discovery towards an External router.
pub fn bridged_frames_pass_netfilter() -> Result<(bool, bool), SysctlError> {
    let on = |key| Sysctl::named(format!("bridge/{key}")).read().map(|value| value == Some(1));
    Ok((on("bridge-nf-call-iptables")?, on("bridge-nf-call-ip6tables")?))
}

impl fmt::Display for Sysctl {
    /// As `sysctl` takes it: `net/ipv4/conf/eth0.100/arp_ignore` (slashes, since names of links hold dots).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net/{}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_changes_its_namespace_reads_and_writes_there() {
        let work = || {
            let key = Sysctl::ipv4_forward();
            crate::sys::netns::unshare().unwrap();
            let first = crate::sys::netns::Netns::current().unwrap();
            key.write(1).unwrap();
            crate::sys::netns::unshare().unwrap();
            key.write(0).unwrap();
            first.enter().unwrap();
            assert_eq!(key.read().unwrap(), Some(1));
            assert!(!key.ensure(1).unwrap());
        };
        std::thread::spawn(work).join().unwrap();
    }
}
