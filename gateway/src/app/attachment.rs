//! Workloads come and go.
//!
//! 1. A workload gets its number, MAC, addresses and handles ([`crate::segmentation::attachment`]).
//! 2. Segmentation connects it; on the way [`super::seal`] closes its host side before the link comes up.
//! 3. Its policies are put in force, the store commits, the edge learns of its endpoints.
//!
//! One whose interface others made ([`adopt`]) has its MAC and addresses already, and is closed when it comes here.
//!
//! What fails takes back what was done before it. Detaching is the same backwards.

use std::sync::Arc;

use config::api::{AttachRequest, Attachment, DetachRequest, WorkloadName};
use config::names::{InterfaceName, Name};
use config::resource::{Adopt, Labels, Network, check_label};

use super::desired::Desired;
use super::endpoints;
use super::gate::Gate;
use super::leases;
use super::reload::{in_place, not_stored, refresh_edge, refused_by_segmentation};
use super::trial;
use crate::admin::ControlError;
pub(crate) use crate::segmentation::attachment::Adopted;
use crate::segmentation::attachment::{Request, prepare};
use crate::segmentation::ipam::IpamError;
use crate::store::Change;
use crate::workload::{MacError, Workload, WorkloadId};

/// Attaches; the same request again is answered with what is there. Another one takes the place of a workload whose network
/// namespace is gone. `cni`: what a container engine will ask by.
pub(crate) async fn attach(
    gate: &Gate,
    request: AttachRequest,
    cni: Option<Attachment>,
) -> Result<Workload, ControlError> {
    let name = WorkloadName { namespace: request.namespace.clone(), name: request.name.clone() };
    if let Some(there) = gate.now().workloads.get(&name) {
        let decided = same(there, &request, cni.as_ref());
        if decided.is_ok() || !gate.segmentation.is_gone(there).await {
            return decided;
        }
        detach(gate, &DetachRequest { namespace: name.namespace.clone(), name: name.name.clone() }).await?;
    }
    let before = gate.now();
    let beside_others = request.beside_others;
    let workload = prepared(gate, &before, request, cni)?;
    if !beside_others {
        alone(gate, &workload).await?;
    }
    take_in(gate, &before, workload).await
}

/// Makes a workload of an interface that others made. One that has this interface already has to go; the same is answered.
pub(crate) async fn adopt(gate: &Gate, adopted: Adopted) -> Result<Workload, ControlError> {
    let before = gate.now();
    let same = |there: &&Arc<Workload>| there.adopted && there.host_interface == adopted.host_interface;
    let known =
        before.workloads.get(&WorkloadName { namespace: adopted.namespace.clone(), name: adopted.name.clone() });
    for there in before.workloads.values().filter(same).chain(known.filter(|there| !same(there))) {
        if adopted.is(there) {
            return Ok(Workload::clone(there));
        }
        if !there.adopted && !gate.segmentation.is_gone(there).await {
            let what = format!("workload {}/{} is attached already", there.namespace, there.name);
            return Err(ControlError::conflict(what, "give the container another name"));
        }
        let request = DetachRequest { namespace: there.namespace.clone(), name: there.name.clone() };
        detach(gate, &request).await?;
    }
    let before = gate.now();
    let id = gate.enforcement.next_workload(&gate.store).map_err(|error| not_stored(&error))?;
    let workload = {
        let handles = (gate.settings.node.handles_v4, gate.settings.node.handles_v6);
        let mut cursor = gate.cursor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let others = before.workloads.values().map(|workload| &**workload);
        crate::segmentation::attachment::adopt(id, adopted, others, handles, &mut cursor)
            .map_err(|error| ControlError::refused(error.to_string(), "detach workloads"))?
    };
    take_in(gate, &before, workload).await
}

