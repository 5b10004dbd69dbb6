//! A CNI plugin, called as a container engine calls it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::daemon::binary;
use crate::namespace::Namespace;
use crate::process::output_with_input;

const DEBIANS: &str = "/usr/lib/cni";

/// A network of an engine, with one plugin: ours, or another of the same interface.
#[derive(Clone, Debug)]
pub struct Plugin {
    program: PathBuf,
    /// Where it runs; ours may run anywhere.
    node: Option<Namespace>,
    /// The network configuration.
    pub configuration: Value,
}

/// One container, as an engine names it to a plugin.
#[derive(Clone, Debug)]
pub struct Container {
    /// `CNI_CONTAINERID`
    pub id: String,
    /// `CNI_NETNS`
    pub netns: PathBuf,
    /// `CNI_ARGS`
    pub arguments: String,
}

impl Plugin {
    /// Ours, as network `tidegate` of that namespace.
    pub fn new(socket: &Path, namespace: &str) -> Self {
        let kind = "tidegate-cni";
        let configuration = json!({
            "cniVersion": "1.1.0", "name": "tidegate", "type": kind, "namespace": namespace, "socket": socket,
        });
        Self { program: binary(kind), node: None, configuration }
    }

    /// One of Debian's, on that node.
    pub fn of_debian(node: &Namespace, configuration: Value) -> Self {
        let kind = configuration["type"].as_str().expect("a plugin's name");
        Self { program: Path::new(DEBIANS).join(kind), node: Some(node.clone()), configuration }
    }

    /// The same with other or further keys.
    pub fn with(&self, keys: Value) -> Self {
        let mut changed = self.clone();
        let (Value::Object(into), Value::Object(keys)) = (&mut changed.configuration, keys) else {
            panic!("a network configuration is an object");
        };
        into.extend(keys);
        changed
    }

    /// Calls it; `Ok` is its standard output (null where it is empty), `Err` the error that it wrote.
    pub fn call(&self, command: &str, container: Option<&Container>) -> Result<Value, Value> {
        let mut call = match &self.node {
            Some(node) => node.command(&self.program),
            None => Command::new(&self.program),
        };
        call.env_clear().env("CNI_COMMAND", command).env("CNI_PATH", DEBIANS);
        if let Some(container) = container {
            let Container { id, netns, arguments } = container;
            call.env("CNI_CONTAINERID", id)
                .env("CNI_NETNS", netns)
                .env("CNI_IFNAME", "eth0")
                .env("CNI_ARGS", arguments);
        }
        let said = output_with_input(&mut call, &self.configuration.to_string());
        let value = match said.stdout.trim() {
            "" if !said.success() => json!({ "msg": format!("status {} without a word", said.status) }),
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|error| panic!("{command}: {error}: {text}")),
        };
        if said.success() { Ok(value) } else { Err(value) }
    }

    /// As [`Self::call`]; panics on an error.
    #[track_caller]
    pub fn ok(&self, command: &str, container: &Container) -> Value {
        self.call(command, Some(container)).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// The code of the error.
    #[track_caller]
    pub fn code(&self, command: &str, container: Option<&Container>) -> u64 {
        let error = self.call(command, container).expect_err("an error");
        assert!(error["msg"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
        error["code"].as_u64().unwrap_or_else(|| panic!("no code: {error}"))
    }
}
