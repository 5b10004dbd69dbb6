//! `apiVersion`, `kind` and `metadata`: whose resource it is, and what it is called.

use super::later::Later;
use super::selector;
use crate::document::field::Field;
use crate::document::fields::Fields;
use crate::names::Name;
use crate::resource::{API_VERSION, Kind, Labels, NAMESPACE_NAME_LABEL};
use crate::wording::{all_of, closest, one_of, quoted};

/// What stands before `spec`. A missing name is a problem already reported.
pub(super) struct Header<'n> {
    pub(super) kind: Kind,
    pub(super) name: Option<Name>,
    pub(super) namespace: Option<Name>,
    pub(super) labels: Labels,
    pub(super) spec: Option<Field<'n>>,
}

/// The namespace of Kubernetes' resources that name none.
const DEFAULT_NAMESPACE: &str = "default";

/// Fields of `metadata` that the API server and kubectl write, and that mean nothing here.
const KUBERNETES_OWN: [&str; 11] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The items of `kind: List`, as `kubectl get -o yaml` and `netctl get -o yaml` write it; `None` for anything else.
pub(super) fn items_of_list<'n>(root: &Field<'n>) -> Option<Vec<Field<'n>>> {
    if !root.is_map() {
        return None;
    }
    let any = root.any_fields()?;
    if !any.each().any(|(key, field)| key == "kind" && field.peek() == Some("List")) {
        return None;
    }
    let fields = root.fields(&["apiVersion", "kind", "metadata", "items"], &[])?;
    if let Some(version) = fields.required("apiVersion", "write `apiVersion: v1`") {
        version.choice(&[("v1", ()), (API_VERSION, ())]);
    }
    Some(
        fields
            .required("items", "list the resources under `items`")
            .and_then(|items| items.items())
            .unwrap_or_default(),
    )
}

/// Reads everything before `spec`; `None` if it is not known what the resource is.
pub(super) fn read<'n>(root: &Field<'n>) -> Option<Header<'n>> {
    let any = root.any_fields()?;
    let kind = read_kind(&any)?;
    let fields = root.fields(&["apiVersion", "kind", "metadata", "spec", "status"], &[])?;
    let metadata = fields.required("metadata", "write `metadata: { name: … }`").and_then(|m| read_metadata(kind, &m));
    let (name, namespace, labels) = metadata.unwrap_or_default();
    let spec = fields.required("spec", "write what the resource is to be under `spec`");
    Some(Header { kind, name, namespace, labels, spec })
}

fn read_kind(fields: &Fields<'_>) -> Option<Kind> {
    let known = Kind::ALL.map(Kind::as_str);
    let kind = fields.required("kind", &format!("write `kind:` with {}", one_of(&known)));
    let meant = kind.as_ref().and_then(Field::peek);
    let meant = meant.and_then(|word| Kind::ALL.into_iter().find(|kind| kind.as_str() == word));
    let version = meant.map_or(API_VERSION, Kind::api_version);
    let version = fields.required("apiVersion", &format!("write `apiVersion: {version}`"));
    let kind = kind?;
    let word = kind.text()?;
    if let Some(later) = Later::kind(word) {
        kind.later(later);
        return None;
    }
    let Some(found) = Kind::ALL.into_iter().find(|kind| kind.as_str() == word) else {
        let mend = match word {
            "Workload" => "workloads are made by attaching: `netctl attach NAME -n NAMESPACE --netns PATH`".to_owned(),
            "Ingress" | "HTTPRoute" | "TLSRoute" => "write an ExposedApp".to_owned(),
            _ => match closest(word, known) {
                Some(close) => format!("did you mean `{close}`?"),
                None => format!("the kinds are {}", all_of(&known)),
            },
        };
        let what = match word {
            "Workload" => "a Workload is not written by hand".to_owned(),
            _ => format!("{} is no kind", quoted(word)),
        };
        kind.problem(what, mend);
        return None;
    };
    match version {
        Some(version) => check_version(&version, found),
        None => Some(found),
    }
}

/// The kind, unless it is that of somebody else.
fn check_version(version: &Field<'_>, kind: Kind) -> Option<Kind> {
    let known = kind.api_version();
    let text = version.text().filter(|text| *text != known);
    let Some(text) = text else { return Some(kind) };
    let group = |version: &str| version.split_once('/').map(|(group, _)| group.to_owned());
    let same_group = group(text) == group(known);
    let what = match (same_group, known == API_VERSION) {
        (true, true) => format!("{} is no version of Tidegate's resources", quoted(text)),
        (false, true) => format!("this is the {kind} of {}, not Tidegate's", quoted(text)),
        (_, false) => format!("the {kind} that is taken here is that of `{known}`, not of {}", quoted(text)),
    };
    version.problem(what, format!("write `apiVersion: {known}`"));
    same_group.then_some(kind)
}

fn read_metadata(kind: Kind, metadata: &Field<'_>) -> Option<(Option<Name>, Option<Name>, Labels)> {
    let known: Vec<&str> = ["name", "namespace", "labels"].into_iter().chain(KUBERNETES_OWN).collect();
    metadata.any_fields()?.each().for_each(|(key, field)| {
        if key == "generateName" {
            field.problem("names are not made up here", "write `name`");
        }
    });
    let fields = metadata.fields(&[known.as_slice(), &["generateName"]].concat(), &[])?;
    let name = fields.required("name", "write `metadata: { name: … }`").and_then(|name| name.parse());
    let namespace = if kind.scope().has_namespaces() {
        match (kind, fields.optional_with_value("namespace")) {
            (_, Some(namespace)) => namespace.parse(),
            (Kind::AddressSet, None) => None,
            // As the API server does where the request names none.
            (Kind::NetworkPolicy, None) => DEFAULT_NAMESPACE.parse().ok(),
            (_, None) => {
                let mend = format!("name the Namespace that the {kind} belongs to");
                fields.required("namespace", &mend).and_then(|namespace| namespace.parse())
            }
        }
    } else {
        if let Some(namespace) = fields.optional_with_value("namespace") {
            namespace.problem(format!("a {kind} is in no namespace"), "leave it out");
        }
        None
    };
    let labels = fields.optional_with_value("labels").and_then(|labels| read_labels(kind, name.as_ref(), &labels));
    let labels = labels.unwrap_or_default();
    Some((name, namespace, labels))
}

fn read_labels(kind: Kind, name: Option<&Name>, field: &Field<'_>) -> Option<Labels> {
    for (key, value) in field.any_fields()?.each() {
        let (text, own) = (value.peek(), name.map(Name::as_str));
        if kind == Kind::Namespace && key == NAMESPACE_NAME_LABEL && text.is_some() && own.is_some() && text != own {
            value.problem("this label is the namespace's own name", "leave it out; every namespace has it");
        }
    }
    selector::labels(field)
}
