//! Changes, each in two halves, and taking the first half back.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::Prefixes;
use config::resource::ResourceKey;

use super::block::Block;
use super::groups::{ChangedSet, GroupId, Selected};
use super::policies::Made;
use super::residents::{Place, Residents, blocks};
use super::sources::{Draft, SourceKey};
use super::space::{Claim, Writes};
use super::{Compiled, Former, Held, Pending};
use crate::model::{Model, Subject};
use crate::peers::Resident;
use crate::tables::{PolicyId, PolicyRef, RuleEntry, Step};

impl Compiled {
    /// The resources, or the workloads, are these now: one subject for each workload. Policies and peers are compared with
    /// those before; answers what must be there before a workload is switched. Until [`Self::settle`] the former policies
    /// stay as well. A workload whose policies are others, or may mean something else now, is to be switched.
    pub fn advance(&mut self, model: &Model<'_>, subjects: impl IntoIterator<Item = Subject>) -> Step {
        self.pending = Pending { former: Some(Box::new(self.former())), ..Pending::default() };
        self.sources.clear();
        self.residents = Residents::of(model);
        self.pending.leaving = std::mem::take(&mut self.subjects).into_values().map(|held| held.policy).collect();
        for subject in subjects {
            self.take_on(model, subject);
        }
        self.step(Vec::new(), BTreeSet::new())
    }

    /// A workload comes, and nothing else changes: the model needs no workloads. An address that was another's is its own
    /// now. The workloads of [`Step::touched`] policies, and of [`Step::moved`] subjects, are to be switched.
    pub fn join(&mut self, model: &Model<'_>, resident: &Resident) -> Step {
        self.pending = Pending { joined: Some(resident.clone()), ..Pending::default() };
        let place: Place = model.view(&resident.subject).into();
        let mut touched = BTreeSet::new();
        let mut moved = BTreeSet::new();
        if model.namespace(&resident.subject).is_some() {
            let called = self.called_at(&place);
            if !called.is_empty() {
                self.pending.former = Some(Box::new(self.former()));
            }
            self.residents.join(model, resident);
            self.members(&place, &blocks(resident), &mut touched, |key| key.means(model, &resident.subject));
            moved = self.call_again(model, &place, called);
        }
        self.take_on(model, resident.subject.clone());
        Step { moved, ..self.step(Vec::new(), touched) }
    }

    /// A workload goes, and nothing else changes; as [`Self::join`]. It is not to be taken back.
    pub fn leave(&mut self, model: &Model<'_>, resident: &Resident) -> Step {
        self.pending = Pending::default();
        let (mut touched, mut moved) = (BTreeSet::new(), BTreeSet::new());
        for (place, blocks) in self.residents.leave(resident) {
            let called = self.called_at(&place);
            self.members(&place, &blocks, &mut touched, |_| false);
            moved.extend(self.call_again(model, &place, called));
        }
        if let Some(held) = self.subjects.get_mut(&resident.subject) {
            held.workloads = held.workloads.saturating_sub(1);
            if held.workloads == 0 {
                self.pending.leaving.push(held.policy);
                self.subjects.remove(&resident.subject);
            }
        }
        Step { moved, ..self.step(Vec::new(), touched) }
    }

