//! Files made to hurt: each ends at a bound, soon, and says so.

use std::time::{Duration, Instant};

use config::{Problem, parse};

/// The problems of a text, which must be told in time: far above what any of these takes, far below what a text that
/// grows would.
fn problems(text: &str) -> Vec<Problem> {
    let start = Instant::now();
    let problems = parse("hostile.yaml", text).expect_err("a problem");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(problems.len() <= 101, "{}", problems.len());
    problems
}

fn first(text: &str) -> String {
    problems(text)[0].to_string()
}

const HEAD: &str = "apiVersion: tidegate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: { name: p, namespace: shop }\n";

#[test]
fn a_file_has_a_largest_size() {
    let text = format!("#{}\n", "x".repeat(4 << 20));
    assert_eq!(
        first(&text),
        "hostile.yaml:1: the file has 4194306 bytes, and 4194304 is the limit; split it into several files"
    );
    assert_eq!(parse("comment.yaml", &text[..text.len() - 2]), Ok(vec![]));
}

#[test]
fn nesting_has_a_depth() {
    for text in ["[".repeat(1 << 20), "- ".repeat(1 << 20), "? ".repeat(1 << 20), "{a: ".repeat(1 << 20)] {
        let told = first(&text);
        assert!(told.contains("nest deeper than 32") || told.contains("recursion limit"), "{told}");
    }
    let blocks: String = (0..1_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(first(&blocks).starts_with("hostile.yaml:33: lists and mappings nest deeper than 32;"));
}

#[test]
fn documents_are_counted() {
    let policy =
        |i: usize| format!("{}spec: {{ selector: {{}} }}\n---\n", HEAD.replace("name: p", &format!("name: p{i}")));
    let text: String = (0..10_000).map(policy).collect();
    assert_eq!(parse("many.yaml", &text).map(|parsed| parsed.len()), Ok(10_000));
    let text = text + &policy(10_000);
    assert_eq!(first(&text), "hostile.yaml:50001: more than 10000 documents; split the file");
    assert!(parse("empty.yaml", &"---\n".repeat(500_000)).is_ok_and(|parsed| parsed.is_empty()));
}

#[test]
fn aliases_do_not_grow() {
    let mut bomb = String::from("a0: &a0 [ x ]\n");
    for level in 1..=60 {
        let uses = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [ {uses} ]\n"));
    }
    assert!(first(&bomb).contains("anchors are not taken"));
}

#[test]
fn problems_are_counted_when_they_are_too_many() {
    let keys: String = (0..20_000).map(|i| format!("  key{i}: 1\n")).collect();
    let told = problems(&format!("{HEAD}spec:\n  selector: {{}}\n{keys}"));
    assert_eq!(told.len(), 101);
    assert_eq!(told[100].to_string(), "hostile.yaml: 19900 more problems; mend these first");
    let same = "  selector: {}\n".repeat(20_000);
    assert_eq!(problems(&format!("{HEAD}spec:\n{same}")).len(), 101);
}

#[test]
fn large_rules_take_little_time() {
    let cidrs: String = (0..100_000u32).map(|i| format!("    - {}/32\n", std::net::Ipv4Addr::from(i << 8))).collect();
    let text = format!("{HEAD}spec:\n  selector: {{}}\n  deny:\n  - cidrs:\n{cidrs}");
    let start = Instant::now();
    assert_eq!(parse("large.yaml", &text).map(|parsed| parsed.len()), Ok(1));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

/// Deterministic, so that a failure is the same everywhere (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }
}

#[test]
fn damaged_manifests_are_refused_or_read_and_never_break_the_reader() {
    let whole: Vec<String> = ["tenant-a", "egress", "exposed", "network-policy", "recipe"]
        .map(|name| format!("{}/examples/{name}.yaml", env!("CARGO_MANIFEST_DIR")))
        .iter()
        .map(|file| std::fs::read_to_string(file).expect("an example"))
        .collect();
    let pieces: Vec<&str> = whole.iter().flat_map(|text| text.split_inclusive([' ', '\n'])).collect();
    let odd = [
        "\t",
        "\0",
        "\u{85}",
        "\u{feff}",
        "&a ",
        "*a ",
        "!!int ",
        "|\n",
        ">-\n",
        "? ",
        "%YAML 9\n",
        "'",
        "\"",
        "{",
        "]",
        "\r",
        "é",
    ];
    let mut random = Random(0x7469_6465_6761_7465);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..4_000 {
        let text = &whole[random.below(whole.len())];
        let mut parts: Vec<&str> = text.split_inclusive([' ', '\n']).collect();
        for _ in 0..=random.below(3) {
            let at = random.below(parts.len().max(1));
            match random.below(4) {
                0 if at > 0 => drop(parts.remove(at)),
                1 if at > 0 => parts[at] = pieces[random.below(pieces.len())],
                2 => parts.truncate(at + 1),
                _ => parts.insert(at, odd[random.below(odd.len())]),
            }
        }
        match parse("damaged.yaml", &parts.concat()) {
            Ok(parsed) => {
                read += 1;
                for parsed in parsed {
                    let json = parsed.resource.to_json();
                    assert_eq!(config::from_json("store", &json), Ok(parsed.resource));
                }
            }
            Err(problems) => {
                refused += 1;
                assert!(problems.iter().all(|problem| !problem.what.is_empty() && !problem.mend.is_empty()));
            }
        }
    }
    assert!(read > 100 && refused > 1_000, "{read} read, {refused} refused");
}
