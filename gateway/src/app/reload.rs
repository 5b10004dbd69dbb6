//! One change of desired state, carried through all flows. The only place where they meet in time.
//!
//! 1. Everyone who can refuse is asked: the edge (certificates), segmentation (names taken, kernel features), the uplink's
//!    neighbours (egress addresses).
//! 2. New networks' sources are translated, and segmentation applies its steps, undone as a whole if one fails, or if the node
//!    would lose its own way out.
//! 3. The policies are put in force.
//! 4. The store commits.
//! 5. The edge takes its configuration, and readers see the new state.
//!
//! What fails in 2 to 4 puts back what was before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::desired::Desired;
use super::gate::Gate;
use super::management::Ways;
use super::{endpoints, nat};
use crate::admin::ControlError;
use crate::edge::EdgeProblem;
use crate::segmentation::{self, Error as SegmentationError};
use crate::store::{Change, StoreError};
use crate::workload::Workload;

/// The steps that the node's links, addresses, routes and rules would take.
pub(crate) async fn plan(gate: &Gate, next: &Desired) -> Result<Vec<String>, ControlError> {
    gate.edge.check(&endpoints::edge_config(next)).map_err(refused_by_edge)?;
    let plan = gate.segmentation.plan(&segments(gate, next)).await.map_err(refused_by_segmentation)?;
    if !plan.refusals.is_empty() {
        return Err(refused_by_segmentation(SegmentationError::Refused(plan.refusals)));
    }
    Ok(plan.steps().map(ToString::to_string).collect())
}

/// Puts the state in force, or leaves everything as it was. Answers the steps that were planned.
pub(crate) async fn carry(gate: &Gate, next: Desired, commit: &[Change]) -> Result<Vec<String>, ControlError> {
    if commit.is_empty() {
        return Ok(Vec::new());
    }
    bring_about(gate, next, commit).await
}

/// The same whatever there is to commit: a change that is on trial commits nothing.
pub(crate) async fn bring_about(gate: &Gate, next: Desired, commit: &[Change]) -> Result<Vec<String>, ControlError> {
    let steps = plan(gate, &next).await?;
    let prepared = gate.edge.check(&endpoints::edge_config(&next)).map_err(refused_by_edge)?;
    prepared.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let before = gate.now();
    super::egress_address::refuse_taken(gate, &before, &next).await?;
    let translated = in_place(|| gate.enforcement.masquerade_also(&next));
    translated.map_err(|error| ControlError::failed(error.to_string(), "nothing was changed"))?;
    let ways = Ways::of(gate).await;
    gate.segmentation.apply(&segments(gate, &next)).await.map_err(refused_by_segmentation)?;
    if let Err(cut_off) = ways.refuse_loss(gate, &next).await {
        put_back(gate, &before).await;
        return Err(cut_off);
    }
    // nothing leaves with an address that the programs do not know as the node's
    super::watching::look_at_node(gate).await;
    let enforced = in_place(|| {
        gate.enforcement.install(&next, &gate.store).map_err(|error| {
            ControlError::failed(
                format!("the kernel's tables were not written: {error}"),
                "the earlier state stays in force; `netctl status` shows how full the tables are",
            )
        })?;
        gate.store.commit(commit).map_err(|error| not_stored(&error)).map(|_| ())
    });
    if let Err(error) = enforced {
        put_back(gate, &before).await;
        return Err(error);
    }
    gate.edge.install(prepared);
    gate.desired.send_replace(Arc::new(next));
    if let Err(error) = in_place(|| nat::keep_ports(gate, &gate.now())) {
        tracing::warn!(%error, "tried again every second");
    }
    Ok(steps)
}

/// The edge follows workloads that came or went. Files that went bad meanwhile do not hinder that.
pub(crate) fn refresh_edge(gate: &Gate, next: &Desired) {
    let (prepared, problems) = gate.edge.check_accepted(&endpoints::edge_config(next));
    problems.iter().for_each(|problem| tracing::warn!("{problem}"));
    gate.edge.install(prepared);
}

/// Segmentation's part of a state.
pub(crate) fn segments(gate: &Gate, desired: &Desired) -> segmentation::Desired {
    segmentation::Desired {
        networks: desired.resources.networks().map(|network| (network.name.clone(), network.clone())).collect(),
        workloads: desired
            .workloads
            .values()
            .map(|workload| (workload.id, Workload::clone(workload)))
            .collect::<BTreeMap<_, _>>(),
        node: segmentation::Node {
            nat: gate.nat_device().map(|(_, ifindex)| ifindex),
            uplink: gate.uplink_device(),
            ..gate.segmentation_node.clone()
        },
    }
}

/// Runs what may block for the time of some fsyncs or table writes, without stopping other tasks of the runtime.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

async fn put_back(gate: &Gate, before: &Desired) {
    if let Err(error) = gate.segmentation.apply(&segments(gate, before)).await {
        tracing::error!(%error, "the node's links could not be put back at once; the reconciler goes on trying");
    }
    if let Err(error) = gate.enforcement.install(before, &gate.store) {
        tracing::error!(%error, "the earlier policies could not be written again; what is in the kernel is no more open than either state");
    }
}

pub(crate) fn not_stored(error: &StoreError) -> ControlError {
    ControlError::failed(error.to_string(), "nothing was changed; the earlier state stays in force")
}

fn refused_by_edge(problems: Vec<EdgeProblem>) -> ControlError {
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    ControlError::refused(text.join("\n"), "mend the files and apply again; nothing was changed")
}

pub(crate) fn refused_by_segmentation(error: SegmentationError) -> ControlError {
    match error {
        SegmentationError::Refused(_)
        | SegmentationError::Attached(_)
        | SegmentationError::NotAttached(_)
        | SegmentationError::NoNetwork { .. }
        | SegmentationError::Helper(_) => ControlError::refused(error.to_string(), "nothing was changed"),
        SegmentationError::Apply(_)
        | SegmentationError::Observe(_)
        | SegmentationError::Unsettled(_)
        | SegmentationError::Watch(_) => ControlError::failed(error.to_string(), "nothing was changed"),
    }
}
