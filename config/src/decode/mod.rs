//! Text to resources.
//!
//! 1. [`load`](crate::document::load) makes trees of the text, within bounds.
//! 2. [`header`] reads `apiVersion`, `kind` and `metadata`, and names the kinds that are not ours.
//! 3. [`network`], [`namespace`], [`address_set`], [`egress_policy`] (both kinds), [`network_policy`] and [`exposed_app`]
//!    read `spec`; [`rules`], [`address`], [`files`] and [`selector`] are what they share.
//! 4. [`later`] lists what a later release brings; every reader refuses it by name.
//!
//! Readers go on after a problem, so that all problems of a file are told at once. A resource with a problem is none.

mod address;
mod address_set;
mod egress_policy;
mod exposed_app;
mod files;
mod header;
pub(crate) mod later;
pub(crate) mod leases;
mod namespace;
mod network;
mod network_policy;
mod rules;
mod selector;
mod snat;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::document::field::Field;
use crate::document::report::Report;
use crate::document::{json, load};
use crate::problem::Problem;
use crate::resource::{Kind, Resource, ResourceKey};
use crate::set::Origin;
use header::Header;

pub(crate) use address::{address, prefix_or_address};

/// A resource of a file, and where it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The resource.
    pub resource: Resource,
    /// Line of its first key, from 1.
    pub line: u32,
    /// File and lines, for problems that only the whole set shows.
    pub origin: Origin,
}

/// Reads a file's text: YAML or JSON, several documents, `kind: List` too. `file` is only for messages.
///
/// Bounds: 4 MiB, 1 000 documents, 32 levels; no anchors, aliases or tags.
///
/// # Errors
/// All problems of the text, in the order of its lines (the first hundred, and how many more there are).
pub fn parse(file: &str, text: &str) -> Result<Vec<Parsed>, Vec<Problem>> {
    parse_all([(file, text)])
}

/// Reads several files' texts, each as [`parse`] does. A resource may stand in one of them only.
///
/// # Errors
/// All problems of all files.
pub fn parse_all<'t>(files: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Vec<Parsed>, Vec<Problem>> {
    let mut parsed = Vec::new();
    let mut problems = Vec::new();
    let mut seen = BTreeMap::new();
    for (file, text) in files {
        let report = Report::new(file);
        for document in load::documents(text, &report) {
            decode_document(&Field::root(&document, &report), file, &mut seen, &mut parsed);
        }
        problems.extend(report.finish());
    }
    if problems.is_empty() { Ok(parsed) } else { Err(problems) }
}

/// Reads one resource from its JSON form, as [`Resource::to_json`] writes it, without bounds: for what this program
/// itself has stored. `origin` is only for messages.
///
/// # Errors
/// All problems of the resource.
pub fn from_json(origin: &str, value: &serde_json::Value) -> Result<Resource, Vec<Problem>> {
    let report = Report::new(origin);
    let resource = match json::node(value) {
        Ok(node) => decode_resource(&Field::root(&node, &report)),
        Err(error) => {
            report.add(0, "", format!("not a tree of values: {error}"), "write the resource again");
            None
        }
    };
    let problems = report.finish();
    resource.filter(|_| problems.is_empty()).ok_or(problems)
}

fn decode_document(
    root: &Field<'_>,
    file: &str,
    seen: &mut BTreeMap<ResourceKey, (String, u32)>,
    into: &mut Vec<Parsed>,
) {
    root.refuse_repeated_keys();
    for item in header::items_of_list(root).unwrap_or_else(|| vec![root.clone()]) {
        let Some(resource) = decode_resource(&item) else { continue };
        let (key, line) = (resource.key(), item.line());
        match seen.entry(key) {
            Entry::Occupied(first) => {
                let (first_file, first_line) = first.get();
                let what = format!("{} is declared again after {first_file}:{first_line}", first.key());
                item.problem(what, "keep one of them");
            }
            Entry::Vacant(place) => {
                place.insert((file.to_owned(), line));
                let mut lines = BTreeMap::new();
                item.as_root().lines(&mut lines);
                into.push(Parsed { resource, line, origin: Origin { file: file.into(), lines } });
            }
        }
    }
}

fn decode_resource(root: &Field<'_>) -> Option<Resource> {
    let before = root.report().found();
    let Header { kind, name, namespace, labels, spec } = header::read(root)?;
    let resource = match kind {
        Kind::Network => network::read(name, &spec?).map(Resource::Network),
        Kind::Namespace => namespace::read(name, labels, &spec?).map(Resource::Namespace),
        Kind::AddressSet => address_set::read(namespace, name, &spec?).map(Resource::AddressSet),
        Kind::ClusterEgressPolicy => egress_policy::read_cluster(name, &spec?).map(Resource::ClusterEgressPolicy),
        Kind::EgressPolicy => egress_policy::read(namespace, name, &spec?).map(Resource::EgressPolicy),
        Kind::NetworkPolicy => network_policy::read(namespace, name, &spec?).map(Resource::NetworkPolicy),
        Kind::ExposedApp => exposed_app::read(namespace, name, &spec?).map(Resource::ExposedApp),
    };
    resource.filter(|_| root.report().found() == before)
}
