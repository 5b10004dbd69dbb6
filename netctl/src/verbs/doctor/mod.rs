//! `netctl doctor`: the daemon checks what it needs; without a daemon, `netctl` checks by itself what it can see, and says
//! so. Exits with 1 when the daemon is down or a required check fails; a part that falls short is `limited`, and exits with 0.

mod local;

use std::io::Write;

use clap::Args;
use config::api;

use super::Done;
use crate::command::Format;
use crate::failure::Failure;
use crate::output::{Colour, Output};
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Doctor {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let (answer, daemon) = match client.get::<api::Doctor>("doctor").await {
            Ok(answer) => (answer, true),
            Err(client::Error::NoDaemon { message, mend }) => {
                // When nobody reads standard error there is nobody to tell.
                let _ = writeln!(std::io::stderr(), "{message}; these checks are netctl's own");
                (local::checks(message, mend), false)
            }
            Err(error) => return Err(error.into()),
        };
        if !output.for_programs(self.output, &answer)? {
            for check in &answer.checks {
                print(output, check)?;
            }
        }
        let well = daemon && answer.checks.iter().all(|check| check.ok || !check.required);
        Ok(if well { Done::Well } else { Done::Unwell })
    }
}

fn print(output: &mut Output, check: &api::Check) -> Result<(), Failure> {
    let (colour, word) = match (check.ok, check.required) {
        (true, _) => (Colour::Green, "ok"),
        (false, false) => (Colour::Yellow, "limited"),
        (false, true) => (Colour::Red, "FAIL"),
    };
    output.coloured_line(colour, &format!("{word:<7}  {}: {}", check.name, check.found))?;
    if !check.mend.is_empty() {
        output.line(&format!("         mend: {}", check.mend))?;
    }
    Ok(())
}
