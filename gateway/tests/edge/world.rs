//! An edge with its files, on loopback addresses of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use gateway::edge::{App, Dial, Dialling, Edge, EdgeConfig, EdgeProblem, Endpoint, FilesDir, Mode, Route, Timeouts};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

use crate::observed;
use crate::pki::Authority;

static WORLDS: AtomicU8 = AtomicU8::new(1);

/// An edge with its files. Its runtime ends with it.
pub(crate) struct World {
    pub(crate) edge: Option<Edge>,
    pub(crate) runtime: Runtime,
    pub(crate) folder: PathBuf,
    pub(crate) ca: Authority,
    /// The host of [`World::app`], unique in this process.
    pub(crate) host: String,
    network: [u8; 3],
}

impl World {
    /// With waiting times short enough for a test.
    pub(crate) fn new() -> Self {
        Self::with(Timeouts {
            hello: Duration::from_secs(1),
            head: Duration::from_secs(2),
            connect: Duration::from_secs(1),
            first_byte: Duration::from_secs(1),
            idle: Duration::from_secs(3),
            ..Timeouts::default()
        })
    }

    pub(crate) fn with(timeouts: Timeouts) -> Self {
        observed::start();
        let (pid, number) = (std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        // 127.a.b.*: by process and world, so that nothing else on the machine listens there.
        let network = [127, 64 + (pid % 128) as u8, number ^ (pid / 128) as u8];
        let folder = std::env::temp_dir().join(format!("tidegate-edge-{pid}-{number}"));
        std::fs::create_dir_all(folder.join("files/shop")).unwrap();
        let ca = Authority::new(&folder, "ca");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listen = SocketAddr::from((Ipv4Addr::new(network[0], network[1], network[2], 1), 443));
        let edge = {
            let _inside = runtime.enter();
            let listen = [listen, SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
            Edge::start_with(&listen, Arc::new(Direct), FilesDir(folder.join("files")), timeouts).unwrap()
        };
        let host = format!("w{number}.example");
        let world = Self { edge: Some(edge), runtime, folder, ca, host, network };
        world.issue("web", &world.host);
        world
    }

    /// An address of this world.
    pub(crate) fn address(&self, last: u8, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(self.network[0], self.network[1], self.network[2], last), port))
    }

    /// Where the edge listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.edge().addresses()[0]
    }

    pub(crate) fn edge(&self) -> &Edge {
        self.edge.as_ref().unwrap()
    }

    /// A file of the namespace `shop`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join("files/shop").join(name)
    }

    /// Puts a good pair for `host` at `<stem>.pem` and `<stem>.key` of the namespace `shop`.
    pub(crate) fn issue(&self, stem: &str, host: &str) {
        self.ca.issue(&self.file(stem), host, 60);
    }

    /// `shop/web` with this world's host and `www.` before it, and these routes.
    pub(crate) fn app(&self, routes: &[(&str, &[SocketAddr])]) -> App {
        App {
            namespace: "shop".parse().unwrap(),
            name: "web".parse().unwrap(),
            hosts: vec![self.host.parse().unwrap(), format!("www.{}", self.host).parse().unwrap()],
            mode: edge_mode("web"),
            routes: routes.iter().map(|(path, backends)| route(path, backends)).collect(),
        }
    }

    /// Checks and installs.
    pub(crate) fn serve(&self, apps: impl Into<Vec<App>>) {
        self.edge().install(self.edge().check(&EdgeConfig { apps: apps.into() }).unwrap());
    }

    /// What a check finds, as text.
    pub(crate) fn problems(&self, app: App) -> String {
        let text = |problems: &[EdgeProblem]| problems.iter().map(|p| format!("{p}\n")).collect::<String>();
        match self.edge().check(&EdgeConfig { apps: vec![app] }) {
            Ok(prepared) => format!("warnings: {}", text(prepared.warnings())),
            Err(problems) => format!("problems: {}", text(&problems)),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// `Edge` with the files of that stem.
pub(crate) fn edge_mode(stem: &str) -> Mode {
    Mode::Edge {
        cert_file: format!("{stem}.pem"),
        key_file: format!("{stem}.key"),
        min_version: config::resource::TlsVersion::Tls12,
        client_ca: None,
    }
}

/// A route whose workloads are named by their port.
pub(crate) fn route(path: &str, backends: &[SocketAddr]) -> Route {
    let endpoint =
        |&address: &SocketAddr| Endpoint { workload: format!("shop/{}", address.port()), source: SOURCE, address };
    Route { path: path.to_owned(), backends: backends.iter().map(endpoint).collect() }
}

/// Where backends see the edge come from.
pub(crate) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

/// Connects from the source it is given.
struct Direct;

impl Dial for Direct {
    fn dial(&self, source: IpAddr, to: SocketAddr) -> Dialling {
        Box::pin(async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket.connect(to).await
        })
    }
}

/// A file's SHA-256, by `sha256sum`.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let output = std::process::Command::new("sha256sum").arg(path).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned())
}
