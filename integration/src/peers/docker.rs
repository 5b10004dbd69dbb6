//! Docker itself, with a bridge of its own on a node, and containers from an image made here.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::namespace::Namespace;
use crate::peers::podman::root_file_system;
use crate::process::{Background, Said, output};
use crate::wait::wait_until;
use crate::world::World;

/// Its bridge.
pub const BRIDGE: &str = "docker0";
/// Its bridge's address; containers get those behind it.
pub const SUBNET: &str = "172.30.0.1/24";
const IMAGE: &str = "busybox-here";

/// Containers' namespaces and control groups are everybody's; only mounts are Docker's own. It knows control groups of one
/// version only: where a machine has both, it sees the second.
const ALONE: &str = "if [ -d /sys/fs/cgroup/unified ]; then mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup || exit; fi; \
                     exec \"$@\"";

/// `dockerd` in a node's network namespace; its containers end with it.
#[derive(Debug)]
pub struct Docker {
    folder: PathBuf,
    process: Option<Background>,
}

impl Docker {
    /// Starts it, with its bridge up and the image there.
    pub fn start(world: &World, node: &Namespace) -> Self {
        let folder = world.folder().join("docker");
        let path = |name: &str| folder.join(name);
        root_file_system(&path("rootfs"));
        // It mounts over /sys/fs/cgroup and nothing else that others see.
        let mut command = node.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", ALONE, "sh", "dockerd"]);
        command.arg("--data-root").arg(path("data")).arg("--exec-root").arg(path("exec"));
        command.arg("--pidfile").arg(path("pid")).arg("-H").arg(format!("unix://{}", path("docker.sock").display()));
        command.args(["--storage-driver", "vfs", "--bip", SUBNET, "--log-driver", "none"]);
        let process = node.start("dockerd", &mut command);
        let docker = Self { folder, process: Some(process) };
        let serves = || UnixStream::connect(docker.socket()).is_ok();
        wait_until("Docker serves", Duration::from_secs(30), serves);
        let image = docker.folder.join("image.tar");
        let packed =
            output(Command::new("tar").arg("-C").arg(docker.folder.join("rootfs")).arg("-cf").arg(&image).arg("."));
        assert!(packed.success(), "{}", packed.stderr);
        docker.ok(&["import", image.to_str().expect("a path of the world is text"), IMAGE]);
        docker
    }

    /// Where its API is.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    /// Runs `docker`.
    pub fn run(&self, words: &[&str]) -> Said {
        output(Command::new("docker").arg("-H").arg(format!("unix://{}", self.socket().display())).args(words))
    }

    /// The same, and panics when it fails; answers its standard output without the last line's end.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert!(said.success(), "docker {}: {}\n{}{}", words.join(" "), said.status, said.stdout, said.stderr);
        said.stdout.trim_end().to_owned()
    }

    /// `docker run` of a command in a new container; `words` are further options.
    pub fn container(&self, name: &str, words: &[&str], command: &[&str]) -> Said {
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
        self.run(&[&["run", "--name", name], &limits[..], words, &[IMAGE], command].concat())
    }

    /// The same in the background, sleeping; answers its network namespace.
    #[track_caller]
    pub fn sleeper(&self, name: &str, words: &[&str]) -> Namespace {
        let said = self.container(name, &[&["-d"], words].concat(), &["sleep", "1000"]);
        assert!(said.success(), "{}", said.stderr);
        self.namespace(name)
    }

    /// A running container's network namespace.
    #[track_caller]
    pub fn namespace(&self, name: &str) -> Namespace {
        let pid = self.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
        Namespace::at(Path::new(&format!("/proc/{pid}/ns/net")))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all = self.run(&["ps", "-aq"]).stdout;
        let all: Vec<&str> = all.split_whitespace().collect();
        if !all.is_empty() {
            let _gone_already = self.run(&[&["rm", "-f"], &all[..]].concat());
        }
        if let Some(process) = self.process.take() {
            process.terminate();
        }
        let _never_made = fs::remove_dir_all(self.folder.join("data"));
    }
}
