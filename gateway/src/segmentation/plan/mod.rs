//! From what shall be and what is to the steps between: pure, so that `netctl plan` and the tests can show it.
//!
//! In this order, so that nothing is open before what closes it is there:
//! 1. the node ([`node`]): table `inet tidegate`, then forwarding; adopted bridges ([`adopted`]) and their ports;
//! 2. each network ([`network`]): VLAN sub-interface, bridge, addresses;
//! 3. each workload ([`workload`]): pair, inside, seal, port, up, neighbours;
//! 4. links of ours that nobody wants any more, workloads' before networks'; the table when no network is left;
//! 5. networks' own egress addresses ([`egress`]): what hinders one of them hinders no workload.
//!
//! What cannot be done is a [`Refusal`] with its mend; the network or workload it is about then has no steps, the
//! others have theirs.

mod adopted;
mod egress;
mod network;
mod node;
mod refusal;
mod sight;
mod workload;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use config::names::{InterfaceName, Name};
use config::resource::Network;

use super::desired::Desired;
use super::names;
use super::observe::Observed;
use super::step::Step;
use crate::sys::netlink::Link;
use crate::workload::{Workload, WorkloadId};

pub(crate) use refusal::label;
pub use refusal::{Refusal, forbidden_changes};
pub(super) use sight::Sight;

/// The steps, by what they are for, and what is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order they are to be taken.
    pub parts: Vec<Part>,
    /// What cannot be done.
    pub refusals: Vec<Refusal>,
    /// Workloads whose namespace is gone: they have no steps, and their addresses may be given to others.
    pub gone: BTreeSet<WorkloadId>,
}

/// Steps that belong together: undone together when one fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What they are for.
    pub subject: Subject,
    /// In order; not empty.
    pub steps: Vec<Step>,
}

/// What a part is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The node as a whole.
    Node,
    /// A network.
    Network(Name),
    /// A workload.
    Workload(WorkloadId),
    /// Networks' own egress addresses, on the uplink.
    Egress,
    /// What is left of something deleted.
    Leftover,
}

impl Plan {
    /// Works out the steps.
    pub fn new(desired: &Desired, observed: &Observed) -> Self {
        let mut plan = Self::of_links(desired, observed);
        let (steps, refusals) = egress::steps(desired, observed);
        plan.add(Subject::Egress, steps);
        plan.refusals.extend(refusals);
        plan
    }

    /// All but networks' own egress addresses.
    fn of_links(desired: &Desired, observed: &Observed) -> Self {
        let observed = &Sight::of(observed);
        let mut plan = Self::default();
        plan.add(Subject::Node, node::before(desired, observed));
        let (closing, listing) = adopted::guard(desired, observed);
        plan.add(Subject::Node, closing);
        for network in desired.networks.values().filter(|network| network.adopt.is_some()) {
            match adopted::network(network, observed) {
                Ok(steps) => plan.add(Subject::Network(network.name.clone()), steps),
                Err(refusal) => plan.refusals.push(refusal),
            }
        }
        let mut bridges = BTreeMap::new();
        for (name, found) in network::all(desired, observed) {
            match found {
                Ok((bridge, steps)) => {
                    plan.add(Subject::Network(name.clone()), steps);
                    bridges.insert(name, bridge);
                }
                Err(refusal) => plan.refusals.push(refusal),
            }
        }
        for workload in desired.workloads.values() {
            let network = desired.networks.get(&workload.network);
            if workload.is_found() && network.is_none_or(|network| network.adopt.is_none()) {
                continue; // it is no workload any longer
            }
            let Some(network) = network else {
                plan.refusals.push(Refusal::NetworkInUse {
                    network: workload.network.clone(),
                    workloads: vec![label(workload)],
                });
                continue;
            };
            let found = match (workload.adopted, bridges.get(&workload.network)) {
                (true, _) => Ok(adopted::workload(workload, observed)),
                (false, Some(bridge)) => workload::steps(workload, network, bridge, desired, observed),
                (false, None) => continue,
            };
            match found {
                Ok(workload::Found::Steps(steps)) => plan.add(Subject::Workload(workload.id), steps),
                Ok(workload::Found::Gone) => {
                    plan.gone.insert(workload.id);
                }
                Err(refusal) => plan.refusals.push(refusal),
            }
        }
        for bridge in bridges.values() {
            let steps = workload::stale_neighbours(bridge, desired, observed, &plan.gone);
            plan.add(Subject::Network(bridge.network.clone()), steps);
        }
        plan.add(Subject::Node, listing);
        plan.add(Subject::Leftover, adopted::released(desired, observed));
        plan.add(Subject::Leftover, leftovers(desired, observed));
        plan.add(Subject::Node, node::after(desired, observed));
        plan
    }