/// Connects a workload, puts its policies in force and stores it.
async fn take_in(gate: &Gate, before: &Desired, workload: Workload) -> Result<Workload, ControlError> {
    let name = WorkloadName { namespace: workload.namespace.clone(), name: workload.name.clone() };
    trial::refuse_newcomer(gate, &name.namespace)?;
    gate.segmentation.attach(&workload).await.map_err(refused_by_segmentation)?;
    let mut next = Desired::clone(before);
    Arc::make_mut(&mut next.workloads).insert(name, Arc::new(workload.clone()));
    let mut changes = leases::come(&mut next, &workload);
    changes.push(Change::Attach(Box::new(workload.clone())));
    let enforced = in_place(|| {
        gate.enforcement.join(&next, &workload, &gate.store).map_err(|error| {
            ControlError::failed(
                format!("the kernel's tables were not written: {error}"),
                "the workload was not attached",
            )
        })?;
        gate.store.commit(&changes).map_err(|error| not_stored(&error))
    });
    if let Err(error) = enforced {
        take_back(gate, before, &workload).await;
        return Err(error);
    }
    if endpoints::is_backend(&next, &workload) {
        refresh_edge(gate, &next);
    }
    gate.desired.send_replace(Arc::new(next));
    tracing::info!(workload = %workload.id.0, namespace = %workload.namespace, name = %workload.name, "attached");
    Ok(workload)
}

/// Detaches, whether its namespace still is there or not. Its link may go a little later.
pub(crate) async fn detach(gate: &Gate, request: &DetachRequest) -> Result<WorkloadId, ControlError> {
    let before = gate.now();
    let name = WorkloadName { namespace: request.namespace.clone(), name: request.name.clone() };
    let Some(workload) = before.workloads.get(&name) else {
        let mend = "`netctl get workloads -A` lists what is attached";
        return Err(ControlError::not_found(format!("there is no workload {name}"), mend));
    };
    let mut next = Desired::clone(&before);
    Arc::make_mut(&mut next.workloads).remove(&name);
    let change = leases::leave(&mut next, workload);
    in_place(|| gate.store.commit(&[change])).map_err(|error| not_stored(&error))?;
    gate.desired.send_replace(Arc::new(next.clone()));
    // From here on it is detached, whatever fails: its link passes nothing, and segmentation goes on removing it.
    if let Err(error) = gate.segmentation.detach(workload.id).await {
        tracing::warn!(%error, workload = %workload.id.0, "the link of a detached workload is still there; it is closed, and removing it is tried again");
    }
    in_place(|| forget(gate, &next, workload));
    if endpoints::is_backend(&next, workload) {
        refresh_edge(gate, &next);
    }
    tracing::info!(workload = %workload.id.0, namespace = %workload.namespace, name = %workload.name, "detached");
    Ok(workload.id)
}

fn prepared(
    gate: &Gate,
    before: &Desired,
    request: AttachRequest,
    cni: Option<Attachment>,
) -> Result<Workload, ControlError> {
    check_labels(&request.labels)?;
    if let Some(zero) = request.ports.iter().find(|port| port.port == 0) {
        let message = format!("the port `{}` has the number 0", zero.name);
        return Err(ControlError::bad_request(message, "give it a number of 1–65535"));
    }
    let network = network_of(before, &request.namespace)?;
    if let Some(adopt) = &network.adopt {
        let mend = match adopt {
            Adopt::Bridge(bridge) => format!("put its interface into {bridge}, as that bridge's owner does"),
            Adopt::CniNetwork(name) => format!("chain `tidegate-cni` behind the plugins of the CNI network {name}"),
        };
        let what = format!("network {} adopts interfaces that others make, and makes none", network.name);
        return Err(ControlError::refused(what, mend));
    }
    let mac = request.mac.as_deref().map(str::parse).transpose();
    let mac =
        mac.map_err(|error: MacError| ControlError::bad_request(error.to_string(), "write it as 02:00:5e:10:00:01"))?;
    let former = before.held.get(&WorkloadName { namespace: request.namespace.clone(), name: request.name.clone() });
    let former = former.filter(|held| held.network == network.name);
    let request = Request {
        id: gate.enforcement.next_workload(&gate.store).map_err(|error| not_stored(&error))?,
        namespace: request.namespace,
        name: request.name,
        labels: request.labels,
        ports: request.ports.into_iter().collect(),
        netns: request.netns,
        guest_interface: request.interface,
        wanted: request.addresses,
        former: former.map(|held| held.addresses.iter().map(|own| own.address).collect()).unwrap_or_default(),
        mac: mac.or(former.map(|held| held.mac).filter(|mac| !before.workloads.values().any(|own| own.mac == *mac))),
        cni,
    };
    let handles = (gate.settings.node.handles_v4, gate.settings.node.handles_v6);
    let mut cursor = gate.cursor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seed = &gate.segmentation_node.seed;
    let there = || before.workloads.values().map(|workload| &**workload);
    let mut held: Vec<&Workload> = before.held.values().map(|held| &**held).collect();
    held.retain(|held| former.is_none_or(|former| former.id != held.id));
    held.sort_by_key(|held| held.left);
    loop {
        let others = there().chain(held.iter().copied());
        match prepare(request.clone(), network, others, seed, handles, &mut cursor) {
            // Who left first waits no longer.
            Err(IpamError::NetworkFull { .. } | IpamError::ReservedInUse { .. } | IpamError::HandlesFull { .. })
                if !held.is_empty() =>
            {
                held.remove(0);
            }
            prepared => return prepared.map_err(refused_by_ipam),
        }
    }
}

