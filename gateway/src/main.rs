//! The daemon's command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gateway::features::{self, Check, Weight};
use gateway::{app, telemetry};

/// Tidegate's daemon: keeps tenants apart, lets them reach what their policies name, and puts apps behind TLS.
#[derive(Parser)]
#[command(version, about, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM; enforcement stays when it ends
    Run {
        /// Settings; every key has a default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check the settings and what this kernel offers; exit 1 if the gateway could not run
    Check {
        /// Settings; every key has a default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Started by `run`: enters workloads' namespaces on its behalf
    #[command(name = gateway::sys::namespace_helper::SUBCOMMAND, hide = true)]
    NamespaceHelper,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { config } => run(config),
        Command::Check { config } => check(config),
        Command::NamespaceHelper => gateway::sys::namespace_helper::run(gateway::sys::namespace_helper::DESCRIPTOR),
    }
}

fn run(config: Option<PathBuf>) -> ExitCode {
    if let Err(error) = telemetry::logging::start(|name| std::env::var(name).ok()) {
        return failed(&error);
    }
    match app::run(config.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn check(config: Option<PathBuf>) -> ExitCode {
    match app::check(config.as_deref()) {
        Ok(checks) => {
            // Whoever closed standard output early has read what they wanted.
            let _ = print(&checks);
            if features::usable(&checks) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => failed(&error),
    }
}

fn print(checks: &[Check]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for check in checks {
        let state = match (check.ok, check.weight) {
            (true, _) => "ok",
            (false, Weight::Part) => "limited",
            (false, Weight::Required) => "MISSING",
        };
        writeln!(out, "{state:<8} {:<22} {}", check.name, check.found)?;
        if !check.ok {
            writeln!(out, "{:<31} {}", "", check.mend)?;
        }
    }
    Ok(())
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("gateway: {error}");
    ExitCode::FAILURE
}
