//! What goes back to the engine (specification, sections 5 and "Error").

use client::Error;
use config::api::Connected;
use serde_json::{Value, json};

use crate::call::Call;

/// Versions of the specification that are understood, the newest first. What is older than 0.3.0 has one interface without a
/// name in its results.
pub(crate) const SUPPORTED: [&str; 5] = ["1.1.0", "1.0.0", "0.4.0", "0.3.1", "0.3.0"];

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: u16,
    message: String,
    details: String,
}

impl Failure {
    fn new(code: u16, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: details.into() }
    }

    /// 1: an incompatible version.
    pub(crate) fn version(asked: &str) -> Self {
        let details = format!("use one of {} as `cniVersion`", SUPPORTED.join(", "));
        Self::new(1, format!("version {asked} of the CNI specification is not supported"), details)
    }

    /// 3: the container is not there, and nothing of it is to be taken away.
    pub(crate) fn no_container(message: impl Into<String>) -> Self {
        Self::new(3, message, "a container engine makes it before it calls")
    }

    /// 4: the environment.
    pub(crate) fn environment(message: impl Into<String>) -> Self {
        Self::new(4, message, "a container engine sets it")
    }

    /// 5: input and output.
    pub(crate) fn io(message: impl Into<String>) -> Self {
        Self::new(5, message, "")
    }

    /// 6: what cannot be decoded.
    pub(crate) fn undecodable(message: impl Into<String>) -> Self {
        Self::new(6, message, "compare it with the plugin's documentation")
    }

    /// 7: a wrong network configuration.
    pub(crate) fn configuration(message: impl Into<String>, details: impl Into<String>) -> Self {
        Self::new(7, message, details)
    }

    /// 50: STATUS, nothing can be added.
    pub(crate) fn not_ready(error: &Error) -> Self {
        Self { code: 50, ..Self::of(error) }
    }

    fn of(error: &Error) -> Self {
        match error {
            // 11: try again later
            Error::NoDaemon { message, mend } | Error::NoAnswer { message, mend } => Self::new(11, message, mend),
            Error::Refused { status, message, mend } => {
                let code = match status {
                    400 | 404 | 422 => 7,
                    409 | 504 => 11,
                    _ => 100, // ours: the daemon failed
                };
                Self::new(code, message, mend)
            }
        }
    }

    /// As the engine reads it.
    pub(crate) fn to_json(&self, version: Option<&str>) -> String {
        let version = version.unwrap_or(SUPPORTED[0]);
        json!({ "cniVersion": version, "code": self.code, "msg": self.message, "details": self.details }).to_string()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::of(&error)
    }
}

/// VERSION
pub(crate) fn versions(asked: &str) -> String {
    json!({ "cniVersion": asked, "supportedVersions": SUPPORTED }).to_string()
}

/// ADD: the container's interface is the last.
pub(crate) fn added(call: &Call, connected: &Connected) -> String {
    let link = |(name, mac): &(config::names::InterfaceName, String)| json!({ "name": name, "mac": mac });
    let mut interfaces: Vec<Value> = connected.bridge.iter().chain([&connected.host]).map(link).collect();
    let inside = interfaces.len();
    interfaces.push(json!({ "name": call.interface, "mac": connected.mac, "sandbox": connected.netns }));
    let address = |own: &config::api::ConnectedAddress| {
        let mut shown = json!({ "address": own.address, "interface": inside });
        if let Some(gateway) = own.gateway {
            shown["gateway"] = json!(gateway);
        }
        if call.version.starts_with("0.") {
            shown["version"] = json!(if own.address.is_ipv4() { "4" } else { "6" });
        }
        shown
    };
    let gateways: Vec<_> = connected.addresses.iter().filter_map(|own| own.gateway).collect();
    let route = |gateway: &std::net::IpAddr| {
        let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        json!({ "dst": all, "gw": gateway })
    };
    json!({
        "cniVersion": call.version,
        "interfaces": interfaces,
        "ips": connected.addresses.iter().map(address).collect::<Vec<_>>(),
        "routes": gateways.iter().map(route).collect::<Vec<_>>(),
        // whatever server is asked, Tidegate answers
        "dns": { "nameservers": gateways },
    })
    .to_string()
}

/// CHECK: what was answered when it was added must still be so.
pub(crate) fn compare(call: &Call, connected: &Connected) -> Result<(), Failure> {
    let former = call.network.prev_result.as_ref();
    let former =
        former.ok_or_else(|| Failure::configuration("`prevResult` is missing", "an engine sets it for CHECK"))?;
    let listed = former.get("ips").and_then(Value::as_array);
    let had = |address: &str| listed.is_some_and(|ips| ips.iter().any(|ip| ip["address"].as_str() == Some(address)));
    match connected.addresses.iter().find(|own| !had(&own.address.to_string())) {
        None => Ok(()),
        Some(own) => {
            let message = format!("the container has {}, which it had not when it was added", own.address);
            Err(Failure::new(100, message, "let its engine take it away and add it again"))
        }
    }
}
