//! One workload or network alone, at a cost that does not grow with the others: connecting, disconnecting, and whether
//! what notices name is as it shall be.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use config::names::Name;

use super::desired::{Desired, Shape};
use super::keeper::{Keeper, ROUNDS, State};
use super::names;
use super::observe::{ObserveError, Observed};
use super::plan::{Part, Plan, Subject};
use super::reconcile::Error;
use super::status::{Port, ports};
use super::step::Step;
use crate::sys::interface;
use crate::sys::netlink::watch::Notice;
use crate::telemetry::metrics;
use crate::workload::{Workload, WorkloadId};

/// Workloads and networks that are looked at one by one; of more than these, everything is.
const ONE_BY_ONE: usize = 32;

/// What notices are about.
#[derive(Debug, Default)]
struct Named {
    networks: BTreeSet<Name>,
    workloads: BTreeSet<WorkloadId>,
    /// Whose programs somebody may have taken away.
    programs: BTreeSet<WorkloadId>,
    /// Permanent neighbours of networks that are no workload's: they may be gone by now.
    strangers: BTreeSet<(u32, IpAddr)>,
}

impl Keeper {
    /// Connects a workload to a network that is in place. `None`, with nothing done, where that cannot be; a look at the
    /// whole node then tells what is missing.
    pub(super) async fn connect(&self, state: &mut State, workload: &Workload) -> Result<Option<Port>, Error> {
        let Some(desired) = state.desired.as_mut() else { return Ok(None) };
        Arc::make_mut(desired).workloads.insert(workload.id, workload.clone());
        let mut done = Vec::new();
        let connected = self.try_connect(state, workload, &mut done).await;
        match &connected {
            Ok(Some(port)) => {
                self.own_mut().insert(port.ifindex, Subject::Workload(workload.id));
                self.status.send_modify(|status| status.ports.push(*port));
            }
            Ok(None) | Err(_) => {
                if let Some(desired) = state.desired.as_mut() {
                    Arc::make_mut(desired).workloads.remove(&workload.id);
                }
            }
        }
        connected
    }

    async fn try_connect(
        &self,
        state: &mut State,
        workload: &Workload,
        done: &mut Vec<Step>,
    ) -> Result<Option<Port>, Error> {
        let mut again = String::new();
        for round in 0..=ROUNDS {
            let (plan, observed) = match self.near(state, &workload.network, Some(workload)).await {
                Ok(Some(found)) => found,
                Ok(None) if done.is_empty() => return Ok(None),
                Ok(None) => break,
                Err(error) => {
                    self.executor(state).take_back(done).await;
                    return Err(error.into());
                }
            };
            if round == 0 && !plan.refusals.is_empty() {
                return Err(Error::Refused(plan.refusals));
            }
            let Some(first) = plan.steps().next() else {
                let own = Desired {
                    workloads: [(workload.id, workload.clone())].into(),
                    node: state.desired.iter().map(|desired| desired.node.clone()).next().unwrap_or_default(),
                    ..Desired::default()
                };
                return Ok(ports(&own, &observed).pop());
            };
            again = first.to_string();
            self.run(state, &plan, done).await?;
        }
        self.executor(state).take_back(done).await;
        Err(Error::Unsettled(again))
    }

    /// A look at a network and one workload of it, and what is to be done there; `None` where more must be looked at.
    async fn near(
        &self,
        state: &mut State,
        network: &Name,
        workload: Option<&Workload>,
    ) -> Result<Option<(Plan, Observed)>, ObserveError> {
        let Some(desired) = state.desired.clone() else { return Ok(None) };
        let Some(network) = desired.networks.get(network) else { return Ok(None) };
        let Some(mut observed) = Observed::near(&self.netlink, network, workload).await? else {
            return Ok(None);
        };
        // Turning IPv6 forwarding on concerns every link.
        if observed.ipv6_forward == Some(0) && network.routes(false) {
            return Ok(None);
        }
        observed.table = state.table.look(&self.nft).await?;
        Ok(Some((Plan::near(&desired, network, workload, &observed), observed)))
    }

