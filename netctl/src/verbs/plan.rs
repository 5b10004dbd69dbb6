//! `netctl plan`

use clap::Args;
use config::api::{FilesRequest, PlanResponse};

use super::{Done, no_problems};
use crate::command::{Files, Format};
use crate::failure::Failure;
use crate::manifests;
use crate::output::Output;
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    files: Files,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Plan {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let request = FilesRequest { files: manifests::read(&self.files.paths)? };
        let answer: PlanResponse = client.post("plan", &request).await?;
        if !output.for_programs(self.output, &answer)? && answer.problems.is_empty() {
            if answer.steps.is_empty() {
                output.line("nothing to do")?;
            }
            let width = answer.steps.len().to_string().len();
            for (number, step) in (1..).zip(&answer.steps) {
                output.line(&format!("{number:>width$}. {step}"))?;
            }
        }
        no_problems(answer.problems)?;
        Ok(Done::Well)
    }
}
