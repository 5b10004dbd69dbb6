//! One network namespace: commands and code inside it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::process::{Background, Said, output, output_with_input};
use crate::sys::packet::PacketSocket;
use crate::sys::{netns, process};

/// A network namespace of a world.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    log: PathBuf,
    lasting: bool,
}

impl Namespace {
    /// The namespace that `ip netns` knows by that name; logs of its processes begin with `log`.
    pub(crate) fn new(name: String, log: PathBuf, lasting: bool) -> Self {
        let path = Path::new("/run/netns").join(&name);
        Self { name, path, log, lasting }
    }

    /// A namespace of somebody else, held open at that path.
    pub fn at(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { log: std::env::temp_dir().join(&name), name, path: path.to_owned(), lasting: false }
    }

    /// Its name for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it open.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that will start inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = File::open(&self.path).unwrap_or_else(|error| panic!("namespace {}: {error}", self.name));
        let resolv_conf = Path::new("/etc/netns").join(&self.name).join("resolv.conf");
        let resolv_conf = resolv_conf.exists().then_some(resolv_conf);
        process::start_in(&mut command, file, resolv_conf.as_deref()).expect("a path without NUL");
        command
    }

    /// Runs a command of words parted by spaces.
    pub fn run(&self, line: &str) -> Said {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command has a program");
        output(self.command(program).args(words))
    }

    /// As [`Self::run`], and panics when it fails. Answers its standard output.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let said = self.run(line);
        assert!(said.success(), "in {}: {line}: status {}\n{}{}", self.name, said.status, said.stdout, said.stderr);
        said.stdout
    }

    /// `ip` with these words; panics when it fails.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        self.ok(&format!("ip {words}"))
    }

    /// `ip` with each of these lines, by one process; panics at the first that fails.
    #[track_caller]
    pub fn ip_lines<'a>(&self, lines: impl IntoIterator<Item = &'a str>) {
        let text: Vec<&str> = lines.into_iter().collect();
        let mut command = self.command("ip");
        let said = output_with_input(command.args(["-batch", "-"]), &text.join("\n"));
        assert!(said.success(), "in {}: {}: {text:?}", self.name, said.stderr);
    }

    /// `ip -j` with these words.
    #[track_caller]
    pub fn ip_json(&self, words: &str) -> serde_json::Value {
        let text = self.ok(&format!("ip -j {words}"));
        serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).expect("ip -j writes JSON")
    }

    /// Writes a `net.` sysctl of this namespace, named by its path below `/proc/sys/net`.
    #[track_caller]
    pub fn sysctl(&self, path: &str, value: &str) {
        let file = Path::new("/proc/sys/net").join(path);
        let written = self.enter(|| fs::write(&file, value));
        written.unwrap_or_else(|error| panic!("in {}: {} = {value}: {error}", self.name, file.display()));
    }

    /// Starts a process that the world owns.
    pub fn start(&self, name: &str, command: &mut Command) -> Background {
        let mut log = self.log.clone().into_os_string();
        log.push(format!("-{name}.log"));
        Background::start(command, Path::new(&log), self.lasting)
    }

    /// Runs code on a thread inside. Sockets that it makes stay inside wherever they are used.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let file = File::open(&self.path).unwrap_or_else(|error| panic!("namespace {}: {error}", self.name));
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                netns::enter(&file).unwrap_or_else(|error| panic!("namespace {}: {error}", self.name));
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sends a frame as it is.
    #[track_caller]
    pub fn send_frame(&self, interface: &str, frame: &[u8]) {
        let sent = self.enter(|| PacketSocket::open(interface, false).and_then(|socket| socket.send(frame)));
        sent.unwrap_or_else(|error| panic!("{} {interface}: send a frame: {error}", self.name));
    }

    /// A counter of `/proc/net/netstat` or `/proc/net/snmp`, such as `("TcpExt", "TCPSynRetrans")`.
    pub fn counter(&self, group: &str, name: &str) -> u64 {
        let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("network counters");
        let text = self.enter(|| read("netstat") + &read("snmp"));
        let mut lines = text.lines().filter(|line| line.starts_with(&format!("{group}:")));
        let (names, values) = (lines.next().expect("a group of counters"), lines.next().expect("its values"));
        let position = names.split(' ').position(|found| found == name);
        let value = position.and_then(|position| values.split(' ').nth(position));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no counter {group} {name}"))
    }

    /// Frames that the interface received.
    pub fn received_frames(&self, interface: &str) -> u64 {
        let text = self.enter(|| fs::read_to_string("/proc/thread-self/net/dev").expect("device counters"));
        let line = text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        let value = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("in {}: no device {interface}", self.name))
    }
}
