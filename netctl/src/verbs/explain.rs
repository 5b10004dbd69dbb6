//! `netctl explain`: exits with 0 when the connection would pass, with 3 when it would not.

use clap::Args;
use config::api::{ExplainRequest, Explanation, Protocol, Target, WorkloadName};

use super::Done;
use crate::command::Format;
use crate::failure::Failure;
use crate::output::{Colour, Output};
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Who would open the connection.
    #[arg(long, value_name = "NS/WORKLOAD")]
    from: WorkloadName,
    /// Whom to; without a port, whether any port would pass.
    #[arg(long, value_name = "NAME|ADDR[:PORT]")]
    to: Target,
    /// By which protocol: tcp, udp, sctp or icmp.
    #[arg(long = "proto", value_name = "PROTOCOL", default_value = "tcp")]
    protocol: Protocol,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Explain {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        if self.protocol == Protocol::Icmp && self.to.port.is_some() {
            return Err(Failure::Usage(format!("icmp has no ports; leave the port out of {}", self.to)));
        }
        let request = ExplainRequest { from: self.from, to: self.to, protocol: self.protocol };
        let answer: Explanation = client.post("explain", &request).await?;
        if !output.for_programs(self.output, &answer)? {
            print(output, &request, &answer)?;
        }
        Ok(if answer.allowed { Done::Well } else { Done::Denied })
    }
}

/// The reason of what passes although a policy with `mode: Audit` would deny it.
const AUDITED: &str = "audited";

fn print(output: &mut Output, request: &ExplainRequest, answer: &Explanation) -> Result<(), Failure> {
    let (colour, word) = match (answer.allowed, answer.reason.as_str()) {
        (true, AUDITED) => (Colour::Yellow, "allowed (audited)"),
        (true, _) => (Colour::Green, "allowed"),
        (false, _) => (Colour::Red, "denied"),
    };
    let ExplainRequest { from, to, protocol } = request;
    output.coloured_line(colour, &format!("{word}: {from} -> {to} {protocol}"))?;
    output.line(&format!("  {}", answer.verdict))?;
    output.line(&format!("  reason: {}", answer.reason))?;
    if let Some(rule) = &answer.rule {
        output.line(&format!("  rule:   {rule}"))?;
    }
    if let Some(name) = &answer.name {
        output.line(&format!("  name:   {name}"))?;
    }
    for learned in &answer.answers {
        let left = match learned.expires_in_s {
            0 => "expired".to_owned(),
            seconds => format!("for {seconds} s"),
        };
        output.line(&format!("  answer: {} {left}", learned.address))?;
    }
    for (number, step) in (1..).zip(&answer.steps) {
        output.line(&format!("  {number}. {step}"))?;
    }
    if !answer.mend.is_empty() {
        output.coloured_line(Colour::Yellow, &format!("  mend:   {}", answer.mend))?;
    }
    Ok(())
}
