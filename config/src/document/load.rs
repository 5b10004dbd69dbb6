//! YAML text to trees, within bounds.
//!
//! Events are pulled one by one, so that a hostile file ends at the first bound it passes: nothing is built first and
//! measured then. Aliases are never followed, and anchors are refused: a file then means what it shows, and no file
//! grows when it is read.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::report::Report;
use super::{Entry, Node, Value, json, scalar};
use crate::wording::quoted;

/// Largest text of one file, in bytes.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Deepest nesting of lists and mappings.
pub(crate) const MAX_DEPTH: usize = 32;
/// Most documents in one file.
pub(crate) const MAX_DOCUMENTS: usize = 10_000;

/// The documents of a text, without the empty ones. What cannot be read is in the report; documents before it are
/// returned all the same, so that their problems are told too.
pub(crate) fn documents(text: &str, report: &Report) -> Vec<Node> {
    if text.len() > MAX_BYTES {
        let what = format!("the file has {} bytes, and {MAX_BYTES} is the limit", text.len());
        report.add(1, "", what, "split it into several files");
        return Vec::new();
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut loader = Loader::new(text, report);
    match loader.run() {
        Ok(()) | Err(Stop::Bound) => {}
        Err(Stop::Syntax(error)) => match json::read(text) {
            Some(node) => return json_documents(text, node),
            None => loader.syntax(&error),
        },
    }
    loader.documents
}

/// JSON that is not YAML: mostly by its tabs, which stand between its parts only (in strings JSON escapes them). With
/// blanks in their place its lines are known; else it is read without.
fn json_documents(text: &str, lineless: Node) -> Vec<Node> {
    let blank = text.replace('\t', " ");
    let unread = Report::new("");
    let mut loader = Loader::new(&blank, &unread);
    match loader.run() {
        Ok(()) if unread.found() == 0 => loader.documents,
        Ok(()) | Err(Stop::Bound | Stop::Syntax(_)) => vec![lineless],
    }
}

struct Loader<'t> {
    report: &'t Report,
    text: &'t str,
    events: Parser<'t, StrInput<'t>>,
    open: Vec<Open>,
    documents: Vec<Node>,
}

/// A list or mapping whose end has not come yet.
struct Open {
    line: u32,
    refused: bool,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    /// Entries, and the key that waits for its value.
    Map(Vec<Entry>, Option<(String, u32)>),
}

enum Stop {
    /// Reported already.
    Bound,
    Syntax(ScanError),
}

impl<'t> Loader<'t> {
    fn new(text: &'t str, report: &'t Report) -> Self {
        Self { report, text, events: Parser::new_from_str(text), open: Vec::new(), documents: Vec::new() }
    }

    fn run(&mut self) -> Result<(), Stop> {
        while let Some(event) = self.events.next_event() {
            let (event, span) = event.map_err(Stop::Syntax)?;
            let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
            match event {
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {}
                Event::DocumentEnd => {
                    if self.documents.len() > MAX_DOCUMENTS {
                        let line = self.documents.pop().map_or(line, |document| document.line);
                        self.report.add(line, "", format!("more than {MAX_DOCUMENTS} documents"), "split the file");
                        return Err(Stop::Bound);
                    }
                }
                Event::Alias(_) => {
                    self.refuse_anchor(line, "aliases");
                    self.put(Node { line, value: Value::Refused });
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let refused = self.refused(line, anchor, tag.as_deref());
                    match self.open.last_mut() {
                        Some(Open { inside: Inside::Map(_, key @ None), .. }) => *key = Some((text.into_owned(), line)),
                        _ => {
                            let value = match style {
                                _ if refused => Value::Refused,
                                ScalarStyle::Plain => scalar::plain(&text),
                                _ => Value::Text(text.into_owned()),
                            };
                            self.put(Node { line, value });
                        }
                    }
                }
                Event::SequenceStart(anchor, tag) => {
                    let refused = self.refused(line, anchor, tag.as_deref());
                    self.enter(line, refused, Inside::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    let refused = self.refused(line, anchor, tag.as_deref());
                    self.enter(line, refused, Inside::Map(Vec::new(), None))?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.leave(),
            }
        }
        Ok(())
    }

    fn enter(&mut self, line: u32, refused: bool, inside: Inside) -> Result<(), Stop> {
        if self.open.len() == MAX_DEPTH {
            let what = format!("lists and mappings nest deeper than {MAX_DEPTH}");
            self.report.add(line, "", what, "no resource needs that; look for a stray bracket or indentation");
            return Err(Stop::Bound);
        }
        self.open.push(Open { line, refused, inside });
        Ok(())
    }

    fn leave(&mut self) {
        let Some(Open { line, refused, inside }) = self.open.pop() else { return };
        let value = match inside {
            _ if refused => Value::Refused,
            Inside::List(items) => Value::List(items),
            Inside::Map(entries, _) => Value::Map(entries),
        };
        self.put(Node { line, value });
    }

    fn put(&mut self, node: Node) {
        match self.open.last_mut() {
            None if matches!(node.value, Value::Null) => {}
            None => self.documents.push(node),
            Some(Open { inside: Inside::List(items), .. }) => items.push(node),
            Some(Open { inside: Inside::Map(entries, key), refused, .. }) => match key.take() {
                Some((key, line)) => entries.push(Entry { key, line, value: node }),
                None => {
                    self.report.add(node.line, "", "a key that is not text", "write `key: value`");
                    *key = Some((String::new(), node.line));
                    *refused = true;
                }
            },
        }
    }

    fn refused(&self, line: u32, anchor: usize, tag: Option<&Tag>) -> bool {
        if anchor > 0 {
            self.refuse_anchor(line, "anchors");
        }
        if let Some(tag) = tag {
            let what = format!("the tag {} is not taken", quoted(&format!("{}{}", tag.handle, tag.suffix)));
            self.report.add(line, "", what, "leave it out; put text that looks like a number in quotes");
        }
        anchor > 0 || tag.is_some()
    }

    fn refuse_anchor(&self, line: u32, which: &str) {
        let mend = "write the value out; text that begins with & or * needs quotes";
        self.report.add(line, "", format!("{which} are not taken"), mend);
    }

    fn syntax(&self, error: &ScanError) {
        let line = error.marker().line();
        let mend = match self.text.lines().nth(line.saturating_sub(1)) {
            _ if error.info().contains("unknown anchor") => "write the value out; text that begins with * needs quotes",
            Some(text) if text.trim_start_matches(' ').starts_with('\t') => "indent with spaces, not with tabs",
            Some(text) if text.contains("::") => "put an IPv6 address that ends in `:` or stands before `,` in quotes",
            _ => "look for a missing quote, bracket or space on this line or the one before",
        };
        self.report.add(u32::try_from(line).unwrap_or(u32::MAX), "", format!("not YAML: {}", error.info()), mend);
    }
}
