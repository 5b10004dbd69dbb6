//! What the CNI plugin asks: workloads by the words that a container engine knows them by.
//!
//! Engines repeat themselves and forget: an ADD may come again, a DEL for what never was or is long gone, and GC says who is
//! still there. Each is answered by what then is so.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use config::api::cni::released;
use config::api::{
    AttachRequest, Attachment, CniAddRequest, CniGcRequest, CniStatusRequest, Connected, ConnectedAddress,
    DetachRequest,
};
use config::resource::{Adopt, Network};
use ipnetwork::IpNetwork;

use super::attachment::{self, Adopted};
use super::gate::Gate;
use crate::admin::ControlError;
use crate::segmentation::names;
use crate::workload::{Workload, is_link_local};

/// ADD
pub(crate) async fn add(gate: &Gate, request: CniAddRequest) -> Result<Connected, ControlError> {
    let CniAddRequest { attachment, mut workload, chained } = request;
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
    let workload = match chained {
        false => attachment::attach(gate, workload, Some(attachment)).await?,
        true => adopt(gate, workload, attachment).await?,
    };
    connected(gate, &workload)
}

/// ADD behind other plugins: their interface becomes a workload. Nothing runs in the container yet that could use it before.
async fn adopt(gate: &Gate, request: AttachRequest, attachment: Attachment) -> Result<Workload, ControlError> {
    attachment::check_labels(&request.labels)?;
    let now = gate.now();
    let network = attachment::network_of(&now, &request.namespace)?;
    if network.adopt != Some(Adopt::CniNetwork(attachment.network.clone())) {
        let what = format!("network {} does not adopt the CNI network {}", network.name, attachment.network);
        let mend = format!(
            "write `adopt: {{ cniNetwork: {} }}` in its spec, or let `tidegate-cni` be the first plugin",
            attachment.network
        );
        return Err(ControlError::refused(what, mend));
    }
    let found = gate.segmentation.made_by_others(&request.netns, &attachment.interface).await;
    let (host_interface, guest) = found.map_err(|what| {
        ControlError::refused(what, "chain `tidegate-cni` behind plugins that make pairs, as `bridge` and `ptp` do")
    })?;
    let mut addresses = guest.addresses;
    addresses.push(guest.mac.link_local().into());
    addresses.sort_unstable();
    addresses.dedup();
    let adopted = Adopted {
        namespace: request.namespace,
        name: request.name,
        labels: request.labels,
        ports: request.ports.into_iter().collect(),
        network: network.name.clone(),
        netns: request.netns,
        host_interface,
        guest_interface: attachment.interface.clone(),
        mac: guest.mac,
        addresses,
        cni: Some(attachment),
    };
    attachment::adopt(gate, adopted).await
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
    let link = |name: config::names::InterfaceName| {
        let mac = names::link_mac(seed, &name).to_string();
        (name, mac)
    };
    Ok(Connected {
        netns: workload.netns.clone(),
        mac: workload.mac.to_string(),
        host: link(workload.host_interface.clone()),
        bridge: network.adopt.is_none().then(|| link(names::bridge(&network.name))),
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
