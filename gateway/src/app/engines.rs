//! What container engines say of their containers, by the API that Docker has and Podman too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use client::Client;
use config::resource::{Labels, check_label};
use serde::Deserialize;
use tokio::time::timeout;

use crate::workload::Mac;

/// For an engine's answer. One that does not answer is asked again when somebody waits for it.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// A container with an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    /// Its name, without the slash that engines write before it.
    pub(crate) name: String,
    /// Those of its labels that are labels here too.
    pub(crate) labels: Labels,
}

/// What engines said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Running containers by the Ethernet address of each interface.
    pub(crate) containers: BTreeMap<Mac, Container>,
    /// Whether an engine is there, so that a container which is not known may be known soon.
    pub(crate) asked: bool,
}

/// An entry of `GET /containers/json`, what of it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    network_settings: Option<NetworkSettings>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: Option<BTreeMap<String, Endpoint>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    #[serde(default)]
    mac_address: String,
}

/// Asks all engines that are there.
pub(crate) async fn containers(sockets: &[PathBuf]) -> Known {
    let mut known = Known::default();
    for socket in sockets.iter().filter(|socket| socket.exists()) {
        let engine = Client::of_engine(socket.clone());
        match timeout(ANSWER_TIME, engine.get::<Vec<Listed>>("containers/json")).await {
            Ok(Ok(listed)) => {
                known.asked = true;
                known.containers.extend(listed.into_iter().flat_map(interfaces));
            }
            // A socket whose engine is stopped is no reason to wait for it.
            Ok(Err(client::Error::NoDaemon { .. })) => {}
            Ok(Err(error)) => {
                known.asked = true;
                tracing::warn!(socket = %socket.display(), %error, "a container engine's answer is not understood");
            }
            Err(_) => {
                known.asked = true;
                tracing::warn!(socket = %socket.display(), "a container engine does not answer within {ANSWER_TIME:?}");
            }
        }
    }
    known
}

fn interfaces(listed: Listed) -> Vec<(Mac, Container)> {
    let name = listed.names.first().map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default();
    let labels = listed.labels.unwrap_or_default().into_iter();
    let labels = labels.filter(|(key, value)| check_label(key, value).is_ok()).collect();
    let container = Container { name, labels };
    let endpoints = listed.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let macs = endpoints.into_values().filter_map(|endpoint| endpoint.mac_address.parse().ok());
    macs.map(|mac| (mac, container.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_each_of_its_interfaces() {
        // As Docker 20.10 answers; Podman leaves out what it has not.
        let answer = r#"[
            {"Id": "3f", "Names": ["/web"], "State": "running",
             "Labels": {"app": "web", "com.docker.compose.project": "shop", "not a label": "x"},
             "NetworkSettings": {"Networks": {
                "bridge": {"IPAddress": "172.17.0.2", "MacAddress": "02:42:ac:11:00:02"},
                "none": {"MacAddress": ""}}}},
            {"Id": "40", "Names": ["/host"], "Labels": null, "NetworkSettings": null}
        ]"#;
        let listed: Vec<Listed> = serde_json::from_str(answer).unwrap();
        let found: Vec<_> = listed.into_iter().flat_map(interfaces).collect();
        let [(mac, container)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((mac.to_string().as_str(), container.name.as_str()), ("02:42:ac:11:00:02", "web"));
        assert_eq!(container.labels.len(), 2);
    }
}
