//! The one thread that lives in the service namespace, with a runtime of its own.

use std::future::Future;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle as OsThread};

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::links::{Ensured, Links};
use super::{Config, ServiceError, namespace};

/// Runs until it is dropped.
#[derive(Debug)]
pub(super) struct Thread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<OsThread<()>>,
}

type Started = Result<(Handle, Links, Ensured), ServiceError>;

/// Starts the thread and waits until the namespace is whole.
pub(super) fn start(config: &Config) -> Result<(Thread, Links, Ensured), ServiceError> {
    let config = config.clone();
    let (tell, started) = mpsc::sync_channel::<Started>(1);
    let (stop, stopped) = oneshot::channel();
    let thread = Builder::new()
        .name("service-netns".into())
        .spawn(move || live(&config, &tell, stopped))
        .map_err(ServiceError::Thread)?;
    let (handle, links, ensured) = started.recv().map_err(|_| ServiceError::Stopped)??;
    Ok((Thread { handle, stop: Some(stop), thread: Some(thread) }, links, ensured))
}

impl Thread {
    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // An error is a panic of that thread, which its hook has reported already.
            drop(thread.join());
        }
    }
}

fn live(config: &Config, tell: &mpsc::SyncSender<Started>, stopped: oneshot::Receiver<()>) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell.send(Err(ServiceError::Thread(error)))),
    };
    runtime.block_on(async {
        let started = settle(config).await.map(|(links, ensured)| (Handle::current(), links, ensured));
        let whole = started.is_ok();
        if tell.send(started).is_ok() && whole {
            // An error means that the owner is gone, which is the signal as well.
            drop(stopped.await);
        }
    });
    runtime.shutdown_background();
}

async fn settle(config: &Config) -> Result<(Links, Ensured), ServiceError> {
    let inside = namespace::enter(config)?;
    let mut links = Links::new(config, inside)?;
    let ensured = links.ensure().await?;
    Ok((links, ensured))
}
