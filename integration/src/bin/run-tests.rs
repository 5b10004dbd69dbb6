//! `run-tests [--long | --second-kernel]`: every test of the workspace, then the named list under the second kernel, and
//! one closing line `N passed, N failed, N skipped`. Ends with 1 when anything failed.
//!
//! A test that fails beside the others is run once more, alone. One that passes then is named as `UNSTABLE`, with what it
//! said when it failed: a fault of the test or of the product, to be found, and no reason to distrust everything else. Of
//! more than [`UNSTABLE_AT_MOST`], none is tried again.
//!
//! A test that is `#[ignore]`d counts as skipped unless the second kernel ran it; a test that skips itself says so in
//! the file that `TIDEGATE_SKIPS` names. With `--long`, counts inside tests are larger (`TIDEGATE_LONG`) and the second
//! kernel runs every test of this crate; with `--second-kernel`, only the named list runs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use integration::process::output;
use integration::roster::SECOND_KERNEL;
use integration::vm::{Tried, Vm};

const TEST_LIMIT: Duration = Duration::from_secs(150);
/// What the list is meant to take, and when it is given up: emulation takes twice as long on a busy machine.
const ROSTER_MEANT: Duration = Duration::from_secs(480);
const ROSTER_DEADLINE: Duration = Duration::from_secs(900);
const LONG_DEADLINE: Duration = Duration::from_secs(10_800);
/// Failures here, and failures under the second kernel, that are tried again.
const UNSTABLE_AT_MOST: usize = 3;

#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    /// Program (or crate) and test, with why.
    skipped: BTreeMap<(String, String), String>,
    /// What failed, what failed only beside others, and what the tests' threads said when they panicked, for the last
    /// lines.
    failures: Vec<String>,
    unstable: Vec<String>,
    panics: Vec<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let begin = Instant::now();
    let mut tally = Tally::default();
    match words.as_slice() {
        [] | ["--long"] => {
            let long = !words.is_empty();
            let programs = run_here("", long, &mut tally);
            run_second_kernel(long, &programs, &mut tally);
        }
        ["--second-kernel"] => {
            let programs = run_here("--no-run", false, &mut tally);
            run_second_kernel(false, &programs, &mut tally);
        }
        _ => {
            eprintln!("usage: run-tests [--long | --second-kernel]");
            return ExitCode::from(2);
        }
    }
    close(&tally, begin.elapsed())
}

/// Runs `cargo test` and answers the test programs of this crate by name.
fn run_here(option: &str, long: bool, tally: &mut Tally) -> BTreeMap<String, PathBuf> {
    let skips = std::env::temp_dir().join(format!("tidegate-skips-{}", std::process::id()));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"${{CARGO:-cargo}}\" test --workspace --no-fail-fast {option} 2>&1")]);
    command.env("TIDEGATE_SKIPS", &skips).stdin(Stdio::null()).stdout(Stdio::piped());
    if long {
        command.env("TIDEGATE_LONG", "1");
    }
    let mut cargo = command.spawn().expect("sh");
    let lines = BufReader::new(cargo.stdout.take().expect("cargo's output")).lines().map_while(Result::ok);
    let mut programs = BTreeMap::new();
    let mut program = String::new();
    let (mut panicking, mut failing) = (false, Vec::new());
    let mut kind = Kind::Unit;
    let (passed, failed) = (tally.passed, tally.failed);
    for line in lines {
        println!("{line}");
        panicking = line.contains("' panicked at ")
            || line.contains(") panicked at ")
            || panicking && !line.is_empty() && !line.starts_with("note: ") && !line.starts_with("stack backtrace:");
        if panicking {
            tally.panics.push(line.clone());
        }
        if let Some((name, path)) = running(&line) {
            program = name;
            kind = if line.contains(" tests/") { Kind::Integration } else { Kind::Unit };
            if kind == Kind::Integration {
                programs.insert(program.clone(), path);
            }
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            tally.passed += number_before(rest, " passed");
            tally.failed += number_before(rest, " failed");
        } else if let Some((test, why)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored")) {
            let why = why.trim_start_matches([',', ' ']);
            tally.skipped.insert((program.clone(), test.to_owned()), format!("ignored: {why}"));
        } else if let Some(test) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            failing.push((kind, program.clone(), test.to_owned()));
        }
    }
    let status = cargo.wait().expect("the end of cargo");
    let again = failing.len() <= UNSTABLE_AT_MOST;
    for (kind, program, test) in &failing {
        let passes = again && passes_alone(*kind, program, test, long);
        tally.note_failure(format!("{program}::{test}"), passes);
    }
    if !status.success() && tally.failed == failed && failing.is_empty() {
        tally.failed += 1;
        tally.failures.push("cargo test ended without a result; see above".to_owned());
    }
    for line in std::fs::read_to_string(&skips).unwrap_or_default().lines() {
        let mut parts = line.trim_start_matches("SKIPPED: ").splitn(2, ": ");
        let (test, why) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        tally.passed = tally.passed.saturating_sub(1).max(passed);
        tally.skipped.insert(("here".to_owned(), test.to_owned()), why.to_owned());
    }
    let _none_skipped = std::fs::remove_file(&skips);
    programs
}

/// What a test is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unit,
    Integration,
}

impl Tally {
    /// Of a test that is counted as failed already.
    fn note_failure(&mut self, test: String, passes_alone: bool) {
        if passes_alone {
            self.failed -= 1;
            self.passed += 1;
            self.unstable.push(test);
        } else {
            self.failures.push(test);
        }
    }
}

