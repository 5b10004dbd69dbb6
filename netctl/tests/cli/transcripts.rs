//! `netctl`'s behaviour as transcripts: each file of `transcripts/` holds commands and, below each, what they must ask the
//! daemon (`> `), print (plain), complain (`! `) and exit with. The daemon is played back from `recorded/` over a real
//! Unix socket. `UPDATE_TRANSCRIPTS=1 cargo test` writes what is so now; read the difference before keeping it.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::playback::Playback;

#[test]
fn every_transcript_is_true() {
    let daemon = Playback::start();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut differing = Vec::new();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the transcripts are there");
    for path in files {
        let wanted = fs::read_to_string(&path).unwrap();
        let found = replay(&daemon, &wanted);
        if found == wanted {
            continue;
        }
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            fs::write(&path, found).unwrap();
        } else {
            differing.push(format!("== {} is so now:\n{found}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Runs the commands of a transcript, and writes it anew. Lines that begin with `#` stay.
fn replay(daemon: &Playback, transcript: &str) -> String {
    let mut text = String::new();
    for line in transcript.lines() {
        if let Some(command) = line.strip_prefix("$ netctl ") {
            writeln!(text, "{line}\n{}", run(daemon, command)).unwrap();
        } else if line.starts_with('#') {
            writeln!(text, "{line}").unwrap();
        }
    }
    text
}

fn run(daemon: &Playback, command: &str) -> String {
    let (command, input) = command.split_once(" < ").unwrap_or((command, ""));
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let stdin = if input.is_empty() { Stdio::null() } else { File::open(manifests.join(input)).unwrap().into() };
    let output = Command::new(env!("CARGO_BIN_EXE_netctl"))
        .args(command.split_whitespace())
        .current_dir(&manifests)
        .env_clear()
        .env("TIDEGATE_SOCKET", daemon.socket())
        .stdin(stdin)
        .output()
        .unwrap();
    let mut text = String::new();
    for asked in daemon.take_asked() {
        writeln!(text, "> {asked}").unwrap();
    }
    text.push_str(&daemon.with_marks(&String::from_utf8(output.stdout).unwrap()));
    for line in daemon.with_marks(&String::from_utf8(output.stderr).unwrap()).lines() {
        writeln!(text, "! {line}").unwrap();
    }
    writeln!(text, "[exit {}]", output.status.code().unwrap()).unwrap();
    text
}
