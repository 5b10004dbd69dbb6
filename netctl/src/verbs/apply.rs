//! `netctl apply`

use clap::Args;
use config::api::{ApplyRequest, ApplyResponse};

use super::{Done, no_problems, print_changes};
use crate::command::{Files, Format};
use crate::failure::Failure;
use crate::manifests;
use crate::output::Output;
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    files: Files,
    /// Check everything and say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Delete every resource that the files do not hold.
    #[arg(long)]
    prune: bool,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Apply {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let files = manifests::read(&self.files.paths)?;
        let request = ApplyRequest { files, dry_run: self.dry_run, prune: self.prune };
        let answer: ApplyResponse = client.post("apply", &request).await?;
        if !output.for_programs(self.output, &answer)? && answer.problems.is_empty() {
            print_changes(output, &answer.changes, self.dry_run)?;
        }
        no_problems(answer.problems)?;
        Ok(Done::Well)
    }
}
