//! A real container engine: Podman, which calls CNI plugins, with crun. Containers run from a root file system made here.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::binary;
use crate::namespace::Namespace;
use crate::process::{Background, Said, output};
use crate::wait::wait_until;
use crate::world::World;

/// Programs of a container's root file system.
const PROGRAMS: [&str; 6] = ["sh", "sleep", "nc", "ip", "cat", "nslookup"];

/// crun knows control groups of one version only: where a machine has both, it sees the second. Mounts for containers' network
/// namespaces are everybody's all the same.
const ALONE: &str = "if [ -d /sys/fs/cgroup/unified ]; then mount --make-private /sys/fs/cgroup && \
                     mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup || exit; fi; exec \"$@\"";

/// Podman with storage, networks and containers of its own; all containers go with it.
#[derive(Debug)]
pub struct Podman {
    folder: PathBuf,
    node: Namespace,
}

impl Podman {
    /// On a node, without networks.
    pub fn new(world: &World, node: &Namespace) -> Self {
        let folder = world.folder().join("podman");
        fs::create_dir_all(folder.join("networks")).expect("a folder for networks");
        root_file_system(&folder.join("rootfs"));
        let plugins = binary("tidegate-cni");
        let plugins = plugins.parent().expect("a folder of binaries").display();
        let settings = format!(
            "[network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = \"{0}/networks\"\n\
             cni_plugin_dirs = [\"{plugins}\", \"/usr/lib/cni\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nruntime = \"crun\"\n\
             [containers]\nlog_driver = \"k8s-file\"\n",
            folder.display()
        );
        fs::write(folder.join("containers.conf"), settings).expect("containers.conf");
        Self { folder, node: node.clone() }
    }

    /// A network with these plugins, one behind the other.
    pub fn network(&self, name: &str, plugins: &[Value]) {
        let list = json!({ "cniVersion": "1.0.0", "name": name, "plugins": plugins });
        fs::write(self.folder.join(format!("networks/{name}.conflist")), list.to_string()).expect("a network");
    }

    /// Runs it.
    pub fn run(&self, words: &[&str]) -> Said {
        output(self.command().args(words))
    }

    /// Its API on a socket, as long as the process is kept.
    pub fn serve(&self) -> (Background, PathBuf) {
        let socket = self.folder.join("podman.sock");
        let mut command = self.command();
        command.args(["system", "service", "--time", "0"]).arg(format!("unix://{}", socket.display()));
        let process = self.node.start("podman", &mut command);
        wait_until("podman serves", Duration::from_secs(10), || UnixStream::connect(&socket).is_ok());
        (process, socket)
    }

    fn command(&self) -> Command {
        let folder = |name: &str| self.folder.join(name);
        let mut command = self.node.command("unshare");
        command.args([
            "--mount",
            "--propagation",
            "unchanged",
            "sh",
            "-c",
            ALONE,
            "sh",
            "podman",
            "--storage-driver",
            "vfs",
        ]);
        command.arg("--root").arg(folder("storage")).arg("--runroot").arg(folder("run"));
        command.env("CONTAINERS_CONF", folder("containers.conf"));
        command
    }

    /// Runs it, and panics when it fails; answers its standard output without the last line's end.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert!(said.success(), "podman {}: {}\n{}{}", words.join(" "), said.status, said.stdout, said.stderr);
        said.stdout.trim_end().to_owned()
    }

    /// `podman run` of a command in a new container; `words` are further options.
    pub fn start(&self, name: &str, network: &str, words: &[&str], command: &[&str]) -> Said {
        let rootfs = self.folder.join("rootfs");
        let limits = ["--cgroups=disabled", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
        let named = ["run", "--name", name, "--network", network];
        let rootfs = ["--rootfs", rootfs.to_str().expect("a path of the world is text")];
        self.run(&[&named, &limits[..], words, &rootfs, command].concat())
    }

    /// A container's network namespace.
    #[track_caller]
    pub fn namespace(&self, container: &str) -> Namespace {
        Namespace::at(Path::new(&self.ok(&["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", container])))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _gone_already = self.run(&["rm", "-f", "-a", "-t", "0"]);
    }
}

/// A root file system with one program of many names.
pub fn root_file_system(folder: &Path) {
    for name in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(folder.join(name)).expect("a folder of a root file system");
    }
    fs::copy("/bin/busybox", folder.join("bin/busybox")).expect("/bin/busybox (busybox-static)");
    for program in PROGRAMS {
        symlink("busybox", folder.join("bin").join(program)).expect("a program of a root file system");
    }
}

/// `crun`, by hand: runs a command in that network namespace and waits for it.
pub fn crun(world: &World, name: &str, netns: &Path, command: &[&str]) -> Said {
    let bundle = world.folder().join(format!("crun-{name}"));
    root_file_system(&bundle.join("rootfs"));
    let configuration = json!({
        "ociVersion": "1.0.2",
        "process": { "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": command, "cwd": "/", "env": ["PATH=/bin"] },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "network", "path": netns }] },
    });
    fs::write(bundle.join("config.json"), configuration.to_string()).expect("config.json");
    let mut run = Command::new("unshare");
    run.args([
        "--mount",
        "--propagation",
        "unchanged",
        "sh",
        "-c",
        ALONE,
        "sh",
        "crun",
        "--cgroup-manager=disabled",
        "run",
    ]);
    output(run.arg("--bundle").arg(&bundle).arg(format!("{}-{name}", world.name())))
}
