//! The node's settings: one TOML file, every key with a default.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::{fs, io};

use config::upstream::Upstream;
use policy::Probes;
use serde::Deserialize;

/// `gateway.toml`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `[node]`
    pub node: Node,
    /// `[dns]`
    pub dns: Dns,
    /// `[egress]`
    pub egress: Egress,
    /// `[edge]`
    pub edge: Edge,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[limits]`
    pub limits: Limits,
}

/// `[node]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Device towards the world; `None` is the default route's.
    pub uplink: Option<String>,
    /// Store and its export.
    pub state_dir: PathBuf,
    /// Socket, lock, namespace handles.
    pub runtime_dir: PathBuf,
    /// Certificates, keys and lists that resources name.
    pub files_dir: PathBuf,
    /// Folder for pins on a mounted bpf file system.
    pub bpffs: PathBuf,
    /// Whether the node itself may open connections to its workloads; `None`: to those that a NetworkPolicy selects.
    pub probes: Option<bool>,
    /// Sockets of container engines, of which those are asked that are there: names and labels of containers on adopted
    /// bridges.
    pub engines: Vec<PathBuf>,
    /// IPv4 block of the handles.
    pub handles_v4: ipnetwork::Ipv4Network,
    /// IPv6 block of the handles.
    pub handles_v6: ipnetwork::Ipv6Network,
}

/// `[dns]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Servers; empty: those of the node's resolv.conf.
    pub upstreams: Vec<Upstream>,
    /// Certificates (PEM) of who may vouch for the names of servers that are asked by TLS.
    pub tls_roots: PathBuf,
}

impl Default for Dns {
    fn default() -> Self {
        Self { upstreams: Vec::new(), tls_roots: "/etc/ssl/certs/ca-certificates.crt".into() }
    }
}

/// `[egress]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Whether packets of networks that this node routes for skip the node's stack between their workload and the uplink.
    pub fast_path: bool,
    /// Ports that masqueraded flows leave the node with.
    pub snat_ports: SnatPorts,
}

/// Ports of source NAT, written `50000-59999`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SnatPorts(RangeInclusive<u16>);

impl SnatPorts {
    /// What keeps tenants from each other's ports needs some to choose from.
    const FEWEST: u16 = 256;

    /// First and last.
    pub fn range(&self) -> &RangeInclusive<u16> {
        &self.0
    }
}

impl TryFrom<String> for SnatPorts {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |what: &str| format!("snat_ports: `{text}` {what}; write two ports such as \"50000-59999\"");
        let ports = text
            .split_once('-')
            .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
        let Some((first, last)): Option<(u16, u16)> = ports else { return Err(wrong("is no range of ports")) };
        if first < 1024 {
            return Err(wrong("begins below 1024, where the node's own services are"));
        }
        if last < first || last - first < Self::FEWEST - 1 {
            return Err(wrong("holds fewer than 256 ports"));
        }
        Ok(Self(first..=last))
    }
}

/// `[edge]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Edge {
    /// Where TLS is accepted.
    pub listen: Vec<SocketAddr>,
}

/// `[metrics]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Prometheus text at `/metrics`.
    pub listen: SocketAddr,
}

/// `[limits]`: sizes of the kernel's tables, taken when they are first made, of the DNS cache, and idle times.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Flows of the node.
    pub flows: u32,
    /// Flows of one workload.
    pub flows_per_workload: u32,
    /// Learned (workload, address) pairs of the node.
    pub learned: u32,
    /// Bytes of DNS answers that are kept, with what it takes to find them; 0 keeps none.
    pub dns_cache: u32,
    /// DNS queries a second of one workload, without those that the kernel answers; four seconds' worth may come at once.
    pub dns_queries_per_second: u32,
    /// Of these, the ones for which servers are asked. What looks like a tunnel's (TXT and unknown types, very long names)
    /// counts ten times.
    pub dns_lookups_per_second: u32,
    /// Source NAT's mappings of the node.
    pub nat_mappings: u32,
    /// Mappings of one network.
    pub nat_mappings_per_network: u32,
    /// Prefixes of each family, of all rules and sets in use.
    pub prefixes: u32,
    /// Prefixes of one address set.
    pub set_prefixes: u32,
    /// Seconds an established TCP flow may be idle.
    pub tcp_idle_s: u32,
    /// Seconds for other flows, half-open and closing TCP included.
    pub other_idle_s: u32,
}

impl Node {
    /// `probes`, as policies have it.
    pub fn probes(&self) -> Probes {
        match self.probes {
            None => Probes::Selected,
            Some(true) => Probes::All,
            Some(false) => Probes::Never,
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            uplink: None,
            state_dir: "/var/lib/tidegate".into(),
            runtime_dir: "/run/tidegate".into(),
            files_dir: "/etc/tidegate/files".into(),
            bpffs: "/sys/fs/bpf/tidegate".into(),
            probes: None,
            engines: vec!["/var/run/docker.sock".into(), "/run/podman/podman.sock".into()],
            handles_v4: "198.18.0.0/15".parse().expect("a literal block"),
            handles_v6: "fd74:6769::/64".parse().expect("a literal block"),
        }
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self { fast_path: true, snat_ports: SnatPorts(50_000..=59_999) }
    }
}

