//! Which workload a container is.

use std::collections::BTreeMap;

use config::api::AttachRequest;
use config::names::Name;

use crate::answer::Failure;
use crate::call::Call;

/// The workload that a container is to become.
pub(crate) fn workload(call: &Call) -> Result<AttachRequest, Failure> {
    let netns = call.netns.clone().ok_or_else(|| Failure::environment("CNI_NETNS is not set"))?;
    Ok(AttachRequest {
        namespace: namespace(call)?.ok_or_else(|| {
            Failure::configuration(
                "the container is in no namespace",
                "set `namespace` in the network's configuration, or TIDEGATE_NAMESPACE in CNI_ARGS",
            )
        })?,
        name: name(call)?,
        netns,
        labels: labels(call)?,
        ports: call.ports()?,
        interface: None,
        addresses: call.addresses()?,
        mac: call.network.runtime_config.mac.clone().or_else(|| call.arguments.get("MAC").cloned()),
        beside_others: call.network.beside_others,
    })
}

/// What an administrator wrote comes before what a container's engine says of it.
pub(crate) fn namespace(call: &Call) -> Result<Option<Name>, Failure> {
    if let Some(namespace) = &call.network.namespace {
        return Ok(Some(namespace.clone()));
    }
    let said = ["TIDEGATE_NAMESPACE", "K8S_POD_NAMESPACE"].iter().find_map(|key| call.arguments.get(*key));
    let parse = |text: &String| {
        Name::try_from(text.clone()).map_err(|error| Failure::configuration(format!("the namespace: {error}"), ""))
    };
    said.map(parse).transpose()
}

/// The name that people gave it, where that is one; else as much of it as can be, made its own by the container's number.
fn name(call: &Call) -> Result<Name, Failure> {
    const OWN: usize = 12;
    let said = ["TIDEGATE_NAME", "K8S_POD_NAME"].iter().find_map(|key| call.arguments.get(*key));
    if let Some(plain) = said.and_then(|said| Name::try_from(said.clone()).ok()) {
        return Ok(plain);
    }
    let number = lower(&call.container, OWN);
    let text = match said.map(|said| lower(said, 63 - 1 - OWN)).filter(|said| !said.is_empty()) {
        Some(said) => format!("{said}-{number}"),
        None => number,
    };
    Name::try_from(text).map_err(|error| Failure::environment(format!("CNI_CONTAINERID: {error}")))
}

/// The first letters and digits of a text, others as dashes within.
fn lower(text: &str, most: usize) -> String {
    let letters = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let taken: String = letters.skip_while(|c| *c == '-').take(most).collect();
    taken.trim_end_matches('-').to_owned()
}

fn labels(call: &Call) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    if let Some(list) = call.arguments.get("TIDEGATE_LABELS") {
        for pair in list.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Failure::configuration(format!("TIDEGATE_LABELS: `{pair}` is no label"), "write app=web,tier=front")
            })?;
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
    let conventional = call.network.args.cni.labels.iter();
    labels.extend(conventional.map(|label| (label.key.clone(), label.value.clone())));
    labels.extend(call.network.labels.clone());
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(arguments: &str, keys: serde_json::Value) -> Call {
        let mut configuration = json!({ "cniVersion": "1.1.0", "name": "tidegate", "type": "tidegate-cni" });
        configuration.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let variable = |name: &str| match name {
            "CNI_COMMAND" => Some("ADD".to_owned()),
            "CNI_CONTAINERID" => Some("0123456789abcdef0123456789abcdef".to_owned()),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            "CNI_NETNS" => Some("/run/netns/web".to_owned()),
            "CNI_ARGS" => Some(arguments.to_owned()),
            _ => None,
        };
        Call::read(variable, configuration.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_pod_of_kubernetes_is_a_workload_of_its_namespace() {
        let pod =
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=1;IP=10.100.0.9/24";
        let found = workload(&call(pod, json!({ "ports": ["http=8080"], "besideOthers": true }))).unwrap();
        assert_eq!((found.namespace.as_str(), found.name.as_str()), ("shop", "web-0"));
        assert_eq!(found.addresses, ["10.100.0.9".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!((found.ports.len(), found.beside_others), (1, true));
    }

    #[test]
    fn an_administrators_word_comes_first() {
        let said = "TIDEGATE_NAMESPACE=bank;K8S_POD_NAMESPACE=lab;TIDEGATE_LABELS=app=db,tier=back";
        let own = json!({ "namespace": "shop", "labels": { "app": "web" }, "args": { "cni": { "labels": [
            { "key": "app", "value": "cache" }, { "key": "zone", "value": "a" } ] } } });
        let found = workload(&call(said, own)).unwrap();
        assert_eq!(found.namespace.as_str(), "shop");
        let labels = [("app", "web"), ("tier", "back"), ("zone", "a")];
        assert_eq!(found.labels, labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert_eq!(namespace(&call(said, json!({}))).unwrap().unwrap().as_str(), "bank");
        assert!(workload(&call("", json!({}))).is_err(), "in no namespace");
    }

    #[test]
    fn the_example_is_a_network() {
        let list: serde_json::Value = serde_json::from_str(include_str!("../examples/10-shop.conflist")).unwrap();
        let found = workload(&call("K8S_POD_NAME=web", list["plugins"][0].clone())).unwrap();
        assert_eq!((found.namespace.as_str(), found.name.as_str(), found.labels.len()), ("shop", "web", 1));
        assert_eq!((&list["plugins"][0]["type"], &list["cniVersion"]), (&json!("tidegate-cni"), &json!("1.0.0")));
    }

    #[test]
    fn every_container_has_a_name() {
        let name = |said: &str| name(&call(&format!("K8S_POD_NAME={said}"), json!({}))).unwrap().as_str().to_owned();
        assert_eq!(name("web"), "web");
        assert_eq!(name("Web"), "web-0123456789ab");
        assert_eq!(name("a.pod_of-mine."), "a-pod-of-mine-0123456789ab");
        assert_eq!(name("-"), "0123456789ab");
        assert_eq!(name(&"long".repeat(60)).len(), 63);
    }
}
