//! A unified diff of two texts by lines, with three lines around each change.

use std::fmt::Write;

const CONTEXT: usize = 3;
/// Cells of the table that the longest common subsequence takes; above, everything between the common ends is replaced.
const MAX_CELLS: usize = 4_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit<'a> {
    Keep(&'a str),
    Remove(&'a str),
    Add(&'a str),
}

/// `--- old`, `+++ new` and hunks; empty when the texts are the same.
pub(crate) fn diff(old_name: &str, old: &str, new_name: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let edits = edits(&old, &new);
    let changed: Vec<usize> = (0..edits.len()).filter(|index| !matches!(edits[*index], Edit::Keep(_))).collect();
    let mut text = String::new();
    let mut rest = changed.as_slice();
    while let Some(first) = rest.first() {
        if text.is_empty() {
            let _ = writeln!(text, "--- {old_name}\n+++ {new_name}");
        }
        let together = rest.windows(2).take_while(|pair| pair[1] - pair[0] <= 2 * CONTEXT).count();
        let range = first.saturating_sub(CONTEXT)..(rest[together] + CONTEXT + 1).min(edits.len());
        hunk(&mut text, &edits, range);
        rest = &rest[together + 1..];
    }
    text
}

fn hunk(text: &mut String, edits: &[Edit<'_>], range: std::ops::Range<usize>) {
    let count = |edits: &[Edit<'_>]| {
        let old = edits.iter().filter(|edit| !matches!(edit, Edit::Add(_))).count();
        let new = edits.iter().filter(|edit| !matches!(edit, Edit::Remove(_))).count();
        (old, new)
    };
    let (old_before, new_before) = count(&edits[..range.start]);
    let (old, new) = count(&edits[range.clone()]);
    // A side without lines is named by the line before it, as diff(1) does.
    let start = |before: usize, lines: usize| if lines == 0 { before } else { before + 1 };
    let _ = writeln!(text, "@@ -{},{old} +{},{new} @@", start(old_before, old), start(new_before, new));
    for edit in &edits[range] {
        let _ = match edit {
            Edit::Keep(line) => writeln!(text, " {line}"),
            Edit::Remove(line) => writeln!(text, "-{line}"),
            Edit::Add(line) => writeln!(text, "+{line}"),
        };
    }
}

fn edits<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Edit<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut edits: Vec<_> = old[..head].iter().map(|line| Edit::Keep(line)).collect();
    middle(old_middle, new_middle, &mut edits);
    edits.extend(old[old.len() - tail..].iter().map(|line| Edit::Keep(line)));
    edits
}

fn middle<'a>(old: &[&'a str], new: &[&'a str], edits: &mut Vec<Edit<'a>>) {
    let width = new.len() + 1;
    if (old.len() + 1).saturating_mul(width) > MAX_CELLS {
        edits.extend(old.iter().map(|line| Edit::Remove(line)));
        edits.extend(new.iter().map(|line| Edit::Add(line)));
        return;
    }
    // longest[i * width + j]: length of the longest common subsequence of old[i..] and new[j..].
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i * width + j] = if old[i] == new[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            edits.push(Edit::Keep(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
            edits.push(Edit::Remove(old[i]));
            i += 1;
        } else {
            edits.push(Edit::Add(new[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_give_nothing() {
        assert_eq!(diff("a", "x\ny\n", "b", "x\ny\n"), "");
    }

    #[test]
    fn hunks_have_context_and_numbers() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n";
        let new = "1\nB\n3\n4\n5\n6\n7\n8\n9\n10\n12\n13\n";
        let text =
            "--- old\n+++ new\n@@ -1,5 +1,5 @@\n 1\n-2\n+B\n 3\n 4\n 5\n@@ -8,5 +8,5 @@\n 8\n 9\n 10\n-11\n 12\n+13\n";
        assert_eq!(diff("old", old, "new", new), text);
    }

    #[test]
    fn a_side_may_be_empty() {
        assert_eq!(diff("old", "", "new", "a\nb\n"), "--- old\n+++ new\n@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(diff("old", "a\n", "new", ""), "--- old\n+++ new\n@@ -1,1 +0,0 @@\n-a\n");
    }

    #[test]
    fn what_is_too_large_is_replaced_whole() {
        let many = |word: &str| (0..3000).map(|n| format!("{word}{n}\n")).collect::<String>();
        let text = diff("old", &format!("same\n{}", many("a")), "new", &format!("same\n{}", many("b")));
        assert!(text.starts_with("--- old\n+++ new\n@@ -1,3001 +1,3001 @@\n same\n-a0\n"));
    }
}
