//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use config::names::Name;

use crate::failure::Failure;
use crate::output::Output;
use crate::verbs::{
    Done, apply, attach, confirm, delete, describe, detach, diff, doctor, explain, flows, get, patch, plan, status,
};
use client::Client;

/// Configures and explains Tidegate, the node's gate for containers.
#[derive(Debug, Parser)]
#[command(name = "netctl", version, max_term_width = 100)]
pub(crate) struct CommandLine {
    /// The daemon's admin socket.
    #[arg(long, global = true, env = "TIDEGATE_SOCKET", default_value = config::api::DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Put manifests in force, all or none.
    Apply(apply::Apply),
    /// Keep what `apply --confirm-within` put in force.
    Confirm(confirm::Decide),
    /// Take back what `apply --confirm-within` put in force.
    Rollback(confirm::Decide),
    /// Show what apply would change in the resources.
    Diff(diff::Diff),
    /// Show the steps that apply would take on the node.
    Plan(plan::Plan),
    /// List resources.
    Get(get::Get),
    /// Show one resource and what belongs to it.
    Describe(describe::Describe),
    /// Delete resources.
    Delete(delete::Delete),
    /// Add and remove single prefixes of an address set.
    Patch(patch::Patch),
    /// Attach a workload: give its network namespace an interface, addresses and policy.
    Attach(attach::Attach),
    /// Detach a workload.
    Detach(detach::Detach),
    /// Say whether a connection would pass, by which rule, and how to mend it. Exits with 3 when it would not.
    Explain(explain::Explain),
    /// Show open flows and recent verdicts.
    Flows(flows::Flows),
    /// Show how the node is.
    Status(status::Status),
    /// Check what the node's kernel and settings can do.
    Doctor(doctor::Doctor),
}

impl CommandLine {
    /// Does what was asked.
    pub(crate) async fn run(self, output: &mut Output) -> Result<Done, Failure> {
        let client = Client::new(self.socket);
        match self.verb {
            Verb::Apply(verb) => verb.run(&client, output).await,
            Verb::Confirm(verb) => verb.run("confirm", &client, output).await,
            Verb::Rollback(verb) => verb.run("rollback", &client, output).await,
            Verb::Diff(verb) => verb.run(&client, output).await,
            Verb::Plan(verb) => verb.run(&client, output).await,
            Verb::Get(verb) => verb.run(&client, output).await,
            Verb::Describe(verb) => verb.run(&client, output).await,
            Verb::Delete(verb) => verb.run(&client, output).await,
            Verb::Patch(verb) => verb.run(&client, output).await,
            Verb::Attach(verb) => verb.run(&client, output).await,
            Verb::Detach(verb) => verb.run(&client, output).await,
            Verb::Explain(verb) => verb.run(&client, output).await,
            Verb::Flows(verb) => verb.run(&client, output).await,
            Verb::Status(verb) => verb.run(&client, output).await,
            Verb::Doctor(verb) => verb.run(&client, output).await,
        }
    }
}

/// `-f`
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// A manifest, a folder of manifests (*.yaml, *.yml, *.json), or - for standard input; may be given several times.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub(crate) paths: Vec<PathBuf>,
}

/// `-n`
#[derive(Debug, Args)]
pub(crate) struct InNamespace {
    /// The namespace [default: default; address sets: the administrators'].
    #[arg(short, long, env = "TIDEGATE_NAMESPACE", value_name = "NS")]
    pub(crate) namespace: Option<Name>,
}

impl InNamespace {
    /// The one that was named, or `default`.
    pub(crate) fn or_default(&self) -> Result<Name, Failure> {
        let named = self.namespace.clone().map_or_else(|| "default".parse(), Ok);
        named.map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// `-o` of verbs that answer for people or as JSON or YAML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// The admin API's JSON.
    Json,
    /// The same as YAML.
    Yaml,
}
