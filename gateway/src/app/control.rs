//! The admin socket's verbs, each in a few lines: the work is in the files beside this one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::api::{
    ApplyRequest, ApplyResponse, AttachRequest, Attachment, CniAddRequest, CniGcRequest, CniStatusRequest, Connected,
    DeleteRequest, DetachRequest, DiffResponse, Doctor, ExplainRequest, Explanation, FilesRequest, Flow, FlowList,
    FlowQuery, PatchSetRequest, PatchSetResponse, PlanResponse, ResourceList, ResourceName, ResourceQuery, Status,
    TrialRequest, WatchEvent, Workload,
};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};

use super::explain::{self, Question};
use super::gate::Gate;
use super::history::meant;
use super::manifests::{self, Merged};
use super::views::View;
use super::{adoption, attachment, cni, loading, reload, report, sets, trial};
use crate::admin::{Control, ControlError, Reply};

/// Lines that a follower of flows, or of resources, may lag behind before the stream waits for it.
const STREAM: usize = 256;

/// Flows shown where the query has no limit.
const FLOWS: usize = 1_000;

/// The daemon behind its socket.
pub(crate) struct Admin(pub(crate) Arc<Gate>);

impl Control for Admin {
    fn apply(&self, request: ApplyRequest) -> Reply<'_, ApplyResponse> {
        Box::pin(async move {
            let applying = self.0.applying.lock().await;
            let how = How::of(&request)?;
            match reload::in_place(|| manifests::merge(&self.0.now(), &request.files, request.prune)) {
                Ok(merged) => self.change(&applying, merged, how).await,
                Err(problems) => Ok(ApplyResponse { problems, ..ApplyResponse::default() }),
            }
        })
    }

    fn delete(&self, request: DeleteRequest) -> Reply<'_, ApplyResponse> {
        Box::pin(async move {
            let applying = self.0.applying.lock().await;
            match reload::in_place(|| manifests::without(&self.0.now(), &request.names, &request.files)) {
                Ok(merged) => self.change(&applying, merged, How::plainly(request.dry_run)).await,
                Err(problems) => Ok(ApplyResponse { problems, ..ApplyResponse::default() }),
            }
        })
    }

    fn confirm(&self, _: TrialRequest) -> Reply<'_, ApplyResponse> {
        Box::pin(async move {
            let _applying = self.0.applying.lock().await;
            trial::confirm(&self.0).map(|changes| ApplyResponse { changes, ..ApplyResponse::default() })
        })
    }

    fn rollback(&self, _: TrialRequest) -> Reply<'_, ApplyResponse> {
        Box::pin(async move {
            let _applying = self.0.applying.lock().await;
            let changes = trial::roll_back(&self.0).await?;
            Ok(ApplyResponse { changes, ..ApplyResponse::default() })
        })
    }

    fn diff(&self, request: FilesRequest) -> Reply<'_, DiffResponse> {
        Box::pin(async move {
            Ok(match manifests::merge(&self.0.now(), &request.files, false) {
                Ok(merged) => DiffResponse { differences: merged.differences, problems: Vec::new() },
                Err(problems) => DiffResponse { differences: Vec::new(), problems },
            })
        })
    }

    fn plan(&self, request: FilesRequest) -> Reply<'_, PlanResponse> {
        Box::pin(async move {
            match manifests::merge(&self.0.now(), &request.files, false) {
                Ok(mut merged) => {
                    reload::in_place(|| sets::load(&self.0, &mut merged))?;
                    let steps = reload::plan(&self.0, &merged.next).await?;
                    Ok(PlanResponse { steps, problems: Vec::new() })
                }
                Err(problems) => Ok(PlanResponse { steps: Vec::new(), problems }),
            }
        })
    }

    fn list(&self, query: ResourceQuery) -> Reply<'_, ResourceList> {
        Box::pin(async move { Ok(ResourceList { items: self.resources(&query).into_values().collect() }) })
    }

    fn watch(&self, query: ResourceQuery) -> Reply<'_, mpsc::Receiver<WatchEvent>> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(STREAM);
            let admin = Self(Arc::clone(&self.0));
            tokio::spawn(async move { admin.send_changes(&query, &sender).await });
            Ok(receiver)
        })
    }

    fn patch_set(&self, request: PatchSetRequest) -> Reply<'_, PatchSetResponse> {
        Box::pin(async move {
            let _applying = self.0.applying.lock().await;
            trial::refuse_others(&self.0)?;
            sets::patch(&self.0, request).await
        })
    }

    fn attach(&self, request: AttachRequest) -> Reply<'_, Workload> {
        Box::pin(async move {
            let _turn = self.0.changing.lock().await;
            let workload = attachment::attach(&self.0, request, None).await?;
            Ok(self.view(|view| view.attached(&workload)))
        })
    }

    fn detach(&self, request: DetachRequest) -> Reply<'_, ()> {
        Box::pin(async move {
            let turn = self.0.changing.lock().await;
            adoption::refuse_detaching(&self.0, &request)?;
            let id = attachment::detach(&self.0, &request).await?;
            drop(turn);
            self.0.segmentation.departed(id).await;
            Ok(())
        })
    }

    fn cni_add(&self, request: CniAddRequest) -> Reply<'_, Connected> {
        Box::pin(async move {
            let _turn = self.0.changing.lock().await;
            cni::add(&self.0, request).await
        })
    }

    fn cni_del(&self, attachment: Attachment) -> Reply<'_, ()> {
        Box::pin(async move {
            let _turn = self.0.changing.lock().await;
            cni::del(&self.0, &attachment).await
        })
    }

    fn cni_check(&self, attachment: Attachment) -> Reply<'_, Connected> {
        Box::pin(async move {
            let _turn = self.0.changing.lock().await;
            cni::check(&self.0, &attachment).await
        })
    }

    fn cni_gc(&self, request: CniGcRequest) -> Reply<'_, ()> {
        Box::pin(async move {
            let _turn = self.0.changing.lock().await;
            cni::gc(&self.0, &request).await
        })
    }

    fn cni_status(&self, request: CniStatusRequest) -> Reply<'_, ()> {
        Box::pin(async move { cni::status(&self.0, &request) })
    }

    fn explain(&self, request: ExplainRequest) -> Reply<'_, Explanation> {
        Box::pin(async move {
            let desired = self.0.now();
            let from = desired.workloads.get(&request.from).ok_or_else(|| {
                ControlError::not_found(
                    format!("there is no workload {}", request.from),
                    "`netctl get workloads -A` lists what is attached",
                )
            })?;
            let node = self.0.enforcement.node();
            Ok(explain::explain(&Question {
                desired: &desired,
                model: &desired.model(&node),
                from,
                host: &request.to.host,
                port: request.to.port,
                protocol: request.protocol,
                memory: &self.0.enforcement.memory_of(from.id),
                now: super::enforcement::now(),
            }))
        })
    }

    fn flows(&self, query: FlowQuery) -> Reply<'_, FlowList> {
        Box::pin(async move {
            let mut flows = self.0.history.recent(&query);
            flows.extend(report::open_flows(&self.0)?.into_iter().filter(|flow| meant(&query, flow)));
            flows.sort_by_key(|flow| flow.time);
            let most = query.limit.map_or(FLOWS, |limit| limit as usize);
            let flows = flows.split_off(flows.len().saturating_sub(most));
            Ok(FlowList { flows, lost: self.0.enforcement.lost_events() })
        })
    }

    fn follow_flows(&self, query: FlowQuery) -> Reply<'_, mpsc::Receiver<Flow>> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(STREAM);
            let mut events = self.0.history.follow();
            tokio::spawn(async move {
                loop {
                    match events.recv().await {
                        Ok(flow) if meant(&query, &flow) => {
                            if sender.send(flow).await.is_err() {
                                return;
                            }
                        }
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Lagged(lines)) => {
                            tracing::warn!(lines, "a follower of flows was too slow and missed lines");
                        }
                        Err(broadcast::error::RecvError::Closed) => return,
                    }
                }
            });
            Ok(receiver)
        })
    }

    fn status(&self) -> Reply<'_, Status> {
        Box::pin(async move { report::status(&self.0) })
    }

    fn doctor(&self) -> Reply<'_, Doctor> {
        Box::pin(async move { Ok(report::doctor(&self.0)) })
    }
}

