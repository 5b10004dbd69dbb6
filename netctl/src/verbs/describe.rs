//! `netctl describe`: one resource in full, and what belongs to it.

use clap::Args;
use config::api::{FlowList, Kind, ResourceList, ResourceName, Timestamp};
use serde_json::Value;

use super::columns::{self, labels, text};
use super::{Done, flows, list_path, named, resource_name};
use crate::command::InNamespace;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Output, time, yaml};
use client::Client;

/// Flows shown of a workload, the newest.
const FLOWS: usize = 20;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// The kind, or KIND/NAME, or KIND/NAMESPACE/NAME.
    kind: String,
    /// The name.
    name: Option<String>,
    #[command(flatten)]
    namespace: InNamespace,
}

impl Describe {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let wanted = resource_name(&self.kind, self.name.as_deref(), &self.namespace)?;
        let items = named(client, &wanted, true).await?;
        let Some(item) = items.first() else {
            return Err(Failure::refused(
                format!("there is no {wanted}"),
                format!("see `netctl get {}`", wanted.kind.plural()),
            ));
        };
        head(output, &wanted, item)?;
        for (title, pointer) in [("Spec", "/spec"), ("Status", "/status")] {
            let some = |part: &&Value| part.as_object().is_none_or(|fields| !fields.is_empty());
            if let Some(part) = item.pointer(pointer).filter(some) {
                section(output, title, &yaml::block(part))?;
            }
        }
        belongings(client, output, &wanted).await?;
        Ok(Done::Well)
    }
}

fn head(output: &mut Output, wanted: &ResourceName, item: &Value) -> Result<(), Failure> {
    output.line(&format!("Kind:       {}", wanted.kind.as_str()))?;
    output.line(&format!("Name:       {}", wanted.name))?;
    if let Some(namespace) = &wanted.namespace {
        output.line(&format!("Namespace:  {namespace}"))?;
    }
    let labels = labels(item, "/metadata/labels");
    output.line(&format!("Labels:     {}", if labels.is_empty() { "<none>" } else { &labels }))?;
    if let Ok(created) = text(item, "/metadata/creationTimestamp").parse::<Timestamp>() {
        output.line(&format!("Age:        {}", time::age(created.age(time::now()))))?;
    }
    Ok(())
}

fn section(output: &mut Output, title: &str, body: &str) -> Result<(), Failure> {
    output.line(&format!("{title}:"))?;
    for line in body.lines() {
        output.line(&format!("  {line}"))?;
    }
    Ok(())
}

async fn belongings(client: &Client, output: &mut Output, wanted: &ResourceName) -> Result<(), Failure> {
    match wanted.kind {
        Kind::Network => {
            of_kind(client, output, Kind::Namespace, None, |item| text(item, "/spec/network") == wanted.name.as_str())
                .await
        }
        Kind::Namespace => {
            for kind in [Kind::AddressSet, Kind::EgressPolicy, Kind::NetworkPolicy, Kind::ExposedApp, Kind::Workload] {
                of_kind(client, output, kind, Some(wanted), |_| true).await?;
            }
            Ok(())
        }
        Kind::ClusterEgressPolicy => {
            of_kind(client, output, Kind::Workload, None, |item| lists(item, "/status/clusterPolicies", wanted)).await
        }
        Kind::EgressPolicy | Kind::NetworkPolicy => {
            let list = if wanted.kind == Kind::NetworkPolicy { "/status/networkPolicies" } else { "/status/policies" };
            let selected = |item: &Value| lists(item, list, wanted);
            of_kind(client, output, Kind::Workload, Some(wanted), selected).await
        }
        Kind::AddressSet | Kind::ExposedApp => Ok(()),
        Kind::Workload => {
            let namespace =
                wanted.namespace.as_ref().map(|namespace| format!("?namespace={namespace}")).unwrap_or_default();
            let list: FlowList = client.get(&format!("flows{namespace}")).await?;
            let own: Vec<_> = list.flows.iter().filter(|flow| flow.workload.as_ref() == Some(&wanted.name)).collect();
            if own.is_empty() {
                return Ok(output.line("Flows:      <none>")?);
            }
            section(output, "Flows", &flows::table(own.iter().copied().skip(own.len().saturating_sub(FLOWS))).render())
        }
    }
}

/// Whether the list of names there has this one.
fn lists(item: &Value, pointer: &str, wanted: &ResourceName) -> bool {
    let names = item.pointer(pointer).and_then(Value::as_array);
    names.into_iter().flatten().any(|name| name.as_str() == Some(wanted.name.as_str()))
}

/// The resources of a kind, in the namespace of (or named as) `within`, that `belongs` holds for.
async fn of_kind(
    client: &Client,
    output: &mut Output,
    kind: Kind,
    within: Option<&ResourceName>,
    belongs: impl Fn(&Value) -> bool,
) -> Result<(), Failure> {
    let namespace = within.map(|within| within.namespace.as_ref().unwrap_or(&within.name));
    let list: ResourceList = client.get(&list_path(kind, namespace, None, true)).await?;
    let mut table = Table::new(&columns::header(kind, false));
    let mut some = false;
    for item in list.items.iter().filter(|item| belongs(item)) {
        table.row(columns::row(kind, item, time::now(), false));
        some = true;
    }
    let title = match kind.as_str().strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{}s", kind.as_str()),
    };
    if some { section(output, &title, &table.render()) } else { Ok(output.line(&format!("{title}: <none>"))?) }
}
