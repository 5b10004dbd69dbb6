//! Links: bridges, VLAN sub-interfaces, veth pairs.

use std::os::fd::{AsRawFd, BorrowedFd};

use config::names::{InterfaceName, VlanId};
use config::resource::VlanProtocol;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, InfoBridge, InfoData, InfoKind, InfoVeth, InfoVlan,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, VlanProtocol as Tag,
};

use super::port::{self, PortFlags};
use super::{Netlink, NetlinkError};
use crate::workload::Mac;

/// A link as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name. One that is not UTF-8 or too long cannot be here: the kernel has none.
    pub name: InterfaceName,
    /// What it is.
    pub kind: Kind,
    /// `ip link set … alias`, where the mark of its owner stands.
    pub alias: Option<String>,
    /// Its Ethernet address; `None` for links that have none or another sort.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// Whether it is set up (IFF_UP), carrier or not.
    pub up: bool,
    /// Index of the bridge or bond that it belongs to.
    pub master: Option<u32>,
    /// How it behaves as a port of a bridge.
    pub port: Option<PortFlags>,
    /// Per-link settings of the network stack.
    pub settings: LinkSettings,
    /// Of a pair: where its other end is, if that is in another namespace.
    pub far_end: Option<FarEnd>,
}

/// The other end of a pair, in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FarEnd {
    /// The number by which this namespace knows that one (`IFLA_LINK_NETNSID`).
    pub namespace: i32,
    /// The link's number there.
    pub index: u32,
}

/// What a link is, with what matters of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bridge.
    Bridge {
        /// Spanning tree.
        stp: bool,
        /// IGMP and MLD snooping.
        snooping: bool,
    },
    /// A VLAN sub-interface.
    Vlan {
        /// Index of its parent.
        parent: u32,
        /// Its tag.
        tag: VlanTag,
    },
    /// One end of a pair.
    Veth,
    /// A TAP or TUN, whose far end is a program.
    Tap,
    /// Anything else.
    Other,
}

/// What a VLAN sub-interface adds to frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// 1–4094
    pub id: VlanId,
    /// EtherType
    pub protocol: VlanProtocol,
}

/// Some of `net.ipv4.conf.LINK` and `net.ipv6.conf.LINK`; `None` where the link has no such stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkSettings {
    /// `ipv4 arp_ignore`
    pub arp_ignore: Option<i32>,
    /// `ipv6 disable_ipv6`
    pub disable_ipv6: Option<i32>,
    /// `ipv6 accept_ra`
    pub accept_ra: Option<i32>,
    /// `ipv6 autoconf`
    pub autoconf: Option<i32>,
    /// `ipv6 accept_dad`
    pub accept_dad: Option<i32>,
}

/// The end of a new pair that lies inside a workload's namespace.
#[derive(Debug)]
pub struct Guest<'a> {
    /// Name there.
    pub name: &'a InterfaceName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Where.
    pub netns: BorrowedFd<'a>,
}

