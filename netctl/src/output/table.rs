//! Aligned columns, three spaces apart, nothing behind the last one.

use std::fmt::Write;

const GAP: usize = 3;

/// A table in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With this header.
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = Self::default();
        table.row(header.iter().map(|cell| (*cell).to_owned()).collect());
        table
    }

    /// Adds a row; an empty cell is shown as `<none>`.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let cells = self.fitted(cells);
        self.rows.push(cells);
    }

    /// All rows.
    pub(crate) fn render(&self) -> String {
        self.rows.iter().fold(String::new(), |text, row| text + &render(row, &self.widths) + "\n")
    }

    /// A row that comes after [`Table::render`], in the same columns as far as it fits.
    pub(crate) fn later_row(&mut self, cells: Vec<String>) -> String {
        let cells = self.fitted(cells);
        render(&cells, &self.widths)
    }

    fn fitted(&mut self, cells: Vec<String>) -> Vec<String> {
        let cells: Vec<String> = cells
            .into_iter()
            .map(|cell| if cell.is_empty() { "<none>".to_owned() } else { cell.replace(['\n', '\t'], " ") })
            .collect();
        self.widths.resize(self.widths.len().max(cells.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        cells
    }
}

fn render(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(widths) {
        // Writing to a String cannot fail.
        let _ = write!(line, "{cell:<width$}", width = width + GAP);
    }
    line.truncate(line.trim_end().len());
    line
}
