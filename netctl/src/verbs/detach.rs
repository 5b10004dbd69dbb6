//! `netctl detach`

use clap::Args;
use config::api::DetachRequest;
use config::names::Name;
use serde::de::IgnoredAny;

use super::Done;
use crate::command::InNamespace;
use crate::failure::Failure;
use crate::output::{Colour, Output};
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Detach {
    /// The workload's name.
    name: Name,
    #[command(flatten)]
    namespace: InNamespace,
}

impl Detach {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let request = DetachRequest { namespace: self.namespace.or_default()?, name: self.name };
        client.post::<IgnoredAny>("detach", &request).await?;
        output.coloured_line(Colour::Red, &format!("workload/{}/{} detached", request.namespace, request.name))?;
        Ok(Done::Well)
    }
}
