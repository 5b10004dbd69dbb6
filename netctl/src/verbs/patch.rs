//! `netctl patch`

use clap::Args;
use config::api::{Kind, PatchSetRequest, PatchSetResponse, ResourceName};

use super::{Done, resource_name};
use crate::command::{Format, InNamespace};
use crate::failure::Failure;
use crate::output::{Colour, Output};
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Patch {
    /// addressset, or addressset/NAME, or addressset/NAMESPACE/NAME.
    kind: String,
    /// The name.
    name: Option<String>,
    #[command(flatten)]
    namespace: InNamespace,
    /// Prefixes, or addresses alone, that shall be in the set.
    #[arg(long, value_name = "CIDR", num_args = 1.., required_unless_present = "remove")]
    add: Vec<String>,
    /// Those that shall not.
    #[arg(long, value_name = "CIDR", num_args = 1..)]
    remove: Vec<String>,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Patch {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let ResourceName { kind, namespace, name } = resource_name(&self.kind, self.name.as_deref(), &self.namespace)?;
        if kind != Kind::AddressSet {
            let text = format!("only address sets are changed in part, and this is a {kind}; use `netctl apply`");
            return Err(Failure::Usage(text));
        }
        let request = PatchSetRequest { namespace, name, add: self.add, remove: self.remove, dry_run: self.dry_run };
        let answer: PatchSetResponse = client.post("patch/addressset", &request).await?;
        if output.for_programs(self.output, &answer)? {
            return Ok(Done::Well);
        }
        for prefix in &answer.already_there {
            output.line(&format!("{prefix} is there already"))?;
        }
        for prefix in &answer.not_there {
            output.line(&format!("{prefix} is not there"))?;
        }
        let set = ResourceName { kind, namespace: answer.namespace, name: answer.name };
        let dry = if self.dry_run { " (dry run)" } else { "" };
        match (answer.added, answer.removed) {
            (0, 0) => output.line(&format!("{set} unchanged{dry}"))?,
            (added, removed) => {
                let text =
                    format!("{set} patched{dry}: {added} added, {removed} removed, {} prefixes", answer.prefixes);
                output.coloured_line(Colour::Green, &text)?;
            }
        }
        Ok(Done::Well)
    }
}
