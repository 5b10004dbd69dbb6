//! The set of all resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decode::Parsed;
use crate::names::Name;
use crate::resource::{
    AddressSet, ClusterEgressPolicy, EgressPolicy, ExposedApp, Kind, Labels, Namespace, Network, NetworkPolicy,
    Resource, ResourceKey, selects,
};

/// Where a resource stands in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, as it was given to [`parse`](crate::parse).
    pub file: Arc<str>,
    /// Line of each key by its path, from 1; the resource itself is the empty path.
    pub lines: BTreeMap<String, u32>,
}

impl Origin {
    /// Line of the key, or of what it stands in; the resource itself is the empty path.
    pub(crate) fn line<'k>(&self, key: &'k str) -> Option<u32> {
        let parent = |key: &&'k str| (!key.is_empty()).then_some(&key[..key.rfind(['.', '[']).unwrap_or(0)]);
        std::iter::successors(Some(key), parent).find_map(|key| self.lines.get(key)).copied()
    }
}

/// Resources by key, each valid in itself; [`check`](crate::check) tells whether they fit together. Sets are equal when
/// their resources are, wherever these came from. A copy shares everything; one that is changed shares what is of other
/// kinds, and each resource that stays.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    kinds: BTreeMap<Kind, Arc<Members>>,
}

type Members = BTreeMap<ResourceKey, Arc<Member>>;

#[derive(Clone, Debug)]
struct Member {
    resource: Resource,
    origin: Option<Origin>,
}

impl Resources {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a resource, and returns the one of the same key that it replaces.
    pub fn insert(&mut self, resource: impl Into<Resource>) -> Option<Resource> {
        self.put(resource.into(), None)
    }

    /// Adds a resource of a file, and returns the one that it replaces. [`check`](crate::check) then names file and line.
    pub fn insert_parsed(&mut self, parsed: Parsed) -> Option<Resource> {
        self.put(parsed.resource, Some(parsed.origin))
    }

    fn put(&mut self, resource: Resource, origin: Option<Origin>) -> Option<Resource> {
        let member = Arc::new(Member { resource, origin });
        let members = self.kinds.entry(member.resource.kind()).or_default();
        let former = Arc::make_mut(members).insert(member.resource.key(), member);
        former.map(|former| Arc::unwrap_or_clone(former).resource)
    }

    /// Takes a resource out.
    pub fn remove(&mut self, key: &ResourceKey) -> Option<Resource> {
        self.member(key)?;
        let former = self.kinds.get_mut(&key.kind).and_then(|members| Arc::make_mut(members).remove(key));
        former.map(|former| Arc::unwrap_or_clone(former).resource)
    }

    /// The resource of that key.
    pub fn get(&self, key: &ResourceKey) -> Option<&Resource> {
        self.member(key).map(|member| &member.resource)
    }

    /// Where the resource came from, if it came from a file.
    pub fn origin(&self, key: &ResourceKey) -> Option<&Origin> {
        self.member(key)?.origin.as_ref()
    }

    fn member(&self, key: &ResourceKey) -> Option<&Member> {
        self.kinds.get(&key.kind)?.get(key).map(|member| &**member)
    }

    /// Forgets files and lines: for a set that is kept when the apply is over.
    pub fn forget_origins(&mut self) {
        for members in self.kinds.values_mut() {
            if members.values().all(|member| member.origin.is_none()) {
                continue;
            }
            for member in Arc::make_mut(members).values_mut().filter(|member| member.origin.is_some()) {
                Arc::make_mut(member).origin = None;
            }
        }
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.kinds.values().map(|members| members.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every resource, in the order in which they build on each other, then by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.kinds.values().flat_map(|members| members.values()).map(|member| &member.resource)
    }

    /// The resources of a kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        self.kinds.get(&kind).into_iter().flat_map(|members| members.values()).map(|member| &member.resource)
    }

