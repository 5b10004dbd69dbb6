//! The file of an address set: a prefix or an address a line, both families, in any order.
//!
//! `#` begins a comment, empty lines count for nothing, lines may end as Windows writes them, and what stands twice counts
//! once. A file with one bad line is bad as a whole: half a list of what is denied would be open.

use std::net::Ipv4Addr;

use ipnetwork::{IpNetwork, Ipv4Network};

use crate::decode::prefix_or_address;
use crate::document::report::Report;
use crate::names::NameError;
use crate::prefixes::Prefixes;
use crate::problem::Problem;

/// Longest line, bytes.
const LINE: usize = 256;

/// Reads a file's bytes. `file` is only for messages; `most` is how many prefixes may be in it.
///
/// # Errors
/// Every bad line (the first hundred, and how many more there are), or that there are too many prefixes.
pub fn parse(file: &str, bytes: &[u8], most: usize) -> Result<Prefixes, Vec<Problem>> {
    let report = Report::new(file);
    let mut found: Vec<IpNetwork> = Vec::new();
    for (number, line) in (1u32..).zip(bytes.split(|byte| *byte == b'\n')) {
        match read(line) {
            Ok(prefix) => found.extend(prefix),
            Err((what, mend)) => report.add(number, "", what, mend),
        }
    }
    let problems = report.finish();
    if !problems.is_empty() {
        return Err(problems);
    }
    let prefixes: Prefixes = found.into_iter().collect();
    match too_many(prefixes.len(), most) {
        None => Ok(prefixes),
        Some((what, mend)) => Err(vec![Problem { file: file.to_owned(), line: None, key: String::new(), what, mend }]),
    }
}

/// What to say of a set that is larger than the node's settings let it be.
pub fn too_many(prefixes: usize, most: usize) -> Option<(String, String)> {
    (prefixes > most).then(|| {
        let mend = "take prefixes out, or raise `set_prefixes` under `[limits]` of the node's settings";
        (format!("there are {prefixes} prefixes, and a set may have {most}"), mend.to_owned())
    })
}

/// A prefix, or an address alone, as a line of such a file has it.
///
/// # Errors
/// What is wrong with the text, and the mend.
pub fn prefix(text: &str) -> Result<IpNetwork, NameError> {
    prefix_or_address(text)
}

/// The prefix of a line, if it has one.
fn read(line: &[u8]) -> Result<Option<IpNetwork>, (String, String)> {
    if line.len() > LINE && line.iter().take_while(|byte| **byte != b'#').count() > LINE {
        return Err(("the line is too long".to_owned(), "write one prefix or address a line".to_owned()));
    }
    let before = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
    if before.is_empty() {
        return Ok(None);
    }
    let text = str::from_utf8(before)
        .map_err(|_| ("the line is not text".to_owned(), "write one prefix or address a line".to_owned()))?;
    match usual(text) {
        Some(prefix) => Ok(Some(prefix)),
        None => prefix_or_address(text).map(Some).map_err(|error| (error.problem, error.mend)),
    }
}

/// What nearly every line of a feed is: an IPv4 address or prefix as it should be. Of anything else [`prefix_or_address`]
/// says what it is, and takes longer.
fn usual(text: &str) -> Option<IpNetwork> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    let address: Ipv4Addr = address.parse().ok()?;
    let length: u8 = length.parse().ok().filter(|_| !length.starts_with(['+', '0']))?;
    let behind = u32::MAX.checked_shr(length.into()).unwrap_or(0);
    if length > 32 || u32::from(address) & behind != 0 {
        return None;
    }
    Ipv4Network::new_checked(address, length).map(IpNetwork::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &[u8]) -> Vec<String> {
        parse("feed.txt", text, 100).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lines_are_read_as_feeds_write_them() {
        let text =
            b"# a feed\r\n192.0.2.0/24 # one\r\n\r\n  198.51.100.7\t\n2001:db8::/32\nfd00::1\n192.0.2.0/24\n0.0.0.0/0";
        let read: Vec<String> = parse("feed.txt", text, 5).unwrap().iter().map(|it| it.to_string()).collect();
        assert_eq!(read, ["0.0.0.0/0", "192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32", "fd00::1/128"]);
        assert!(parse("feed.txt", b"", 5).unwrap().is_empty());
    }

    #[test]
    fn every_bad_line_is_told_with_its_number() {
        assert_eq!(
            told(b"10.0.0.0/8\n10.0.0.1/8\n\nexample.com\n10.0.0.0/33\n::ffff:10.0.0.1\n10.0.0.1 10.0.0.2\n\xff\n"),
            [
                "feed.txt:2: `10.0.0.1/8` has bits set behind its length; write 10.0.0.0/8, or 10.0.0.1/32",
                "feed.txt:4: `example.com` is not a prefix; write prefixes as `10.0.0.0/8`; names belong under `dnsNames`",
                "feed.txt:5: `10.0.0.0/33` is not a prefix; write prefixes as `10.0.0.0/8` or `fd00::/8`",
                "feed.txt:6: `::ffff:10.0.0.1` is an IPv4 address in IPv6 clothes; write 10.0.0.1",
                "feed.txt:7: `10.0.0.1 10.0.0.2` is not a prefix; write prefixes as `10.0.0.0/8` or `fd00::/8`",
                "feed.txt:8: the line is not text; write one prefix or address a line",
            ]
        );
        let many = "x\n".repeat(1_000);
        assert_eq!(told(many.as_bytes()).len(), 101);
        let long = [b'1'; 300];
        assert_eq!(told(&long), ["feed.txt:1: the line is too long; write one prefix or address a line"]);
        assert!(parse("feed.txt", &[b"10.0.0.1 # ".as_slice(), &[b'x'; 5_000]].concat(), 5).is_ok());
    }

    #[test]
    fn the_short_way_takes_what_the_long_one_takes() {
        for text in ["10.0.0.1", "10.0.0.0/8", "0.0.0.0/1", "255.255.255.255/32", "10.0.0.0/31", "128.0.0.0/1"] {
            assert_eq!(usual(text), Some(prefix(text).unwrap()), "{text}");
        }
        for text in [
            "10.0.0.1/31",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/",
            "0.0.0.0/0",
            "fd00::1",
            "10.0.0/8",
        ] {
            assert_eq!(usual(text), None, "{text}");
        }
    }

    #[test]
    fn too_many_prefixes_are_refused() {
        let text: String = (0..101).map(|low| format!("10.0.0.{low}\n")).collect();
        assert_eq!(
            told(text.as_bytes()),
            [
                "feed.txt: there are 101 prefixes, and a set may have 100; take prefixes out, or raise `set_prefixes` under `[limits]` of the node's settings"
            ]
        );
    }
}
