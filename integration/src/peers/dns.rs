//! A real DNS server, `unbound`, with zones of the world's own: authoritative data that its iterator walks, so that
//! chains of CNAMEs across zones are answered whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::process::Background;
use crate::wait::wait_until;

const FILE: &str = "unbound.conf";
const QUERIES: &str = "queries.log";

/// Zones: apex → lines of a zone file, names relative to the apex.
#[derive(Clone, Debug, Default)]
pub struct Zones(BTreeMap<String, Vec<String>>);

impl Zones {
    /// Adds a line to a zone: a name (`@` is the apex) and the rest, for example `("api", "60 A 203.0.113.10")`.
    pub fn add(&mut self, apex: &str, name: &str, record: &str) -> &mut Self {
        self.0.entry(apex.to_owned()).or_default().push(format!("{name} {record}"));
        self
    }
}

/// A running `unbound`.
#[derive(Debug)]
pub struct Unbound {
    process: Background,
    namespace: Namespace,
    folder: PathBuf,
    listens: Vec<SocketAddr>,
}

impl Unbound {
    /// Starts it on port 53 of these addresses; files in `folder`.
    pub fn start(namespace: &Namespace, folder: &Path, addresses: &[IpAddr], zones: &Zones) -> Self {
        let listens: Vec<SocketAddr> = addresses.iter().map(|address| (*address, 53).into()).collect();
        Self::with(namespace, folder, &listens, zones, "")
    }

    /// The same, where it is to listen, and with further lines of `server:`.
    pub fn with(namespace: &Namespace, folder: &Path, listens: &[SocketAddr], zones: &Zones, more: &str) -> Self {
        fs::create_dir_all(folder).expect("a folder for unbound");
        fs::write(folder.join(FILE), configuration(folder, listens, zones, more)).expect(FILE);
        let (folder, listens) = (folder.to_owned(), listens.to_vec());
        let process = run(namespace, &folder, &listens);
        Self { process, namespace: namespace.clone(), folder, listens }
    }

    /// Kills it, and starts another with the same configuration.
    pub fn replace(&mut self) {
        self.process.end_now();
        self.process = run(&self.namespace, &self.folder, &self.listens);
    }

    /// The questions that reached it: one line each with name, in lower case, and type.
    pub fn questions(&self) -> Vec<String> {
        self.spellings().iter().map(|line| lower_name(line)).collect()
    }

    /// The same, with names as they were spelt.
    pub fn spellings(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join(QUERIES)).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains("info:") && line.trim_end().ends_with(" IN"))
            .map(str::to_owned)
            .collect()
    }

    /// The process: stopped by a signal, it is a dead upstream that comes back with the next.
    pub fn process(&self) -> &Background {
        &self.process
    }
}

fn run(namespace: &Namespace, folder: &Path, listens: &[SocketAddr]) -> Background {
    let mut process =
        namespace.start("unbound", namespace.command("unbound").arg("-d").arg("-c").arg(folder.join(FILE)));
    wait_until("unbound listens", Duration::from_secs(10), || {
        assert!(process.is_running(), "unbound ended: {}", process.log());
        listens.iter().all(|at| namespace.listens(*at))
    });
    process
}

/// `… info: 192.0.2.1 nAmE.example. A IN`
fn lower_name(line: &str) -> String {
    let (head, asked) = line.split_at(line.find("info:").unwrap_or(0));
    let words: Vec<String> =
        asked.split(' ').map(|word| if word.ends_with('.') { word.to_lowercase() } else { word.to_owned() }).collect();
    head.to_owned() + &words.join(" ")
}

fn configuration(folder: &Path, listens: &[SocketAddr], zones: &Zones, more: &str) -> String {
    let folder_text = folder.display();
    let mut text = format!(
        "server:\n  directory: \"{folder_text}\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  \
         logfile: \"{folder_text}/{QUERIES}\"\n  log-queries: yes\n  verbosity: 0\n  do-daemonize: no\n  num-threads: 1\n  \
         module-config: \"iterator\"\n  access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n  \
         do-not-query-localhost: no\n  minimal-responses: yes\n  trust-anchor-signaling: no\n  root-hints: \"\"\n  \
         edns-buffer-size: 1232\n  max-udp-size: 1232\n  rrset-roundrobin: no\n"
    );
    for at in listens {
        let _infallible = writeln!(text, "  interface: {}@{}", at.ip(), at.port());
    }
    text.push_str(more);
    text.push_str("remote-control:\n  control-enable: no\n");
    for (apex, lines) in &zones.0 {
        let file = folder.join(format!("{apex}.zone"));
        let head =
            format!("$ORIGIN {apex}.\n$TTL 60\n@ SOA ns.{apex}. admin.{apex}. 1 3600 600 86400 60\n@ NS ns.{apex}.\n");
        fs::write(&file, format!("{head}ns A 127.0.0.1\n{}\n", lines.join("\n"))).expect("a zone file");
        let _infallible = write!(
            text,
            "auth-zone:\n  name: \"{apex}.\"\n  zonefile: \"{}\"\n  for-downstream: no\n  for-upstream: yes\n  fallback-enabled: no\n",
            file.display()
        );
    }
    text
}
