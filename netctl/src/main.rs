//! `netctl` configures and explains Tidegate: a thin client of the daemon's admin socket, with kubectl's habits.
//!
//! 1. [`command`]: the command line.
//! 2. [`manifests`]: `-f FILE|DIR|-` to texts; the daemon parses them.
//! 3. [`client`]: JSON over HTTP on the daemon's Unix socket; a crate of its own.
//!    [`engine`] asks container engines the same way.
//! 4. [`verbs`]: one file a verb.
//! 5. [`output`]: tables, YAML, diffs, colours.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage; `explain` 0 allowed and 3 denied. Errors go to standard error
//! with what to do; a reader that closes the pipe is no error.

mod command;
mod engine;
mod failure;
mod manifests;
mod output;
mod verbs;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use command::CommandLine;
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let command = CommandLine::parse();
    let mut output = Output::to_stdout();
    let done = run(command, &mut output).and_then(|done| output.flush().map(|()| done).map_err(Failure::from));
    match done {
        Ok(done) => done.into(),
        Err(Failure::BrokenPipe) => ExitCode::SUCCESS,
        Err(failure) => {
            // What was printed before it failed comes first; when that fails too there is nobody to tell.
            let _ = output.flush();
            let _ = write!(io::stderr(), "{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(command: CommandLine, output: &mut Output) -> Result<verbs::Done, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(command.run(output))
}