    /// Every network.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.of_kind(Kind::Network).filter_map(network)
    }

    /// Every namespace.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.of_kind(Kind::Namespace).filter_map(namespace)
    }

    /// Every address set: first the administrators', then by namespace.
    pub fn address_sets(&self) -> impl Iterator<Item = &AddressSet> {
        self.of_kind(Kind::AddressSet).filter_map(address_set)
    }

    /// Every policy of the admin tier.
    pub fn cluster_policies(&self) -> impl Iterator<Item = &ClusterEgressPolicy> {
        self.of_kind(Kind::ClusterEgressPolicy).filter_map(cluster_policy)
    }

    /// Every egress policy.
    pub fn policies(&self) -> impl Iterator<Item = &EgressPolicy> {
        self.of_kind(Kind::EgressPolicy).filter_map(policy)
    }

    /// Every network policy.
    pub fn network_policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.of_kind(Kind::NetworkPolicy).filter_map(network_policy)
    }

    /// Every exposed app.
    pub fn apps(&self) -> impl Iterator<Item = &ExposedApp> {
        self.of_kind(Kind::ExposedApp).filter_map(app)
    }

    /// The network of that name.
    pub fn network(&self, name: &Name) -> Option<&Network> {
        self.get(&ResourceKey::network(name.clone())).and_then(network)
    }

    /// The namespace of that name.
    pub fn namespace(&self, name: &Name) -> Option<&Namespace> {
        self.get(&ResourceKey::namespace(name.clone())).and_then(namespace)
    }

    /// The network of a namespace's workloads.
    pub fn network_of(&self, namespace: &Name) -> Option<&Network> {
        self.network(&self.namespace(namespace)?.network)
    }

    /// The policies of a namespace.
    fn policies_of(&self, namespace: &Name) -> impl Iterator<Item = &EgressPolicy> {
        self.within(Kind::EgressPolicy, namespace).filter_map(policy)
    }

    /// The policies of a namespace that select a workload with these labels.
    pub fn policies_selecting(&self, namespace: &Name, labels: &Labels) -> impl Iterator<Item = &EgressPolicy> {
        self.policies_of(namespace).filter(move |policy| selects(&policy.selector, labels))
    }

    /// The policies of the admin tier that select a workload with these labels in that namespace.
    pub fn cluster_policies_selecting(
        &self,
        namespace: &Name,
        labels: &Labels,
    ) -> impl Iterator<Item = &ClusterEgressPolicy> {
        let namespace = self.namespace(namespace);
        self.cluster_policies().filter(move |policy| namespace.is_some_and(|own| policy.selects(own, labels)))
    }

    /// The network policies of a namespace that select a workload with these labels.
    pub fn network_policies_selecting(
        &self,
        namespace: &Name,
        labels: &Labels,
    ) -> impl Iterator<Item = &NetworkPolicy> {
        let own = self.within(Kind::NetworkPolicy, namespace).filter_map(network_policy);
        own.filter(move |policy| selects(&policy.selector, labels))
    }

    fn within(&self, kind: Kind, namespace: &Name) -> impl Iterator<Item = &Resource> {
        let first = ResourceKey { kind, namespace: Some(namespace.clone()), name: Name::first() };
        let own = first.namespace.clone();
        let members = self.kinds.get(&kind).into_iter().flat_map(move |members| members.range(first.clone()..));
        members.take_while(move |(key, _)| key.namespace == own).map(|(_, member)| &member.resource)
    }
}

fn network(resource: &Resource) -> Option<&Network> {
    if let Resource::Network(network) = resource { Some(network) } else { None }
}

fn namespace(resource: &Resource) -> Option<&Namespace> {
    if let Resource::Namespace(namespace) = resource { Some(namespace) } else { None }
}

fn address_set(resource: &Resource) -> Option<&AddressSet> {
    if let Resource::AddressSet(set) = resource { Some(set) } else { None }
}

fn cluster_policy(resource: &Resource) -> Option<&ClusterEgressPolicy> {
    if let Resource::ClusterEgressPolicy(policy) = resource { Some(policy) } else { None }
}

fn policy(resource: &Resource) -> Option<&EgressPolicy> {
    if let Resource::EgressPolicy(policy) = resource { Some(policy) } else { None }
}

fn network_policy(resource: &Resource) -> Option<&NetworkPolicy> {
    if let Resource::NetworkPolicy(policy) = resource { Some(policy) } else { None }
}

