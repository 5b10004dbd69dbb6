//! Problems as they are found, up to a bound.

use std::cell::{Cell, RefCell};

use crate::problem::Problem;

/// Most problems told of one text; the rest is counted.
const MAX_PROBLEMS: usize = 100;

/// The problems of one text so far.
pub(crate) struct Report {
    file: String,
    problems: RefCell<Vec<Problem>>,
    found: Cell<usize>,
}

impl Report {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), problems: RefCell::default(), found: Cell::new(0) }
    }

    /// Notes a problem. Line 0 stands for none.
    pub(crate) fn add(&self, line: u32, key: &str, what: impl Into<String>, mend: impl Into<String>) {
        self.found.set(self.found.get() + 1);
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            let line = (line > 0).then_some(line);
            let (key, what, mend) = (key.to_owned(), what.into(), mend.into());
            problems.push(Problem { file: self.file.clone(), line, key, what, mend });
        }
    }

    /// How many problems were found so far.
    pub(crate) fn found(&self) -> usize {
        self.found.get()
    }

    /// The problems in the order of lines.
    pub(crate) fn finish(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        let untold = self.found.get() - problems.len();
        if untold > 0 {
            problems.push(Problem {
                file: self.file,
                line: None,
                key: String::new(),
                what: format!("{untold} more problems"),
                mend: "mend these first".to_owned(),
            });
        }
        problems
    }
}
