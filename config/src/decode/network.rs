//! `kind: Network`

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::address::{address, covers, full, prefix, unusable};
use super::later::Later;
use super::leases;
use super::snat;
use crate::document::field::Field;
use crate::document::fields::Fields;
use crate::names::{InterfaceName, Name, VlanId};
use crate::resource::{Adopt, DnsVia, Gateway, Network, NetworkDns, Snat, Subnet, Vlan, VlanProtocol, WorkloadTraffic};
use crate::upstream::Upstream;
use crate::wording::{quoted, wrong};

pub(super) fn read(name: Option<Name>, spec: &Field<'_>) -> Option<Network> {
    let known =
        ["adopt", "vlan", "subnets", "gateway", "egress", "workloadTraffic", "dns", "mtu", "reservations", "leases"];
    let fields = spec.fields(&known, &[])?;
    if let Some(field) = fields.optional("adopt") {
        return read_adopting(name, &fields, &field);
    }
    let gateway = match fields.optional("gateway") {
        Some(field) => field.choice(&[("Node", Gateway::Node), ("External", Gateway::External)]),
        None => Some(Gateway::Node),
    };
    let vlan = fields.optional("vlan").and_then(|field| read_vlan(&field));
    let subnets = read_subnets(&fields, gateway);
    let snat = snat::read(&fields, gateway, subnets.as_deref());
    let workload_traffic = read_workload_traffic(&fields);
    let reservations = leases::read_reservations(&fields, subnets.as_deref().unwrap_or_default());
    let hold = fields.optional("leases").and_then(|field| leases::read_hold(&field));
    let dns = fields.optional("dns").and_then(|field| read_dns(&field, gateway));
    // IPv6 needs links of 1280 bytes (RFC 8200, section 5).
    let mtu = fields.optional("mtu").and_then(|field| field.integer("an MTU", 1280..=65535));
    Some(Network {
        name: name?,
        adopt: None,
        vlan,
        subnets: subnets?,
        gateway: gateway?,
        snat: snat?,
        workload_traffic: workload_traffic?,
        dns,
        reservations: reservations?,
        hold,
        mtu,
    })
}

/// A network whose links are others': who made them says the rest.
fn read_adopting(name: Option<Name>, fields: &Fields<'_>, adopt: &Field<'_>) -> Option<Network> {
    for key in ["vlan", "subnets", "gateway", "egress", "mtu", "reservations", "leases"] {
        if let Some(field) = fields.optional(key) {
            field.problem(format!("`{key}` beside `adopt`: who made the interfaces says it"), "leave it out");
        }
    }
    let workload_traffic = read_workload_traffic(fields);
    let dns = fields.optional("dns").and_then(|field| read_dns(&field, Some(Gateway::External)));
    Some(Network {
        name: name?,
        adopt: Some(read_adopt(adopt)?),
        vlan: None,
        subnets: Vec::new(),
        gateway: Gateway::External,
        snat: Snat::None,
        workload_traffic: workload_traffic?,
        dns,
        reservations: Vec::new(),
        hold: None,
        mtu: None,
    })
}

fn read_adopt(field: &Field<'_>) -> Option<Adopt> {
    let fields = field.fields(&["bridge", "cniNetwork"], &[])?;
    match (fields.optional("bridge"), fields.optional("cniNetwork")) {
        (Some(bridge), None) => {
            let link: InterfaceName = bridge.parse()?;
            if link.as_str().starts_with("tgb") {
                bridge.problem(format!("`{link}` is a link of Tidegate's own"), "name a bridge that others made");
            }
            Some(Adopt::Bridge(link))
        }
        (None, Some(network)) => network.read(|text| match text.is_empty() {
            true => Err(wrong("the CNI network has no name".to_owned(), "write the `name` of its configuration")),
            false => Ok(Adopt::CniNetwork(text.to_owned())),
        }),
        (bridge, _) => {
            let what = if bridge.is_some() { "both are adopted" } else { "nothing is adopted" };
            let mend = "write `bridge: docker0`, or `cniNetwork: NAME` where `tidegate-cni` is chained";
            field.problem(what.to_owned(), mend);
            None
        }
    }
}

fn read_workload_traffic(fields: &Fields<'_>) -> Option<WorkloadTraffic> {
    match fields.optional("workloadTraffic") {
        Some(field) => field.choice(&[("Open", WorkloadTraffic::Open), ("Isolated", WorkloadTraffic::Isolated)]),
        None => Some(WorkloadTraffic::Open),
    }
}

fn read_vlan(field: &Field<'_>) -> Option<Vlan> {
    let fields = field.fields(&["parent", "id", "protocol"], &[])?;
    let parent = fields.required("parent", "name the trunk's interface").and_then(|parent| parent.parse());
    let id = fields.required("id", "write the VLAN id, 1–4094");
    let id = id.and_then(|id| id.integer::<u16>("a VLAN id", 1..=4094)).and_then(|id| VlanId::try_from(id).ok());
    let protocol = match fields.optional("protocol") {
        Some(field) => field.choice(&[("802.1Q", VlanProtocol::Dot1q), ("802.1ad", VlanProtocol::Dot1ad)]),
        None => Some(VlanProtocol::Dot1q),
    };
    Some(Vlan { parent: parent?, id: id?, protocol: protocol? })
}

