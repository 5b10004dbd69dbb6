//! The node's settings: one TOML file, every key with a default.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

/// `gateway.toml`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `[node]`
    pub node: Node,
    /// `[dns]`
    pub dns: Dns,
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
    /// Whether the node itself may open connections to its workloads.
    pub probes: bool,
    /// IPv4 block of the handles.
    pub handles_v4: ipnetwork::Ipv4Network,
    /// IPv6 block of the handles.
    pub handles_v6: ipnetwork::Ipv6Network,
}

/// `[dns]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Servers asked at port 53; empty: those of the node's resolv.conf.
    pub upstreams: Vec<IpAddr>,
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

/// `[limits]`: sizes of the kernel's tables, taken when they are first made, and idle times.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Flows of the node.
    pub flows: u32,
    /// Flows of one workload.
    pub flows_per_workload: u32,
    /// Learned (workload, address) pairs of the node.
    pub learned: u32,
    /// Seconds an established TCP flow may be idle.
    pub tcp_idle_s: u32,
    /// Seconds for other flows, half-open and closing TCP included.
    pub other_idle_s: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            uplink: None,
            state_dir: "/var/lib/tidegate".into(),
            runtime_dir: "/run/tidegate".into(),
            files_dir: "/etc/tidegate/files".into(),
            bpffs: "/sys/fs/bpf/tidegate".into(),
            probes: false,
            handles_v4: "198.18.0.0/15".parse().expect("a literal block"),
            handles_v6: "fd74:6769::/64".parse().expect("a literal block"),
        }
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
        Self { flows: 262_144, flows_per_workload: 16_384, learned: 65_536, tcp_idle_s: 7_200, other_idle_s: 120 }
    }
}
