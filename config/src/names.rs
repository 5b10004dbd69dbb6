//! Names as newtypes: parsed once at the border, true ever after.

use std::{fmt, net::IpAddr, sync::Arc};

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Serialize};

use crate::wording::{quoted, wrong};

/// A resource's or namespace's name: an RFC 1123 label, 1–63 of `a-z0-9-`, no `-` at the ends. Copies share the text: each
/// change copies the keys of all resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// A Linux interface name: 1–15 bytes, no `/`, no white space, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// A VLAN identifier, 1–4094 (IEEE 802.1Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

/// A DNS name in lower-case ASCII without the trailing dot (RFC 1035, RFC 5890 A-labels), at most 253 bytes.
///
/// `parse` takes what people write, U-labels too (`bücher.example`, made A-labels by UTS 46); `try_from` what is on the wire,
/// where a name that is not ASCII is another name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DnsName(String);

/// `api.example.com`, or `*.cdn.example.com`: one or more labels in front, never the apex.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DomainPattern {
    /// That name only.
    Exact(DnsName),
    /// Every name below this one.
    Below(DnsName),
}

/// What is wrong with a name, and the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {mend}")]
pub struct NameError {
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub mend: String,
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        let body = !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if body && text.len() <= 63 && !text.starts_with('-') && !text.ends_with('-') {
            return Ok(Self(text.into()));
        }
        Err(wrong(
            format!("{} is not a name", quoted(&text)),
            "use 1–63 of a-z, 0-9 and -, neither beginning nor ending with -",
        ))
    }
}

impl Name {
    /// The one that sorts before all others.
    pub(crate) fn first() -> Self {
        Self("0".into())
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        let bad = text.is_empty()
            || text.len() > 15
            || text == "."
            || text == ".."
            || text.bytes().any(|b| b == b'/' || b.is_ascii_whitespace() || b == 0);
        if bad {
            return Err(wrong(
                format!("{} is not an interface name", quoted(&text)),
                "use 1–15 bytes without / or white space, as `ip link` shows them",
            ));
        }
        Ok(Self(text))
    }
}

impl TryFrom<u16> for VlanId {
    type Error = NameError;
    fn try_from(id: u16) -> Result<Self, NameError> {
        if (1..=4094).contains(&id) {
            Ok(Self(id))
        } else {
            Err(wrong(format!("{id} is not a VLAN id"), "use 1–4094"))
        }
    }
}

impl TryFrom<String> for DnsName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        dns_name(&text, &text)
    }
}

impl std::str::FromStr for DnsName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        written_name(text, text)
    }
}

fn written_name(text: &str, shown: &str) -> Result<DnsName, NameError> {
    if text.is_ascii() {
        return dns_name(text, shown);
    }
    let a_labels =
        Uts46::new().to_ascii(text.as_bytes(), AsciiDenyList::EMPTY, Hyphens::CheckFirstLast, DnsLength::Ignore);
    match a_labels {
        Ok(a_labels) => dns_name(&a_labels, shown),
        Err(_) => Err(wrong(
            format!("{} is no internationalised name (UTS 46)", quoted(shown)),
            "write it as the browser's address line shows it, or as A-labels (xn--…)",
        )),
    }
}

/// `shown` is what the user wrote, of which `text` is the name.
fn dns_name(text: &str, shown: &str) -> Result<DnsName, NameError> {
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if lower.len() > 253 || !lower.split('.').all(label) || lower.parse::<IpAddr>().is_ok() {
        let mend = "use labels of a-z, 0-9 and - joined by dots, at most 253 bytes";
        return Err(wrong(format!("{} is not a DNS name", quoted(shown)), mend));
    }
    Ok(DnsName(lower))
}

impl TryFrom<&str> for DomainPattern {
    type Error = NameError;
    fn try_from(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("*.") {
            Some(apex) => written_name(apex, text).map(Self::Below),
            None if text.contains('*') => Err(wrong(
                format!("{} has `*` elsewhere than in front", quoted(text)),
                "write `*.example.com` (one or more labels), or name each host",
            )),
            None => written_name(text, text).map(Self::Exact),
        }
    }
}