fn read_dns(field: &Field<'_>, gateway: Option<Gateway>) -> Option<NetworkDns> {
    let fields = field.fields(&["upstreams", "via"], &[])?;
    let mut through_network = false;
    let via = match fields.optional("via") {
        Some(field) => {
            let via = field.choice(&[("Node", DnsVia::Node), ("Network", DnsVia::Network)]);
            through_network = via == Some(DnsVia::Network);
            if through_network && gateway == Some(Gateway::External) {
                field.later(Later::DnsThroughExternal);
            }
            via
        }
        None => Some(DnsVia::Node),
    };
    let upstreams = fields.required("upstreams", "list the servers' addresses, or leave `dns` out to ask the node's");
    let upstreams = upstreams.and_then(|field| field.some_items("server"));
    let upstreams = Field::all(&upstreams?, |item| {
        item.read(|text| {
            let server: Upstream = text.parse()?;
            if through_network && server.address.ip().is_loopback() {
                return Err(wrong(format!("{} is no server's address", quoted(text)), "write a unicast address"));
            }
            Ok(server)
        })
    });
    Some(NetworkDns { upstreams: upstreams?, via: via? })
}

fn read_subnets(fields: &Fields<'_>, gateway: Option<Gateway>) -> Option<Vec<Subnet>> {
    let items = fields.required("subnets", "list at least one, as `- { cidr: 10.0.0.0/24, gateway: 10.0.0.1 }`")?;
    let items = items.some_items("subnet")?;
    let subnets = Field::all(&items, |item| read_subnet(item, gateway))?;
    for (later, item) in items.iter().enumerate() {
        let overlapped = subnets[..later]
            .iter()
            .find(|earlier| covers(earlier.cidr, subnets[later].cidr) || covers(subnets[later].cidr, earlier.cidr));
        if let Some(earlier) = overlapped {
            item.problem(format!("{} overlaps {} above", subnets[later].cidr, earlier.cidr), "keep one of them");
        }
    }
    Some(subnets)
}

fn read_subnet(item: &Field<'_>, routes: Option<Gateway>) -> Option<Subnet> {
    let fields = item.fields(&["cidr", "gateway", "range", "exclude"], &[])?;
    let cidr = fields.required("cidr", "write the subnet, as `cidr: 10.0.0.0/24`").and_then(|field| {
        let cidr = field.read(prefix)?;
        if let Some(why) = unusable(cidr) {
            field.problem(format!("workloads cannot have addresses of {cidr}: {why}"), "use a unicast block");
        } else if cidr.prefix() == full(cidr.ip()) {
            field.problem(format!("{cidr} is a single address"), "use a block with room for a gateway and workloads");
        }
        Some(cidr)
    });
    let gateway = fields.optional("gateway").and_then(|field| field.read(address).map(|gateway| (field, gateway)));
    let range = fields.optional("range").and_then(|field| read_range(&field).map(|range| (field, range)));
    if routes == Some(Gateway::Node) && !fields.has("gateway") {
        let mend = "write the address this node is to have there, or `gateway: External` in `spec`";
        item.problem("`gateway` is missing: this node routes for the subnet", mend);
    }
    let cidr = cidr?;
    if let Some((field, gateway)) = &gateway {
        check_host(field, cidr, *gateway, "the gateway");
    }
    if let Some((field, (first, last))) = &range {
        check_host(field, cidr, *first, "the range's beginning");
        check_host(field, cidr, *last, "the range's end");
    }
    let exclude = leases::read_addresses(&fields, "exclude", |(first, last)| {
        let outside = [first, last].into_iter().find(|address| !cidr.contains(*address))?;
        Some((format!("{outside} is not in {cidr}"), "use addresses of the subnet".to_owned()))
    });
    Some(Subnet {
        cidr,
        gateway: gateway.map(|(_, gateway)| gateway),
        range: range.map(|(_, range)| range),
        exclude: exclude?,
    })
}

fn read_range(field: &Field<'_>) -> Option<(IpAddr, IpAddr)> {
    field.read(|text| match text.contains('-') {
        true => leases::span(text),
        false => Err(wrong(format!("{} is not a range", quoted(text)), "write it as `10.0.0.10-10.0.0.200`")),
    })
}

/// An address that a host of the subnet can have.
fn check_host(field: &Field<'_>, cidr: IpNetwork, address: IpAddr, whose: &str) {
    if !cidr.contains(address) {
        field.problem(format!("{whose}, {address}, is not in {cidr}"), "use an address of the subnet");
        return;
    }
    // RFC 3021 and RFC 6164: blocks of two addresses have hosts only.
    if full(address) - cidr.prefix() <= 1 {
        return;
    }
    if address == cidr.network() {
        field.problem(format!("{whose}, {address}, is the network's own address"), "use one behind it");
    } else if address.is_ipv4() && address == cidr.broadcast() {
        field.problem(format!("{whose}, {address}, is the broadcast address"), "use one before it");
    }
}