    /// Takes away what is left of a workload that is no longer wanted, but for its host side, of which it answers the index: from
    /// now on that departs.
    pub(super) async fn disconnect(&self, state: &mut State, workload: &Workload) -> Result<(), Error> {
        if workload.adopted {
            self.leave_closed(state, workload).await;
            return Ok(());
        }
        let look = ObserveError::from;
        let bridge = names::bridge(&workload.network);
        let mut steps = Vec::new();
        if let Some(found) = self.netlink.link(&bridge).await.map_err(look)? {
            for own in &workload.addresses {
                let neighbour = self.netlink.permanent_neighbour(found.index, own.address).await.map_err(look)?;
                steps.extend(neighbour.map(|neighbour| Step::DeleteNeighbour {
                    link: bridge.clone(),
                    address: own.address,
                    mac: neighbour.mac,
                }));
            }
        }
        let mark = names::workload_mark(workload);
        let host = self.netlink.link(&workload.host_interface).await.map_err(look)?;
        let host = host.filter(|host| host.alias.as_ref() == Some(&mark));
        if !steps.is_empty() {
            let own = Plan { parts: vec![Part { subject: Subject::Leftover, steps }], ..Plan::default() };
            self.run(state, &own, &mut Vec::new()).await?;
        }
        if let Some(desired) = state.desired.clone() {
            let observed = Observed {
                table: state.table.look(&self.nft).await.map_err(ObserveError::from)?,
                ..Observed::default()
            };
            let node = Plan::of_node(&desired, &observed);
            if !node.is_empty() {
                self.run(state, &node, &mut Vec::new()).await?;
            }
        }
        let index = host.map(|host| host.index);
        if let Some(index) = index {
            self.departures.begin(index, workload.clone());
        }
        self.own_mut().retain(|own, _| Some(*own) != index);
        self.status.send_modify(|status| {
            status.ports.retain(|port| port.workload != workload.id);
            status.gone.remove(&workload.id);
        });
        Ok(())
    }

    /// Whether what the notices name is as it shall be, so that nothing more is to be looked at. What is not certain is not
    /// well; nothing is put right here.
    pub(super) async fn is_well(&self, notices: &BTreeSet<Notice>) -> bool {
        let mut state = self.state.lock().await;
        let Some(desired) = state.desired.clone() else { return true };
        let troubled = |status: &super::Status| {
            !(status.refusals.is_empty() && status.errors.is_empty() && status.gone.is_empty())
        };
        if troubled(&self.status.borrow()) || self.helper.ended().is_some() {
            return false;
        }
        let Some(named) = self.named(&desired, notices) else { return false };
        for network in &named.networks {
            if !self.is_near_well(&mut state, network, None).await {
                return false;
            }
        }
        for workload in named.workloads.iter().filter_map(|id| desired.workloads.get(id)) {
            if !self.is_near_well(&mut state, &workload.network, Some(workload)).await {
                return false;
            }
        }
        for (bridge, address) in named.strangers {
            if !matches!(self.netlink.permanent_neighbour(bridge, address).await, Ok(None)) {
                return false;
            }
        }
        self.have_programs(&desired, &named.programs)
    }

    async fn is_near_well(&self, state: &mut State, network: &Name, workload: Option<&Workload>) -> bool {
        match self.near(state, network, workload).await {
            Ok(Some((plan, _))) => plan.is_empty() && plan.refusals.is_empty(),
            Ok(None) | Err(_) => false,
        }
    }

