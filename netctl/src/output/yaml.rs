//! JSON as YAML, through saphyr's emitter. What is written is read back as the same values by YAML 1.1 and 1.2 readers:
//! every string that is not a plain word is quoted with JSON's escapes, which YAML's double quotes understand.

use saphyr::{Mapping, Scalar, ScalarStyle, Yaml, YamlEmitter};
use serde_json::Value;

/// One document, beginning with `---` and ending with a newline.
pub(crate) fn document(value: &Value) -> String {
    let mut text = String::new();
    let mut emitter = YamlEmitter::new(&mut text);
    // Writing to a String cannot fail, and none of the nodes below is of a style that the emitter refuses.
    let _ = emitter.dump(&node(value));
    text.push('\n');
    text
}

/// The value without the `---`, for showing inside other text.
pub(crate) fn block(value: &Value) -> String {
    document(value).trim_start_matches("---\n").to_owned()
}

fn node(value: &Value) -> Yaml<'_> {
    match value {
        Value::Null => Yaml::Representation("null".into(), ScalarStyle::Plain, None),
        Value::Bool(value) => Yaml::Value(Scalar::Boolean(*value)),
        Value::Number(number) => Yaml::Representation(number.to_string().into(), ScalarStyle::Plain, None),
        Value::String(text) => string(text),
        Value::Array(items) => Yaml::Sequence(items.iter().map(node).collect()),
        Value::Object(entries) => {
            Yaml::Mapping(entries.iter().map(|(key, value)| (string(key), node(value))).collect::<Mapping<'_>>())
        }
    }
}

fn string(text: &str) -> Yaml<'_> {
    if is_plain(text) {
        return Yaml::Representation(text.into(), ScalarStyle::Plain, None);
    }
    let quoted = Value::from(text).to_string();
    // The emitter writes the quotes itself.
    let inside = quoted[1..quoted.len() - 1].chars().map(escaped).collect::<String>();
    Yaml::Representation(inside.into(), ScalarStyle::DoubleQuoted, None)
}

/// JSON leaves these as they are; YAML takes some of them for line breaks and none of them as they are.
fn escaped(c: char) -> String {
    if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') {
        format!("\\u{:04x}", u32::from(c))
    } else {
        c.to_string()
    }
}

/// Begins with a letter or `/`, goes on with a few harmless characters, and is no word that some reader takes for a
/// truth value, a null or a number.
fn is_plain(text: &str) -> bool {
    const WORDS: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"];
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(harmless)
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use saphyr::LoadableYamlNode;
    use serde_json::json;

    use super::*;

    fn back(yaml: &Yaml<'_>) -> Value {
        match yaml {
            Yaml::Value(Scalar::Null) => Value::Null,
            Yaml::Value(Scalar::Boolean(value)) => (*value).into(),
            Yaml::Value(Scalar::Integer(value)) => (*value).into(),
            Yaml::Value(Scalar::FloatingPoint(value)) => value.into_inner().into(),
            Yaml::Value(Scalar::String(value)) => value.as_ref().into(),
            Yaml::Sequence(items) => items.iter().map(back).collect(),
            Yaml::Mapping(entries) => entries
                .iter()
                .map(|(key, value)| (key.as_str().unwrap().to_owned(), back(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_comes_back_as_it_was() {
        let strings = [
            "",
            " ",
            "a",
            "a b",
            "y",
            "No",
            "~",
            "null",
            "True",
            "1",
            "+5",
            "-1",
            "0x1f",
            "0o17",
            "1_000",
            "1e3",
            ".5",
            ".inf",
            "1.2",
            "12:30",
            "2025-01-01",
            "10.0.0.0/8",
            "fd00::/64",
            "*.example.com",
            "- a",
            "a: b",
            "a #b",
            "#a",
            "[a]",
            "{a: b}",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "'a'",
            "\"a\"",
            "a\\b",
            "a\nb",
            "a\n",
            "\ta",
            "\u{0}\u{7}\u{8}\u{b}\u{c}\u{1b}\u{7f}",
            "\u{85}\u{2028}\u{feff}",
            "naïve",
            "日本",
            "---",
            "...",
            "<<",
            "=",
        ];
        let value = json!({
            "strings": strings.as_slice(),
            "keys": strings.iter().map(|text| ((*text).to_owned(), json!(1))).collect::<serde_json::Map<_, _>>(),
            "numbers": [0, -1, 4_294_967_296_i64, 1.5, i64::MAX, i64::MIN],
            "others": [null, true, false, {}, [], [[]], [{}], {"a": {}}, [[1, [2]], {"a": [{"b": 1, "c": []}]}]],
        });
        let text = document(&value);
        let documents = Yaml::load_from_str(&text).unwrap();
        assert_eq!(documents.len(), 1);
        assert_eq!(back(&documents[0]), value, "{text}");
    }

    #[test]
    fn it_reads_like_a_manifest() {
        let value = json!({"kind": "Network", "spec": {"subnets": [{"cidr": "10.0.0.0/24", "gateway": "10.0.0.1"}], "mtu": 1500}});
        let text = "---\nkind: Network\nspec:\n  mtu: 1500\n  subnets:\n    - cidr: \"10.0.0.0/24\"\n      gateway: \"10.0.0.1\"\n";
        assert_eq!(document(&value), text);
    }
}