/// How a change is put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Not at all: it is only tried whether it could be.
    Dry,
    /// For good.
    Plainly,
    /// For so long, unless it is confirmed.
    OnTrial(Duration),
}

impl How {
    fn plainly(dry_run: bool) -> Self {
        if dry_run { Self::Dry } else { Self::Plainly }
    }

    fn of(request: &ApplyRequest) -> Result<Self, ControlError> {
        match (request.dry_run, request.confirm_within) {
            (_, Some(seconds)) if !(1..=trial::LONGEST).contains(&seconds) => Err(ControlError::bad_request(
                format!("{seconds} s is no time to confirm a change within"),
                format!("give 1 to {} seconds", trial::LONGEST),
            )),
            (false, Some(seconds)) => Ok(Self::OnTrial(Duration::from_secs(seconds.into()))),
            (dry_run, _) => Ok(Self::plainly(dry_run)),
        }
    }
}

impl Admin {
    /// `_applying` is the proof that no other change of resources is under way.
    async fn change(
        &self,
        _applying: &tokio::sync::MutexGuard<'_, ()>,
        mut merged: Merged,
        how: How,
    ) -> Result<ApplyResponse, ControlError> {
        if how != How::Dry {
            trial::refuse_others(&self.0)?;
        }
        reload::in_place(|| sets::load(&self.0, &mut merged))?;
        let turn = self.0.changing.lock().await;
        let Merged { next, changes, commit, .. } = match merged.beside(&self.0.now()) {
            Ok(merged) => merged,
            Err(problems) => return Ok(ApplyResponse { problems, ..ApplyResponse::default() }),
        };
        let (mut steps, mut confirm_by) = (Vec::new(), None);
        match how {
            How::Dry => steps = reload::plan(&self.0, &next).await?,
            How::OnTrial(within) if !commit.is_empty() => {
                let before = self.0.now();
                steps = reload::bring_about(&self.0, next, &[]).await?;
                confirm_by = Some(trial::begin(&self.0, before, (changes.clone(), commit), within));
            }
            _ if self.0.now().differs_in_sets_only(&next) => {
                loading::put_in_force(&self.0, turn, next, &commit).await?;
            }
            How::OnTrial(_) | How::Plainly => steps = reload::carry(&self.0, next, &commit).await?,
        }
        Ok(ApplyResponse { changes, problems: Vec::new(), steps, confirm_by })
    }

