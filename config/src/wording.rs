//! How messages speak: what a user wrote is shown quoted, short and harmless, and a near miss is guessed.

use crate::names::NameError;

/// Longest piece of the user's text that a message repeats, in characters.
const SHOWN: usize = 80;

/// Longest word that is compared with the known ones.
const COMPARED: usize = 40;

/// The text in backticks, cut after [`SHOWN`] characters, with control characters escaped (it goes to a terminal).
pub(crate) fn quoted(text: &str) -> String {
    if text.is_empty() {
        return "an empty text".to_owned();
    }
    let shown: String = text.chars().take(SHOWN).flat_map(harmless).collect();
    let cut = if text.chars().nth(SHOWN).is_some() { "…" } else { "" };
    format!("`{shown}{cut}`")
}

fn harmless(c: char) -> Vec<char> {
    // Bidirectional controls reorder what stands around them.
    if c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

/// `a`, `b` or `c`
pub(crate) fn one_of(words: &[&str]) -> String {
    listed(words, "or")
}

/// `a`, `b` and `c`
pub(crate) fn all_of(words: &[&str]) -> String {
    listed(words, "and")
}

fn listed(words: &[&str], joint: &str) -> String {
    match words {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [front @ .., last] => {
            let front: Vec<String> = front.iter().map(|word| format!("`{word}`")).collect();
            format!("{} {joint} `{last}`", front.join(", "))
        }
    }
}

/// The known word that `word` is most likely a slip of, if any is near.
pub(crate) fn closest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    if word.chars().count() > COMPARED {
        return None;
    }
    let lower = word.to_lowercase();
    let letters: Vec<char> = lower.chars().collect();
    let far = |candidate: &str| {
        let other = candidate.to_lowercase();
        let beginning = letters.len() >= 3 && other.starts_with(&lower);
        let slips = (other.len().max(letters.len()) / 3).max(1);
        if beginning {
            return Some(0);
        }
        if other.len().abs_diff(letters.len()) > slips {
            return None;
        }
        let distance = distance(&letters, &other.chars().collect::<Vec<_>>());
        (distance <= slips && distance < other.len()).then_some(distance)
    };
    let candidates = known.into_iter().filter_map(|candidate| far(candidate).map(|distance| (distance, candidate)));
    candidates.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that make one word of the other.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[from.len()][to.len()]
}

pub(crate) fn wrong(problem: impl Into<String>, mend: impl Into<String>) -> NameError {
    NameError { problem: problem.into(), mend: mend.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["subnets", "gateway", "mtu", "dns", "workloadTraffic"];
        assert_eq!(closest("subnet", known), Some("subnets"));
        assert_eq!(closest("gatewya", known), Some("gateway"));
        assert_eq!(closest("MTU", known), Some("mtu"));
        assert_eq!(closest("workloadtrafic", known), Some("workloadTraffic"));
        assert_eq!(closest("gate", known), Some("gateway"));
        assert_eq!(closest("dnsServers", known), None);
        assert_eq!(closest("su", known), None);
        assert_eq!(closest("bandwidth", known), None);
        assert_eq!(closest("", known), None);
        assert_eq!(closest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn hostile_text_is_shown_short_and_harmless() {
        assert_eq!(quoted("a\u{1b}[31mb\n"), r"`a\u{1b}[31mb\n`");
        assert_eq!(quoted("\u{202e}x"), r"`\u{202e}x`");
        assert_eq!(quoted(&"y".repeat(500)).chars().count(), SHOWN + 3);
        assert_eq!(quoted("größe"), "`größe`");
    }

    #[test]
    fn words_are_listed_as_a_sentence() {
        assert_eq!(one_of(&["a"]), "`a`");
        assert_eq!(one_of(&["a", "b", "c"]), "`a`, `b` or `c`");
        assert_eq!(all_of(&["a", "b"]), "`a` and `b`");
    }
}
