//! `kind: Namespace`

use crate::document::field::Field;
use crate::names::Name;
use crate::resource::{Default, Labels, NAMESPACE_NAME_LABEL, Namespace, OnDeny};

pub(super) fn read(name: Option<Name>, mut labels: Labels, spec: &Field<'_>) -> Option<Namespace> {
    let fields = spec.fields(&["network", "egressDefault", "ingressDefault", "onDeny", "queryTypes"], &[])?;
    let network = fields.required("network", "name the Network of its workloads").and_then(|network| network.parse());
    let default = |key: &str| match fields.optional(key) {
        Some(field) => field.choice(&[("Allow", Default::Allow), ("Deny", Default::Deny)]),
        None => Some(Default::Deny),
    };
    let (egress_default, ingress_default) = (default("egressDefault"), default("ingressDefault"));
    let on_deny = match fields.optional("onDeny") {
        Some(field) => field.choice(&[("Reject", OnDeny::Reject), ("Drop", OnDeny::Drop)]),
        None => Some(OnDeny::Reject),
    };
    let query_types = match fields.optional("queryTypes") {
        Some(field) => field
            .some_items("type, or leave `queryTypes` out for every type")
            .and_then(|items| Field::all(&items, Field::parse))
            .map(|types| Some(types.into_iter().collect())),
        None => Some(None),
    };
    let name = name?;
    labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.to_string());
    Some(Namespace {
        name,
        labels,
        network: network?,
        egress_default: egress_default?,
        ingress_default: ingress_default?,
        on_deny: on_deny?,
        query_types: query_types?,
    })
}
