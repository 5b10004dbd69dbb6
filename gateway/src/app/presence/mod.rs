//! Is the VLAN really there? A network's tag may be missing on the switch, and everything looks well on the node.
//!
//! 1. A program at the VLAN's parent notes who speaks ARP or ND there (`bpf/trunk.h`), and keeps the last LLDP frame ([`lldp`]).
//! 2. Each network's router is asked for, without an own address (RFC 5227, RFC 4862): [`probe`]. So is who has this node's
//!    gateway addresses.
//! 3. What was heard makes the state, which `netctl get networks` shows: seen, silent or conflict. A conflict is a condition too.
//!
//! Owns one lock, around the states, held for a copy.

mod lldp;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use config::api::{ConditionState, Segment, SegmentState};
use config::names::Name;
use config::resource::{Gateway, Network, Vlan};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::desired::Desired;
use super::enforcement::network_number;
use super::gate::Gate;
use super::reload::in_place;
use crate::egress::attach::AttachError;
use crate::egress::tables::TableError;
use crate::egress::tables::trunks::{Heard, Trunk};
use crate::segmentation::names;
use crate::sys::interface;
use crate::workload::{Mac, is_link_local};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// How often a network's router is asked for when the network is new (PROBE_NUM of RFC 5227), and then how seldom.
const QUESTIONS: u32 = 3;
const SELDOM: Duration = Duration::from_secs(30);
/// Who spoke within this is there: some questions of ours and some lifetimes of a neighbour's entry.
const SEEN: Duration = Duration::from_secs(120);
/// Who was heard on none of the questions is silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// A conflict is told as long as somebody claims the address at each of our questions.
const CONFLICT: Duration = Duration::from_secs(75);

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
enum PresenceError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// What is remembered between two looks.
#[derive(Default)]
struct Listener {
    trunks: BTreeMap<Trunk, u32>,
    claims: BTreeMap<(u32, IpAddr), Option<Mac>>,
    parents: BTreeSet<u32>,
    asked: BTreeMap<Name, Asked>,
}

#[derive(Clone, Copy)]
struct Asked {
    since: Instant,
    times: u32,
    last: Option<Instant>,
}

/// Looks, for ever.
pub(crate) async fn run(gate: Arc<Gate>) {
    let mut listener = Listener { parents: gate.enforcement.tables.linked_trunks(), ..Listener::default() };
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let looked = in_place(|| listener.look(&gate));
        match looked {
            Ok(()) => gate.clear("VLANs"),
            Err(error) => {
                let mend = "networks work all the same; it is tried again every second";
                let text = format!("nobody knows whether VLANs are there: {error}");
                gate.raise("VLANs", ConditionState::Degraded, text, mend);
            }
        }
    }
}

impl Listener {
    fn look(&mut self, gate: &Gate) -> Result<(), PresenceError> {
        let desired = gate.now();
        let networks: Vec<(&Network, &Vlan)> =
            desired.resources.networks().filter_map(|it| Some((it, it.vlan.as_ref()?))).collect();
        if networks.is_empty() && self.parents.is_empty() {
            gate.set_segments(BTreeMap::new());
            return Ok(());
        }
        self.listen(gate, &desired, &networks)?;
        self.asked.retain(|name, _| networks.iter().any(|(network, _)| network.name == *name));
        for (network, _) in &networks {
            self.ask(gate, network);
        }
        let (heard, frames) = (gate.enforcement.tables.heard()?, gate.enforcement.tables.lldp()?);
        let now = crate::sys::bpf::boot_time();
        let switches = frames.into_iter().filter(|(_, (at, _))| now.saturating_sub(*at) < SEEN);
        let switches: BTreeMap<u32, lldp::Neighbour> =
            switches.filter_map(|(parent, (_, frame))| Some((parent, lldp::read(&frame)?))).collect();
        let mut segments = BTreeMap::new();
        for (network, vlan) in networks {
            let heard = heard.get(&network_number(&network.name));
            let switch = interface::index(vlan.parent.as_str()).ok().and_then(|parent| switches.get(&parent));
            let asked = self.asked.get(&network.name).map_or(Duration::ZERO, |asked| asked.since.elapsed());
            let segment = judge(network, vlan, heard, switch, asked, now);
            let what = format!("vlan/{}", network.name);
            match segment.state {
                SegmentState::Conflict => {
                    let mend = "take the address from that host, or use another in spec.subnets";
                    gate.raise(&what, ConditionState::Degraded, segment.message.clone(), mend);
                }
                SegmentState::Asking | SegmentState::Seen | SegmentState::Silent => gate.clear(&what),
            }
            segments.insert(network.name.clone(), segment);
        }
        for gone in gate.segments().keys().filter(|name| !segments.contains_key(*name)) {
            gate.clear(&format!("vlan/{gone}"));
        }
        gate.set_segments(segments);
        Ok(())
    }