    fn view<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        let (desired, contents) = (self.0.now(), self.0.store.contents());
        let (broken, edge) = (self.0.broken(), self.0.edge.status());
        let flows = |workload| self.0.enforcement.tables.open_flows(workload).unwrap_or(0).into();
        let segments = self.0.segments();
        look(&View {
            desired: &desired,
            contents: &contents,
            broken: &broken,
            segments: &segments,
            apps: &edge.apps,
            flows: &flows,
        })
    }

    fn resources(&self, query: &ResourceQuery) -> BTreeMap<ResourceName, Value> {
        self.view(|view| view.list(query).into_iter().collect())
    }

    async fn send_changes(&self, query: &ResourceQuery, sender: &mpsc::Sender<WatchEvent>) {
        let mut changed = self.0.desired.subscribe();
        let mut shown = BTreeMap::new();
        let mut synced = false;
        loop {
            let present = self.resources(query);
            for event in differences(&shown, &present) {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
            shown = present;
            if !std::mem::replace(&mut synced, true) && sender.send(WatchEvent::Synced).await.is_err() {
                return;
            }
            tokio::select! {
                () = sender.closed() => return,
                next = changed.changed() => if next.is_err() { return },
            }
        }
    }
}

fn differences(before: &BTreeMap<ResourceName, Value>, now: &BTreeMap<ResourceName, Value>) -> Vec<WatchEvent> {
    let there = now.iter().filter_map(|(name, value)| match before.get(name) {
        None => Some(WatchEvent::Added(value.clone())),
        Some(known) if known == value => None,
        Some(_) => Some(WatchEvent::Modified(value.clone())),
    });
    let gone = before.iter().filter(|(name, _)| !now.contains_key(name));
    there.chain(gone.map(|(_, value)| WatchEvent::Deleted(value.clone()))).collect()
}
