//! What the CNI plugin asks: workloads by the words that a container engine knows them by.
//!
//! Engines repeat themselves and forget: an ADD may come again, a DEL for what never was or is long gone, and GC says who is
//! still there. Each is answered by what then is so.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use config::api::cni::released;
use config::api::{
    Attachment, CniAddRequest, CniGcRequest, CniStatusRequest, Connected, ConnectedAddress, DetachRequest,
};
use config::resource::Network;
use ipnetwork::IpNetwork;

use super::attachment;
use super::gate::Gate;
use crate::admin::ControlError;
use crate::segmentation::names;
use crate::workload::{Workload, is_link_local};

/// ADD
pub(crate) async fn add(gate: &Gate, request: CniAddRequest) -> Result<Connected, ControlError> {
    let CniAddRequest { attachment, mut workload } = request;
    workload.interface = Some(attachment.interface.clone());
    if let Some(there) = find(gate, &attachment) {
        let same = (&there.namespace, &there.name) == (&workload.namespace, &workload.name);
        if !same {
            return Err(ControlError::conflict(
                format!(
                    "the container's {} is workload {}/{} already",
                    attachment.interface, there.namespace, there.name
                ),
                "let its engine take it away first (CNI DEL)",
            ));
        }
    }
    let workload = attachment::attach(gate, workload, Some(attachment)).await?;
    connected(gate, &workload)
}

/// DEL: done when there is no such attachment, whether there was one or not.
pub(crate) async fn del(gate: &Gate, attachment: &Attachment) -> Result<(), ControlError> {
    let Some(workload) = find(gate, attachment) else { return Ok(()) };
    let request = DetachRequest { namespace: workload.namespace.clone(), name: workload.name.clone() };
    attachment::detach(gate, &request).await.map(|_| ())
}

/// CHECK
pub(crate) async fn check(gate: &Gate, attachment: &Attachment) -> Result<Connected, ControlError> {
    let Some(workload) = find(gate, attachment) else {
        let what = format!("the container's {} is not attached", attachment.interface);
        return Err(ControlError::not_found(what, "let its engine take it away and add it again"));
    };
    gate.segmentation.verify(&workload).await.map_err(|what| {
        let what = format!("workload {}/{}: {what}", workload.namespace, workload.name);
        ControlError::refused(
            what,
            "what is missing on the node is put back by itself; what is missing inside the container is not",
        )
    })?;
    let broken = gate.broken();
    if let Some(message) = broken.get(&format!("workload/{}/{}", workload.namespace, workload.name)) {
        return Err(ControlError::refused(message.clone(), "see `netctl status`"));
    }
    connected(gate, &workload)
}

/// GC
pub(crate) async fn gc(gate: &Gate, request: &CniGcRequest) -> Result<(), ControlError> {
    let now = gate.now();
    let forgotten = now
        .workloads
        .values()
        .filter_map(|workload| workload.cni.as_ref())
        .filter(|attachment| attachment.network == request.network && !request.valid.contains(attachment));
    for attachment in forgotten {
        del(gate, attachment).await?;
    }
    Ok(())
}

/// STATUS
pub(crate) fn status(gate: &Gate, request: &CniStatusRequest) -> Result<(), ControlError> {
    let now = gate.now();
    if let Some(namespace) = &request.namespace {
        attachment::network_of(&now, namespace)?;
    }
    match gate.segmentation.status().helper_ended {
        Some(how) => Err(ControlError::failed(format!("the namespace helper is dead ({how})"), "restart the gateway")),
        None => Ok(()),
    }
}

/// Those that engines were done with while no daemon ran, by the files that the plugin left. Who calls holds the turn.
pub(crate) async fn catch_up(gate: &Gate, socket: &Path) {
    let Ok(left) = fs::read_dir(released(socket)) else { return };
    for file in left.flatten().map(|entry| entry.path()) {
        let attachment = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Attachment>(&text).ok());
        let done = match &attachment {
            Some(attachment) => del(gate, attachment).await,
            None => Ok(()),
        };
        let removed =
            done.map_err(|error| error.to_string()).and_then(|()| fs::remove_file(&file).map_err(|e| e.to_string()));
        match removed {
            Ok(()) => tracing::info!(?attachment, "its engine was done with it while no gateway ran"),
            Err(error) => {
                tracing::warn!(file = %file.display(), error, "it cannot be caught up; it is tried again at the next start")
            }
        }
    }
}

fn find(gate: &Gate, attachment: &Attachment) -> Option<Arc<Workload>> {
    gate.now().workloads.values().find(|workload| workload.cni.as_ref() == Some(attachment)).cloned()
}

fn connected(gate: &Gate, workload: &Workload) -> Result<Connected, ControlError> {
    let now = gate.now();
    let network = now.resources.network(&workload.network).ok_or_else(|| {
        ControlError::not_found(format!("there is no network {}", workload.network), "`netctl apply` it again")
    })?;
    let seed = &gate.segmentation_node.seed;
    let bridge = names::bridge(&network.name);
    let link = |name: config::names::InterfaceName| {
        let mac = names::link_mac(seed, &name).to_string();
        (name, mac)
    };
    Ok(Connected {
        netns: workload.netns.clone(),
        mac: workload.mac.to_string(),
        host: link(workload.host_interface.clone()),
        bridge: link(bridge),
        addresses: addresses(workload, network),
    })
}

fn addresses(workload: &Workload, network: &Network) -> Vec<ConnectedAddress> {
    let own = workload.addresses.iter().map(|own| own.address).filter(|address| !is_link_local(*address));
    let with_subnet = |address| {
        let subnet = network.subnets.iter().find(|subnet| subnet.cidr.contains(address))?;
        let address = IpNetwork::new(address, subnet.cidr.prefix()).ok()?;
        Some(ConnectedAddress { address, gateway: subnet.gateway })
    };
    own.filter_map(with_subnet).collect()
}
