//! Ports of adopted bridges become workloads, and stop being some.
//!
//! A port that segmentation has found is closed already. It is opened as far as its policies say when it is known who it is:
//! 1. its namespace: the one on this network, or where there are several, the one that its container's label
//!    [`NAMESPACE_LABEL`] names;
//! 2. its name and labels: the container engine's, by the Ethernet address inside; where no engine knows it within
//!    [`ENGINE_TIME`], the name of the port, and no labels;
//! 3. its addresses: those that it has inside when it is first seen with any. It may use no others.
//!
//! Until then it stays closed, and `status` says why.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::api::{ConditionState, DetachRequest, WorkloadName};
use config::names::Name;
use config::resource::{Adopt, Labels};
use tokio::time::sleep;

use super::attachment::{self, Adopted};
use super::desired::Desired;
use super::engines::{self, Known};
use super::gate::Gate;
use crate::admin::ControlError;
use crate::segmentation::adoption::{FoundGuest, FoundPort};
use crate::workload::{Workload, is_link_local};

/// Which of several namespaces of an adopted network a container is in.
pub(crate) const NAMESPACE_LABEL: &str = "tidegate.dev/namespace";

/// Engines list a container a moment after its interface is there.
const ENGINE_TIME: Duration = Duration::from_secs(10);

/// What takes no longer is how containers start, and not told.
const GRACE: Duration = Duration::from_secs(2);

/// Between two looks at ports that are not known yet.
const AGAIN: Duration = Duration::from_millis(100);

/// The same for those that were not known for long.
const SELDOM: Duration = Duration::from_secs(2);

/// When ports were found that are no workloads yet, by index.
type Waiting = BTreeMap<u32, Instant>;

/// Follows what segmentation finds, for ever.
pub(crate) async fn run(gate: Arc<Gate>) {
    let mut status = gate.segmentation.subscribe();
    let mut desired = gate.desired.subscribe();
    let mut waiting = Waiting::new();
    loop {
        let found = status.borrow_and_update().found.clone();
        desired.mark_unchanged();
        waiting.retain(|index, _| found.iter().any(|port| port.index == *index));
        let known = match found.is_empty() {
            true => Known::default(),
            false => engines::containers(&gate.settings.node.engines).await,
        };
        let turn = gate.changing.lock().await;
        let_go(&gate).await;
        let closed = take_in(&gate, &found, &known, &mut waiting).await;
        drop(turn);
        tell(&gate, &closed);
        let rest = match waiting.values().any(|since| since.elapsed() < ENGINE_TIME) {
            true => AGAIN,
            false => SELDOM,
        };
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            _ = desired.changed() => {}
            () = sleep(rest), if !waiting.is_empty() => gate.segmentation.look_again(),
        }
    }
}

/// A port of an adopted bridge would be a workload again at once.
pub(crate) fn refuse_detaching(gate: &Gate, request: &DetachRequest) -> Result<(), ControlError> {
    let now = gate.now();
    let name = WorkloadName { namespace: request.namespace.clone(), name: request.name.clone() };
    let Some(workload) = now.workloads.get(&name).filter(|workload| workload.is_found()) else { return Ok(()) };
    let bridge = match now.resources.network(&workload.network).and_then(|network| network.adopt.as_ref()) {
        Some(Adopt::Bridge(bridge)) => bridge.to_string(),
        Some(Adopt::CniNetwork(_)) | None => return Ok(()),
    };
    let what = format!("workload {name} is a port of {bridge}, which network {} adopts", workload.network);
    Err(ControlError::refused(what, "stop its container, or delete the network to give the whole bridge back"))
}

/// Workloads whose bridge is adopted no longer, or not by their network.
async fn let_go(gate: &Gate) {
    let now = gate.now();
    for workload in now.workloads.values().filter(|workload| workload.is_found() && !is_adopted(&now, workload)) {
        let request = DetachRequest { namespace: workload.namespace.clone(), name: workload.name.clone() };
        if let Err(error) = attachment::detach(gate, &request).await {
            tracing::warn!(%error, namespace = %request.namespace, name = %request.name, "its bridge is adopted no longer, and it cannot be detached");
        }
    }
}

fn is_adopted(desired: &Desired, workload: &Workload) -> bool {
    let network = desired.resources.network_of(&workload.namespace);
    network.is_some_and(|own| own.name == workload.network && matches!(own.adopt, Some(Adopt::Bridge(_))))
}

