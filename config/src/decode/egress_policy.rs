//! `kind: EgressPolicy` and `kind: ClusterEgressPolicy`

use super::{rules, selector};
use crate::document::field::Field;
use crate::document::fields::Fields;
use crate::names::Name;
use crate::resource::{
    AllowRule, CidrRule, ClusterEgressPolicy, DeniedNames, DenyRule, EgressPolicy, Mode, NameRule, Ports, Protocol,
    Verify,
};
use crate::wording::all_of;

pub(super) fn read(namespace: Option<Name>, name: Option<Name>, spec: &Field<'_>) -> Option<EgressPolicy> {
    let fields = spec.fields(&["selector", "mode", "deny", "allow"], &[])?;
    let selector = fields.required("selector", selector::MISSING).and_then(|field| selector::read(&field));
    let mode = mode(&fields);
    let (deny, allow) = (list(&fields, "deny", deny_rule), list(&fields, "allow", allow_rule));
    Some(EgressPolicy {
        namespace: namespace?,
        name: name?,
        selector: selector?,
        mode: mode?,
        deny: deny?,
        allow: allow?,
    })
}

/// Both selectors are required: who is not named is not meant.
pub(super) fn read_cluster(name: Option<Name>, spec: &Field<'_>) -> Option<ClusterEgressPolicy> {
    let fields = spec.fields(&["namespaceSelector", "selector", "mode", "deny", "allow", "pass"], &[])?;
    let missing = "write `namespaceSelector: { matchLabels: { … } }`, or `namespaceSelector: {}` for every namespace";
    let namespaces = fields.required("namespaceSelector", missing).and_then(|field| selector::read(&field));
    let missing = "write `selector: { matchLabels: { … } }`, or `selector: {}` for every workload of those namespaces";
    let selector = fields.required("selector", missing).and_then(|field| selector::read(&field));
    let mode = mode(&fields);
    let (deny, allow) = (list(&fields, "deny", deny_rule), list(&fields, "allow", allow_rule));
    let pass = list(&fields, "pass", pass_rule);
    Some(ClusterEgressPolicy {
        name: name?,
        namespace_selector: namespaces?,
        selector: selector?,
        mode: mode?,
        deny: deny?,
        allow: allow?,
        pass: pass?,
    })
}

fn mode(fields: &Fields<'_>) -> Option<Mode> {
    match fields.optional("mode") {
        Some(field) => field.choice(&[("Enforce", Mode::Enforce), ("Audit", Mode::Audit)]),
        None => Some(Mode::default()),
    }
}

/// The rules under a key; none where it is left out.
fn list<T>(fields: &Fields<'_>, key: &str, read: impl Fn(&Field<'_>) -> Option<T>) -> Option<Vec<T>> {
    let items = fields.optional(key).and_then(|field| field.items()).unwrap_or_default();
    Field::all(&items, read)
}

fn pass_rule(item: &Field<'_>) -> Option<CidrRule> {
    if let Some(names) = item.any_fields()?.optional_with_value("dnsNames") {
        let mend = "leave it out: a name that no admin rule allows is left to the namespace";
        names.problem("`pass` has no names", mend);
        return None;
    }
    rules::cidr_rule(&item.fields(&rules::BY_ADDRESS, &[])?)
}

fn deny_rule(item: &Field<'_>) -> Option<DenyRule> {
    let any = item.any_fields()?;
    match [any.has("cidrs") || any.has("sets"), any.has("dnsNames")] {
        [true, false] => rules::cidr_rule(&item.fields(&rules::BY_ADDRESS, &[])?).map(DenyRule::Cidrs),
        [false, true] => {
            let fields = item.fields(&["dnsNames", "ports"], &[])?;
            let names = fields.optional("dnsNames").and_then(|field| rules::names(&field));
            let ports = rules::ports(&fields);
            Some(DenyRule::Names(DeniedNames { names: names?, ports: ports? }))
        }
        [false, false] => {
            let fields = item.fields(&["cidrs", "sets", "dnsNames", "except", "ports"], &[])?;
            if !["cidrs", "sets", "dnsNames"].iter().any(|key| fields.has(key)) {
                item.problem(
                    "the rule does not say what it denies",
                    "write `cidrs`, `sets` or `dnsNames`; every address is `cidrs: [ 0.0.0.0/0, \"::/0\" ]`",
                );
            }
            None
        }
        [true, true] => {
            item.problem("a rule says addresses (`cidrs`, `sets`) or `dnsNames`, not both", "make a rule of each");
            None
        }
    }
}

fn allow_rule(item: &Field<'_>) -> Option<AllowRule> {
    let any = item.any_fields()?;
    let by_address = any.has("cidrs") || any.has("sets");
    match [any.has("resolve"), by_address, any.has("dnsNames")] {
        [true, false, false] => {
            let fields = item.fields(&["resolve"], &[])?;
            rules::names(&fields.optional("resolve")?).map(AllowRule::Resolve)
        }
        [false, true, false] => {
            let fields = item.fields(&rules::BY_ADDRESS, &[])?;
            rules::cidr_rule(&fields).map(AllowRule::Cidrs)
        }
        [false, false, true] => {
            let fields = item.fields(&["dnsNames", "ports", "verify"], &[])?;
            name_rule(&fields).map(AllowRule::Names)
        }
        [false, false, false] => {
            let fields = item.fields(&["resolve", "cidrs", "sets", "dnsNames", "except", "ports", "verify"], &[])?;
            if !["resolve", "cidrs", "sets", "dnsNames"].iter().any(|key| fields.has(key)) {
                let mend =
                    "write `cidrs`, `sets`, `dnsNames` or `resolve`; every address is `cidrs: [ 0.0.0.0/0, \"::/0\" ]`";
                item.problem("the rule does not say what it allows", mend);
            }
            None
        }
        [_, _, _] => {
            item.problem(
                "a rule says addresses (`cidrs`, `sets`), `dnsNames` or `resolve`, not several of these",
                "make a rule of each",
            );
            None
        }
    }
}

fn name_rule(fields: &Fields<'_>) -> Option<NameRule> {
    let names = fields.optional("dnsNames").and_then(|field| rules::names(&field));
    let ports = rules::ports(fields);
    let verify = match fields.optional("verify") {
        Some(field) => {
            let verify = field.choice(&[("None", Verify::None), ("TLS", Verify::Tls)])?;
            if let (Verify::Tls, Some(ports)) = (verify, &ports) {
                let silent = without_handshake(ports);
                if !silent.is_empty() {
                    let what = format!("TLS is spoken over TCP and UDP, and `ports` has {}", all_of(&silent));
                    field.problem(what, "make another rule of these ports, without `verify`");
                }
            }
            Some(verify)
        }
        None if fields.has("verify") => return None,
        None => None,
    };
    Some(NameRule { names: names?, ports: ports?, verify })
}

/// The protocols of these ports that have no handshake with a server's name.
fn without_handshake(ports: &Ports) -> Vec<&'static str> {
    let mut found = Vec::new();
    if let Ports::Some(ranges) = ports {
        for protocol in ranges.iter().map(|range| range.protocol) {
            let silent = match protocol {
                Protocol::Tcp | Protocol::Udp => false,
                Protocol::Sctp | Protocol::Icmp | Protocol::Icmpv6 => true,
            };
            if silent && !found.contains(&protocol.as_str()) {
                found.push(protocol.as_str());
            }
        }
    }
    found
}
