//! What the user sees.
//!
//! 1. [`Output`]: standard output, with colours only on a terminal and never with `NO_COLOR`.
//! 2. [`table`]: aligned columns. 3. [`yaml`]: JSON as YAML. 4. [`unified`]: a diff of lines. 5. [`time`]: ages.

pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod unified;
pub(crate) mod yaml;

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;

use crate::command::Format;
use crate::failure::Failure;

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    writer: BufWriter<Stdout>,
    colours: bool,
}

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Good, allowed, added.
    Green,
    /// Bad, denied, removed.
    Red,
    /// Look at it.
    Yellow,
}

impl Output {
    /// Colours as the terminal and the environment have it.
    pub(crate) fn to_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let stdout = io::stdout();
        let colours = stdout.is_terminal() && !set("NO_COLOR") && !dumb;
        Self { writer: BufWriter::new(stdout), colours }
    }

    /// One line; characters that could drive a terminal are shown as `?`.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.writer, "{}", printable(text))
    }

    /// Text of whole lines, as [`Output::line`].
    pub(crate) fn lines(&mut self, text: &str) -> io::Result<()> {
        text.lines().try_for_each(|line| self.line(line))
    }

    /// One line in a colour.
    pub(crate) fn coloured_line(&mut self, colour: Colour, text: &str) -> io::Result<()> {
        let text = self.coloured(colour, &printable(text));
        writeln!(self.writer, "{text}")
    }

    /// JSON for programs, with a newline at the end.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.writer, value).map_err(io::Error::from)?;
        writeln!(self.writer)?;
        Ok(())
    }

    /// One JSON object a line, for streams; shown at once.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.writer, value).map_err(io::Error::from)?;
        writeln!(self.writer)?;
        self.flush()?;
        Ok(())
    }

    /// YAML documents.
    pub(crate) fn yaml(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let value = serde_json::to_value(value).map_err(io::Error::from)?;
        self.writer.write_all(yaml::document(&value).as_bytes())?;
        Ok(())
    }

    /// JSON or YAML when that was asked for; else `false`, and the caller writes for people.
    pub(crate) fn for_programs(&mut self, format: Format, value: &impl Serialize) -> Result<bool, Failure> {
        match format {
            Format::Text => return Ok(false),
            Format::Json => self.json(value)?,
            Format::Yaml => self.yaml(value)?,
        }
        Ok(true)
    }

    /// Shows everything now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    fn coloured(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Red => 31,
            Colour::Yellow => 33,
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The text with control characters as `?`: names and labels come from others, and must not drive the terminal.
/// Newlines and tabs stay.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(bad) { text.replace(bad, "?").into() } else { text.into() }
}
