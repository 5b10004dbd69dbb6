//! Why `netctl` did not do it.

use std::fmt;
use std::io;

use config::api::Problem;

use crate::output::printable;

/// A failure, as the user is told.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The daemon does not run, or may not be asked.
    NoDaemon {
        /// What is so.
        message: String,
        /// What to do.
        mend: String,
    },
    /// The daemon refused, or something failed.
    Refused {
        /// What is wrong.
        message: String,
        /// What to do.
        mend: String,
    },
    /// Manifests are wrong; nothing was changed.
    Problems(Vec<Problem>),
    /// The command line makes no sense in a way that its parser cannot see.
    Usage(String),
    /// Whoever read our output has gone. No error.
    BrokenPipe,
}

impl Failure {
    /// Refused, with what to do.
    pub(crate) fn refused(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), mend: mend.into() }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoDaemon { .. } | Self::Refused { .. } | Self::Problems(_) => 1,
            Self::Usage(_) => 2,
            Self::BrokenPipe => 0,
        }
    }
}

impl fmt::Display for Failure {
    /// Whole lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDaemon { message, mend } | Self::Refused { message, mend } => {
                writeln!(f, "error: {}", printable(message))?;
                if mend.is_empty() { Ok(()) } else { writeln!(f, "mend: {}", printable(mend)) }
            }
            Self::Problems(problems) => {
                for problem in problems {
                    writeln!(f, "{}", printable(&problem.to_string()))?;
                }
                let count = problems.len();
                writeln!(f, "error: {count} problem{}; nothing was changed", if count == 1 { "" } else { "s" })
            }
            Self::Usage(message) => writeln!(f, "error: {}\nmend: see `netctl help`", printable(message)),
            Self::BrokenPipe => Ok(()),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::NoDaemon { message, mend } => Self::NoDaemon { message, mend },
            client::Error::Refused { message, mend, .. } | client::Error::NoAnswer { message, mend } => {
                Self::Refused { message, mend }
            }
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::refused(format!("writing the output: {error}"), "look at where the output goes"),
        }
    }
}
