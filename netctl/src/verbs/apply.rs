//! `netctl apply`

use clap::Args;
use config::api::{ApplyRequest, ApplyResponse};

use super::{Done, no_problems, print_changes};
use crate::command::{Files, Format};
use crate::failure::Failure;
use crate::manifests;
use crate::output::{Colour, Output};
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
    /// Take it all back unless `netctl confirm` comes within this time, as 60s or 5m.
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "dry_run")]
    confirm_within: Option<u32>,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Apply {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let files = manifests::read(&self.files.paths)?;
        let request =
            ApplyRequest { files, dry_run: self.dry_run, prune: self.prune, confirm_within: self.confirm_within };
        let answer: ApplyResponse = client.post("apply", &request).await?;
        if !output.for_programs(self.output, &answer)? && answer.problems.is_empty() {
            print_changes(output, &answer.changes, self.dry_run)?;
            if let Some(time) = answer.confirm_by {
                let text = format!("on trial: `netctl confirm` keeps it, or all of it is taken back at {time}");
                output.coloured_line(Colour::Yellow, &text)?;
            }
        }
        no_problems(answer.problems)?;
        Ok(Done::Well)
    }
}

/// `60s`, `5m`, `1h`, or a number of seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600)];
    let named = units.iter().find_map(|(letter, unit)| Some((text.strip_suffix(*letter)?, *unit)));
    let (number, unit) = named.unwrap_or((text, 1));
    let seconds = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    seconds.filter(|seconds| (1..=3600).contains(seconds)).ok_or_else(|| "write 1s to 1h, as 60s or 5m".to_owned())
}
