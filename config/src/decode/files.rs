//! Names of files below the namespace's own folder.

use std::path::{Component, Path};

use crate::document::field::Field;
use crate::wording::{quoted, wrong};

/// A file below the namespace's own folder, as `example`. Whoever opens it does so with `RESOLVE_BENEATH`; this tells
/// early.
pub(super) fn name(field: &Field<'_>, example: &str) -> Option<String> {
    field.read(|text| {
        let plain = Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
        if text.is_empty() || !plain || text.ends_with('/') || text.bytes().any(|b| b.is_ascii_control()) {
            let place = "write it relative to the namespace's folder of `files_dir`, without `.` and `..`";
            let mend = format!("{place}, as `{example}`");
            return Err(wrong(format!("{} is not a file of the namespace", quoted(text)), mend));
        }
        Ok(text.to_owned())
    })
}
