//! The demo's world: the standard site, both tenants of `config/examples/`, their pods and what runs in them.

use std::fs;
use std::path::{Path, PathBuf};

use integration::capture::Capture;
use integration::daemon::{Daemon, binary};
use integration::namespace::Namespace;
use integration::peers::certificates::Authority;
use integration::peers::web::{Nginx, WebSite};
use integration::site::{Internet, Web};
use integration::switch::Switch;
use integration::world::World;
use integration::{Pod, Site};

/// Where the tenants' segments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segments {
    /// On this node alone.
    Local,
    /// VLANs 100 and 200 of a trunk into a switch.
    Vlan,
}

/// The running world.
pub(crate) struct Stage {
    pub(crate) segments: Segments,
    pub(crate) site: Site,
    pub(crate) authority: Authority,
    /// `shop/web-1`, `shop/web-2`, `lab/console-1`, `lab/bench-1`.
    pub(crate) pods: [Pod; 4],
    pub(crate) trunk: Option<Trunk>,
    _servers: Vec<Nginx>,
}

/// The switch, a host in each VLAN, and what is heard there.
pub(crate) struct Trunk {
    pub(crate) hosts: [Namespace; 2],
    pub(crate) trunk: Capture,
    pub(crate) heard: [Capture; 2],
}

impl Stage {
    pub(crate) fn build(segments: Segments, world: World) -> Self {
        println!("building the world {} …", world.name());
        let node = world.namespace("node", None);
        let internet = Internet::start(&world, &node);
        let web = Web::start(&world, &internet.namespace);
        let trunk = (segments == Segments::Vlan).then(|| Trunk::build(&world, &node));
        let daemon = Daemon::start(&world, &node, &Site::settings());
        let site = Site { daemon, internet, node, world };

        let pair = web.authority.issue("shop", &["shop.example.com"]);
        for (from, name) in [(&pair.certificate, "shop.crt"), (&pair.key, "shop.key")] {
            fs::copy(from, site.files("shop").join(name)).expect("the shop's certificate in its folder");
        }
        for file in manifests(segments) {
            site.netctl().ok(&["apply", "-f", file.to_str().expect("a path that is text")]);
        }
        let pods = [
            ("shop", "web-1", "app=web"),
            ("shop", "web-2", "app=web"),
            ("lab", "console-1", "app=console"),
            ("lab", "bench-1", "app=bench"),
        ]
        .map(|(tenant, name, label)| site.attach(tenant, name, &[label]));

        let console = web.authority.issue("lab", &["lab.example.com"]);
        let mut servers = vec![web.nginx];
        for (pod, port, tls) in [(&pods[0], 8080, None), (&pods[1], 8080, None), (&pods[2], 8443, Some(console))] {
            let listen = vec![(pod.v4, port).into(), (pod.v6, port).into()];
            let served = [WebSite { listen, label: pod.name.clone(), tls }];
            servers.push(Nginx::start(pod, &site.world.folder().join(format!("nginx-{}", pod.name)), &served));
        }
        Self { segments, site, authority: web.authority, pods, trunk, _servers: servers }
    }

    /// Lets the world stay, and says how to use it.
    pub(crate) fn stay(self) {
        let Self { site, pods, authority, .. } = self;
        let Site { internet, node, world, daemon } = site;
        let place = internet.namespace.path().to_owned();
        drop(internet.echo);
        let mut command = internet.namespace.command(std::env::current_exe().expect("the path of this program"));
        std::mem::forget(internet.namespace.start("echo", command.arg("echo").arg(place)));
        let (socket, netctl) = (daemon.netctl().socket().display(), binary("netctl"));
        println!("\nThe world {} stays. To look around:", world.name());
        println!("  export TIDEGATE_SOCKET={socket}");
        println!("  {} get workloads -A -o wide", netctl.display());
        println!("  {} explain --from shop/web-1 --to api.example.com:443", netctl.display());
        println!("  ip netns exec {} bash                     # the node", node.name());
        println!("  ip netns exec {} bash                 # the internet", internet.namespace.name());
        for pod in &pods {
            println!("  ip netns exec {} bash", pod.name());
        }
        let certificate = authority.certificate();
        println!("  ip netns exec {} curl --cacert {} https://api.example.com/", pods[0].name(), certificate.display());
        println!("The gateway's log is {}.", world.folder().join("log/node-gateway.log").display());
        println!("`make demo-down` removes everything.");
    }
}

impl Trunk {
    fn build(world: &World, node: &Namespace) -> Self {
        let switch = Switch::new(world, node, &[100, 200]);
        let hosts = [
            switch.host(world, "host-a", 100, &["10.100.0.250/24", "fd00:100::250/64"]),
            switch.host(world, "host-b", 200, &["10.200.0.250/24", "fd00:200::250/64"]),
        ];
        let trunk = Capture::start(&switch.namespace, "trunk");
        let heard = hosts.each_ref().map(|host| Capture::start(host, "eth0"));
        Self { hosts, trunk, heard }
    }
}

fn manifests(segments: Segments) -> Vec<PathBuf> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    let tenants = match segments {
        Segments::Local => examples.join("local"),
        Segments::Vlan => examples.clone(),
    };
    let files = [
        tenants.join("tenant-a.yaml"),
        tenants.join("tenant-b.yaml"),
        examples.join("egress.yaml"),
        examples.join("exposed.yaml"),
    ];
    files.map(|file| file.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", file.display()))).into()
}
