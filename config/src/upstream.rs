//! DNS servers that are asked for workloads, and how.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{DnsName, NameError};
use crate::wording::{quoted, wrong};

const PORT: u16 = 53;
/// RFC 7858, 3.1
const TLS_PORT: u16 = 853;

/// One server: `10.9.0.53`, `tcp://10.9.0.53`, `tls://10.9.0.53#dns.example.com`; the last two may name a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upstream {
    /// Where it is.
    pub address: SocketAddr,
    /// What questions go by.
    pub carrier: Carrier,
}

/// How a server is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// By datagrams, and by TCP what does not fit into one.
    Datagrams,
    /// By connections that are kept (RFC 7766).
    Tcp,
    /// The same by TLS (RFC 7858): the server's certificate must be for this name, or for its address.
    Tls(Option<DnsName>),
}

impl Upstream {
    /// One that is asked by datagrams, at the usual port.
    pub const fn plain(address: IpAddr) -> Self {
        Self { address: SocketAddr::new(address, PORT), carrier: Carrier::Datagrams }
    }

    /// As `status` has it: always with the port.
    pub fn with_port(&self) -> String {
        match &self.carrier {
            Carrier::Datagrams => self.address.to_string(),
            Carrier::Tcp => format!("tcp://{}", self.address),
            Carrier::Tls(None) => format!("tls://{}", self.address),
            Carrier::Tls(Some(name)) => format!("tls://{}#{name}", self.address),
        }
    }
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Self {
        Self { address, carrier: Carrier::Datagrams }
    }
}

impl FromStr for Upstream {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let unusable = |address: IpAddr| address.is_unspecified() || address.is_multicast();
        let read = match text.split_once("://") {
            None => Self::plain(plain_address(text)?),
            Some(("tcp", rest)) => Self { address: with_port(text, rest, PORT)?, carrier: Carrier::Tcp },
            Some(("tls", rest)) => {
                let (address, name) = match rest.split_once('#') {
                    Some((address, name)) => (address, Some(name.parse()?)),
                    None => (rest, None),
                };
                Self { address: with_port(text, address, TLS_PORT)?, carrier: Carrier::Tls(name) }
            }
            Some(_) => {
                return Err(wrong(
                    format!("{} is no way to ask a server", quoted(text)),
                    "write an address, `tcp://` and one, or `tls://10.0.0.53#dns.example.com`",
                ));
            }
        };
        if unusable(read.address.ip()) {
            return Err(wrong(format!("{} is no server's address", quoted(text)), "write a unicast address"));
        }
        Ok(read)
    }
}

fn plain_address(text: &str) -> Result<IpAddr, NameError> {
    let named_port = text.rsplit_once([':', '#']).filter(|(server, _)| own_address(server).is_ok());
    match (own_address(text), named_port) {
        (Err(_), Some((server, _))) => {
            let mend = format!("write {server}, which is asked at port 53, or `tcp://` with a port");
            Err(wrong(format!("{} names a port", quoted(text)), mend))
        }
        (read, _) => read,
    }
}

fn own_address(text: &str) -> Result<IpAddr, NameError> {
    crate::decode::address(text)
}

/// `10.0.0.53`, `10.0.0.53:5353`, `fd00::53`, `[fd00::53]:5353`.
fn with_port(whole: &str, text: &str, usual: u16) -> Result<SocketAddr, NameError> {
    if let Ok(address) = text.parse::<SocketAddr>()
        && address.port() > 0
    {
        return Ok(SocketAddr::new(own_address(&address.ip().to_string())?, address.port()));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = own_address(bare).map_err(|_| {
        wrong(
            format!("{} has no server's address behind `://`", quoted(whole)),
            "write one as `10.0.0.53`, `10.0.0.53:853` or `[fd00::53]:853`; a name stands behind `#`",
        )
    })?;
    Ok(SocketAddr::new(address, usual))
}

impl TryFrom<String> for Upstream {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = match &self.carrier {
            Carrier::Datagrams => return write!(f, "{}", self.address.ip()),
            Carrier::Tcp => PORT,
            Carrier::Tls(_) => TLS_PORT,
        };
        let text = self.with_port();
        let port = format!(":{usual}");
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let (address, name) = rest.split_once('#').map_or((rest, None), |(address, name)| (address, Some(name)));
        let address = address.strip_suffix(&port).unwrap_or(address);
        write!(f, "{scheme}://{address}")?;
        name.map_or(Ok(()), |name| write!(f, "#{name}"))
    }
}

impl From<Upstream> for String {
    fn from(upstream: Upstream) -> Self {
        upstream.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_it_is_shown() {
        for (written, shown, with_port) in [
            ("10.9.0.53", "10.9.0.53", "10.9.0.53:53"),
            ("fd00::53", "fd00::53", "[fd00::53]:53"),
            ("tcp://10.9.0.53", "tcp://10.9.0.53", "tcp://10.9.0.53:53"),
            ("tcp://10.9.0.53:5353", "tcp://10.9.0.53:5353", "tcp://10.9.0.53:5353"),
            ("tcp://fd00::53", "tcp://[fd00::53]", "tcp://[fd00::53]:53"),
            ("tls://10.9.0.53", "tls://10.9.0.53", "tls://10.9.0.53:853"),
            (
                "tls://10.9.0.53:853#DNS.example.com.",
                "tls://10.9.0.53#dns.example.com",
                "tls://10.9.0.53:853#dns.example.com",
            ),
            (
                "tls://[fd00::53]:8853#dns.example",
                "tls://[fd00::53]:8853#dns.example",
                "tls://[fd00::53]:8853#dns.example",
            ),
        ] {
            let read: Upstream = written.parse().unwrap();
            assert_eq!((read.to_string().as_str(), read.with_port().as_str()), (shown, with_port));
            assert_eq!(shown.parse(), Ok(read));
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_mend() {
        for (written, told) in [
            ("dns.example.com", "is not an IP address"),
            ("10.9.0.53:5353", "write 10.9.0.53, which is asked at port 53, or `tcp://` with a port"),
            ("udp://10.9.0.53", "is no way to ask a server"),
            ("https://10.9.0.53/dns-query", "is no way to ask a server"),
            ("tls://dns.example.com", "a name stands behind `#`"),
            ("tls://10.9.0.53#10.9.0.53", ""),
            ("tls://10.9.0.53#", ""),
            ("tcp://10.9.0.53:0", "has no server's address"),
            ("tcp://0.0.0.0", "write a unicast address"),
            ("224.0.0.251", "write a unicast address"),
            ("tls://::ffff:10.9.0.53", ""),
        ] {
            let error = written.parse::<Upstream>().unwrap_err().to_string();
            assert!(error.contains(told), "{written}: {error}");
        }
    }
}
