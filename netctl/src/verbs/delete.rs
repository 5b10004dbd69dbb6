//! `netctl delete`

use std::path::PathBuf;

use clap::Args;
use config::api::{ApplyResponse, DeleteRequest};

use super::{Done, no_problems, print_changes, resource_name};
use crate::command::{Format, InNamespace};
use crate::failure::Failure;
use crate::manifests;
use crate::output::Output;
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The kind, or KIND/NAME, or KIND/NAMESPACE/NAME.
    #[arg(required_unless_present = "files", conflicts_with = "files")]
    kind: Option<String>,
    /// The name.
    name: Option<String>,
    /// Delete what these manifests hold.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    namespace: InNamespace,
    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    dry_run: bool,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Delete {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let names = match &self.kind {
            Some(kind) => vec![resource_name(kind, self.name.as_deref(), &self.namespace)?],
            None => Vec::new(),
        };
        let request = DeleteRequest { names, files: manifests::read(&self.files)?, dry_run: self.dry_run };
        let answer: ApplyResponse = client.post("delete", &request).await?;
        if !output.for_programs(self.output, &answer)? && answer.problems.is_empty() {
            print_changes(output, &answer.changes, self.dry_run)?;
        }
        no_problems(answer.problems)?;
        Ok(Done::Well)
    }
}
