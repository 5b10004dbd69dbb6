//! A workload as all three flows know it: made by attaching, kept in the store until it is detached.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use config::api::{Attachment, Timestamp};
use config::names::{InterfaceName, Name};
use config::resource::{Labels, NamedPort};
use serde::{Deserialize, Serialize};

/// A workload's number in the kernel's tables. Never used twice, so that no state of an earlier workload can be inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadId(pub u32);

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

/// One address of a workload and what stands for it in the service namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// On the tenant's network, link-local ones included.
    pub address: IpAddr,
    /// Of the same family, unique on the node, never on a wire.
    pub handle: IpAddr,
}

/// One attached workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Its number.
    pub id: WorkloadId,
    /// Namespace.
    pub namespace: Name,
    /// Name, unique in the namespace.
    pub name: Name,
    /// Labels for selectors.
    pub labels: Labels,
    /// What it calls its ports.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<NamedPort>,
    /// The network its namespace had when it was attached.
    pub network: Name,
    /// Where its network namespace is held open.
    pub netns: PathBuf,
    /// Host side of its veth.
    pub host_interface: InterfaceName,
    /// Interface inside.
    pub guest_interface: InterfaceName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses, with their handles.
    pub addresses: Vec<Address>,
    /// What the container engine knows it by, where one attached it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni: Option<Attachment>,
    /// Whether others made its interface, which is closed here and neither set up nor deleted. Its `netns` may be unknown, and
    /// is empty then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// When it was detached, of one that is kept for its addresses ([`config::resource::Network::hold`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Timestamp>,
}

impl Workload {
    /// Whether it is there because its interface is a port of an adopted bridge, as long as that is so.
    pub fn is_found(&self) -> bool {
        self.adopted && self.cni.is_none()
    }

    /// Its link-local IPv6 address, from the MAC by modified EUI-64 (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        self.mac.link_local()
    }
}

impl Mac {
    /// The link-local IPv6 address of an interface that has it, by modified EUI-64 (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0.map(u16::from);
        Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
    }
}

/// No Ethernet address that a workload can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no Ethernet address of one host")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    /// `02:00:5e:10:00:01`; a group's address, or all zeros, is nobody's (IEEE 802, 8.2).
    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError(text.to_owned());
        let byte = |part: &str| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2 && !part.starts_with('+'));
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes: [u8; 6] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
        if bytes[0] & 1 == 1 || bytes == [0; 6] { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Whether an address is good on its own link only (RFC 4291 2.5.6, RFC 3927).
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
