use super::*;

/// CIDR, gateway, range.
type Written<'a> = (&'a str, Option<&'a str>, Option<(&'a str, &'a str)>);

fn network(subnets: &[Written<'_>]) -> Network {
    let subnet = |(cidr, gateway, range): &Written<'_>| Subnet {
        cidr: cidr.parse().unwrap(),
        gateway: gateway.map(|g| g.parse().unwrap()),
        range: range.map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())),
        exclude: Vec::new(),
    };
    Network {
        name: "tenant-a".parse().unwrap(),
        adopt: None,
        reservations: Vec::new(),
        hold: None,
        vlan: None,
        subnets: subnets.iter().map(subnet).collect(),
        gateway: config::resource::Gateway::Node,
        snat: config::resource::Snat::None,
        workload_traffic: config::resource::WorkloadTraffic::Open,
        dns: None,
        mtu: None,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Somebody without a wish.
fn anybody() -> Claim<'static> {
    static WHO: std::sync::LazyLock<(Name, Labels)> =
        std::sync::LazyLock::new(|| ("shop".parse().unwrap(), Labels::new()));
    Claim { namespace: &WHO.0, labels: &WHO.1, wanted: &[], former: &[] }
}

#[test]
fn special_addresses_are_never_given() {
    let network = network(&[("10.0.0.0/29", Some("10.0.0.1"), None)]);
    let (mut taken, mut cursor) = (BTreeSet::new(), Cursor::default());
    let mut given = Vec::new();
    while let Ok(addresses) = allocate(&network, &taken, anybody(), &mut cursor) {
        taken.extend(&addresses);
        given.extend(addresses);
    }
    assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(ip));
}

#[test]
fn a_freed_address_is_the_last_to_come_again() {
    let network = network(&[("10.0.0.0/29", Some("10.0.0.1"), None)]);
    let mut cursor = Cursor::default();
    let mut taken = BTreeSet::from([ip("10.0.0.4")]);
    let mut next = |taken: &BTreeSet<IpAddr>| allocate(&network, taken, anybody(), &mut cursor).unwrap()[0];
    assert_eq!(next(&taken), ip("10.0.0.2"));
    assert_eq!(next(&taken), ip("10.0.0.3"), "10.0.0.2 was freed at once, and waits");
    assert_eq!(next(&taken), ip("10.0.0.5"));
    assert_eq!(next(&taken), ip("10.0.0.6"));
    taken.insert(ip("10.0.0.2"));
    assert_eq!(next(&taken), ip("10.0.0.3"));
}

#[test]
fn both_families_and_the_range_are_heeded() {
    let network = network(&[
        ("10.0.0.0/24", Some("10.0.0.1"), Some(("10.0.0.10", "10.0.0.11"))),
        ("fd00::/64", Some("fd00::1"), None),
        ("10.0.1.0/24", Some("10.0.1.1"), Some(("10.0.1.0", "10.0.1.2"))),
    ]);
    let (mut taken, mut cursor) = (BTreeSet::new(), Cursor::default());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let addresses = allocate(&network, &taken, anybody(), &mut cursor).unwrap();
        taken.extend(&addresses);
        seen.extend(addresses);
    }
    let wanted = ["10.0.0.10", "fd00::2", "10.0.0.11", "fd00::3", "10.0.1.2", "fd00::4"];
    assert_eq!(seen, wanted.map(ip));
    let before = cursor.clone();
    let full = allocate(&network, &taken, anybody(), &mut cursor).unwrap_err();
    assert_eq!(cursor, before, "a refusal moves nothing");
    let text = full.to_string();
    assert!(text.contains("no free IPv4 address: 3 of 3 are used in 10.0.0.0/24, 10.0.1.0/24"), "{text}");
}

#[test]
fn point_to_point_subnets_have_no_special_addresses() {
    let network = network(&[("10.0.0.0/31", Some("10.0.0.0"), None), ("fd00::/127", Some("fd00::"), None)]);
    let given = allocate(&network, &BTreeSet::new(), anybody(), &mut Cursor::default()).unwrap();
    assert_eq!(given, [ip("10.0.0.1"), ip("fd00::1")]);
}

