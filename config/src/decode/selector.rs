//! Labels and selectors.

use std::collections::BTreeSet;

use crate::document::field::Field;
use crate::resource::{Expression, Labels, Requirement, Selector, check_label};

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

/// `selector`: `{}`, `matchLabels`, `matchExpressions`.
pub(super) fn read(field: &Field<'_>) -> Option<Selector> {
    let fields = field.fields(&KEYS, &[])?;
    let labels = match fields.optional("matchLabels") {
        Some(field) => labels(&field),
        None => (!fields.has("matchLabels")).then(Labels::new),
    };
    let expressions = match fields.optional("matchExpressions") {
        Some(field) => field.items().and_then(|items| Field::all(&items, expression)),
        None => (!fields.has("matchExpressions")).then(Vec::new),
    };
    Some(Selector { labels: labels?, expressions: expressions? })
}

/// The same as the API server takes it: a field without value counts as left out.
pub(super) fn read_as_kubernetes(field: &Field<'_>) -> Option<Selector> {
    let fields = field.fields(&KEYS, &[])?;
    let labels = fields.optional_with_value("matchLabels").map_or_else(|| Some(Labels::new()), |field| labels(&field));
    let expressions = match fields.optional_with_value("matchExpressions") {
        Some(field) => field.items().and_then(|items| Field::all(&items, expression)),
        None => Some(Vec::new()),
    };
    Some(Selector { labels: labels?, expressions: expressions? })
}

const KEYS: [&str; 2] = ["matchLabels", "matchExpressions"];

#[derive(Clone, Copy)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

fn expression(item: &Field<'_>) -> Option<Expression> {
    let fields = item.fields(&["key", "operator", "values"], &[])?;
    let key = fields
        .required("key", "name the label's key")
        .and_then(|field| field.read(|text| check_label(text, "").map(|()| text.to_owned())));
    let operator = fields.required("operator", "write `In`, `NotIn`, `Exists` or `DoesNotExist`").and_then(|field| {
        field.choice(&[
            ("In", Operator::In),
            ("NotIn", Operator::NotIn),
            ("Exists", Operator::Exists),
            ("DoesNotExist", Operator::DoesNotExist),
        ])
    });
    let values = || {
        let given = fields.required("values", "list the values that are compared")?;
        let values = Field::all(&given.some_items("value")?, label_value)?;
        Some(values.into_iter().collect::<BTreeSet<_>>())
    };
    let none = || match fields.optional_with_value("values") {
        Some(given) if !given.items()?.is_empty() => {
            given.problem("`Exists` and `DoesNotExist` take no values", "leave them out, or write `In` or `NotIn`");
            None
        }
        Some(_) | None => Some(()),
    };
    let requirement = match operator? {
        Operator::In => values().map(Requirement::In),
        Operator::NotIn => values().map(Requirement::NotIn),
        Operator::Exists => none().map(|()| Requirement::Exists),
        Operator::DoesNotExist => none().map(|()| Requirement::DoesNotExist),
    };
    Some(Expression { key: key?, requirement: requirement? })
}

fn label_value(item: &Field<'_>) -> Option<String> {
    item.read(|text| check_label("key", text).map(|()| text.to_owned()))
}

/// What to write where `selector` is missing.
pub(super) const MISSING: &str =
    "write `selector: { matchLabels: { … } }`, or `selector: {}` for every workload of the namespace";
