//! `netctl diff`

use clap::Args;
use config::api::{DiffResponse, Difference, FilesRequest};
use serde_json::Value;

use super::{Done, no_problems};
use crate::command::{Files, Format};
use crate::failure::Failure;
use crate::manifests;
use crate::output::{Colour, Output, unified, yaml};
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    files: Files,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Diff {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let request = FilesRequest { files: manifests::read(&self.files.paths)? };
        let answer: DiffResponse = client.post("diff", &request).await?;
        if !output.for_programs(self.output, &answer)? {
            for difference in &answer.differences {
                print(output, difference)?;
            }
        }
        no_problems(answer.problems)?;
        Ok(Done::Well)
    }
}

fn print(output: &mut Output, difference: &Difference) -> Result<(), Failure> {
    let name = difference.resource.to_string();
    let side = |value: &Option<Value>, prefix: &str| match value {
        Some(value) => (format!("{prefix}/{name}"), yaml::block(value)),
        None => ("/dev/null".to_owned(), String::new()),
    };
    let ((old_name, old), (new_name, new)) = (side(&difference.current, "a"), side(&difference.new, "b"));
    for line in unified::diff(&old_name, &old, &new_name, &new).lines() {
        match line.as_bytes().first() {
            Some(b'+') => output.coloured_line(Colour::Green, line)?,
            Some(b'-') => output.coloured_line(Colour::Red, line)?,
            _ => output.line(line)?,
        }
    }
    Ok(())
}