    /// Address sets have these prefixes, and nothing else changes: it costs what comes, what goes, and what they cover. Sets
    /// that no rule in use names are passed over. The workloads of [`Step::touched`] policies are to be switched.
    pub fn change_sets<'p>(&mut self, sets: impl IntoIterator<Item = (&'p ResourceKey, &'p Prefixes)>) -> Step {
        self.pending = Pending::default();
        let mut touched = BTreeSet::new();
        for (key, next) in sets {
            let Some(changed) = self.groups.change_set(key, next) else { continue };
            self.claim_set(&changed, &mut touched);
            self.pending.sets.push((changed.group, changed.former));
        }
        self.step(Vec::new(), touched)
    }

    /// Every workload is switched: what nobody refers to goes.
    pub fn settle(&mut self) -> Step {
        let Pending { leaving, former, .. } = std::mem::take(&mut self.pending);
        self.release_all(leaving, former.is_some())
    }

    /// The first half of a change was not written: all is as it was before it, and what was written of it goes.
    pub fn take_back(&mut self) -> Step {
        self.backlog.clear();
        let Pending { acquired, moved, sets, joined, former, .. } = std::mem::take(&mut self.pending);
        let mut touched = BTreeSet::new();
        for (group, former) in sets.into_iter().rev() {
            let key = self.groups.set_key(group);
            if let Some(changed) = key.and_then(|key| self.groups.change_set(&key, &former)) {
                self.claim_set(&changed, &mut touched);
            }
        }
        for (group, blocks, came) in moved.into_iter().rev() {
            let back = self.groups.members(group, &blocks, !came);
            self.claim(group, &back, !came, &mut touched);
        }
        let whole = former.is_some();
        if let Some(former) = former {
            let Former { subjects, sources, standing, residents } = *former;
            (self.subjects, self.sources, self.residents) = (subjects, sources, residents);
            self.groups.stand_for(standing);
        } else if let Some(resident) = joined {
            self.residents.leave(&resident);
            if let Some(held) = self.subjects.get_mut(&resident.subject) {
                held.workloads = held.workloads.saturating_sub(1);
                if held.workloads == 0 {
                    self.subjects.remove(&resident.subject);
                }
            }
        }
        Step { touched, ..self.release_all(acquired, whole) }
    }

    fn former(&self) -> Former {
        Former {
            subjects: self.subjects.clone(),
            sources: self.sources.clone(),
            standing: self.groups.standing(),
            residents: self.residents.clone(),
        }
    }

    /// A workload of this subject is there.
    fn take_on(&mut self, model: &Model<'_>, subject: Subject) {
        if let Some(held) = self.subjects.get_mut(&subject) {
            held.workloads += 1;
        } else if let Some(policy) = self.place(model, &subject) {
            self.subjects.insert(subject, Held { policy, workloads: 1 });
        }
    }

    /// These addresses are in the groups of workloads that `means` picks, and in no other of the view.
    fn members(
        &mut self,
        place: &Place,
        blocks: &[Block],
        touched: &mut BTreeSet<PolicyId>,
        means: impl Fn(&Selected) -> bool,
    ) {
        let here = self.groups.all_selected().filter(|(key, _)| key.place == *place);
        let here: Vec<(GroupId, bool)> = here.map(|(key, group)| (group, means(key))).collect();
        for (group, come) in here {
            let news = self.groups.members(group, blocks, come);
            if !news.is_empty() {
                self.claim(group, &news, come, touched);
                self.pending.moved.push((group, news, come));
            }
        }
    }

    /// Prefixes come into a group or leave it, wherever it is in use.
    fn claim(&mut self, group: GroupId, blocks: &[Block], comes: bool, touched: &mut BTreeSet<PolicyId>) {
        let claims = blocks.iter().map(|block| Claim { block: *block, group, comes });
        for view in self.spaces.keys().filter(|view| self.in_view.contains_key(&(**view, group))) {
            self.claims.entry(*view).or_default().extend(claims.clone());
        }
        touched.extend(self.policies.of_group(group));
    }

    fn claim_set(&mut self, changed: &ChangedSet, touched: &mut BTreeSet<PolicyId>) {
        for (blocks, comes) in [(&changed.removed, false), (&changed.added, true)] {
            if !blocks.is_empty() {
                self.claim(changed.group, blocks, comes, touched);
            }
        }
    }

    /// Sources whose named ports are those of workloads of this view.
    fn called_at(&self, place: &Place) -> Vec<SourceKey> {
        let called = self.sources.iter().filter(|(_, made)| made.source.called_at.as_ref() == Some(place));
        called.map(|(key, _)| key.clone()).collect()
    }

    /// Makes these sources anew; answers the subjects that have other policies for it.
    fn call_again(&mut self, model: &Model<'_>, place: &Place, called: Vec<SourceKey>) -> BTreeSet<Subject> {
        let mut replaced = BTreeSet::new();
        for key in called {
            let SourceKey::To(namespace, name) = &key else { continue };
            let (Some(policy), Some(former)) = (model.network_policy(namespace, name), self.sources.get(&key)) else {
                continue;
            };
            let former: Arc<Made> = Arc::clone(former);
            let made = self.make(model, &Draft::To(policy, place.clone()), Some(Arc::clone(&former)));
            if made.number != former.number {
                replaced.insert(former.number);
                self.sources.insert(key, made);
            }
        }
        if replaced.is_empty() {
            return BTreeSet::new();
        }
        let has = |held: &Held| {
            let sources = self.policies.policies.get(&held.policy.egress).map(|policy| &policy.sources);
            sources.into_iter().flatten().any(|made| replaced.contains(&made.number))
        };
        let concerned = self.subjects.iter().filter(|(_, held)| has(held));
        let concerned: BTreeSet<Subject> = concerned.map(|(subject, _)| subject.clone()).collect();
        for subject in &concerned {
            let policy = self.place(model, subject);
            if let (Some(held), Some(policy)) = (self.subjects.get_mut(subject), policy) {
                self.pending.leaving.push(std::mem::replace(&mut held.policy, policy));
            }
        }
        concerned
    }

    /// A subject has it: its groups come into the view.
    pub(super) fn acquire(&mut self, policy: PolicyRef) {
        self.pending.acquired.push(policy);
        for id in [policy.egress, policy.ingress] {
            let uses = self.uses.entry((policy.generation, id)).or_default();
            *uses += 1;
            let Some(own) = self.policies.policies.get(&id).filter(|_| *uses == 1) else { continue };
            for group in &own.groups {
                let named = self.in_view.entry((policy.generation, *group)).or_default();
                *named += 1;
                if *named == 1 {
                    self.backlog.push(policy.generation, *group, true, self.groups.blocks(*group));
                }
            }
        }
    }

    /// Subjects have them no more: what only they used goes. `whole`: rules of former resources are forgotten.
    fn release_all(&mut self, leaving: Vec<PolicyRef>, whole: bool) -> Step {
        let mut unused = BTreeSet::new();
        for policy in leaving {
            for id in [policy.egress, policy.ingress] {
                let Some(uses) = self.uses.get_mut(&(policy.generation, id)) else { continue };
                *uses -= 1;
                if *uses == 0 {
                    self.uses.remove(&(policy.generation, id));
                    self.leave_view(policy.generation, id);
                    unused.insert(id);
                }
            }
        }
        let views = &self.spaces;
        unused.retain(|id| !views.keys().any(|view| self.uses.contains_key(&(*view, *id))));
        let (mut dead, mut sources) = (Vec::new(), Vec::new());
        for id in &unused {
            let (own, lines) = self.policies.remove(*id);
            dead.extend(lines);
            sources.extend(own);
        }
        let step = Step { gone: unused, ..self.step(dead, BTreeSet::new()) };
        sources.into_iter().for_each(|made| self.drop_source(&made));
        if whole {
            let live = self.policies.policies.values().flat_map(|policy| &policy.sources);
            let used = live.flat_map(|made| made.source.rules()).copied().collect();
            self.ids.retain(&used);
        }
        step
    }

    fn leave_view(&mut self, view: u32, id: PolicyId) {
        let Some(policy) = self.policies.policies.get(&id) else { return };
        for group in &policy.groups {
            let Some(named) = self.in_view.get_mut(&(view, *group)) else { continue };
            *named -= 1;
            if *named == 0 {
                self.in_view.remove(&(view, *group));
                self.backlog.push(view, *group, false, self.groups.blocks(*group));
            }
        }
    }

    fn drop_source(&mut self, made: &Made) {
        let Some(holders) = self.holders.get_mut(&made.number) else { return };
        *holders -= 1;
        if *holders == 0 {
            self.holders.remove(&made.number);
            self.sources.retain(|_, own| own.number != made.number);
            made.source.groups().into_iter().for_each(|group| self.groups.release(group));
        }
    }

    /// Lets the spaces take over what was claimed, and a portion of whole groups; the lines of new classes come with it,
    /// those of dead ones go.
    pub(super) fn step(&mut self, mut dead: Vec<RuleEntry>, touched: BTreeSet<PolicyId>) -> Step {
        self.backlog.claim(&mut self.claims);
        let mut writes = Writes::default();
        for (view, claims) in std::mem::take(&mut self.claims) {
            if let Some(space) = self.spaces.get_mut(&view) {
                writes.add(view, space.change(&mut self.classes, claims));
            }
        }
        let (fresh, died) = self.classes.settle();
        let lines = self.policies.line_up(&self.classes, &fresh);
        dead.extend(died.into_iter().flat_map(|(class, set)| self.policies.drop_class(class, &set)));
        let prefixes = writes.ordered();
        if self.backlog.is_empty() {
            self.close_views();
        }
        Step { lines, prefixes, dead, touched, ..Step::default() }
    }

    /// Views that no policy is in have no prefixes any more.
    fn close_views(&mut self) {
        let Self { places, spaces, uses, .. } = self;
        places.retain(|place, number| {
            let used = *place == Place::Routed
                || uses.range((*number, PolicyId(0))..=(*number, PolicyId(u32::MAX))).next().is_some();
            if !used {
                spaces.remove(number);
            }
            used
        });
    }
}
