//! `netctl get`

use std::io::Write;

use clap::{Args, ValueEnum};
use config::api::{API_VERSION, Kind, ResourceList, ResourceName, WatchEvent};
use config::names::Name;
use config::resource::Scope;
use serde_json::{Value, json};

use super::columns::{self, text};
use super::{Done, list_path, named, resource_name};
use crate::command::InNamespace;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Output, time};
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The kind (network, namespace, addressset, clusteregresspolicy, egresspolicy, networkpolicy, exposedapp, workload), all, or KIND/NAME.
    kind: String,
    /// The name.
    name: Option<String>,
    #[command(flatten)]
    namespace: InNamespace,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Shape,
    /// Stay, and show what happens to them.
    #[arg(short, long)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// The important columns.
    #[default]
    Table,
    /// All columns.
    Wide,
    /// The resource, or a List of them.
    Json,
    /// The resources as YAML documents, which can be applied again.
    Yaml,
    /// KIND/NAME or KIND/NAMESPACE/NAME.
    Name,
}

impl Get {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let namespace = (!self.all_namespaces).then(|| self.namespace.or_default()).transpose()?;
        if self.kind == "all" {
            if self.watch || self.name.is_some() {
                return Err(Failure::Usage("`all` takes neither a name nor --watch; name one kind".to_owned()));
            }
            return self.everything(client, namespace.as_ref(), output).await;
        }
        let (kind, namespace, name) = if self.name.is_some() || self.kind.contains('/') {
            if self.all_namespaces {
                return Err(Failure::Usage(
                    "a resource is named within its namespace; use -n instead of -A".to_owned(),
                ));
            }
            let ResourceName { kind, namespace, name } =
                resource_name(&self.kind, self.name.as_deref(), &self.namespace)?;
            (kind, namespace, Some(name))
        } else {
            let kind: Kind = self.kind.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
            (kind, if self.shows_every(kind) { None } else { namespace }, None)
        };
        let path = list_path(kind, namespace.as_ref(), name.as_ref(), self.is_brief());
        if self.watch {
            let path = format!("{path}{}watch=true", if path.contains('?') { '&' } else { '?' });
            return self.watch(client, kind, &path, output).await;
        }
        let list = match &name {
            Some(name) => {
                let wanted = ResourceName { kind, namespace: namespace.clone(), name: name.clone() };
                ResourceList { items: named(client, &wanted, self.is_brief()).await? }
            }
            None => client.get(&path).await?,
        };
        if name.is_none() && list.items.is_empty() && matches!(self.output, Shape::Table | Shape::Wide) {
            nothing_found(kind, namespace.as_ref());
            return Ok(Done::Well);
        }
        match self.output {
            Shape::Table | Shape::Wide => output.lines(&self.table(kind, &list.items, "").render())?,
            Shape::Json if name.is_some() => output.json(&list.items.first())?,
            Shape::Json => output.json(&list_of(list.items))?,
            Shape::Yaml => list.items.iter().try_for_each(|item| output.yaml(item))?,
            Shape::Name => list.items.iter().try_for_each(|item| output.line(&full_name(kind, item)))?,
        }
        Ok(Done::Well)
    }

    /// Every kind, one table each.
    async fn everything(
        &self,
        client: &Client,
        namespace: Option<&Name>,
        output: &mut Output,
    ) -> Result<Done, Failure> {
        let mut lists = Vec::new();
        for kind in Kind::ALL {
            let namespace = namespace.filter(|_| !self.shows_every(kind));
            let list: ResourceList = client.get(&list_path(kind, namespace, None, self.is_brief())).await?;
            lists.push((kind, list.items));
        }
        lists.retain(|(_, items)| !items.is_empty());
        match self.output {
            Shape::Json => output.json(&list_of(lists.into_iter().flat_map(|(_, items)| items).collect()))?,
            Shape::Yaml => lists.iter().flat_map(|(_, items)| items).try_for_each(|item| output.yaml(item))?,
            Shape::Name => {
                for (kind, items) in &lists {
                    items.iter().try_for_each(|item| output.line(&full_name(*kind, item)))?;
                }
            }
            Shape::Table | Shape::Wide => {
                if lists.is_empty() {
                    say("nothing found");
                }
                for (number, (kind, items)) in lists.iter().enumerate() {
                    if number > 0 {
                        output.line("")?;
                    }
                    output.lines(&self.table(*kind, items, &format!("{kind}/")).render())?;
                }
            }
        }
        Ok(Done::Well)
    }

    fn table(&self, kind: Kind, items: &[Value], prefix: &str) -> Table {
        let namespaces = self.shows_every(kind);
        let header = columns::header(kind, self.wide());
        let header: Vec<_> = namespaces.then_some("NAMESPACE").into_iter().chain(header).collect();
        let mut table = Table::new(&header);
        for item in items {
            table.row(self.row(kind, item, prefix));
        }
        table
    }

    fn row(&self, kind: Kind, item: &Value, prefix: &str) -> Vec<String> {
        let mut cells = columns::row(kind, item, time::now(), self.wide());
        cells[0].insert_str(0, prefix);
        if self.shows_every(kind) {
            cells.insert(0, text(item, "/metadata/namespace"));
        }
        cells
    }

    /// Whether those of every namespace are shown: with -A, and of a kind that may be in none unless one is named.
    fn shows_every(&self, kind: Kind) -> bool {
        match kind.scope() {
            Scope::Node => false,
            Scope::Namespace => self.all_namespaces,
            Scope::Either => self.all_namespaces || self.namespace.namespace.is_none(),
        }
    }

    /// Whether the answer shows no prefixes of sets.
    fn is_brief(&self) -> bool {
        match self.output {
            Shape::Table | Shape::Wide | Shape::Name => true,
            Shape::Json | Shape::Yaml => false,
        }
    }

    fn wide(&self) -> bool {
        self.output == Shape::Wide
    }

    /// What is there in one go, then a row for each change.
    async fn watch(&self, client: &Client, kind: Kind, path: &str, output: &mut Output) -> Result<Done, Failure> {
        let mut events = client.stream::<WatchEvent>(path).await?;
        let mut there = Vec::new();
        let mut table = None;
        while let Some(event) = events.next().await? {
            let (item, gone) = match event {
                WatchEvent::Synced => {
                    let mut first = self.table(kind, &there, "");
                    match self.output {
                        Shape::Table | Shape::Wide => output.lines(&first.render())?,
                        Shape::Json => there.iter().try_for_each(|item| output.json_line(item))?,
                        Shape::Yaml => there.iter().try_for_each(|item| output.yaml(item))?,
                        Shape::Name => there.iter().try_for_each(|item| output.line(&full_name(kind, item)))?,
                    }
                    output.flush()?;
                    there.clear();
                    table = Some(std::mem::take(&mut first));
                    continue;
                }
                WatchEvent::Added(item) | WatchEvent::Modified(item) => (item, false),
                WatchEvent::Deleted(item) => (item, true),
            };
            let Some(table) = &mut table else {
                there.push(item);
                continue;
            };
            match self.output {
                Shape::Table | Shape::Wide => {
                    let row = table.later_row(self.row(kind, &item, ""));
                    output.line(&if gone { format!("{row}   (deleted)") } else { row })?;
                }
                Shape::Json => output.json_line(&item)?,
                Shape::Yaml => output.yaml(&item)?,
                Shape::Name => output.line(&full_name(kind, &item))?,
            }
            output.flush()?;
        }
        Ok(Done::Well)
    }
}

fn list_of(items: Vec<Value>) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "List", "items": items})
}

fn full_name(kind: Kind, item: &Value) -> String {
    let name = text(item, "/metadata/name");
    match text(item, "/metadata/namespace") {
        none if none.is_empty() => format!("{kind}/{name}"),
        namespace => format!("{kind}/{namespace}/{name}"),
    }
}

/// On standard error, as kubectl does: the output stays empty for programs.
fn nothing_found(kind: Kind, namespace: Option<&Name>) {
    let place = match namespace.filter(|_| kind.is_namespaced()) {
        Some(namespace) => format!(" in namespace {namespace}; -A shows all namespaces"),
        None => String::new(),
    };
    say(&format!("no {} found{place}", kind.plural()));
}

fn say(text: &str) {
    // When nobody reads standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}
