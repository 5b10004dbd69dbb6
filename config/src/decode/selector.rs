//! Labels and selectors.

use super::later::Later;
use crate::document::field::Field;
use crate::resource::{Labels, check_label};

/// A mapping of labels.
pub(super) fn labels(field: &Field<'_>) -> Option<Labels> {
    let fields = field.any_fields()?;
    let mut labels = Labels::new();
    for (key, value) in fields.each() {
        let text = value.read(|text| check_label(key, text).map(|()| text));
        labels.insert(key.to_owned(), text.unwrap_or_default().to_owned());
    }
    Some(labels)
}

/// `selector`: `{}` or `matchLabels`.
pub(super) fn read(field: &Field<'_>) -> Option<Labels> {
    let fields = field.fields(&["matchLabels"], &[("matchExpressions", Later::MatchExpressions)])?;
    match fields.optional("matchLabels") {
        Some(field) => labels(&field),
        None => Some(Labels::new()),
    }
}

/// What to write where `selector` is missing.
pub(super) const MISSING: &str =
    "write `selector: { matchLabels: { … } }`, or `selector: {}` for every workload of the namespace";
