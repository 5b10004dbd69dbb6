//! `kind: EgressPolicy` and `kind: ClusterEgressPolicy`

use super::later::Later;
use super::{rules, selector};
use crate::document::field::Field;
use crate::document::fields::Fields;
use crate::names::Name;
use crate::resource::{AllowRule, CidrRule, ClusterEgressPolicy, EgressPolicy, Mode, NameRule, Ports};

/// The port on which names are verified by TLS unless a rule says otherwise.
const HTTPS: u16 = 443;

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

fn deny_rule(item: &Field<'_>) -> Option<CidrRule> {
    let fields = item.fields(&rules::BY_ADDRESS, &[("dnsNames", Later::DenyNames)])?;
    if fields.has("dnsNames") { None } else { rules::cidr_rule(&fields) }
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
    match fields.optional("verify") {
        Some(verify) => {
            verify.choice_or_later(&[("None", Ok(())), ("TLS", Err(Later::VerifyTls))]);
        }
        None if !fields.has("verify") && ports.as_ref().is_some_and(covers_https) => {
            fields.itself().later(Later::VerifyTlsByDefault);
        }
        None => {}
    }
    Some(NameRule { names: names?, ports: ports? })
}

fn covers_https(ports: &Ports) -> bool {
    match ports {
        Ports::All => true,
        Ports::Some(ranges) => ranges.iter().any(|range| (range.first..=range.last).contains(&HTTPS)),
    }
}
