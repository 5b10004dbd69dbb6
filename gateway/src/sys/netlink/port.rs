//! How a link behaves as a port of a bridge.

use rtnetlink::packet_route::link::{InfoBridgePort, InfoPortData, InfoPortKind, LinkInfo};

/// Flags of a bridge port (`man 8 bridge`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFlags {
    /// Learn source addresses of frames that come in here.
    pub learning: bool,
    /// Send frames for unknown unicast addresses out here.
    pub unicast_flood: bool,
    /// Send multicast out here.
    pub multicast_flood: bool,
    /// Send broadcast out here.
    pub broadcast_flood: bool,
    /// Not to or from other isolated ports.
    pub isolated: bool,
    /// Send frames back out of the port they came in by.
    pub hairpin: bool,
}

pub(super) fn info(flags: PortFlags) -> Vec<LinkInfo> {
    let data = vec![
        InfoBridgePort::Learning(flags.learning),
        InfoBridgePort::UnicastFlood(flags.unicast_flood),
        InfoBridgePort::MulticastFlood(flags.multicast_flood),
        InfoBridgePort::BroadcastFlood(flags.broadcast_flood),
        InfoBridgePort::Isolated(flags.isolated),
        InfoBridgePort::HairpinMode(flags.hairpin),
    ];
    vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(InfoPortData::BridgePort(data))]
}

pub(super) fn parse(infos: &[LinkInfo]) -> Option<PortFlags> {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(data)) => Some(data),
        _ => None,
    })?;
    Some(PortFlags {
        learning: data.contains(&InfoBridgePort::Learning(true)),
        unicast_flood: data.contains(&InfoBridgePort::UnicastFlood(true)),
        multicast_flood: data.contains(&InfoBridgePort::MulticastFlood(true)),
        broadcast_flood: data.contains(&InfoBridgePort::BroadcastFlood(true)),
        isolated: data.contains(&InfoBridgePort::Isolated(true)),
        hairpin: data.contains(&InfoBridgePort::HairpinMode(true)),
    })
}
