//! Files into the next desired state: parsed, merged, and checked as a whole before anything is touched.

use std::collections::{BTreeMap, BTreeSet};

use config::api::{self, Action, Difference, File, ResourceName};
use config::resource::{AddressSet, Kind, Network, Resource, ResourceKey, SetSource};
use config::{Parsed, Prefixes, Problem};

use super::desired::Desired;
use super::enforcement::network_number;
use crate::store;

/// The next state, and what is different in it.
pub(crate) struct Merged {
    pub(crate) next: Desired,
    pub(crate) changes: Vec<api::Change>,
    pub(crate) differences: Vec<Difference>,
    /// The same for the store.
    pub(crate) commit: Vec<store::Change>,
}

/// The state after applying these files. With `prune`, what they do not hold is deleted.
pub(crate) fn merge(now: &Desired, files: &[File], prune: bool) -> Result<Merged, Vec<Problem>> {
    let parsed = parse(files)?;
    let mut merged = Merged::from(now);
    let named: BTreeSet<ResourceKey> = parsed.iter().map(|document| document.resource.key()).collect();
    for document in parsed {
        merged.put(document);
    }
    if prune {
        let others: Vec<ResourceKey> =
            now.resources.iter().map(|resource| resource.key()).filter(|key| !named.contains(key)).collect();
        // In reverse of the order in which they build on each other.
        others.iter().rev().for_each(|key| merged.remove(key));
    }
    merged.checked()
}