/// Makes workloads of those that are known. Answers why the others are closed, by network.
async fn take_in(
    gate: &Gate,
    found: &[FoundPort],
    known: &Known,
    waiting: &mut Waiting,
) -> BTreeMap<Name, Vec<String>> {
    let mut closed: BTreeMap<Name, Vec<String>> = BTreeMap::new();
    for port in found {
        let since = match waiting.entry(port.index) {
            Entry::Vacant(new) => *new.insert(Instant::now()),
            Entry::Occupied(old) => *old.get(),
        };
        let now = gate.now();
        let taken = match who(&now, port, known, since.elapsed()) {
            Ok(adopted) => attachment::adopt(gate, adopted).await.map(drop).map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        match taken {
            Ok(()) => drop(waiting.remove(&port.index)),
            Err(_) if since.elapsed() < GRACE => {}
            Err(why) => closed.entry(port.network.clone()).or_default().push(format!("{}: {why}", port.link)),
        }
    }
    closed
}

/// The workload that a port is, or why it is none yet.
fn who(now: &Desired, port: &FoundPort, known: &Known, since: Duration) -> Result<Adopted, String> {
    let Some(guest) = &port.guest else {
        return Err("it leads into no network namespace; only ports of containers can be workloads".to_owned());
    };
    let container = known.containers.get(&guest.mac);
    if container.is_none() && known.asked && since < ENGINE_TIME {
        return Err("no container engine knows it yet".to_owned());
    }
    let labels = container.map(|container| container.labels.clone()).unwrap_or_default();
    let namespace = namespace(now, port, &labels)?;
    let addresses = addresses(now, port, guest)?;
    let called = container.map(|container| container.name.as_str()).filter(|name| !name.is_empty());
    let name = name(now, &namespace, called.unwrap_or(port.link.as_str()), port)?;
    Ok(Adopted {
        namespace,
        name,
        labels,
        network: port.network.clone(),
        netns: Default::default(),
        host_interface: port.link.clone(),
        guest_interface: guest.name.clone(),
        mac: guest.mac,
        addresses,
        ports: Default::default(),
        cni: None,
    })
}

fn namespace(now: &Desired, port: &FoundPort, labels: &Labels) -> Result<Name, String> {
    let all: Vec<&Name> =
        now.resources.namespaces().filter(|it| it.network == port.network).map(|it| &it.name).collect();
    match (labels.get(NAMESPACE_LABEL), &all[..]) {
        (_, []) => Err(format!("no Namespace is on network {}", port.network)),
        (Some(named), all) => {
            all.iter().find(|name| name.as_str() == named).map(|name| (*name).clone()).ok_or_else(|| {
                format!(
                    "its label {NAMESPACE_LABEL} names `{named}`, which is no Namespace on network {}",
                    port.network
                )
            })
        }
        (None, [only]) => Ok((*only).clone()),
        (None, _) => Err(format!(
            "several Namespaces are on network {}, and it has no label {NAMESPACE_LABEL} that names one",
            port.network
        )),
    }
}

fn addresses(now: &Desired, port: &FoundPort, guest: &FoundGuest) -> Result<Vec<IpAddr>, String> {
    let mut addresses = guest.addresses.clone();
    if !addresses.iter().any(|address| !is_link_local(*address)) {
        return Err(format!("{} inside has no address yet", guest.name));
    }
    let own = IpAddr::from(guest.mac.link_local());
    if !addresses.contains(&own) {
        addresses.push(own);
    }
    let others = now.workloads_on(&port.network).filter(|other| other.host_interface != port.link);
    for other in others {
        if let Some(same) = other.addresses.iter().find(|it| addresses.contains(&it.address)) {
            return Err(format!("{} is workload {}/{}'s already", same.address, other.namespace, other.name));
        }
    }
    Ok(addresses)
}

/// What engines call containers may be no name here, or another port's: then the port's name stands behind it.
fn name(now: &Desired, namespace: &Name, called: &str, port: &FoundPort) -> Result<Name, String> {
    let plain = |text: &str| -> String {
        let letters = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
        let all: String = letters.take(40).collect();
        all.trim_matches('-').to_owned()
    };
    let free = |name: &Name| {
        let name = WorkloadName { namespace: namespace.clone(), name: name.clone() };
        now.workloads.get(&name).is_none_or(|there| there.host_interface == port.link)
    };
    let own = plain(called).parse::<Name>().ok().filter(|name| name.as_str() == called && free(name));
    let longer = || format!("{}-{}", plain(called), plain(port.link.as_str())).trim_matches('-').parse::<Name>().ok();
    let numbered = || format!("port-{}", port.index).parse::<Name>().ok();
    own.or_else(longer).filter(&free).or_else(numbered).ok_or_else(|| "there is no name for it".to_owned())
}

/// One condition a network.
fn tell(gate: &Gate, closed: &BTreeMap<Name, Vec<String>>) {
    const SHOWN: usize = 5;
    for network in gate.now().resources.networks() {
        let what = format!("adoption/{}", network.name);
        match closed.get(&network.name) {
            None => gate.clear(&what),
            Some(ports) => {
                let more = ports.len().saturating_sub(SHOWN);
                let more = if more > 0 { format!("; and {more} more") } else { String::new() };
                let ports = ports.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
                let text = format!("ports of its bridge are closed: {ports}{more}");
                let mend = "they are looked at again and again; `ip link show master BRIDGE` shows the ports";
                gate.raise(&what, ConditionState::Degraded, text, mend);
            }
        }
    }
}
