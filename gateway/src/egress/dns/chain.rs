//! Which addresses an answer gives to the asked name, and which it must not give.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::rr::rdata::svcb::SvcParamValue;
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record};
use ipnetwork::{Ipv4Network, Ipv6Network};

/// Links of a CNAME chain that are followed, as many as resolvers do.
const LINKS: usize = 16;

/// The addresses of `asked` in an answer section, each with the least TTL between it and the asked name, in seconds:
/// a client that keeps to the TTLs has asked again by then.
pub(super) fn addresses(answers: &[Record], asked: &Name) -> Vec<(IpAddr, u32)> {
    let chain = chain(answers, asked);
    let mut found: Vec<(IpAddr, u32)> = Vec::new();
    for record in answers.iter().filter(|record| record.dns_class == DNSClass::IN) {
        let Some(address) = record.data.ip_addr() else { continue };
        let Some((_, least)) = chain.iter().find(|(name, _)| **name == record.name) else { continue };
        let ttl = record.ttl.min(*least);
        match found.iter_mut().find(|(other, _)| *other == address) {
            Some((_, longest)) => *longest = ttl.max(*longest),
            None => found.push((address, ttl)),
        }
    }
    found
}

/// Every address of a section, hints included and whatever its name.
pub(super) fn mentioned(answers: &[Record]) -> Vec<IpAddr> {
    answers.iter().flat_map(|record| mentioned_in(&record.data)).collect()
}

/// The first of these that no name may have.
pub(super) fn forbidden(addresses: &[IpAddr], handles: (Ipv4Network, Ipv6Network)) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| is_forbidden(*address, handles))
}

fn chain<'a>(answers: &'a [Record], asked: &'a Name) -> Vec<(&'a Name, u32)> {
    let mut chain = vec![(asked, u32::MAX)];
    while let Some(&(last, least)) = chain.last()
        && chain.len() <= LINKS
    {
        let next = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *last && record.dns_class == DNSClass::IN => {
                Some((&target.0, record.ttl.min(least)))
            }
            _ => None,
        });
        match next {
            Some((name, least)) if chain.iter().all(|(known, _)| *known != name) => chain.push((name, least)),
            Some(_) | None => break,
        }
    }
    chain
}

fn mentioned_in(data: &RData) -> Vec<IpAddr> {
    let service = match data {
        RData::HTTPS(https) => &https.0,
        RData::SVCB(svcb) => svcb,
        other => return other.ip_addr().into_iter().collect(),
    };
    let hints = service.svc_params.iter().flat_map(|(_, value)| -> Vec<IpAddr> {
        match value {
            SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|address| IpAddr::V4(address.0)).collect(),
            SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|address| IpAddr::V6(address.0)).collect(),
            _ => Vec::new(),
        }
    });
    hints.collect()
}

/// The IPv4 host that a translator or a tunnel on the way makes of an IPv6 address: of NAT64's well-known prefix
/// (RFC 6052, 2.1), and of 6to4 (RFC 3056, 2).
pub fn translated(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d] = match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            [a, b, c, d]
        }
        _ => return None,
    };
    Some(Ipv4Addr::new(a, b, c, d).into())
}

fn is_forbidden(address: IpAddr, (v4, v6): (Ipv4Network, Ipv6Network)) -> bool {
    if translated(address).is_some_and(|behind| is_forbidden(behind, (v4, v6))) {
        return true;
    }
    match address {
        IpAddr::V4(address) => {
            address.octets()[0] == 0
                || address.is_loopback()
                || address.is_multicast()
                || address.is_broadcast()
                || v4.contains(address)
        }
        IpAddr::V6(address) => {
            has_ipv4(address) || address.is_unicast_link_local() || address.is_multicast() || v6.contains(address)
        }
    }
}

/// `::/96`, with the unspecified address and loopback, and `::ffff:0:0/96`: in the kernel's tables that is IPv4.
fn has_ipv4(address: Ipv6Addr) -> bool {
    address.to_ipv4().is_some()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn record(owner: &str, ttl: u32, data: RData) -> Record {
        Record::from_rdata(name(owner), ttl, data)
    }

    fn a(owner: &str, ttl: u32, address: &str) -> Record {
        record(owner, ttl, RData::A(A(address.parse().unwrap())))
    }

    fn cname(owner: &str, ttl: u32, target: &str) -> Record {
        record(owner, ttl, RData::CNAME(CNAME(name(target))))
    }

    fn found(answers: &[Record]) -> Vec<(String, u32)> {
        addresses(answers, &name("App.example.com."))
            .into_iter()
            .map(|(address, ttl)| (address.to_string(), ttl))
            .collect()
    }

    #[test]
    fn the_chain_is_followed_in_any_order_and_nothing_beside_it() {
        let answers = [
            a("edge.cdn.net.", 60, "192.0.2.1"),
            cname("mid.cdn.net.", 20, "EDGE.cdn.net."),
            cname("app.example.com.", 300, "mid.cdn.net."),
            a("other.example.com.", 60, "192.0.2.9"),
        ];
        assert_eq!(found(&answers), [("192.0.2.1".to_owned(), 20)]);
    }

    #[test]
    fn plain_answers_keep_their_own_ttl_and_loops_end() {
        let v6 = record("app.example.com.", 7, RData::AAAA(AAAA("2001:db8::1".parse().unwrap())));
        assert_eq!(
            found(&[a("app.example.com.", 5, "192.0.2.1"), v6]),
            [("192.0.2.1".to_owned(), 5), ("2001:db8::1".to_owned(), 7)]
        );
        assert!(found(&[cname("app.example.com.", 5, "b."), cname("b.", 5, "app.example.com.")]).is_empty());
    }

    #[test]
    fn addresses_that_no_name_may_have() {
        let handles = ("198.18.0.0/15".parse().unwrap(), "fd74:6769::/64".parse().unwrap());
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "198.19.1.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "fd74:6769::5",
            "64:ff9b::7f00:1",
            "64:ff9b::c613:101",
            "2002:7f00:1::5",
        ] {
            assert!(is_forbidden(bad.parse().unwrap(), handles), "{bad}");
        }
        for good in
            ["10.0.0.1", "192.0.2.1", "8.8.8.8", "2001:db8::1", "fd00::1", "64:ff9b::808:808", "2002:808:808::1"]
        {
            assert!(!is_forbidden(good.parse().unwrap(), handles), "{good}");
        }
    }

    #[test]
    fn what_a_translator_makes_of_an_address() {
        for (address, behind) in [
            ("64:ff9b::10.2.3.4", Some("10.2.3.4")),
            ("2002:a02:304::9", Some("10.2.3.4")),
            ("64:ff9b:1::10.2.3.4", None),
            ("2001:db8::10.2.3.4", None),
            ("10.2.3.4", None),
        ] {
            assert_eq!(translated(address.parse().unwrap()), behind.map(|text| text.parse().unwrap()), "{address}");
        }
    }
}
