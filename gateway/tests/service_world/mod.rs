//! A node of its own for each test: a network namespace, a runtime directory, and commands run in it.

#![allow(clippy::unwrap_used, reason = "a test's world stops the test when it cannot be made")]
#![allow(dead_code, reason = "each test file uses its own part of the world")]

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gateway::service::{Config, TG0, TG1_MAC};
use gateway::sys::netns::{self, Netns};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The node's network namespace and its runtime directory; both go when it is dropped.
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
}

impl World {
    pub(crate) fn new() -> Self {
        let name = format!("tgd{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir).unwrap();
        let world = Self { name, dir };
        host(&["ip", "netns", "add", &world.name]);
        world.run("ip link set lo up");
        world
    }

    pub(crate) fn config(&self) -> Config {
        let node = gateway::settings::Node::default();
        Config { runtime_dir: self.dir.clone(), handles_v4: node.handles_v4, handles_v6: node.handles_v6 }
    }

    /// Where the service namespace is held.
    pub(crate) fn held(&self) -> PathBuf {
        self.dir.join("netns/service")
    }

    /// Runs `test` on a thread of the node's namespace; runtimes built there live in it.
    pub(crate) fn inside<T: Send>(&self, test: impl FnOnce() -> T + Send) -> T {
        let namespace = Netns::open(format!("/run/netns/{}", self.name).as_ref()).unwrap();
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                namespace.enter().unwrap();
                test()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As [`Self::inside`], with a runtime of two workers like the daemon's.
    pub(crate) fn with_runtime<F: Future>(&self, test: impl FnOnce() -> F + Send) -> F::Output
    where
        F::Output: Send,
    {
        self.inside(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let output = runtime.block_on(test());
            runtime.shutdown_background();
            output
        })
    }

    /// Runs a shell command in the node's namespace; its output, or a panic when it fails.
    pub(crate) fn run(&self, command: &str) -> String {
        text(&self.try_run(command), command)
    }

    pub(crate) fn try_run(&self, command: &str) -> Output {
        Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.name))
            .args(["sh", "-c", command])
            .output()
            .unwrap()
    }

    /// Runs a shell command in the service namespace.
    pub(crate) fn run_service(&self, command: &str) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.held().display()))
            .args(["sh", "-c", command])
            .output();
        text(&output.unwrap(), command)
    }

    /// One MAC on both ends, and IPv6 on the node's: starting a service takes both back.
    pub(crate) fn be_host_again(&self) {
        self.run(&format!("echo 0 > /proc/sys/net/ipv6/conf/{TG0}/disable_ipv6"));
        self.run(&format!("ip link set {TG0} address {TG1_MAC}"));
    }

    /// Makes the node's end of the pair a workload that has these handles as addresses and sends everything through it:
    /// what the kernel programs do by rewriting, done by routes. Both ends are NOARP, so one MAC on both makes frames fit.
    pub(crate) fn be_workload(&self, handles: &[IpAddr]) {
        self.be_host_again();
        for handle in handles {
            match handle {
                IpAddr::V4(handle) => self.run(&format!("ip addr add {handle}/15 dev {TG0}")),
                IpAddr::V6(handle) => self.run(&format!("ip -6 addr add {handle}/64 dev {TG0} nodad")),
            };
        }
        self.run(&format!("ip route add default dev {TG0} && ip -6 route add default dev {TG0} && ip -6 addr add fe80::99/64 dev {TG0} nodad"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(netns::release(&self.held()));
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Waits for a level, at most ten seconds.
pub(crate) async fn until(what: &str, mut level: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !level().await {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn host(command: &[&str]) -> String {
    text(&Command::new(command[0]).args(&command[1..]).output().unwrap(), &command.join(" "))
}

fn text(output: &Output, command: &str) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "`{command}` failed ({}):\n{out}{err}", output.status);
    out
}
