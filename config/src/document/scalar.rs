//! Plain scalars by the core schema of YAML 1.2.2 (section 10.3.2).

use super::Value;

/// What a scalar without quotes means.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(decimal(text), text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// Plain decimal only: YAML 1.1 reads `010` as 8 and YAML 1.2 as 10, so such text is nobody's number here.
fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let led_by_zero = digits.len() > 1 && digits.starts_with('0');
    if plain && !led_by_zero { text.parse().ok() } else { None }
}

fn is_number(text: &str) -> bool {
    let digits = |t: &str, ok: fn(&u8) -> bool| !t.is_empty() && t.bytes().all(|b| ok(&b));
    if let Some(hex) = text.strip_prefix("0x") {
        return digits(hex, u8::is_ascii_hexdigit);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(octal, |b| matches!(b, b'0'..=b'7'));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| digits(e, u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_core_schema() {
        for (text, whole) in [
            ("100", Some(100)),
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("010", None),
            ("+5", None),
            ("0x10", None),
            ("0o17", None),
            ("1.2", None),
            ("1e3", None),
            (".5", None),
            ("-.inf", None),
            (".nan", None),
            ("99999999999999999999", None),
        ] {
            assert!(matches!(plain(text), Value::Number(n, t) if n == whole && t == text), "{text}");
        }
    }

    #[test]
    fn everything_else_is_text() {
        for text in
            ["yes", "no", "on", "10.0.0.1", "1_000", "-", ".", "e", "1e", "0x", "10:20", "802.1Q", "::/0", "None"]
        {
            assert!(matches!(plain(text), Value::Text(t) if t == text), "{text}");
        }
    }
}