fn passes_alone(kind: Kind, program: &str, test: &str, long: bool) -> bool {
    println!("\n     Once more, alone: {program}::{test}\n");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--workspace", "--no-fail-fast"]);
    match kind {
        Kind::Unit => command.args(["--lib", "--bins"]),
        Kind::Integration => command.args(["--test", program]),
    };
    if long {
        command.env("TIDEGATE_LONG", "1");
    }
    let tried = command.args(["--", "--exact", test]).stdin(Stdio::null()).output().expect("cargo");
    let said = String::from_utf8_lossy(&tried.stdout);
    println!("{said}");
    tried.status.success() && said.contains("test result: ok. 1 passed")
}

fn run_second_kernel(long: bool, programs: &BTreeMap<String, PathBuf>, tally: &mut Tally) {
    let list = if long { everything(programs) } else { roster() };
    if list.is_empty() {
        return;
    }
    let vm = match Vm::find() {
        Ok(vm) => vm,
        Err(missing) => {
            let why = format!("no second kernel: {missing}");
            let all =
                list.into_iter().map(|(program, test)| ((format!("{program}, second kernel"), test), why.clone()));
            tally.skipped.extend(all);
            return;
        }
    };
    let deadline = if long { LONG_DEADLINE } else { ROSTER_DEADLINE };
    println!("\n     Running {} tests under the second kernel (at most {} s)\n", list.len(), deadline.as_secs());
    let missing = PathBuf::from("/nonexistent");
    let tests: Vec<(PathBuf, &str)> =
        list.iter().map(|(program, test)| (programs.get(program).unwrap_or(&missing).clone(), test.as_str())).collect();
    let begin = Instant::now();
    let try_all = |tests: &[(PathBuf, &str)]| {
        let (outcomes, end) = vm.try_tests(tests, TEST_LIMIT, deadline, |line| println!("{line}"));
        if let Err(problem) = end {
            println!("second kernel: {problem}");
        }
        outcomes
    };
    let outcomes = try_all(&tests);
    let failing: Vec<_> = tests
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| **outcome == Tried::Failed)
        .map(|(test, _)| test.clone())
        .collect();
    let mut again = match failing.len() {
        1..=UNSTABLE_AT_MOST => try_all(&failing),
        _ => Vec::new(),
    }
    .into_iter();
    println!("second kernel: {} s", begin.elapsed().as_secs());
    if !long && begin.elapsed() > ROSTER_MEANT {
        println!(
            "second kernel: meant to take {} s; if the machine was quiet, shorten the list",
            ROSTER_MEANT.as_secs()
        );
    }
    for ((program, test), outcome) in list.into_iter().zip(outcomes) {
        let ignored_here = tally.skipped.remove(&(program.clone(), test.clone()));
        match outcome {
            Tried::Passed => tally.passed += 1,
            Tried::Failed => {
                tally.failed += 1;
                tally.note_failure(format!("{program}::{test} (second kernel)"), again.next() == Some(Tried::Passed));
            }
            Tried::Skipped => {
                let why = ignored_here.unwrap_or_else(|| "skips itself there".to_owned());
                tally.skipped.insert((format!("{program}, second kernel"), test), why);
            }
        }
    }
}

fn roster() -> Vec<(String, String)> {
    SECOND_KERNEL.iter().map(|(program, test)| ((*program).to_owned(), (*test).to_owned())).collect()
}

fn everything(programs: &BTreeMap<String, PathBuf>) -> Vec<(String, String)> {
    let tests = |path: &Path| output(Command::new(path).args(["--list", "--format", "terse"])).stdout;
    let of = |(name, path): (&String, &PathBuf)| -> Vec<(String, String)> {
        let names = tests(path);
        let names = names.lines().filter_map(|line| line.strip_suffix(": test"));
        names.map(|test| (name.clone(), test.to_owned())).collect()
    };
    programs.iter().flat_map(of).collect()
}

fn close(tally: &Tally, took: Duration) -> ExitCode {
    println!();
    for ((program, test), why) in &tally.skipped {
        println!("SKIPPED: {program}: {test}: {why}");
    }
    for panic in tally.panics.iter().filter(|_| tally.failed + tally.unstable.len() > 0) {
        println!("{panic}");
    }
    for test in &tally.unstable {
        println!("UNSTABLE: {test}: failed beside the others, and passed alone");
    }
    for failure in &tally.failures {
        println!("FAILED: {failure}");
    }
    println!(
        "{} passed, {} failed, {} skipped ({} s)",
        tally.passed,
        tally.failed,
        tally.skipped.len(),
        took.as_secs()
    );
    if tally.failed == 0 && tally.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `     Running tests/worlds.rs (target/debug/deps/worlds-442f116fc673191b)` as `worlds` and the path from the root.
fn running(line: &str) -> Option<(String, PathBuf)> {
    let line = line.trim_start();
    let rest = line.strip_prefix("Running ").or_else(|| line.strip_prefix("Executable "))?;
    let path = rest.rsplit_once(" (")?.1.strip_suffix(')')?;
    let path = std::path::absolute(path).ok()?;
    let (name, _hash) = path.file_name()?.to_str()?.rsplit_once('-')?;
    Some((name.to_owned(), path.clone()))
}

/// The number that stands before a word, as in `5 passed`.
fn number_before(line: &str, word: &str) -> usize {
    let number = line.split(word).next().and_then(|front| front.rsplit(' ').next());
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_counted() {
        let line = "FAILED. 3 passed; 12 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.70s";
        assert_eq!((number_before(line, " passed"), number_before(line, " failed")), (3, 12));
    }

    #[test]
    fn a_running_line_names_its_program() {
        let (name, path) = running("     Running tests/node_local.rs (target/debug/deps/node_local-00ff)").unwrap();
        assert_eq!(name, "node_local");
        assert!(path.is_absolute() && path.ends_with("target/debug/deps/node_local-00ff"));
    }
}