impl Netlink {
    /// All links of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let found = self.dump(RouteNetlinkMessage::GetLink(message), || "list links".to_owned()).await?;
        Ok(found.into_iter().filter_map(parse).collect())
    }

    /// The link of that name.
    pub async fn link(&self, name: &InterfaceName) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        let message = RouteNetlinkMessage::GetLink(message);
        let doing = || format!("look at link {name}");
        match self.ask(message, NLM_F_REQUEST, doing).await {
            Ok(found) => Ok(found.into_iter().find_map(parse)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The link of that index.
    pub async fn link_at(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let message = at(index, LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST, || format!("look at link {index}")).await {
            Ok(found) => Ok(found.into_iter().find_map(parse)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The other end of a pair, seen from here (`IFLA_TARGET_NETNSID`): who may change this namespace's links may look at those
    /// of the containers on it. `None`: it is gone.
    pub async fn across(&self, end: FarEnd) -> Result<Option<Link>, NetlinkError> {
        let mut message = at(end.index, LinkAttribute::IfNetnsId(end.namespace));
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let message = RouteNetlinkMessage::GetLink(message);
        match self.ask(message, NLM_F_REQUEST, || format!("look at link {} of a container", end.index)).await {
            Ok(found) => Ok(found.into_iter().find_map(parse)),
            // EINVAL: no namespace has that number any longer
            Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::EINVAL)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge, down: no spanning tree, no multicast snooping.
    pub async fn add_bridge(&self, name: &InterfaceName, mac: Mac, mtu: u32) -> Result<(), NetlinkError> {
        let data = InfoData::Bridge(vec![
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::MulticastSnooping(false),
        ]);
        let mut message = new_link(name, mac, mtu);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)]));
        self.create(message, || format!("make bridge {name}")).await
    }

    /// Turns spanning tree and multicast snooping of a bridge off.
    pub async fn quieten_bridge(&self, index: u32, name: &InterfaceName) -> Result<(), NetlinkError> {
        let data = InfoData::Bridge(vec![
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::MulticastSnooping(false),
        ]);
        let message = at(index, LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)]));
        self.change(RouteNetlinkMessage::NewLink(message), 0, || format!("set bridge {name}")).await
    }

    /// Makes a VLAN sub-interface, down.
    pub async fn add_vlan(
        &self,
        name: &InterfaceName,
        parent: u32,
        tag: VlanTag,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let protocol = match tag.protocol {
            VlanProtocol::Dot1q => Tag::Ieee8021Q,
            VlanProtocol::Dot1ad => Tag::Ieee8021Ad,
        };
        let data = InfoData::Vlan(vec![InfoVlan::Id(tag.id.into()), InfoVlan::Protocol(protocol)]);
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_string()),
            LinkAttribute::Link(parent),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)]),
        ];
        self.create(message, || format!("make VLAN {} as {name}", tag.id)).await
    }

    /// Whether this kernel can make VLAN sub-interfaces (`8021q`); asking loads the module where there is one.
    pub async fn supports_vlan(&self) -> Result<bool, NetlinkError> {
        // A VLAN without its properties: refused as unknown where the kernel has none, as incomplete where it has.
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan)]));
        match self.create(message, || "ask for VLANs".to_owned()).await {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(error) if error.errno() == Some(libc::EINVAL) => Ok(true),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }

    /// Makes a pair, both ends down, one of them in another namespace from the start.
    pub async fn add_veth(
        &self,
        name: &InterfaceName,
        mac: Mac,
        mtu: u32,
        guest: Guest<'_>,
    ) -> Result<(), NetlinkError> {
        let mut inside = new_link(guest.name, guest.mac, mtu);
        inside.attributes.push(LinkAttribute::NetNsFd(guest.netns.as_raw_fd()));
        let data = InfoData::Veth(InfoVeth::Peer(inside));
        let mut message = new_link(name, mac, mtu);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
        self.create(message, || format!("make the pair {name} and {} in the workload's namespace", guest.name)).await
    }

    /// Deletes a link; with one end of a pair goes the other.
    pub async fn delete_link(&self, index: u32, name: &InterfaceName) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelLink(indexed(index));
        self.change(message, 0, || format!("delete link {name}")).await
    }

    /// Sets a link up or down.
    pub async fn set_up(&self, index: u32, name: &InterfaceName, up: bool) -> Result<(), NetlinkError> {
        let mut message = indexed(index);
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        let word = if up { "up" } else { "down" };
        self.change(RouteNetlinkMessage::SetLink(message), 0, || format!("set {name} {word}")).await
    }

    /// Sets a link's alias; an empty one takes it away.
    pub async fn set_alias(&self, index: u32, name: &InterfaceName, alias: &str) -> Result<(), NetlinkError> {
        self.set(index, LinkAttribute::IfAlias(alias.to_owned()), || format!("mark {name}")).await
    }

    /// Sets a link's MTU in bytes.
    pub async fn set_mtu(&self, index: u32, name: &InterfaceName, mtu: u32) -> Result<(), NetlinkError> {
        self.set(index, LinkAttribute::Mtu(mtu), || format!("set the MTU of {name} to {mtu}")).await
    }

    /// Sets a link's Ethernet address.
    pub async fn set_mac(&self, index: u32, name: &InterfaceName, mac: Mac) -> Result<(), NetlinkError> {
        self.set(index, LinkAttribute::Address(mac.0.to_vec()), || format!("set the MAC of {name} to {mac}")).await
    }

    /// Makes a link a port of a bridge, or of none.
    pub async fn set_master(&self, index: u32, name: &InterfaceName, bridge: Option<u32>) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::Controller(bridge.unwrap_or(0));
        self.set(index, attribute, || format!("put {name} into its bridge")).await
    }

    /// Sets how a link behaves as a port of its bridge.
    pub async fn set_port(&self, index: u32, name: &InterfaceName, flags: PortFlags) -> Result<(), NetlinkError> {
        let message = at(index, LinkAttribute::LinkInfo(port::info(flags)));
        self.change(RouteNetlinkMessage::NewLink(message), 0, || format!("set bridge port {name}")).await
    }

    async fn set(&self, index: u32, what: LinkAttribute, doing: impl Fn() -> String) -> Result<(), NetlinkError> {
        self.change(RouteNetlinkMessage::SetLink(at(index, what)), 0, doing).await
    }

    async fn create(&self, message: LinkMessage, doing: impl Fn() -> String) -> Result<(), NetlinkError> {
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, doing).await
    }
}

