//! `netctl attach`

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use config::api::{AttachRequest, Workload};
use config::names::{InterfaceName, Name};
use config::resource::NamedPort;

use super::Done;
use crate::command::{Format, InNamespace};
use crate::engine;
use crate::failure::Failure;
use crate::output::{Colour, Output};
use client::Client;

/// Its arguments.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The workload's name, unique in its namespace.
    name: Name,
    #[command(flatten)]
    namespace: InNamespace,
    #[command(flatten)]
    place: Place,
    /// The socket of the container engine; Podman's or Docker's own when left out.
    #[arg(long, value_name = "SOCKET", requires = "container")]
    engine: Option<PathBuf>,
    /// A label for selectors; may be given several times. One of the container's own goes behind it.
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    labels: Vec<(String, String)>,
    /// A port's name for policies that name ports, as http=8080/TCP; may be given several times.
    #[arg(long = "port", value_name = "NAME=NUMBER/PROTOCOL")]
    ports: Vec<NamedPort>,
    /// The interface to make inside; eth0 when left out.
    #[arg(long, value_name = "NAME")]
    interface: Option<InterfaceName>,
    /// An address that it is to have, one of each family at most; others are chosen.
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// The Ethernet address that it is to have; one is made when left out.
    #[arg(long, value_name = "MAC")]
    mac: Option<String>,
    /// Attach though the namespace has other interfaces: what goes through those is not policed.
    #[arg(long)]
    beside_others: bool,
    /// How to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Where the workload is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// Where its network namespace is held open, as /run/netns/web or /proc/1234/ns/net.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// A process that is inside.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// A running container of Podman or Docker, by name or id.
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
}

impl Place {
    /// The path of its network namespace, and the labels that it has already.
    async fn find(self, engine: Option<PathBuf>) -> Result<(PathBuf, BTreeMap<String, String>), Failure> {
        let of_process = |pid: u32| PathBuf::from(format!("/proc/{pid}/ns/net"));
        match (self.container, self.pid, self.netns) {
            (Some(name), ..) => {
                let found = engine::container(&name, engine).await?;
                Ok((of_process(found.pid), found.labels))
            }
            (_, Some(pid), _) => Ok((of_process(pid), BTreeMap::new())),
            (.., netns) => {
                let netns = netns.unwrap_or_default();
                let absolute = std::path::absolute(&netns);
                let failed = |error| Failure::Usage(format!("--netns {}: {error}", netns.display()));
                Ok((absolute.map_err(failed)?, BTreeMap::new()))
            }
        }
    }
}

impl Attach {
    pub(crate) async fn run(self, client: &Client, output: &mut Output) -> Result<Done, Failure> {
        let (netns, mut labels) = self.place.find(self.engine).await?;
        labels.extend(self.labels);
        let request = AttachRequest {
            namespace: self.namespace.or_default()?,
            name: self.name,
            netns,
            labels,
            ports: self.ports,
            interface: self.interface,
            addresses: self.addresses,
            mac: self.mac,
            beside_others: self.beside_others,
        };
        let workload: Workload = client.post("attach", &request).await?;
        if !output.for_programs(self.output, &workload)? {
            let addresses = workload.status.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let name = format!("workload/{}/{}", workload.metadata.namespace, workload.metadata.name);
            output.coloured_line(
                Colour::Green,
                &format!("{name} attached to {} with {addresses}", workload.status.network),
            )?;
            if !workload.status.ready {
                output.coloured_line(Colour::Yellow, &format!("{name} is not ready: {}", workload.status.message))?;
            }
        }
        Ok(Done::Well)
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}
