//! The table for people and the numbers for machines.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::attach::Attaching;
use crate::costs::Costs;
use crate::prefixes::Prefixes;
use crate::statistics::{Median, median, paired};

/// So many ratios still stand on their lane's line.
const MANY: usize = 4;

/// Everything that was measured.
pub(crate) struct Report {
    pub(crate) slices: u32,
    pub(crate) slice: Duration,
    pub(crate) measurements: Vec<Measurement>,
    /// Further lines for people.
    pub(crate) notes: Vec<String>,
    pub(crate) costs: Option<Costs>,
    pub(crate) attaching: Option<Attaching>,
    pub(crate) prefixes: Option<Prefixes>,
}

/// Rates of all lanes, slice by slice.
pub(crate) struct Measurement {
    subject: Subject,
    lanes: Vec<Row>,
}

/// What is measured, and how it is written.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) title: &'static str,
    /// In the JSON.
    pub(crate) key: &'static str,
    /// Divides rates for the table.
    pub(crate) unit: f64,
    pub(crate) suffix: &'static str,
}

struct Row {
    name: &'static str,
    rate: Median,
    /// Against each earlier lane.
    ratios: Vec<(&'static str, Median)>,
}

impl Report {
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let measurements: serde_json::Map<String, Value> = self
            .measurements
            .iter()
            .map(|measurement| (measurement.subject.key.to_owned(), measurement.json()))
            .collect();
        let value = json!({
            "kernel": integration::kernel::release(),
            "slices": self.slices,
            "sliceMs": self.slice.as_millis() as u64,
            "measurements": measurements,
            "costs": self.costs.as_ref().map(Costs::json),
            "attaching": self.attaching.as_ref().map(Attaching::json),
            "addressSet": self.prefixes.as_ref().map(Prefixes::json),
        });
        std::fs::write(path, format!("{value:#}\n"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.measurements.is_empty() {
            self.write_ratios(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))?;
        self.costs.as_ref().map_or(Ok(()), |costs| costs.fmt(f))?;
        self.attaching.as_ref().map_or(Ok(()), |attaching| attaching.fmt(f))?;
        self.prefixes.as_ref().map_or(Ok(()), |prefixes| prefixes.fmt(f))
    }
}

impl Report {
    fn write_ratios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.slice.as_millis();
        writeln!(
            f,
            "{} interleaved slices of {milliseconds} ms each; ratios are medians of paired slices, with their 95 % interval",
            self.slices
        )?;
        for measurement in &self.measurements {
            write!(f, "{measurement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subject { title, unit, suffix, .. } = self.subject;
        writeln!(f, "\n{title}")?;
        for row in &self.lanes {
            write!(f, "  {:<16} {:>9.1} {suffix}", row.name, row.rate.value / unit)?;
            let many = row.ratios.len() > MANY;
            for (to, ratio) in &row.ratios {
                let line = if many { "\n      " } else { "    " };
                write!(f, "{line}{:.2} of {to} ({:.2}–{:.2})", ratio.value, ratio.low, ratio.high)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Measurement {
    /// `rates` by lane, each with one value a slice.
    pub(crate) fn new(subject: Subject, names: &[&'static str], rates: &[Vec<f64>]) -> Self {
        Self { subject, lanes: rows(names, rates) }
    }

    /// As [`Self::new`], of the last lane against each of the others only.
    pub(crate) fn of_last(subject: Subject, names: &[&'static str], values: &[Vec<f64>]) -> Self {
        let mut lanes = rows(names, values);
        let last = lanes.len() - 1;
        lanes[..last].iter_mut().for_each(|row| row.ratios.clear());
        Self { subject, lanes }
    }

    pub(crate) fn json(&self) -> Value {
        let interval = |median: &Median| json!({ "median": median.value, "low": median.low, "high": median.high });
        let lane = |row: &Row| {
            let ratios: serde_json::Map<String, Value> =
                row.ratios.iter().map(|(to, ratio)| ((*to).to_owned(), interval(ratio))).collect();
            json!({ "name": row.name, "rate": interval(&row.rate), "ratios": ratios })
        };
        self.lanes.iter().map(lane).collect()
    }
}

fn rows(names: &[&'static str], rates: &[Vec<f64>]) -> Vec<Row> {
    let ratios = |index: usize| -> Vec<(&'static str, Median)> {
        (0..index).map(|earlier| (names[earlier], median(&paired(&rates[index], &rates[earlier])))).collect()
    };
    names
        .iter()
        .enumerate()
        .map(|(index, name)| Row { name, rate: median(&rates[index]), ratios: ratios(index) })
        .collect()
}