impl std::str::FromStr for DomainPattern {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_from(text)
    }
}

impl DomainPattern {
    /// Whether the name is meant. `Below` takes one or more labels, never the apex.
    pub fn matches(&self, name: &DnsName) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Below(apex) => {
                name.0.strip_suffix(&apex.0).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(apex) => write!(f, "*.{apex}"),
        }
    }
}

macro_rules! text {
    ($($type:ty),*) => {$(
        impl $type {
            /// As text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl From<$type> for String {
            fn from(name: $type) -> Self { name.as_str().to_owned() }
        }
    )*};
}
text!(Name, InterfaceName, DnsName);

macro_rules! as_written {
    ($($type:ty),*) => {$(
        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> { Self::try_from(text.to_owned()) }
        }
    )*};
}
as_written!(Name, InterfaceName);

impl From<VlanId> for u16 {
    fn from(id: VlanId) -> Self {
        id.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_of_rfc_1123() {
        let long = "x".repeat(63);
        for text in ["a", "0", "tenant-a", &long] {
            assert!(text.parse::<Name>().is_ok(), "{text}");
        }
        let longer = "x".repeat(64);
        for text in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &longer] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        assert!(Name::first() <= "00".parse().unwrap());
    }

    #[test]
    fn interfaces_are_named_as_the_kernel_does() {
        for text in ["eth0", "trunk0", "a.100", "..."] {
            assert!(text.parse::<InterfaceName>().is_ok(), "{text}");
        }
        for text in ["", ".", "..", "a/b", "a b", "sixteen-bytes-16"] {
            assert!(text.parse::<InterfaceName>().is_err(), "{text}");
        }
    }

    #[test]
    fn dns_names_are_lower_case_without_the_last_dot() {
        assert_eq!("API.Example.com.".parse::<DnsName>().unwrap().as_str(), "api.example.com");
        let long = ["x".repeat(63), "x".repeat(63), "x".repeat(63), "x".repeat(61)].join(".");
        assert_eq!(long.len(), 253);
        for text in ["localhost", "_srv.example.com", "xn--bcher-kva.example", &long] {
            assert!(text.parse::<DnsName>().is_ok(), "{text}");
        }
        for text in ["", ".", "a..b", "a.b..", "-a.b", "a b", "10.0.0.1", &format!("x{long}")] {
            assert!(text.parse::<DnsName>().is_err(), "{text}");
        }
    }

    #[test]
    fn people_may_write_u_labels_and_the_wire_has_none() {
        for (written, name) in [
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example.", "xn--bcher-kva.example"),
            ("bu\u{308}cher.example", "xn--bcher-kva.example"),
            ("faß.example", "xn--fa-hia.example"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ] {
            assert_eq!(written.parse::<DnsName>().unwrap().as_str(), name);
            assert!(DnsName::try_from(written.to_owned()).is_err(), "{written} on the wire");
        }
        let long = "ü".repeat(60);
        for text in ["a\u{200d}b.example", "xn--ü.example", "bücher .example", "ü..example", "٠.-ü", &long] {
            assert!(text.parse::<DnsName>().is_err(), "{text}");
        }
        let below: DomainPattern = "*.Bücher.example".parse().unwrap();
        assert_eq!(below.to_string(), "*.xn--bcher-kva.example");
    }

    #[test]
    fn patterns_take_one_or_more_labels_and_never_the_apex() {
        let below: DomainPattern = "*.CDN.example.com".parse().unwrap();
        assert_eq!(below.to_string(), "*.cdn.example.com");
        let matches = |name: &str| below.matches(&name.parse().unwrap());
        assert!(matches("a.cdn.example.com") && matches("a.b.cdn.example.com"));
        assert!(!matches("cdn.example.com") && !matches("xcdn.example.com") && !matches("example.com"));
        let exact: DomainPattern = "a.example.com.".parse().unwrap();
        assert!(exact.matches(&"a.example.com".parse().unwrap()));
        assert!(!exact.matches(&"b.a.example.com".parse().unwrap()));
        assert_eq!("*.-".parse::<DomainPattern>().unwrap_err().problem, "`*.-` is not a DNS name");
    }
}
