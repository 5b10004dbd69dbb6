//! What the engine says (specification, sections 1 and 2).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use config::api::{Attachment, DEFAULT_SOCKET};
use config::names::{InterfaceName, Name};
use config::resource::NamedPort;
use serde::Deserialize;
use serde_json::Value;

use crate::answer::{Failure, SUPPORTED};

/// `CNI_COMMAND`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// One call of the plugin.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) command: Command,
    /// `cniVersion` of the configuration; one of [`SUPPORTED`], but for VERSION.
    pub(crate) version: String,
    /// ADD, DEL, CHECK.
    pub(crate) container: String,
    /// The same; empty for the others.
    pub(crate) interface: String,
    /// ADD and CHECK; the engine may leave it out for DEL.
    pub(crate) netns: Option<PathBuf>,
    /// `CNI_ARGS`
    pub(crate) arguments: BTreeMap<String, String>,
    pub(crate) network: Network,
}

/// The network configuration. Keys of other plugins, and of engines, are none of our business.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Network {
    #[serde(default)]
    cni_version: Option<String>,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) namespace: Option<Name>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    pub(crate) beside_others: bool,
    #[serde(default = "default_socket")]
    pub(crate) socket: PathBuf,
    #[serde(default)]
    pub(crate) runtime_config: RuntimeConfig,
    #[serde(default)]
    pub(crate) args: Args,
    #[serde(default)]
    pub(crate) prev_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<ValidAttachment>>,
}

/// What the engine asks for by capabilities.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct RuntimeConfig {
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    pub(crate) mac: Option<String>,
}

/// `args` (CNI conventions).
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Args {
    #[serde(default)]
    pub(crate) cni: CniArgs,
}

/// `args.cni`
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct CniArgs {
    #[serde(default)]
    pub(crate) labels: Vec<Label>,
    #[serde(default)]
    ips: Vec<String>,
}

/// One of `args.cni.labels`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Label {
    pub(crate) key: String,
    pub(crate) value: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

fn default_socket() -> PathBuf {
    DEFAULT_SOCKET.into()
}

/// `cniVersion`, of whatever can be read.
pub(crate) fn version_of(configuration: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(configuration).ok()?;
    value.get("cniVersion")?.as_str().map(str::to_owned)
}

impl Call {
    /// Of an environment, and the text on standard input.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>, configuration: &[u8]) -> Result<Self, Failure> {
        let needed = |name: &str| {
            let value = variable(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| Failure::environment(format!("{name} is not set")))
        };
        let command = match needed("CNI_COMMAND")?.as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "GC" => Command::Gc,
            "STATUS" => Command::Status,
            "VERSION" => Command::Version,
            other => return Err(Failure::environment(format!("CNI_COMMAND is `{other}`, which no version has"))),
        };
        if command == Command::Version {
            let version = version_of(configuration).unwrap_or_else(|| SUPPORTED[0].to_owned());
            let (container, interface, arguments) = Default::default();
            return Ok(Self {
                command,
                version,
                container,
                interface,
                netns: None,
                arguments,
                network: Network::default(),
            });
        }
        let network: Network = serde_json::from_slice(configuration)
            .map_err(|error| Failure::undecodable(format!("the network configuration: {error}")))?;
        let version = network.cni_version.clone().unwrap_or_else(|| SUPPORTED[0].to_owned());
        if !SUPPORTED.contains(&version.as_str()) {
            return Err(Failure::version(&version));
        }
        if !is_word(&network.name) {
            return Err(Failure::configuration("`name` is missing, or no name of a network", "name the network"));
        }
        let of_a_container = matches!(command, Command::Add | Command::Del | Command::Check);
        let container = if of_a_container { needed("CNI_CONTAINERID")? } else { String::new() };
        let interface = if of_a_container { needed("CNI_IFNAME")? } else { String::new() };
        if of_a_container && !is_word(&container) {
            return Err(Failure::environment(format!("CNI_CONTAINERID is `{container}`, which is none")));
        }
        let netns = match command {
            Command::Add | Command::Check => Some(PathBuf::from(needed("CNI_NETNS")?)),
            _ => variable("CNI_NETNS").filter(|value| !value.is_empty()).map(PathBuf::from),
        };
        let arguments = variable("CNI_ARGS").unwrap_or_default();
        let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        let arguments = pairs.map(|(key, value)| (key.trim().to_owned(), value.to_owned())).collect();
        Ok(Self { command, version, container, interface, netns, arguments, network })
    }

    /// What the daemon knows the container's interface by.
    pub(crate) fn attachment(&self) -> Result<Attachment, Failure> {
        let interface = InterfaceName::try_from(self.interface.clone())
            .map_err(|error| Failure::environment(format!("CNI_IFNAME: {error}")))?;
        Ok(Attachment { network: self.network.name.clone(), container: self.container.clone(), interface })
    }

    /// Addresses that were asked for, in `CNI_ARGS` (`IP=`), by `args` or by a capability; a length behind them is passed over:
    /// the subnet says it.
    pub(crate) fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let listed = self.arguments.get("IP").into_iter().flat_map(|list| list.split(','));
        let asked = listed.map(str::to_owned);
        let asked = asked.chain(self.network.args.cni.ips.clone()).chain(self.network.runtime_config.ips.clone());
        let address = |text: String| {
            let plain = text.split('/').next().unwrap_or_default().parse();
            plain.map_err(|_| {
                Failure::configuration(format!("`{text}` is no address"), "write it as 10.100.0.7 or fd00:100::7")
            })
        };
        let mut addresses = asked.map(address).collect::<Result<Vec<IpAddr>, Failure>>()?;
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    /// `ports`
    pub(crate) fn ports(&self) -> Result<Vec<NamedPort>, Failure> {
        let port =
            |text: &String| text.parse().map_err(|error| Failure::configuration(format!("`ports`: {error}"), ""));
        self.network.ports.iter().map(port).collect()
    }

    /// Who GC leaves; an engine that says nothing means nobody (section 4, GC), so that it must say it.
    pub(crate) fn valid_attachments(&self) -> Result<Vec<Attachment>, Failure> {
        let listed = self.network.valid_attachments.as_ref().ok_or_else(|| {
            Failure::configuration("`cni.dev/valid-attachments` is missing", "GC would take everybody's network away")
        })?;
        let attachment = |valid: &ValidAttachment| {
            // What is no interface's name was never attached.
            let interface = InterfaceName::try_from(valid.ifname.clone()).ok()?;
            Some(Attachment { network: self.network.name.clone(), container: valid.container.clone(), interface })
        };
        Ok(listed.iter().filter_map(attachment).collect())
    }
}

/// Names of networks and containers (section 1, "name"; section 2, `CNI_CONTAINERID`).
fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}