    /// Whether a workload is connected as it was made. Its network namespace is its own: what is missing there stays so.
    pub(super) async fn verify(&self, workload: &Workload) -> Result<(), String> {
        let mut state = self.state.lock().await;
        if workload.adopted {
            let sealed = state.closed.values().any(|closed| closed.workload == Some(workload.id));
            return if sealed { Ok(()) } else { Err(format!("{} is not closed", workload.host_interface)) };
        }
        match self.near(&mut state, &workload.network, Some(workload)).await {
            Ok(Some((plan, _))) if plan.is_empty() && plan.refusals.is_empty() => {}
            Ok(Some((plan, _))) => return Err(format!("its side of the node is not as it shall be:\n{plan}")),
            Ok(None) => return Err(format!("network {} is not in place", workload.network)),
            Err(error) => return Err(error.to_string()),
        }
        let netns = self.helper.open_namespace(&workload.netns).await.map_err(|error| error.to_string())?;
        let inside = self.helper.netlink_inside(&netns).await.map_err(|error| error.to_string())?;
        let name = &workload.guest_interface;
        let link = inside.link(name).await.map_err(|error| error.to_string())?;
        let link = link.ok_or_else(|| format!("there is no {name} inside"))?;
        if link.mac != Some(workload.mac) || !link.up {
            return Err(format!("{name} inside is down, or has not {}", workload.mac));
        }
        let present = inside.addresses_of(link.index).await.map_err(|error| error.to_string())?;
        let missing = workload.addresses.iter().find(|own| !present.iter().any(|it| it.address.ip() == own.address));
        missing.map_or(Ok(()), |own| Err(format!("{name} inside has not {}", own.address)))
    }

    fn have_programs(&self, desired: &Desired, workloads: &BTreeSet<WorkloadId>) -> bool {
        let ports: Vec<Port> = self.status.borrow().ports.clone();
        for port in ports.iter().filter(|port| workloads.contains(&port.workload)) {
            let Some(workload) = desired.workloads.get(&port.workload) else { continue };
            match self.seal.keep(port.ifindex, workload) {
                Ok(false) => {}
                Ok(true) => {
                    metrics::reconcile_repairs(1);
                    self.status.send_modify(|status| status.repairs += 1);
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// `None` where notices may be about anything.
    fn named(&self, desired: &Desired, notices: &BTreeSet<Notice>) -> Option<Named> {
        let own = self.own();
        let mut named = Named::default();
        for notice in notices {
            match notice {
                Notice::Lost | Notice::RouteGone { connected: true } => return None,
                Notice::Route | Notice::RouteGone { connected: false } => {}
                // The table is looked at with each network.
                Notice::Netfilter => named.networks.extend(desired.networks.keys().next().cloned()),
                Notice::Link { index } | Notice::Address { index } => match own.get(index) {
                    Some(Subject::Workload(id)) => drop(named.workloads.insert(*id)),
                    Some(Subject::Network(network)) => drop(named.networks.insert(network.clone())),
                    Some(Subject::Node | Subject::Leftover | Subject::Egress) => return None,
                    // Nobody's, and gone: what it may have carried has notices of its own.
                    None if interface::name(*index).is_err() => {}
                    None => return None,
                },
                Notice::Neighbour { index, address, permanent } => match (own.get(index), address) {
                    (Some(Subject::Workload(id)), _) => drop(named.workloads.insert(*id)),
                    (Some(Subject::Network(network)), Some(address)) => {
                        let has = |it: &&Workload| it.addresses.iter().any(|own| own.address == *address);
                        match desired.attached(network).find(has) {
                            Some(workload) => drop(named.workloads.insert(workload.id)),
                            None if *permanent => drop(named.strangers.insert((*index, *address))),
                            None => {}
                        }
                    }
                    (Some(Subject::Network(_)), None) | (None, _) => {}
                    (Some(Subject::Node | Subject::Leftover | Subject::Egress), _) => return None,
                },
                Notice::TrafficControl { index } => {
                    if let Some(Subject::Workload(id)) = own.get(index) {
                        named.programs.insert(*id);
                    }
                }
            }
        }
        let few =
            named.networks.len() + named.workloads.len() + named.programs.len() + named.strangers.len() <= ONE_BY_ONE;
        few.then_some(named)
    }
}
