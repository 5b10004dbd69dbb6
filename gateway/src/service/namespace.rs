//! The namespace itself: made or taken over, held at `<runtime_dir>/netns/service`, removed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;

use tracing::info;

use super::links::{self, Netlink};
use super::{Config, ServiceError};
use crate::sys::netns::{self, Netns};

/// The calling thread's two sides after [`enter`].
pub(super) struct Sides {
    /// Requests made through it concern the node's namespace.
    pub(super) node: Netlink,
    /// The same for the service namespace.
    pub(super) inside: Netlink,
    /// The service namespace, held open.
    pub(super) namespace: Netns,
}

/// Where the namespace is held.
pub(super) fn held_at(config: &Config) -> PathBuf {
    config.runtime_dir.join("netns").join("service")
}

/// Moves the calling thread from the node's namespace into the service namespace.
pub(super) fn enter(config: &Config) -> Result<Sides, ServiceError> {
    let path = held_at(config);
    let failed = |doing| {
        let path = path.clone();
        move |source| ServiceError::Namespace { doing, path, source }
    };
    let node = Netlink::open()?;
    let own = Netns::current().map_err(failed("look up the node's namespace for"))?;
    if netns::is_held(&path).map_err(failed("look at"))? {
        let held = File::open(&path).and_then(|file| Netns::from_fd(file.into())).map_err(failed("open"))?;
        if held.identity() == own.identity() {
            return Err(ServiceError::NodesOwn { path });
        }
        held.enter().map_err(failed("enter"))?;
    } else {
        netns::unshare().map_err(failed("make a network namespace for"))?;
        let kept = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| netns::hold(&path));
        if let Err(error) = kept {
            info!(path = %path.display(), %error, "the service namespace cannot be bind-mounted: it ends with this process, and the next one makes it anew");
        }
    }
    let namespace = Netns::current().map_err(failed("look up the namespace of"))?;
    Ok(Sides { node, inside: Netlink::open()?, namespace })
}

/// Removes the links and the namespace, for uninstalling; what is not there is no error. The node's side is the
/// namespace of the calling thread. Blocks; needs CAP_SYS_ADMIN and CAP_NET_ADMIN, and no running daemon.
pub fn remove(config: &Config) -> Result<(), ServiceError> {
    let deleted = thread::Builder::new().name("service-remove".into()).spawn(|| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServiceError::Thread)?;
        runtime.block_on(async { links::delete(&Netlink::open()?).await })
    });
    deleted.map_err(ServiceError::Thread)?.join().map_err(|_| ServiceError::Stopped)??;
    let path = held_at(config);
    netns::release(&path).map_err(|source| ServiceError::Namespace { doing: "remove", path, source })
}
