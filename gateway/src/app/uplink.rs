//! The way past the node's stack (`bpf/fast.h`): which device it leads to, and where it is off and why.
//!
//! The device is `[node] uplink`, else the default route's. The programs ask the node's routes themselves; they hear
//! from here when something changed, and ask twice a second when nobody tells them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;

use config::names::{InterfaceName, Name};
use config::resource::{Gateway, Network};

use super::enforcement::Enforcement;
use super::gate::Gate;
use super::ports::SealError;
use crate::segmentation::names;
use crate::sys::interface;
use crate::sys::netlink::watch::Notice;
use crate::sys::netlink::{Link, Netlink, ipsec_policies};

/// What `status` and `doctor` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum FastPath {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// `[egress] fast_path = false`
    SwitchedOff,
    /// There is no device for it.
    Without {
        /// What is missing.
        found: String,
    },
    /// It leads to this device.
    On {
        /// Its name.
        device: String,
    },
}

impl fmt::Display for FastPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("off: the uplink was not looked at yet"),
            Self::SwitchedOff => f.write_str("off by `[egress] fast_path`"),
            Self::Without { found } => write!(f, "off: {found}"),
            Self::On { device } => write!(
                f,
                "networks without source NAT go past the node's stack and its FORWARD rules, to and from {device}"
            ),
        }
    }
}

impl FastPath {
    /// What to do where it is off and nobody asked for that.
    pub(crate) fn mend(&self) -> &'static str {
        match self {
            Self::Unknown | Self::Without { .. } => {
                "packets take the node's stack, more slowly; mend that (`[node] uplink` names the device), or set `[egress] fast_path = false`"
            }
            Self::SwitchedOff | Self::On { .. } => "",
        }
    }
}

/// The bridge's device, if packets of this network may skip the stack: what goes to another router does not.
pub(super) fn bridge_of(network: &Network) -> Option<u32> {
    let routed = network.gateway == Gateway::Node;
    routed.then(|| interface::index(names::bridge(&network.name).as_str()).ok())?
}

impl Enforcement {
    /// Leads the way past the stack there, or nowhere. Answers how much had to be put back.
    pub(super) fn set_uplink(&self, uplink: Option<u32>) -> Result<u64, SealError> {
        let former = self.tables.uplink();
        if former == uplink {
            return Ok(uplink.map_or(Ok(false), |ifindex| self.tables.ensure_uplink_attached(ifindex))?.into());
        }
        if let Some(ifindex) = former {
            self.tables.set_uplink(None)?;
            self.tables.detach_uplink(ifindex)?;
        }
        if let Some(ifindex) = uplink {
            self.tables.attach_uplink(ifindex)?;
            self.tables.set_uplink(uplink)?;
        }
        Ok(0)
    }

    /// A bridge that somebody deleted comes back with another number: the workloads' entries follow.
    pub(super) fn follow_bridges(&self) -> Result<bool, SealError> {
        let state = &*self.state();
        let networks = state.desired.resources.networks();
        let bridges: BTreeMap<&Name, Option<u32>> = networks.map(|it| (&it.name, bridge_of(it))).collect();
        for workload in state.desired.workloads.values() {
            let port = state.ports.get(&workload.id).zip(bridges.get(&workload.network));
            let Some((port, bridge)) = port else { continue };
            if self.tables.workload(port.ifindex)?.is_some_and(|entry| entry.bridge != *bridge) {
                self.decide_again(state)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Routes, neighbours of the uplink or links have changed.
pub(super) fn note_changes(gate: &Gate, notices: &[Notice]) {
    let uplink = gate.enforcement.tables.uplink();
    let concerns = |notice: &Notice| match notice {
        Notice::Link | Notice::Address | Notice::RouteGone { .. } | Notice::Route | Notice::Lost => true,
        Notice::Neighbour { index } => Some(*index) == uplink,
        Notice::TrafficControl { .. } | Notice::Netfilter => false,
    };
    if !notices.iter().any(concerns) {
        return;
    }
    if notices.iter().any(|notice| !matches!(notice, Notice::Neighbour { .. })) {
        gate.routes_moved.store(true, Ordering::Relaxed);
    }
    if uplink.is_some()
        && let Err(error) = gate.enforcement.tables.routes_changed()
    {
        tracing::warn!(%error, "next hops are asked for anew within half a second only");
    }
}

/// Looks for the uplink and leads the way there. Answers how much of it had to be put back.
pub(super) async fn look(gate: &Gate) -> Result<u64, String> {
    let (found, ifindex) = find(gate).await?;
    let put_back = super::reload::in_place(|| {
        gate.enforcement.follow_bridges()?;
        gate.enforcement.set_uplink(ifindex)
    });
    let put_back = put_back.map_err(|error| error.to_string())?;
    if gate.set_fast_path(found.clone()) {
        tracing::info!(fast_path = %found, "the way past the node's stack");
    }
    Ok(put_back)
}

async fn find(gate: &Gate) -> Result<(FastPath, Option<u32>), String> {
    if !gate.settings.egress.fast_path {
        return Ok((FastPath::SwitchedOff, None));
    }
    let text = |error: crate::sys::netlink::NetlinkError| error.to_string();
    let netlink = Netlink::open().map_err(text)?;
    let name = match (&gate.settings.node.uplink, gate.fast_path()) {
        (Some(name), _) => Some(name.clone()),
        // The table of routes may be long: it is walked only after a change.
        (None, FastPath::On { device }) if !gate.routes_moved.swap(false, Ordering::Relaxed) => Some(device),
        (None, _) => netlink.default_route_link().await.map_err(text)?.and_then(|index| interface::name(index).ok()),
    };
    let without = |found: String| Ok((FastPath::Without { found }, None));
    let Some(name) = name else { return without("the node has no default route".to_owned()) };
    let Ok(device) = InterfaceName::try_from(name.clone()) else {
        return without(format!("`{name}` cannot be the name of a device"));
    };
    match netlink.link(&device).await.map_err(text)? {
        None => without(format!("there is no device {name}")),
        Some(link) if !is_usable(&link) => without(format!("{name} is no Ethernet device towards the world")),
        Some(link) => match ipsec_policies() {
            Ok(0) => Ok((FastPath::On { device: name }, Some(link.index))),
            // What goes past the stack would leave in plain text.
            Ok(_) => without("the node has IPsec policies, which are the stack's".to_owned()),
            Err(error) => without(format!("the node's IPsec policies cannot be counted: {error}")),
        },
    }
}

/// Ethernet, and none of ours.
fn is_usable(link: &Link) -> bool {
    const LOOPBACK: u32 = 1;
    let ours = link.alias.as_deref().is_some_and(|alias| alias.starts_with(names::MARK));
    link.mac.is_some() && link.index != LOOPBACK && !ours
}