    /// The tables and programs, where they are to be others than before.
    fn listen(&mut self, gate: &Gate, desired: &Desired, networks: &[(&Network, &Vlan)]) -> Result<(), PresenceError> {
        let tables = &gate.enforcement.tables;
        let trunk = |(network, vlan): &(&Network, &Vlan)| {
            let parent = interface::index(vlan.parent.as_str()).ok()?;
            Some((Trunk { parent, protocol: vlan.protocol, id: vlan.id }, network_number(&network.name)))
        };
        let trunks: BTreeMap<Trunk, u32> = networks.iter().filter_map(trunk).collect();
        let parents: BTreeSet<u32> = trunks.keys().map(|trunk| trunk.parent).collect();
        if trunks != self.trunks {
            tables.set_trunks(&trunks)?;
            self.trunks = trunks;
        }
        let claims = claims(gate, desired, networks);
        if claims != self.claims {
            tables.set_claims(&claims)?;
            self.claims = claims;
        }
        for parent in &parents {
            match tables.ensure_trunk_attached(*parent) {
                // it has gone meanwhile
                Err(AttachError::Device { .. }) => {}
                other => drop(other?),
            }
        }
        for former in self.parents.difference(&parents) {
            tables.detach_trunk(*former)?;
        }
        self.parents = parents;
        Ok(())
    }

    /// Asks for the addresses that somebody should have, or nobody.
    fn ask(&mut self, gate: &Gate, network: &Network) {
        let new = Asked { since: Instant::now(), times: 0, last: None };
        let asked = self.asked.entry(network.name.clone()).or_insert(new);
        let rest = if asked.times < QUESTIONS { EVERY } else { SELDOM };
        if asked.last.is_some_and(|last| last.elapsed() + EVERY / 2 < rest) {
            return;
        }
        let Ok(segment) = interface::index(names::vlan(&network.name).as_str()) else {
            *asked = new; // it is not there yet
            return;
        };
        asked.times = asked.times.saturating_add(1);
        asked.last = Some(Instant::now());
        let mac = bridge_mac(gate, network);
        for gateway in network.subnets.iter().filter_map(|subnet| subnet.gateway) {
            if let Err(error) = gate.enforcement.tables.send_frame(&probe::frame(mac, gateway), segment) {
                tracing::debug!(%error, network = %network.name, "its gateway was not asked for");
            }
        }
    }
}

fn bridge_mac(gate: &Gate, network: &Network) -> Mac {
    names::link_mac(&gate.segmentation_node.seed, &names::bridge(&network.name))
}

fn claims(gate: &Gate, desired: &Desired, networks: &[(&Network, &Vlan)]) -> BTreeMap<(u32, IpAddr), Option<Mac>> {
    let mut claims = BTreeMap::new();
    for (network, _) in networks {
        let number = network_number(&network.name);
        let owner = match network.gateway {
            Gateway::Node => Some(bridge_mac(gate, network)),
            Gateway::External => None,
        };
        claims.extend(network.subnets.iter().filter_map(|subnet| Some(((number, subnet.gateway?), owner))));
    }
    let numbers: BTreeMap<&Name, u32> =
        networks.iter().map(|(network, _)| (&network.name, network_number(&network.name))).collect();
    for workload in desired.workloads.values() {
        let Some(number) = numbers.get(&workload.network) else { continue };
        let own = workload.addresses.iter().map(|own| own.address).filter(|address| !is_link_local(*address));
        claims.extend(own.map(|address| ((*number, address), Some(workload.mac))));
    }
    claims
}

/// What was heard, as a state.
fn judge(
    network: &Network,
    vlan: &Vlan,
    heard: Option<&Heard>,
    switch: Option<&lldp::Neighbour>,
    asked: Duration,
    now: Duration,
) -> Segment {
    let lately = |when: Duration, within: Duration| now.saturating_sub(when) < within;
    let claimed = heard.and_then(|heard| heard.claimed).filter(|(when, ..)| lately(*when, CONFLICT));
    let is_gateway = |address: IpAddr| network.subnets.iter().any(|subnet| subnet.gateway == Some(address));
    // Another node that carries this network has the same gateway, at an Ethernet address that is made as ours are.
    let conflict = claimed.filter(|(_, address, mac)| !(is_gateway(*address) && mac.0[0] == 0x02));
    if let Some((_, address, mac)) = conflict {
        let message = format!("{mac} has {address} too, which is this node's");
        return Segment { state: SegmentState::Conflict, message };
    }
    let named = switch.filter(|switch| !switch.vlans.is_empty()).map(|switch| {
        let has = if switch.vlans.contains(&vlan.id.into()) { "carries it" } else { "does not name it" };
        (switch.vlans.contains(&vlan.id.into()), format!("switch {} {has}", switch.name))
    });
    let seen = |message: String| Segment { state: SegmentState::Seen, message };
    let router = heard.and_then(|heard| heard.router).filter(|(when, _)| lately(*when, SEEN));
    match (router, heard.and_then(|heard| heard.heard), named) {
        (Some((_, mac)), ..) => seen(format!("its router answers, {mac}")),
        (None, Some(when), _) if lately(when, SEEN) => match network.gateway {
            Gateway::External if network.subnets.iter().any(|subnet| subnet.gateway.is_some()) && asked > PATIENCE => {
                seen("hosts are heard; its router does not answer".to_owned())
            }
            Gateway::External | Gateway::Node => seen("hosts are heard".to_owned()),
        },
        (None, _, Some((true, switch))) => seen(switch),
        (None, ..) if asked < PATIENCE => Segment { state: SegmentState::Asking, message: String::new() },
        (None, _, named) => {
            let switch = named.map(|(_, switch)| format!("; {switch}")).unwrap_or_default();
            let message = format!("nobody is heard on VLAN {} of {}{switch}", vlan.id, vlan.parent);
            Segment { state: SegmentState::Silent, message }
        }
    }
}

#[cfg(test)]
mod tests;