impl Default for Edge {
    fn default() -> Self {
        Self { listen: vec![SocketAddr::from(([0, 0, 0, 0], 443)), SocketAddr::from(([0u16; 8], 443))] }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9464)) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 262_144,
            flows_per_workload: 16_384,
            learned: 65_536,
            dns_cache: 16_777_216,
            dns_queries_per_second: 5_000,
            dns_lookups_per_second: 500,
            nat_mappings: 262_144,
            nat_mappings_per_network: 65_536,
            prefixes: 2_200_000,
            set_prefixes: 1_000_000,
            tcp_idle_s: 7_200,
            other_idle_s: 120,
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file.
    #[error("cannot read {path}: {source}; name another file with `--config`, or leave it out to take the defaults")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its text.
    #[error("{path}: {text}\nconfig/examples/gateway.toml has every key")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, key and what is wrong.
        text: String,
    },
    /// A value that cannot be.
    #[error("{key}: {what}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong; what to write instead.
        what: String,
    },
}

impl Settings {
    /// Reads the file, or takes every default.
    pub fn load(path: Option<&Path>) -> Result<Self, SettingsError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = fs::read_to_string(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        let parsed = toml::from_str(&text);
        let settings: Self = parsed.map_err(|error| SettingsError::Parse {
            path: path.to_owned(),
            text: error.to_string().trim_end().to_owned(),
        })?;
        settings.checked()
    }

    fn checked(self) -> Result<Self, SettingsError> {
        let wrong = |key, what: &str| Err(SettingsError::Value { key, what: what.to_owned() });
        let paths = [
            ("[node] state_dir", &self.node.state_dir),
            ("[node] runtime_dir", &self.node.runtime_dir),
            ("[node] files_dir", &self.node.files_dir),
            ("[node] bpffs", &self.node.bpffs),
            ("[dns] tls_roots", &self.dns.tls_roots),
        ];
        if let Some((key, _)) = paths.into_iter().find(|(_, path)| !path.is_absolute()) {
            return wrong(key, "is no absolute path; begin it with /");
        }
        if self.node.handles_v4.prefix() > 22 {
            return wrong("[node] handles_v4", "has room for fewer than a thousand addresses; use a /22 or larger");
        }
        if self.node.handles_v6.prefix() > 104 {
            return wrong("[node] handles_v6", "is too small; use a /104 or larger");
        }
        if self.edge.listen.is_empty() {
            return wrong("[edge] listen", "is empty; name at least one address, such as \"127.0.0.1:443\"");
        }
        let limits = [
            ("[limits] flows", self.limits.flows),
            ("[limits] flows_per_workload", self.limits.flows_per_workload),
            ("[limits] learned", self.limits.learned),
            ("[limits] dns_queries_per_second", self.limits.dns_queries_per_second),
            ("[limits] dns_lookups_per_second", self.limits.dns_lookups_per_second),
            ("[limits] nat_mappings", self.limits.nat_mappings),
            ("[limits] nat_mappings_per_network", self.limits.nat_mappings_per_network),
            ("[limits] prefixes", self.limits.prefixes),
            ("[limits] set_prefixes", self.limits.set_prefixes),
            ("[limits] tcp_idle_s", self.limits.tcp_idle_s),
            ("[limits] other_idle_s", self.limits.other_idle_s),
        ];
        if let Some((key, _)) = limits.into_iter().find(|(_, value)| *value == 0) {
            return wrong(key, "is 0; leave it out to take the default");
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, String> {
        let file = std::env::temp_dir().join(format!("tidegate-settings-{}-{:x}.toml", std::process::id(), text.len()));
        fs::write(&file, text).expect("a temporary file");
        let loaded = Settings::load(Some(&file)).map_err(|error| error.to_string());
        fs::remove_file(&file).expect("it is ours");
        loaded
    }

    #[test]
    fn the_example_holds_the_defaults() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/examples/gateway.toml");
        let example = Settings::load(Some(Path::new(example))).expect("the example");
        assert_eq!(format!("{example:?}"), format!("{:?}", Settings::default()));
    }

    #[test]
    fn bad_settings_are_named() {
        assert!(load("[node]\nprobe = true\n").expect_err("unknown").contains("probe"));
        assert!(load("[node]\nstate_dir = \"state\"\n").expect_err("relative").contains("absolute"));
        assert!(load("[dns]\ntls_roots = \"roots\"\n").expect_err("relative").contains("[dns] tls_roots"));
        assert!(load("[edge]\nlisten = []\n").expect_err("empty").contains("[edge] listen"));
        for (ports, said) in
            [("50000", "no range"), ("80-59999", "below 1024"), ("50000-50099", "fewer"), ("60000-50000", "fewer")]
        {
            let error = load(&format!("[egress]\nsnat_ports = \"{ports}\"\n")).expect_err(ports);
            assert!(error.contains(said) && error.contains("50000-59999"), "{error}");
        }
        assert!(load("[limits]\nflows = 0\n\n").expect_err("zero").contains("[limits] flows"));
    }
}