fn app(resource: &Resource) -> Option<&ExposedApp> {
    if let Resource::ExposedApp(app) = resource { Some(app) } else { None }
}

impl PartialEq for Resources {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Resources {}

impl<R: Into<Resource>> FromIterator<R> for Resources {
    fn from_iter<I: IntoIterator<Item = R>>(resources: I) -> Self {
        let mut set = Self::new();
        set.extend(resources);
        set
    }
}

impl<R: Into<Resource>> Extend<R> for Resources {
    fn extend<I: IntoIterator<Item = R>>(&mut self, resources: I) {
        for resource in resources {
            self.insert(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn set() -> Resources {
        let text = "
{ apiVersion: tidegate.dev/v1alpha1, kind: Network, metadata: { name: a }, spec: { gateway: External, subnets: [ { cidr: 10.0.0.0/24 } ] } }
---
{ apiVersion: tidegate.dev/v1alpha1, kind: Namespace, metadata: { name: shop }, spec: { network: a } }
---
{ apiVersion: tidegate.dev/v1alpha1, kind: EgressPolicy, metadata: { name: web, namespace: shop }, spec: { selector: { matchLabels: { app: web } } } }
---
{ apiVersion: tidegate.dev/v1alpha1, kind: EgressPolicy, metadata: { name: all, namespace: shop }, spec: { selector: {} } }
---
{ apiVersion: tidegate.dev/v1alpha1, kind: EgressPolicy, metadata: { name: all, namespace: shop2 }, spec: { selector: {} } }
";
        let mut set = Resources::new();
        for parsed in parse("set.yaml", text).unwrap() {
            assert_eq!(set.insert_parsed(parsed), None);
        }
        set
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn kinds_and_namespaces_are_kept_apart() {
        let set = set();
        assert_eq!(set.len(), 5);
        assert_eq!(Kind::ALL.map(|kind| set.of_kind(kind).count()), [1, 1, 0, 0, 3, 0, 0]);
        assert_eq!(set.policies_of(&name("shop")).count(), 2);
        assert_eq!(set.policies_of(&name("sho")).count(), 0);
        assert_eq!(set.apps().count(), 0);
        assert_eq!(set.network_of(&name("shop")).map(|network| network.name.as_str()), Some("a"));
        assert_eq!(set.network_of(&name("other")), None);
        let keys: Vec<String> = set.iter().map(|resource| resource.key().to_string()).collect();
        assert_eq!(
            keys,
            ["network/a", "namespace/shop", "egresspolicy/shop/all", "egresspolicy/shop/web", "egresspolicy/shop2/all"]
        );
    }

    #[test]
    fn policies_are_found_by_what_they_select() {
        let set = set();
        let found = |labels: &Labels| -> Vec<String> {
            set.policies_selecting(&name("shop"), labels).map(|policy| policy.name.to_string()).collect()
        };
        assert_eq!(found(&Labels::new()), ["all"]);
        assert_eq!(found(&Labels::from([("app".into(), "web".into())])), ["all", "web"]);
    }

    #[test]
    fn a_resource_replaces_the_one_of_its_key_and_can_go() {
        let mut set = set();
        let key = ResourceKey { kind: Kind::EgressPolicy, namespace: Some(name("shop")), name: name("web") };
        assert_eq!(set.origin(&key).and_then(|origin| origin.line("spec.selector.matchLabels.app")), Some(6));
        assert_eq!(set.origin(&key).and_then(|origin| origin.line("spec.selector.absent[3].key")), Some(6));
        let old = set.remove(&key).unwrap();
        assert_eq!(set.get(&key), None);
        assert_eq!(set.remove(&key), None);
        assert_eq!(set.insert(old.clone()), None);
        assert_eq!(set.insert(old.clone()), Some(old));
        assert_eq!(set.origin(&key), None);
    }

    #[test]
    fn sets_are_equal_wherever_their_resources_came_from() {
        let mut other = set();
        other.forget_origins();
        assert_eq!(set(), other);
        other.remove(&ResourceKey::namespace(name("shop")));
        assert_ne!(set(), other);
    }
}
