//! Server programs of the system, ended with their guard.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::observed::eventually;
use crate::world::World;

/// A running program.
pub(crate) struct Program(Child);

impl Program {
    /// Starts it and waits until it listens.
    pub(crate) fn start(command: &mut Command, address: SocketAddr) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let program = Self(child);
        eventually(&format!("{command:?} listens"), || TcpStream::connect(address).is_ok());
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An nginx with one server block; its document root is returned too.
pub(crate) fn nginx(world: &World, address: SocketAddr, server: &str) -> (Program, PathBuf) {
    let folder = world.folder.join(format!("nginx-{}", address.port()));
    let root = folder.join("root");
    std::fs::create_dir_all(&root).unwrap();
    let text = format!(
        "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
         events {{ worker_connections 512; }}
         http {{
           access_log off; client_max_body_size 0;
           client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
           uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
           server {{ root {root}; {server} }}
         }}",
        folder = folder.display(),
        root = root.display(),
    );
    std::fs::write(folder.join("conf"), text).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(&folder).arg("-c").arg(folder.join("conf"));
    (Program::start(&mut command, address), root)
}

/// A file of `megabytes` random MiB.
pub(crate) fn random_file(path: &Path, megabytes: u64) {
    let mut random = std::io::Read::take(std::fs::File::open("/dev/urandom").unwrap(), megabytes << 20);
    std::io::copy(&mut random, &mut std::fs::File::create(path).unwrap()).unwrap();
}
