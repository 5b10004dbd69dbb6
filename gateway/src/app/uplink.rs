//! The uplink: where the way past the node's stack leads to (`bpf/fast.h`), or why it is off, and where addresses are
//! translated (`bpf/nat.h`).
//!
//! The device is `[node] uplink`, else the default route's. The programs ask the node's routes themselves; they hear
//! from here when something changed, and ask twice a second when nobody tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;

use config::names::{InterfaceName, Name};
use config::resource::{Gateway, Network};

use super::enforcement::Enforcement;
use super::gate::Gate;
use super::ports::SealError;
use crate::egress::tables::nat::Translation;
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
            Self::On { device } => {
                write!(f, "packets go past the node's stack and its FORWARD rules, to and from {device}")
            }
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
    /// Leads the way past the stack there, or nowhere, and translates at that device. Answers how much had to be put back.
    pub(super) fn set_uplink(&self, uplink: Option<u32>, translation: &Translation) -> Result<u64, SealError> {
        let former: BTreeSet<u32> = [self.tables.uplink(), self.tables.nat_device()].into_iter().flatten().collect();
        let next: BTreeSet<u32> = [uplink, translation.ifindex].into_iter().flatten().collect();
        let mut put_back = 0;
        for device in &next {
            match former.contains(device) {
                true => put_back += u64::from(self.tables.ensure_uplink_attached(*device)?),
                false => self.tables.attach_uplink(*device)?,
            }
        }
        if self.tables.uplink() != uplink {
            self.tables.set_uplink(uplink)?;
        }
        self.tables.set_translation(translation)?;
        for device in former.difference(&next) {
            self.tables.detach_uplink(*device)?;
        }
        Ok(put_back)
    }

    /// A bridge that somebody deleted comes back with another number: the workloads' entries follow.
    pub(super) fn follow_bridges(&self) -> Result<bool, SealError> {
        let state = &mut *self.state();
        let desired = state.desired.clone();
        let networks = desired.resources.networks();
        let bridges: BTreeMap<&Name, Option<u32>> = networks.map(|it| (&it.name, bridge_of(it))).collect();
        for workload in desired.workloads.values() {
            let port = state.ports.get(&workload.id).zip(bridges.get(&workload.network));
            let Some((port, bridge)) = port else { continue };
            if state.placed.entry(port.ifindex).is_some_and(|entry| entry.bridge != *bridge) {
                self.decide_again(state)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether it tells of a workload's host side only: no way leads by it, and it has no address.
pub(super) fn is_of_a_workload(notice: &Notice) -> bool {
    match notice {
        Notice::Link { index } | Notice::Address { index } => {
            interface::name(*index).is_ok_and(|name| name.starts_with(names::HOST_PREFIX))
        }
        Notice::RouteGone { .. }
        | Notice::Route
        | Notice::Neighbour { .. }
        | Notice::TrafficControl { .. }
        | Notice::Netfilter
        | Notice::Lost => false,
    }
}

/// Routes, neighbours of the uplink or links have changed.
pub(super) fn note_changes(gate: &Gate, notices: &[Notice]) {
    let uplink = gate.enforcement.tables.uplink();
    let concerns = |notice: &Notice| match notice {
        Notice::Link { .. } | Notice::Address { .. } | Notice::RouteGone { .. } | Notice::Route | Notice::Lost => true,
        Notice::Neighbour { index, .. } => Some(*index) == uplink,
        Notice::TrafficControl { .. } | Notice::Netfilter => false,
    };
    if !notices.iter().any(concerns) {
        return;
    }
    if notices.iter().any(|notice| !matches!(notice, Notice::Neighbour { .. })) {
        gate.routes_moved.store(true, Ordering::Relaxed);
    }
    if uplink.is_some()
        && let Err(error) = gate.enforcement.tables.ask_again()
    {
        tracing::warn!(%error, "next hops are asked for anew within half a second only");
    }
}

/// What was found of the uplink.
struct Found {
    fast_path: FastPath,
    /// The device itself, if there is one.
    device: Option<u32>,
    /// Where packets go past the stack.
    fast: Option<u32>,
    /// Where addresses are translated, whether or not packets go past the stack: on any other device the node's own
    /// masquerade does it.
    nat: Option<(InterfaceName, u32)>,
}

/// Looks for the uplink, leads the way there, and translates there. Answers how much of it had to be put back.
/// `first`: segmentation has not begun, and will ask by itself where addresses are translated.
pub(super) async fn look(gate: &Gate, first: bool) -> Result<u64, String> {
    let _turn = gate.looking.lock().await;
    let found = find(gate).await?;
    let device = found.nat.clone();
    let pinned = gate.enforcement.tables.nat_device();
    let placed = gate.uplink_device();
    if first {
        gate.set_uplink_device(found.device);
    }
    if first && pinned.is_some() && pinned != found.nat.as_ref().map(|(_, ifindex)| *ifindex) {
        // An earlier daemon's ruleset relies on what is there: the next look moves it.
        return Ok(0);
    }
    let former = gate.nat_device();
    let moved = former != device;
    let replaced = !first && placed != found.device;
    if moved && former.is_some() || replaced && device.is_none() {
        // the node's own masquerade first: nothing leaves with a tenant's address meanwhile
        tell_segmentation(gate, None, found.device).await?;
    }
    let translation = match &found.nat {
        Some((_, ifindex)) => Some(translation_at(gate, *ifindex).await?),
        None => None,
    };
    let put_back = super::reload::in_place(|| {
        gate.enforcement.follow_bridges()?;
        gate.enforcement.set_uplink(found.fast, &translation.unwrap_or_default())
    });
    let put_back = put_back.map_err(|error| error.to_string())?;
    match (moved, first) {
        (true, true) => gate.set_nat_device(device),
        (true, false) if device.is_some() => tell_segmentation(gate, device, found.device).await?,
        _ => {}
    }
    if gate.set_fast_path(found.fast_path.clone()) {
        tracing::info!(fast_path = %found.fast_path, "the way past the node's stack");
    }
    Ok(put_back)
}

/// The ruleset leaves out the device where addresses are translated, and networks' own addresses stand on the uplink. What
/// fails is tried again at the next look.
async fn tell_segmentation(gate: &Gate, nat: Option<(InterfaceName, u32)>, uplink: Option<u32>) -> Result<(), String> {
    let _turn = gate.changing.lock().await;
    let former = (gate.nat_device(), gate.uplink_device());
    gate.set_nat_device(nat);
    gate.set_uplink_device(uplink);
    let applied = gate.segmentation.apply(&super::reload::segments(gate, &gate.now())).await;
    applied.map_err(|error| {
        gate.set_nat_device(former.0);
        gate.set_uplink_device(former.1);
        error.to_string()
    })
}

async fn translation_at(gate: &Gate, ifindex: u32) -> Result<Translation, String> {
    let text = |error: crate::sys::netlink::NetlinkError| error.to_string();
    let addresses = Netlink::open().map_err(text)?.addresses_of(ifindex).await.map_err(text)?;
    Ok(super::nat::translation(gate, ifindex, &addresses, &gate.default_routes()))
}

async fn find(gate: &Gate) -> Result<Found, String> {
    let text = |error: crate::sys::netlink::NetlinkError| error.to_string();
    let netlink = Netlink::open().map_err(text)?;
    // The table of routes may be long: it is walked only after a change.
    if gate.routes_moved.swap(false, Ordering::Relaxed) {
        let routes = netlink.default_routes().await.inspect_err(|_| gate.routes_moved.store(true, Ordering::Relaxed));
        gate.set_default_routes(routes.map_err(text)?);
    }
    let name = match &gate.settings.node.uplink {
        Some(name) => Some(name.clone()),
        None => gate.default_routes().first().and_then(|route| interface::name(route.index).ok()),
    };
    let without = |found: String| {
        let fast_path = FastPath::Without { found };
        Ok(Found { fast_path, device: None, fast: None, nat: None })
    };
    let Some(name) = name else { return without("the node has no default route".to_owned()) };
    let Ok(device) = InterfaceName::try_from(name.clone()) else {
        return without(format!("`{name}` cannot be the name of a device"));
    };
    match netlink.link(&device).await.map_err(text)? {
        None => without(format!("there is no device {name}")),
        Some(link) if !is_usable(&link) => {
            let stack = without(format!("{name} is no Ethernet device towards the world"));
            stack.map(|found| Found { device: may_have_addresses(&link).then_some(link.index), ..found })
        }
        Some(link) => match ipsec_policies() {
            Ok(0) => Ok(match gate.settings.egress.fast_path {
                true => Found {
                    fast_path: FastPath::On { device: name },
                    device: Some(link.index),
                    fast: Some(link.index),
                    nat: Some((device, link.index)),
                },
                false => Found {
                    fast_path: FastPath::SwitchedOff,
                    device: Some(link.index),
                    fast: None,
                    nat: Some((device, link.index)),
                },
            }),
            // What goes past the stack would leave in plain text, and policies know packets as the stack translates them.
            Ok(_) => without("the node has IPsec policies, which are the stack's".to_owned()),
            Err(error) => without(format!("the node's IPsec policies cannot be counted: {error}")),
        }
        .map(|found| Found { device: Some(link.index), ..found }),
    }
}

/// Ethernet, and none of ours.
fn is_usable(link: &Link) -> bool {
    link.mac.is_some() && may_have_addresses(link)
}

fn may_have_addresses(link: &Link) -> bool {
    const LOOPBACK: u32 = 1;
    let ours = link.alias.as_deref().is_some_and(|alias| alias.starts_with(names::MARK));
    link.index != LOOPBACK && !ours
}