#[test]
fn handles_leave_the_service_namespace_its_own() {
    let blocks = ("198.18.0.0/15".parse().unwrap(), "fd74:6769::/64".parse().unwrap());
    let mut cursor = Cursor::default();
    let asked = [ip("10.0.0.2"), ip("fd00::2"), ip("fe80::1")];
    let given = allocate_handles(&asked, blocks, &BTreeSet::new(), &mut cursor).unwrap();
    let handles: Vec<_> = given.iter().map(|address| address.handle).collect();
    assert_eq!(handles, [ip("198.18.0.1"), ip("fd74:6769::1"), ip("fd74:6769::2")]);

    let mut cursor = Cursor(BTreeMap::from([
        ("198.18.0.0/15".parse().unwrap(), ip("198.19.254.255")),
        ("fd74:6769::/64".parse().unwrap(), ip("fd74:6769::feff")),
    ]));
    let given = allocate_handles(&asked, blocks, &BTreeSet::new(), &mut cursor).unwrap();
    let handles: Vec<_> = given.iter().map(|address| address.handle).collect();
    assert_eq!(handles, [ip("198.18.0.1"), ip("fd74:6769::1:0"), ip("fd74:6769::1:1")]);
}

#[test]
fn full_handles_say_so() {
    let blocks = ("198.18.0.0/23".parse().unwrap(), "fd74:6769::/64".parse().unwrap());
    let taken = (0..256u32).map(|n| IpAddr::V4(Ipv4Addr::from(0xc612_0000 + n))).collect();
    let full = allocate_handles(&[ip("10.0.0.2")], blocks, &taken, &mut Cursor::default()).unwrap_err();
    assert_eq!(full, IpamError::HandlesFull { block: "198.18.0.0/23".parse().unwrap(), used: 255, total: 255 });
}

fn reservation(app: &str, addresses: &[(&str, &str)]) -> config::resource::Reservation {
    let selector = Labels::from([("app".to_owned(), app.to_owned())]).into();
    let addresses = addresses.iter().map(|(first, last)| (ip(first), ip(last))).collect();
    config::resource::Reservation { selector, namespace: None, addresses }
}

#[test]
fn what_is_excluded_or_reserved_is_nobody_elses() {
    let mut network = network(&[("10.0.0.0/29", Some("10.0.0.1"), None), ("fd00::/64", Some("fd00::1"), None)]);
    network.subnets[0].exclude = vec![(ip("10.0.0.2"), ip("10.0.0.3"))];
    network.reservations = vec![reservation("db", &[("10.0.0.5", "10.0.0.5")])];
    let (mut cursor, db) = (Cursor::default(), Labels::from([("app".to_owned(), "db".to_owned())]));
    let first = allocate(&network, &BTreeSet::new(), anybody(), &mut cursor).unwrap();
    assert_eq!(first, ["10.0.0.4", "fd00::2"].map(ip));
    let taken: BTreeSet<IpAddr> = first.into_iter().collect();
    assert_eq!(allocate(&network, &taken, anybody(), &mut cursor).unwrap()[0], ip("10.0.0.6"));
    let why = |address: &str, claim: Claim<'_>| {
        let wanted = [ip(address)];
        match allocate(&network, &taken, Claim { wanted: &wanted, ..claim }, &mut Cursor::default()) {
            Err(IpamError::NotToBeHad { why, .. }) => why,
            other => panic!("{address}: {other:?}"),
        }
    };
    assert_eq!(why("10.0.0.3", anybody()), "it is excluded");
    assert_eq!(why("10.0.0.5", anybody()), "it is reserved for other workloads");
    let own = Claim { labels: &db, ..anybody() };
    assert_eq!(allocate(&network, &taken, own, &mut cursor).unwrap()[0], ip("10.0.0.5"));
    let taken: BTreeSet<IpAddr> = taken.into_iter().chain([ip("10.0.0.5")]).collect();
    let full = allocate(&network, &taken, own, &mut cursor).unwrap_err();
    assert!(matches!(full, IpamError::ReservedInUse { total: 1, .. }), "{full}");
    // 10.0.0.4 and .6, and the reserved one.
    assert_eq!((total(&network, true), total(&network, false)), (3, (1 << 64) - 2));
    network.reservations[0].namespace = Some("bank".parse().unwrap());
    assert_eq!(
        allocate(&network, &taken, own, &mut Cursor::default()).unwrap()[0],
        ip("10.0.0.6"),
        "of another namespace"
    );
}

#[test]
fn a_former_address_comes_again_where_it_can() {
    let network = network(&[("10.0.0.0/29", Some("10.0.0.1"), None)]);
    let given = |former: &str, taken: &[&str]| {
        let (former, taken) = ([ip(former)], taken.iter().map(|text| ip(text)).collect());
        allocate(&network, &taken, Claim { former: &former, ..anybody() }, &mut Cursor::default()).unwrap()[0]
    };
    assert_eq!(given("10.0.0.5", &[]), ip("10.0.0.5"));
    assert_eq!(given("10.0.0.5", &["10.0.0.5"]), ip("10.0.0.2"));
    assert_eq!(given("10.9.9.9", &[]), ip("10.0.0.2"), "of a subnet that was");
}
