//! One request to the daemon for each command.

use std::fs;
use std::path::{Path, PathBuf};

use client::{Client, Error};
use config::api::cni::released;
use config::api::{Attachment, CniAddRequest, CniGcRequest, CniStatusRequest, Connected};
use serde::de::IgnoredAny;

use crate::answer::{self, Failure};
use crate::call::{Call, Command};
use crate::who;

/// Does what is asked; answers what goes to standard output.
pub(crate) async fn run(call: &Call) -> Result<String, Failure> {
    let client = Client::new(call.network.socket.clone());
    let empty = |_: IgnoredAny| String::new();
    match call.command {
        Command::Add => {
            if let Some(netns) = call.netns.as_ref().filter(|netns| !netns.exists()) {
                return Err(Failure::no_container(format!("there is no {}", netns.display())));
            }
            let chained = call.network.prev_result.as_ref();
            let request = CniAddRequest {
                attachment: call.attachment()?,
                workload: who::workload(call)?,
                chained: chained.is_some(),
            };
            let connected: Connected = client.post("cni/add", &request).await?;
            Ok(match chained {
                // what was made is as it was (section 3, "Lifecycle & Ordering")
                Some(before) => before.to_string(),
                None => answer::added(call, &connected),
            })
        }
        Command::Del => del(&client, call).await,
        Command::Check => {
            let connected: Connected = client.post("cni/check", &call.attachment()?).await?;
            answer::compare(call, &connected)?;
            Ok(String::new())
        }
        Command::Gc => {
            let request = CniGcRequest { network: call.network.name.clone(), valid: call.valid_attachments()? };
            client.post("cni/gc", &request).await.map(empty).map_err(Failure::from)
        }
        Command::Status => {
            let request = CniStatusRequest { namespace: who::namespace(call)? };
            client.post("cni/status", &request).await.map(empty).map_err(|error| Failure::not_ready(&error))
        }
        Command::Version => Ok(answer::versions(&call.version)),
    }
}

/// Always succeeds where the daemon is away: it catches up.
async fn del(client: &Client, call: &Call) -> Result<String, Failure> {
    let attachment = call.attachment()?;
    match send(client, &attachment).await {
        Err(Error::NoDaemon { .. }) => {
            let file = leave(&call.network.socket, &attachment)?;
            // One that has begun meanwhile may have looked already.
            if send(client, &attachment).await.is_ok() {
                let _it_was_faster = fs::remove_file(file);
            }
            Ok(String::new())
        }
        answered => answered.map(|()| String::new()).map_err(Failure::from),
    }
}

async fn send(client: &Client, attachment: &Attachment) -> Result<(), Error> {
    client.post("cni/del", attachment).await.map(|_: IgnoredAny| ())
}

/// Written beside and renamed, so that nobody reads a half.
fn leave(socket: &Path, attachment: &Attachment) -> Result<PathBuf, Failure> {
    let folder = released(socket);
    let failed = |what: &Path, error: std::io::Error| {
        Failure::io(format!("the gateway is not running, and {} cannot be written: {error}", what.display()))
    };
    fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
    let Attachment { container, interface, .. } = attachment;
    // An engine's container has one interface of a name, on whatever network.
    let file = folder.join(format!("{}-{interface}", &container[..container.len().min(200)]));
    let beside = folder.join(format!(".{}", std::process::id()));
    let text = serde_json::to_vec(attachment).map_err(|error| Failure::io(error.to_string()))?;
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, &file)).map_err(|error| failed(&file, error))?;
    Ok(file)
}
