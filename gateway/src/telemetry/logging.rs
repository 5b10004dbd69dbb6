//! Structured logs on standard error.
//!
//! `TIDEGATE_LOG` says what is logged, as `info` (the default), `debug`, or `warn,gateway::egress=debug`;
//! `TIDEGATE_LOG_FORMAT` says how: `text` (the default) or `json`. Names and addresses are logged at DEBUG and in the targets
//! `access` and `flow` only.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::util::TryInitError;

/// The variable for what is logged.
pub const FILTER: &str = "TIDEGATE_LOG";
/// The variable for how.
pub const FORMAT: &str = "TIDEGATE_LOG_FORMAT";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter makes no sense.
    #[error(
        "{FILTER}={text}: {source}; write a level (error, warn, info, debug, trace), or target=level pairs joined by commas"
    )]
    Filter {
        /// As given.
        text: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// No such format.
    #[error("{FORMAT}={0} is not known; write text or json")]
    Format(String),
    /// Logging was set up before.
    #[error("logging is set up already: {0}; call this once")]
    Twice(#[from] TryInitError),
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// Sets up the process's logs from the two variables; `variable` is usually `|name| std::env::var(name).ok()`.
pub fn start(variable: impl Fn(&str) -> Option<String>) -> Result<(), LoggingError> {
    let (filter, format) = settings(variable)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        Format::Text => builder.with_ansi(io::stderr().is_terminal()).finish().try_init()?,
        Format::Json => builder.json().flatten_event(true).with_current_span(false).finish().try_init()?,
    }
    Ok(())
}

fn settings(variable: impl Fn(&str) -> Option<String>) -> Result<(EnvFilter, Format), LoggingError> {
    let text = variable(FILTER).filter(|text| !text.trim().is_empty()).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::builder().parse(&text).map_err(|source| LoggingError::Filter { text, source })?;
    let format = match variable(FORMAT).as_deref() {
        None | Some("" | "text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(LoggingError::Format(other.to_owned())),
    };
    Ok((filter, format))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(filter: &str, format: &str) -> Result<(EnvFilter, Format), LoggingError> {
        settings(|name| Some(if name == FILTER { filter } else { format }.to_owned()))
    }

    #[test]
    fn variables_choose_what_and_how() {
        let (filter, format) = settings(|_| None).unwrap();
        assert_eq!((filter.to_string().as_str(), format), ("info", Format::Text));
        let (filter, format) = with("warn,gateway::egress=debug", "json").unwrap();
        assert!(filter.to_string().contains("gateway::egress=debug"));
        assert_eq!(format, Format::Json);
    }

    #[test]
    fn wrong_variables_are_named_with_the_mend() {
        let error = with("gateway=loud", "text").unwrap_err().to_string();
        assert!(error.contains("TIDEGATE_LOG=gateway=loud") && error.contains("write a level"), "{error}");
        let error = with("info", "xml").unwrap_err().to_string();
        assert!(error.contains("TIDEGATE_LOG_FORMAT=xml") && error.contains("text or json"), "{error}");
    }
}
