//! `tidegate-cni` attaches the containers of Podman, CRI-O, containerd and Kubernetes to Tidegate: a plugin of the Container
//! Network Interface, version 1.1.0, thin as paper. The daemon does the work.
//!
//! 1. [`call`]: what the engine says: the environment, and a network configuration on standard input.
//! 2. [`who`]: which workload of which namespace that is.
//! 3. [`command`]: one request to the daemon for each command.
//! 4. [`answer`]: the result in the form of the configuration's version, or an error by its code.
//!
//! Behind other plugins of the same list it makes nothing: the interface that they made is closed, and its container becomes a
//! workload of a network that says `adopt: { cniNetwork: NAME }`.
//!
//! One of `type: tidegate-cni` in a network configuration list may say, all of it optional:
//!
//! | key | what |
//! |---|---|
//! | `namespace` | the Tidegate namespace of all containers here; without it, each container's own: `TIDEGATE_NAMESPACE` or `K8S_POD_NAMESPACE` in `CNI_ARGS` |
//! | `labels` | an object of labels, beside `TIDEGATE_LABELS` (`app=web,tier=front`) in `CNI_ARGS` and `args.cni.labels` |
//! | `ports` | names of ports, as `http=8080/TCP` |
//! | `besideOthers` | `true`: the container may have interfaces of other plugins, which nobody polices |
//! | `socket` | the daemon's; [`config::api::DEFAULT_SOCKET`] |
//! | `capabilities` | `{ "ips": true, "mac": true }`: the engine may ask for addresses (`podman run --ip`, `--mac-address`) |

mod answer;
mod call;
mod command;
mod who;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use answer::Failure;
use call::{Call, Command};

fn main() -> ExitCode {
    let mut configuration = Vec::new();
    let read = io::stdin().read_to_end(&mut configuration);
    let said =
        read.map_err(|error| Failure::io(format!("reading the network configuration: {error}"))).and_then(|_| {
            let call = Call::read(|name| std::env::var(name).ok(), &configuration)?;
            match call.command {
                Command::Version => Ok(answer::versions(&call.version)),
                _ => run(&call),
            }
        });
    let (text, code) = match said {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(failure) => (failure.to_json(call::version_of(&configuration).as_deref()), ExitCode::FAILURE),
    };
    // Whom should it be told that nobody listens.
    let _ = io::stdout().write_all(text.as_bytes());
    code
}

fn run(call: &Call) -> Result<String, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io(format!("starting: {error}")))?;
    runtime.block_on(command::run(call))
}
