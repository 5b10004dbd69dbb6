//! One file a verb. Each takes its arguments, asks the daemon, and writes what it answers.

pub(crate) mod apply;
pub(crate) mod attach;
pub(crate) mod confirm;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod detach;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod flows;
pub(crate) mod get;
pub(crate) mod patch;
pub(crate) mod plan;
pub(crate) mod status;

mod columns;

use std::process::ExitCode;

use config::api::{Action, Change, Kind, Problem, ResourceList, ResourceName};
use config::names::Name;
use config::resource::{Scope, SetName};
use serde_json::Value;

use crate::command::InNamespace;
use crate::failure::Failure;
use crate::output::{Colour, Output};
use client::Client;

/// How a verb ended that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// 0
    Well,
    /// 1: a required check of `doctor` fails.
    Unwell,
    /// 3: the connection that `explain` was asked about would not pass.
    Denied,
}

impl From<Done> for ExitCode {
    fn from(done: Done) -> Self {
        Self::from(match done {
            Done::Well => 0,
            Done::Unwell => 1,
            Done::Denied => 3,
        })
    }
}

/// What was, or would be, done: `network/tenant-a created`.
fn print_changes(output: &mut Output, changes: &[Change], dry_run: bool) -> Result<(), Failure> {
    if changes.is_empty() {
        output.line("nothing to do")?;
    }
    for change in changes {
        let text = format!("{} {}{}", change.resource(), change.action, if dry_run { " (dry run)" } else { "" });
        match change.action {
            Action::Created | Action::Configured => output.coloured_line(Colour::Green, &text)?,
            Action::Deleted => output.coloured_line(Colour::Red, &text)?,
            Action::Unchanged => output.line(&text)?,
        }
    }
    Ok(())
}

fn no_problems(problems: Vec<Problem>) -> Result<(), Failure> {
    if problems.is_empty() { Ok(()) } else { Err(Failure::Problems(problems)) }
}

/// The resource that `KIND NAME`, `KIND/NAME` or `KIND/NAMESPACE/NAME` names; of a kind that may be in no namespace,
/// the one in none unless a namespace is named.
fn resource_name(kind: &str, name: Option<&str>, namespace: &InNamespace) -> Result<ResourceName, Failure> {
    let usage = |error: config::names::NameError| Failure::Usage(error.to_string());
    let mut named: ResourceName = match (kind.contains('/'), name) {
        (true, None) => kind.parse().map_err(usage)?,
        (true, Some(name)) => {
            return Err(Failure::Usage(format!("`{kind}` has a name already, and `{name}` is another")));
        }
        (false, Some(name)) => {
            ResourceName { kind: kind.parse().map_err(usage)?, namespace: None, name: name.parse().map_err(usage)? }
        }
        (false, None) => {
            let kind: Kind = kind.parse().map_err(usage)?;
            return Err(Failure::Usage(format!("which {kind}? write {kind} NAME or {kind}/NAME")));
        }
    };
    // Written out, it is meant whatever `-n` and the environment say.
    let administrators = kind.split('/').nth(1) == Some(SetName::ADMIN);
    if named.namespace.is_none() && !administrators {
        named.namespace = match named.kind.scope() {
            Scope::Node => None,
            Scope::Namespace => Some(namespace.or_default()?),
            Scope::Either => namespace.namespace.clone(),
        };
    }
    Ok(named)
}

/// The resource of that name, if it is there.
async fn named(client: &Client, wanted: &ResourceName, brief: bool) -> Result<Vec<Value>, Failure> {
    let path = list_path(wanted.kind, wanted.namespace.as_ref(), Some(&wanted.name), brief);
    let mut list: ResourceList = client.get(&path).await?;
    // Without a namespace the daemon answers those of every one too.
    if wanted.kind.scope() == Scope::Either && wanted.namespace.is_none() {
        list.items.retain(|item| item.pointer("/metadata/namespace").is_none());
        if list.items.is_empty() {
            let mend = format!("name its namespace with -n; see `netctl get {} -A`", wanted.kind.plural());
            return Err(Failure::refused(format!("there is no {wanted} of the administrators"), mend));
        }
    }
    Ok(list.items)
}

/// `resources/<kind>?namespace=…&name=…`, for people without the prefixes of sets: there may be a million.
fn list_path(kind: Kind, namespace: Option<&Name>, name: Option<&Name>, brief: bool) -> String {
    let namespace = namespace.filter(|_| kind.is_namespaced()).map(|namespace| format!("namespace={namespace}"));
    let name = name.map(|name| format!("name={name}"));
    let brief = (brief && kind == Kind::AddressSet).then(|| "brief=true".to_owned());
    let query = namespace.into_iter().chain(name).chain(brief).collect::<Vec<_>>().join("&");
    format!("resources/{kind}{}{query}", if query.is_empty() { "" } else { "?" })
}
