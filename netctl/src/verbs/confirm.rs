//! `netctl confirm` and `netctl rollback`

use clap::Args;
use client::Client;
use config::api::{ApplyResponse, TrialRequest};

use super::{Done, print_changes};
use crate::command::Format;
use crate::failure::Failure;
use crate::output::Output;

/// Their arguments.
#[derive(Debug, Args)]
pub(crate) struct Decide {
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Decide {
    /// `word` is the request's: `confirm` or `rollback`.
    pub(crate) async fn run(self, word: &str, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let answer: ApplyResponse = client.post(word, &TrialRequest {}).await?;
        if !output.for_programs(self.output, &answer)? {
            print_changes(output, &answer.changes, false)?;
        }
        Ok(Done::Well)
    }
}
