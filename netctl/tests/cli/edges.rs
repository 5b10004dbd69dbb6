//! Where `netctl` meets the world: no daemon, a wrong one, a closed pipe, a terminal.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use crate::playback::Playback;

fn netctl(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netctl"));
    command.args(arguments).env_clear().env("TIDEGATE_SOCKET", socket);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder that a test owns, at the socket's place of a playback that nobody asks.
fn folder_of(daemon: &Playback) -> std::path::PathBuf {
    daemon.socket().parent().unwrap().to_owned()
}

#[test]
fn without_a_daemon_it_says_so_and_how_to_start_one() {
    let daemon = Playback::start();
    let missing = folder_of(&daemon).join("nothing.sock");
    let output = netctl(&missing, &["status"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("the gateway is not running: there is no")
            && stderr(&output).contains("`gateway run`"),
        "{output:?}"
    );

    let stale = folder_of(&daemon).join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let output = netctl(&stale, &["get", "networks"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nobody listens on"), "{output:?}");
}

#[test]
fn a_user_who_may_not_is_told_to_be_root() {
    let daemon = Playback::start();
    fs::set_permissions(daemon.socket(), Permissions::from_mode(0o600)).unwrap();
    let program = folder_of(&daemon).join("netctl");
    fs::copy(env!("CARGO_BIN_EXE_netctl"), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--clear-groups"])
        .arg(program)
        .args(["status", "--socket"])
        .arg(daemon.socket())
        .current_dir("/")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("you may not use") && stderr(&output).contains("run netctl as root"),
        "{output:?}; these tests run as root"
    );
}

#[test]
fn doctor_checks_by_itself_when_the_daemon_is_down() {
    let daemon = Playback::start();
    let missing = folder_of(&daemon).join("nothing.sock");
    let output = netctl(&missing, &["doctor"]).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("these checks are netctl's own"), "{output:?}");
    assert!(text.contains("FAIL     daemon: the gateway is not running") && text.contains("kernel: Linux "), "{text}");
}

#[test]
fn whoever_answers_wrongly_is_named() {
    let daemon = Playback::start();
    for (answer, part) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "the gateway hung up"),
        (b"", "the gateway hung up"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "the answer is not understood"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"networks\":", "the answer was cut short"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", "HTTP status 503"),
    ] {
        let path = folder_of(&daemon).join("wrong.sock");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        let output = netctl(&path, &["status"]).output().unwrap();
        serving.join().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(part), "{part}: {output:?}");
    }
}

#[test]
fn a_stream_that_ends_in_the_middle_of_a_line_is_an_error() {
    let daemon = Playback::start();
    let path = folder_of(&daemon).join("cut.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n0\r\n\r\n").unwrap();
    });
    let output = netctl(&path, &["flows", "-f"]).output().unwrap();
    serving.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("in the middle of a line"), "{output:?}");
}

#[test]
fn a_closed_pipe_is_success() {
    let daemon = Playback::start();
    for arguments in [
        &["status"][..],
        &["get", "networks", "-o", "json"],
        &["flows", "-f", "-o", "json"],
        &["get", "networks", "-w"],
    ] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = netctl(&daemon.socket(), arguments).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_below_the_output_is_a_failure() {
    let daemon = Playback::start();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = netctl(&daemon.socket(), &["status"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("No space left"), "{output:?}");
}

#[test]
fn colours_are_for_terminals_only_and_never_with_no_color() {
    let daemon = Playback::start();
    let on_terminal = |variable: &str| {
        let command =
            format!("{variable} {} --socket {} doctor", env!("CARGO_BIN_EXE_netctl"), daemon.socket().display());
        let output =
            Command::new("script").args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(on_terminal("env").contains("\x1b[32mok"));
    assert!(!on_terminal("NO_COLOR=1").contains('\x1b'));
    assert!(!on_terminal("TERM=dumb").contains('\x1b'));
    let output = netctl(&daemon.socket(), &["doctor"]).output().unwrap();
    assert!(!output.stdout.contains(&0x1b));
}

#[test]
fn what_others_wrote_cannot_drive_the_terminal() {
    let daemon = Playback::start();
    let output = netctl(&daemon.socket(), &["get", "network/evil"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("?[2Jevil?[0m") && !text.contains('\x1b') && text.lines().count() == 2, "{text:?}");
}