    /// The same for one network of this state, and one workload of it, from a look at them and the node.
    pub(super) fn near(desired: &Desired, network: &Network, workload: Option<&Workload>, observed: &Observed) -> Self {
        let own = Desired {
            networks: BTreeMap::from([(network.name.clone(), network.clone())]),
            workloads: workload.map(|workload| (workload.id, workload.clone())).into_iter().collect(),
            node: desired.node.clone(),
        };
        let mut plan = Self::of_links(&own, observed);
        // What the node needs is a matter of all networks and workloads.
        plan.parts.retain(|part| !matches!(part.subject, Subject::Node | Subject::Leftover));
        let before = node::before(desired, &Sight::of(observed));
        if !before.is_empty() {
            plan.parts.insert(0, Part { subject: Subject::Node, steps: before });
        }
        plan
    }

    /// What is to be done of the node itself, its table above all, when a workload has gone.
    pub(super) fn of_node(desired: &Desired, observed: &Observed) -> Self {
        let mut plan = Self::default();
        plan.add(Subject::Node, node::before(desired, &Sight::of(observed)));
        plan
    }

    /// All steps in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.parts.iter().flat_map(|part| &part.steps)
    }

    /// Whether all is as it shall be.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Only the parts that the predicate takes.
    #[must_use]
    pub fn only(mut self, wanted: impl Fn(&Subject) -> bool) -> Self {
        self.parts.retain(|part| wanted(&part.subject));
        self
    }

    fn add(&mut self, subject: Subject, steps: Vec<Step>) {
        if !steps.is_empty() {
            self.parts.push(Part { subject, steps });
        }
    }
}

impl fmt::Display for Plan {
    /// One line a step, then one a refusal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps().try_for_each(|step| writeln!(f, "{step}"))?;
        self.refusals.iter().try_for_each(|refusal| writeln!(f, "refused: {refusal}"))
    }
}

/// Whether a link of one of our names is ours: by its mark, or made and not marked yet.
fn is_ours(link: &Link, mark: &str, seed: &str) -> bool {
    match &link.alias {
        Some(alias) => alias == mark,
        None => !link.up && link.mac == Some(names::link_mac(seed, &link.name)),
    }
}

fn leftovers(desired: &Desired, observed: &Sight<'_>) -> Vec<Step> {
    let mut wanted: BTreeSet<InterfaceName> = desired.workloads.values().map(|w| w.host_interface.clone()).collect();
    for network in desired.networks.values().filter(|network| network.adopt.is_none()) {
        wanted.insert(names::bridge(&network.name));
        if network.vlan.is_some() {
            wanted.insert(names::vlan(&network.name));
        }
    }
    let marked = |link: &&Link| link.alias.as_ref().is_some_and(|alias| names::is_ours(alias));
    let mut unwanted: Vec<_> = observed.links.iter().filter(marked).filter(|l| !wanted.contains(&l.name)).collect();
    unwanted.sort_by_key(|link| (link.alias.as_ref().is_some_and(|a| !a.contains("workload/")), link.name.clone()));
    let delete = |link: &Link| Step::DeleteLink { link: link.name.clone(), mark: link.alias.clone() };
    unwanted.into_iter().map(delete).collect()
}
