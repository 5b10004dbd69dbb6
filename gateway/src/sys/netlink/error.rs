//! What can go wrong with rtnetlink, in words for the operator.

use std::io;

use rtnetlink::packet_core::ErrorMessage;

/// A request that failed: what was being done, the kernel's words, and the mend.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a route netlink socket: {0}; the process needs CAP_NET_ADMIN, and Linux 5.14 or later")]
    Open(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot {doing}: {}; {}", words(.source, .text), mend(.source, .text))]
    Kernel {
        /// What was being done, to what.
        doing: String,
        /// The error number.
        source: io::Error,
        /// The kernel's extended acknowledgement.
        text: Option<String>,
    },
    /// The table changed under every dump.
    #[error(
        "cannot {doing}: the table changes faster than it can be read; try again, and look who changes it with `ip monitor`"
    )]
    Interrupted {
        /// What was being done.
        doing: String,
    },
    /// No answer in time.
    #[error(
        "cannot {doing}: the kernel did not answer in time; is the node out of memory or its RTNL lock held (`cat /proc/*/stack`)?"
    )]
    Late {
        /// What was being done.
        doing: String,
    },
    /// The socket failed.
    #[error("cannot {doing}: the netlink socket: {source}; restart the gateway")]
    Socket {
        /// What was being done.
        doing: String,
        /// Why.
        source: io::Error,
    },
    /// There is no such link.
    #[error("cannot {doing}: there is no link `{link}`; see `ip link`")]
    NoLink {
        /// What was being done.
        doing: String,
        /// Its name.
        link: String,
    },
}

impl NetlinkError {
    pub(super) fn from_kernel(doing: String, message: &ErrorMessage) -> Self {
        let number = message.code.map_or(0, |code| code.get().saturating_abs());
        Self::Kernel { doing, source: io::Error::from_raw_os_error(number), text: extended_text(&message.header) }
    }

    /// Of sending or reading itself.
    pub(super) fn from_socket(doing: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::WouldBlock => Self::Late { doing },
            _ if source.raw_os_error() == Some(libc::ENOBUFS) => Self::Interrupted { doing },
            _ => Self::Socket { doing, source },
        }
    }

    /// The kernel's error number, where it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open(source) | Self::Kernel { source, .. } => source.raw_os_error(),
            Self::Interrupted { .. } | Self::Late { .. } | Self::Socket { .. } | Self::NoLink { .. } => None,
        }
    }

    /// Whether the thing that was to be changed or deleted is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NoLink { .. })
            || matches!(self.errno(), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL))
    }

    /// Whether asking again may help.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Interrupted { .. })
            || matches!(self.errno(), Some(libc::EBUSY | libc::EINTR | libc::EAGAIN | libc::ENOBUFS))
    }
}

fn words(source: &io::Error, text: &Option<String>) -> String {
    match text {
        Some(text) => format!("{source}: {text}"),
        None => source.to_string(),
    }
}

fn mend(source: &io::Error, text: &Option<String>) -> &'static str {
    match source.raw_os_error() {
        _ if text.as_deref() == Some("Unknown device type") => {
            "this kernel cannot make such a link: load its module or boot a kernel that has it"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "the process needs CAP_NET_ADMIN over that namespace, and IPv6 enabled on the link"
        }
        Some(libc::EEXIST) => "the name or address is taken: choose another, or remove the other one",
        Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL) => "it is not there (any more)",
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => "the gateway must lie in a subnet of the link",
        Some(libc::ENETDOWN) => "the link below it must be up",
        Some(libc::EBUSY) => "another program holds it: try again",
        Some(libc::EINVAL) => "the kernel does not take these values for it",
        _ => "see `dmesg` and `ip monitor`",
    }
}

/// `NLMSGERR_ATTR_MSG`: with capped acknowledgements the attributes follow the request's 16-byte header
/// (`linux/netlink.h`).
fn extended_text(header: &[u8]) -> Option<String> {
    const HEADER: usize = 16;
    const ATTRIBUTE_MESSAGE: u16 = 1;
    let mut rest = header.get(HEADER..)?;
    while let [a, b, c, d, body @ ..] = rest {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let kind = u16::from_ne_bytes([*c, *d]) & 0x3fff;
        let value = body.get(..length.checked_sub(4)?)?;
        if kind == ATTRIBUTE_MESSAGE {
            let text = String::from_utf8_lossy(value);
            return Some(text.trim_end_matches(['\0', '.']).to_owned());
        }
        rest = rest.get((length + 3) & !3..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_found_behind_the_header() {
        let mut header = vec![0; 16];
        header.extend([8, 0, 2, 0, 1, 2, 3, 4]);
        header.extend([9, 0, 1, 0]);
        header.extend(b"Nope\0\0\0\0");
        assert_eq!(extended_text(&header).as_deref(), Some("Nope"));
        assert_eq!(extended_text(&header[..18]), None);
        assert_eq!(extended_text(&[]), None);
    }
}
