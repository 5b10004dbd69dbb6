//! The gateway under test and its command line, as the built binaries.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::{Background, Said, output};
use crate::wait::wait_until;
use crate::world::World;

const READY_BOUND: Duration = Duration::from_secs(20);

/// What goes into `gateway.toml`, apart from folders.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[dns] upstreams`
    pub upstreams: Vec<IpAddr>,
    /// Further lines of `[dns]`.
    pub dns: String,
    /// `[edge] listen`
    pub listen: Vec<SocketAddr>,
    /// `[node] probes`; `None` leaves it out.
    pub probes: Option<bool>,
    /// Further lines, whole tables.
    pub more: String,
}

/// A gateway in its node namespace.
#[derive(Debug)]
pub struct Daemon {
    node: Namespace,
    configuration: PathBuf,
    netctl: Netctl,
    process: Option<Background>,
}

/// The command line, bound to one gateway's socket.
#[derive(Clone, Debug)]
pub struct Netctl {
    socket: PathBuf,
}

impl Daemon {
    /// Writes the configuration, starts the gateway and waits until it answers.
    pub fn start(world: &World, node: &Namespace, settings: &Settings) -> Self {
        let mut daemon = Self::stopped(world, node, settings);
        daemon.restart();
        daemon
    }

    /// Writes the configuration only.
    pub fn stopped(world: &World, node: &Namespace, settings: &Settings) -> Self {
        let folder = world.folder();
        let configuration = folder.join("gateway.toml");
        fs::create_dir_all(folder.join("files")).expect("a folder for tenants' files");
        fs::write(&configuration, toml(folder, &world.bpffs(), settings)).expect("gateway.toml");
        let netctl = Netctl { socket: folder.join("run/gateway.sock") };
        Self { node: node.clone(), configuration, netctl, process: None }
    }

    /// Starts it again after [`Self::kill`] or [`Self::terminate`], and waits until it answers.
    pub fn restart(&mut self) {
        let mut command = self.node.command(binary("gateway"));
        command.arg("run").arg("--config").arg(&self.configuration);
        let mut process = self.node.start("gateway", &mut command);
        wait_until("the gateway answers", READY_BOUND, || {
            assert!(process.is_running(), "the gateway ended by itself:\n{}", tail(&process.log()));
            self.netctl.run(&["status", "-o", "json"]).success()
        });
        self.process = Some(process);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("a gateway that runs").kill();
    }

    /// SIGTERM; answers the exit status, or `None` when it did not end in time.
    pub fn terminate(&mut self) -> Option<i32> {
        self.process.take().expect("a gateway that runs").terminate()
    }

    /// The command line for it.
    pub fn netctl(&self) -> &Netctl {
        &self.netctl
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Background::log).unwrap_or_default()
    }

    /// The process, while it runs.
    pub fn process(&self) -> Option<&Background> {
        self.process.as_ref()
    }

    /// Its configuration file.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log, last lines ---\n{}", tail(&self.log()));
        }
    }
}

impl Netctl {
    /// The command line for another socket.
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs it.
    pub fn run(&self, words: &[&str]) -> Said {
        output(Command::new(binary("netctl")).args(words).env("TIDEGATE_SOCKET", &self.socket))
    }

    /// Runs it and panics unless it ends with 0; answers its standard output.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert!(said.success(), "netctl {}: status {}\n{}{}", words.join(" "), said.status, said.stdout, said.stderr);
        said.stdout
    }

    /// As [`Self::ok`] with `-o json`.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        let text = self.ok(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("netctl {}: {error}\n{text}", words.join(" ")))
    }

    /// Applies manifests given as text.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> String {
        let said = self.try_apply(manifests);
        assert!(said.success(), "netctl apply: {}{}\n{manifests}", said.stdout, said.stderr);
        said.stdout
    }

    /// As [`Self::apply`], whatever comes of it.
    pub fn try_apply(&self, manifests: &str) -> Said {
        self.with_file(manifests, |file| self.run(&["apply", "-f", file]))
    }

    /// Calls `work` with a file that holds the text, beside the socket.
    pub fn with_file<R>(&self, text: &str, work: impl FnOnce(&str) -> R) -> R {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("manifests-{}.yaml", COUNTER.fetch_add(1, Ordering::Relaxed));
        let file = self.socket.ancestors().nth(2).expect("the world's folder").join(name);
        fs::write(&file, text).expect("a manifest file");
        work(file.to_str().expect("a path of the world is text"))
    }

    /// The flows that `netctl flows -o json` shows, whether it prints a list or a line for each.
    #[track_caller]
    pub fn flows(&self, words: &[&str]) -> Vec<Value> {
        let text = self.ok(&[&["flows"], words, &["-o", "json"]].concat());
        if let Ok(list) = serde_json::from_str::<Value>(&text) {
            return match list.get("flows").and_then(Value::as_array) {
                Some(flows) => flows.clone(),
                None => list.as_array().cloned().unwrap_or_else(|| vec![list]),
            };
        }
        let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("netctl flows: {error}: {line}"));
        text.lines().map(line).collect()
    }
}

/// A binary of this build: beside the running program, or in `TIDEGATE_BIN`.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
    let given = std::env::var_os("TIDEGATE_BIN").map(PathBuf::from);
    let folders = given.iter().map(PathBuf::as_path).chain(own.ancestors().skip(1).take(3));
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built; `cargo build --workspace` first, as `make test` does"))
}

fn toml(folder: &Path, bpffs: &Path, settings: &Settings) -> String {
    let mut text = format!(
        "[node]\nuplink = \"eth0\"\nstate_dir = \"{0}/state\"\nruntime_dir = \"{0}/run\"\nfiles_dir = \"{0}/files\"\nbpffs = \"{1}\"\n\
         engines = [\"{0}/docker/docker.sock\", \"{0}/podman/podman.sock\"]\n{2}",
        folder.display(),
        bpffs.display(),
        settings.probes.map(|probes| format!("probes = {probes}\n")).unwrap_or_default()
    );
    let quoted = |items: Vec<String>| items.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ");
    let upstreams = quoted(settings.upstreams.iter().map(ToString::to_string).collect());
    let listen = quoted(settings.listen.iter().map(ToString::to_string).collect());
    let _infallible = write!(text, "[dns]\nupstreams = [{upstreams}]\n{}[edge]\nlisten = [{listen}]\n", settings.dns);
    text.push_str("[metrics]\nlisten = \"127.0.0.1:9464\"\n");
    text + &settings.more
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
