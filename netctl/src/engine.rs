//! Containers by the names that their engine knows, asked of its API: Docker's, which Podman has too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use client::{Client, Error};
use config::resource::check_label;
use serde::Deserialize;

use crate::failure::Failure;

/// Where engines listen.
const SOCKETS: [&str; 2] = ["/run/podman/podman.sock", "/var/run/docker.sock"];

/// A running container.
#[derive(Debug)]
pub(crate) struct Container {
    /// Of its first process.
    pub(crate) pid: u32,
    /// Those of its labels that are labels here too.
    pub(crate) labels: BTreeMap<String, String>,
}

/// `GET /containers/NAME/json`, what of it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: State,
    config: Config,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    pid: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Asks the engine at `socket`, or the first that is there, for a container by name or id.
pub(crate) async fn container(name: &str, socket: Option<PathBuf>) -> Result<Container, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(Failure::Usage(format!("--container {name}: no name of a container")));
    }
    let socket = match socket.or_else(|| SOCKETS.map(PathBuf::from).into_iter().find(|socket| socket.exists())) {
        Some(socket) => socket,
        None => {
            let message = format!("there is no container engine: neither {}", SOCKETS.join(" nor "));
            return Err(Failure::refused(
                message,
                "start its service (`systemctl start podman.socket`), or give --engine",
            ));
        }
    };
    let shown = socket.display().to_string();
    let asked = Client::of_engine(socket).get(&format!("containers/{name}/json")).await;
    let inspected: Inspected = asked.map_err(|error| match error {
        Error::Refused { message, .. } => {
            Failure::refused(format!("{shown}: {message}"), "see `podman ps` or `docker ps`")
        }
        Error::NoDaemon { .. } | Error::NoAnswer { .. } => Failure::refused(
            format!("no container engine answers at {shown}"),
            "start its service, or give another --engine",
        ),
    })?;
    if inspected.state.pid == 0 {
        return Err(Failure::refused(format!("container {name} does not run"), "start it first"));
    }
    let labels = inspected.config.labels.unwrap_or_default().into_iter();
    let labels = labels.filter(|(key, value)| check_label(key, value).is_ok()).collect();
    Ok(Container { pid: inspected.state.pid, labels })
}
