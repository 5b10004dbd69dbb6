//! The types of DNS questions, by the names of the IANA registry.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::NameError;
use crate::wording::{quoted, wrong};

/// The type of a DNS question: `AAAA`, or `TYPE28` (RFC 3597, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueryType(pub u16);

/// Those that clients ask for (IANA, "Resource Record (RR) TYPEs").
const NAMES: [(&str, u16); 24] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("NULL", 10),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("NAPTR", 35),
    ("DNAME", 39),
    ("DS", 43),
    ("SSHFP", 44),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("TLSA", 52),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("ANY", 255),
    ("URI", 256),
    ("CAA", 257),
];

impl FromStr for QueryType {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
        let digits = text.strip_prefix("TYPE").filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        let number = named.or_else(|| digits?.parse().ok()).filter(|number| *number > 0);
        number.map(Self).ok_or_else(|| {
            wrong(format!("{} is no type of DNS questions", quoted(text)), "write one as A, AAAA, HTTPS or TYPE65")
        })
    }
}

impl TryFrom<String> for QueryType {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl fmt::Display for QueryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl From<QueryType> for String {
    fn from(kind: QueryType) -> Self {
        kind.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_the_registrys() {
        for (name, number) in NAMES {
            assert_eq!(name.parse(), Ok(QueryType(number)));
            assert_eq!(QueryType(number).to_string(), name);
            assert_eq!(format!("TYPE{number}").parse(), Ok(QueryType(number)));
        }
        assert_eq!("TYPE65535".parse::<QueryType>().unwrap().to_string(), "TYPE65535");
        for wrong in ["", "a", "Aaaa", "TYPE", "TYPE0", "TYPE65536", "TYPE+1", "type28", "A "] {
            let error = wrong.parse::<QueryType>().unwrap_err().to_string();
            assert!(error.contains("write one as A, AAAA"), "{wrong}: {error}");
        }
    }
}