/// The state without the named resources and those that the files hold.
pub(crate) fn without(now: &Desired, names: &[ResourceName], files: &[File]) -> Result<Merged, Vec<Problem>> {
    let mut keys: BTreeSet<ResourceKey> = parse(files)?.iter().map(|document| document.resource.key()).collect();
    let mut problems = Vec::new();
    for name in names {
        match ResourceKey::try_from(name.clone()) {
            Ok(key) if now.resources.get(&key).is_some() => drop(keys.insert(key)),
            Ok(key) => {
                let mend = format!("`netctl get {} -A` lists what is there", key.kind.plural());
                problems.push(cannot_delete(name, "there is none of that name".to_owned(), mend));
            }
            Err(error) => problems.push(cannot_delete(name, error.problem, error.mend)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut merged = Merged::from(now);
    keys.iter().rev().filter(|key| now.resources.get(key).is_some()).for_each(|key| merged.remove(key));
    let used: Vec<Problem> = keys.iter().filter_map(|key| still_used(&merged.next, key)).collect();
    if used.is_empty() { merged.checked() } else { Err(used) }
}

/// What was deleted and others build on.
fn still_used(next: &Desired, deleted: &ResourceKey) -> Option<Problem> {
    let naming: BTreeSet<ResourceKey> = match deleted.kind {
        Kind::AddressSet => {
            config::set_uses(&next.resources).filter(|own| own.set == *deleted).map(|own| own.policy).collect()
        }
        _ => BTreeSet::new(),
    };
    let builds_on_it = |resource: &&Resource| match (deleted.kind, resource) {
        (Kind::Network, Resource::Namespace(namespace)) => namespace.network == deleted.name,
        (Kind::Namespace, resource) => resource.key().namespace.as_ref() == Some(&deleted.name),
        (Kind::AddressSet, resource) => naming.contains(&resource.key()),
        _ => false,
    };
    let users: Vec<String> =
        next.resources.iter().filter(builds_on_it).map(|user| ResourceName::from(user.key()).to_string()).collect();
    let mend = "delete those first, or in the same `netctl delete -f`".to_owned();
    let name = ResourceName::from(deleted.clone());
    (!users.is_empty()).then(|| cannot_delete(&name, format!("{} still built on it", are(&users)), mend))
}

fn are(users: &[String]) -> String {
    format!("{} {}", users.join(", "), if users.len() == 1 { "is" } else { "are" })
}

fn parse(files: &[File]) -> Result<Vec<Parsed>, Vec<Problem>> {
    config::parse_all(files.iter().map(|file| (file.name.as_str(), file.text.as_str())))
}

impl From<&Desired> for Merged {
    fn from(now: &Desired) -> Self {
        Self { next: now.clone(), changes: Vec::new(), differences: Vec::new(), commit: Vec::new() }
    }
}

impl Merged {
    fn put(&mut self, document: Parsed) {
        let resource = document.resource.clone();
        let name = ResourceName::from(resource.key());
        let json = resource.to_json();
        let before = self.next.resources.insert_parsed(document);
        let action = match &before {
            None => Action::Created,
            Some(before) if *before == resource => Action::Unchanged,
            Some(_) => Action::Configured,
        };
        self.note(&name, action);
        if action != Action::Unchanged {
            match &resource {
                Resource::AddressSet(set) => self.commit.extend(kept_set(&name, set)),
                _ => self.commit.push(store::Change::Put(name.clone(), json.clone())),
            }
            let current = before.map(|before| before.to_json());
            self.differences.push(Difference { resource: name, current, new: Some(json) });
        }
    }

    fn remove(&mut self, key: &ResourceKey) {
        let name = ResourceName::from(key.clone());
        let before = self.next.resources.remove(key).map(|before| before.to_json());
        self.note(&name, Action::Deleted);
        self.commit.push(store::Change::Remove(name.clone()));
        self.differences.push(Difference { resource: name, current: before, new: None });
    }

    fn note(&mut self, name: &ResourceName, action: Action) {
        let ResourceName { kind, namespace, name } = name.clone();
        self.changes.push(api::Change { kind, namespace, name, action });
    }

    /// The same with the workloads that are there by now.
    pub(crate) fn beside(mut self, now: &Desired) -> Result<Self, Vec<Problem>> {
        self.next.workloads.clone_from(&now.workloads);
        let problems = attached(&self.next);
        if problems.is_empty() { Ok(self) } else { Err(problems) }
    }

    fn checked(mut self) -> Result<Self, Vec<Problem>> {
        let mut problems = config::check(&self.next.resources);
        problems.extend(attached(&self.next));
        problems.extend(numbers(&self.next));
        if !problems.is_empty() {
            return Err(problems);
        }
        self.next.resources.forget_origins();
        Ok(self)
    }
}

/// A set as the store keeps it: its prefixes are not in its JSON. Those of a file come when it is read.
fn kept_set(name: &ResourceName, set: &AddressSet) -> Vec<store::Change> {
    let put = |source| store::Change::Put(name.clone(), Resource::from(AddressSet { source, ..set.clone() }).to_json());
    match &set.source {
        SetSource::Cidrs(prefixes) => {
            let without = put(SetSource::Cidrs(Prefixes::new()));
            vec![without, store::Change::Prefixes(name.clone(), prefixes.clone())]
        }
        SetSource::File(file) => vec![put(SetSource::File(file.clone()))],
    }
}

/// Attached workloads keep their network and addresses: a change that takes one away is refused.
fn attached(next: &Desired) -> Vec<Problem> {
    let problem = |workload: &crate::workload::Workload, what: String| Problem {
        file: format!("namespace/{}", workload.namespace),
        line: None,
        key: String::new(),
        what,
        mend: format!("first `netctl detach {} -n {}`", workload.name, workload.namespace),
    };
    let mut problems = Vec::new();
    // What was found goes with its bridge's adoption.
    for workload in next.workloads.values().filter(|workload| !workload.is_found()) {
        let named = format!("workload {}/{} is attached", workload.namespace, workload.name);
        match next.resources.network_of(&workload.namespace) {
            None => problems.push(problem(workload, format!("{named}, and its namespace or network would be gone"))),
            Some(network) if network.name != workload.network => {
                problems
                    .push(problem(workload, format!("{named} to network {}, not {}", workload.network, network.name)));
            }
            Some(network) => {
                let within = |address: std::net::IpAddr| network.subnets.iter().any(|s| s.cidr.contains(address));
                let stray =
                    workload.addresses.iter().map(|own| own.address).filter(|a| !crate::workload::is_link_local(*a));
                for address in stray.filter(|address| network.adopt.is_none() && !within(*address)) {
                    problems.push(problem(
                        workload,
                        format!("{named} with {address}, which no subnet of {} would hold", network.name),
                    ));
                }
            }
        }
    }
    problems
}

/// Networks that the kernel's tables could not tell apart: see [`network_number`].
fn numbers(next: &Desired) -> Vec<Problem> {
    let mut seen = BTreeMap::new();
    let clash = |network: &Network| {
        let other = seen.insert(network_number(&network.name), network.name.clone())?;
        Some(Problem {
            file: format!("network/{}", network.name),
            line: None,
            key: "metadata.name".to_owned(),
            what: format!("by chance the kernel's tables have one number for this name and for {other}"),
            mend: "give one of the two another name".to_owned(),
        })
    };
    next.resources.networks().filter_map(clash).collect()
}

fn cannot_delete(name: &ResourceName, what: String, mend: String) -> Problem {
    Problem { file: name.to_string(), line: None, key: String::new(), what, mend }
}