fn new_link(name: &InterfaceName, mac: Mac, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes =
        vec![LinkAttribute::IfName(name.to_string()), LinkAttribute::Address(mac.0.to_vec()), LinkAttribute::Mtu(mtu)];
    message
}

fn indexed(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn at(index: u32, attribute: LinkAttribute) -> LinkMessage {
    let mut message = indexed(index);
    message.attributes.push(attribute);
    message
}

fn parse(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let (mut name, mut alias, mut mac, mut mtu, mut master, mut below) = (None, None, None, 0, None, None);
    let (mut infos, mut settings, mut namespace) = (Vec::new(), LinkSettings::default(), None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = InterfaceName::try_from(text).ok(),
            LinkAttribute::IfAlias(text) if !text.is_empty() => alias = Some(text),
            LinkAttribute::Address(bytes) => mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(bytes) => mtu = bytes,
            LinkAttribute::Controller(index) => master = Some(index),
            LinkAttribute::Link(index) => below = Some(index),
            LinkAttribute::LinkNetNsId(number) => namespace = Some(number),
            LinkAttribute::LinkInfo(found) => infos = found,
            LinkAttribute::AfSpecUnspec(found) => settings = parse_settings(found),
            _ => {}
        }
    }
    let kind = parse_kind(&infos, below);
    let far_end = match (namespace, below) {
        (Some(namespace), Some(index)) if kind == Kind::Veth => Some(FarEnd { namespace, index }),
        _ => None,
    };
    Some(Link {
        index: message.header.index,
        name: name?,
        kind,
        alias,
        mac,
        mtu,
        up: message.header.flags.contains(LinkFlags::Up),
        master,
        port: port::parse(&infos),
        settings,
        far_end,
    })
}

fn parse_kind(infos: &[LinkInfo], below: Option<u32>) -> Kind {
    let kind = infos.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
    let data = infos.iter().find_map(|info| if let LinkInfo::Data(data) = info { Some(data) } else { None });
    match (kind, data) {
        (Some(InfoKind::Veth), _) => Kind::Veth,
        (Some(InfoKind::Tun), _) => Kind::Tap,
        (Some(InfoKind::Bridge), Some(InfoData::Bridge(data))) => Kind::Bridge {
            stp: data.iter().any(|d| matches!(d, InfoBridge::StpState(state) if *state != BridgeStpState::Disabled)),
            snooping: data.contains(&InfoBridge::MulticastSnooping(true)),
        },
        (Some(InfoKind::Vlan), Some(InfoData::Vlan(data))) => {
            let id = data.iter().find_map(|d| if let InfoVlan::Id(id) = d { VlanId::try_from(*id).ok() } else { None });
            let outer = data.contains(&InfoVlan::Protocol(Tag::Ieee8021Ad));
            let protocol = if outer { VlanProtocol::Dot1ad } else { VlanProtocol::Dot1q };
            match (id, below) {
                (Some(id), Some(parent)) => Kind::Vlan { parent, tag: VlanTag { id, protocol } },
                _ => Kind::Other,
            }
        }
        _ => Kind::Other,
    }
}

fn parse_settings(families: Vec<AfSpecUnspec>) -> LinkSettings {
    let mut settings = LinkSettings::default();
    for family in families {
        match family {
            AfSpecUnspec::Inet(parts) => {
                for part in parts {
                    if let AfSpecInet::DevConf(conf) = part {
                        settings.arp_ignore = Some(conf.arp_ignore);
                    }
                }
            }
            AfSpecUnspec::Inet6(parts) => {
                for part in parts {
                    if let AfSpecInet6::DevConf(conf) = part {
                        settings.disable_ipv6 = Some(conf.disable_ipv6);
                        settings.accept_ra = Some(conf.accept_ra);
                        settings.autoconf = Some(conf.autoconf);
                        settings.accept_dad = Some(conf.accept_dad);
                    }
                }
            }
            _ => {}
        }
    }
    settings
}