fn refused_by_ipam(error: IpamError) -> ControlError {
    let mend = match error {
        IpamError::NotToBeHad { .. } | IpamError::MacTaken(_) => "ask for another, or for none",
        IpamError::NetworkFull { .. } | IpamError::HandlesFull { .. } => {
            "widen the subnet's `range`, or detach workloads"
        }
        IpamError::ReservedInUse { .. } => "see `reservations` of the network",
    };
    ControlError::refused(error.to_string(), mend)
}

/// Labels that others chose.
pub(crate) fn check_labels(labels: &Labels) -> Result<(), ControlError> {
    labels.iter().try_for_each(|(key, value)| {
        check_label(key, value).map_err(|error| ControlError::bad_request(error.problem, error.mend))
    })
}

/// The network that a namespace's workloads are on.
pub(crate) fn network_of<'a>(desired: &'a Desired, namespace: &Name) -> Result<&'a Network, ControlError> {
    desired.resources.network_of(namespace).ok_or_else(|| {
        let mend = "`netctl apply` the Namespace and its Network first";
        ControlError::not_found(format!("there is no namespace {namespace} with a network"), mend)
    })
}

fn same(there: &Workload, request: &AttachRequest, cni: Option<&Attachment>) -> Result<Workload, ControlError> {
    let interface = request.interface.as_ref();
    if there.netns == request.netns
        && there.labels == request.labels
        && there.ports == request.ports.iter().cloned().collect()
        && interface.is_none_or(|interface| *interface == there.guest_interface)
        && request.addresses.iter().all(|wanted| there.addresses.iter().any(|own| own.address == *wanted))
        && request.mac.as_ref().is_none_or(|wanted| wanted.parse() == Ok(there.mac))
        && cni == there.cni.as_ref()
    {
        return Ok(there.clone());
    }
    Err(ControlError::conflict(
        format!(
            "workload {}/{} is attached already, with another namespace, labels, ports, interface or addresses",
            there.namespace, there.name
        ),
        format!("first `netctl detach {} -n {}`", there.name, there.namespace),
    ))
}

/// Another interface would be a way around every policy.
async fn alone(gate: &Gate, workload: &Workload) -> Result<(), ControlError> {
    let others = gate.segmentation.interfaces_inside(workload).await.map_err(|error| {
        let what = format!("the interfaces of {} are unknown: {error}", workload.netns.display());
        ControlError::failed(what, "try again, or attach with `--beside-others`")
    })?;
    if others.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = others.iter().map(InterfaceName::as_str).collect();
    Err(ControlError::refused(
        format!("{} has other interfaces ({}), which no policy reaches", workload.netns.display(), names.join(", ")),
        "take them out (`docker run --network none`, `ip link delete …`), or attach with `--beside-others`, and with \
         `--interface` if `eth0` is among them",
    ))
}

async fn take_back(gate: &Gate, before: &Desired, workload: &Workload) {
    if let Err(error) = gate.segmentation.detach(workload.id).await {
        tracing::error!(%error, "a workload that could not be attached is still connected; it is sealed");
    }
    in_place(|| forget(gate, before, workload));
}

fn forget(gate: &Gate, next: &Desired, workload: &Workload) {
    if let Err(error) = gate.enforcement.leave(next, workload, &gate.store) {
        tracing::warn!(%error, workload = %workload.id.0, "kernel entries of a detached workload stay until the next change");
    }
}
