//! What others have who want a name to be true: a proxy on the node that reads the name in each handshake, and from then on
//! copies every byte. One worker each, as we have one thread; connections of the client to port 443 are redirected to it.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use integration::namespace::Namespace;
use integration::peers::certificates::Authority;
use integration::process::{Background, output, output_with_input};
use integration::wait::wait_until;

use crate::lane::{Lane, SINK};
use crate::verified::{NAME, PORT};

/// Where it listens, on the node.
const LISTENS: u16 = 8443;

/// Debian's user for proxies.
const PROXY: u32 = 13;

/// One of them.
struct Proxy {
    name: &'static str,
    program: PathBuf,
    arguments: &'static [&'static str],
    configuration: fn(&Path) -> String,
}

/// A lane with a proxy that runs.
pub(crate) struct Proxied {
    pub(crate) lane: Lane,
    _process: Background,
}

/// Starts all that are installed, and says which are not.
pub(crate) fn start() -> (Vec<Proxied>, Vec<&'static str>) {
    let (mut running, mut missing) = (Vec::new(), Vec::new());
    for proxy in proxies() {
        match proxy.program.exists() {
            true => running.push(proxy.start()),
            false => missing.push(proxy.name),
        }
    }
    (running, missing)
}

fn proxies() -> [Proxy; 5] {
    let proxy = |name, program: &str, arguments, configuration| Proxy {
        name,
        program: PathBuf::from(program),
        arguments,
        configuration,
    };
    [
        proxy("HAProxy", "/usr/sbin/haproxy", &["-db", "-f"], haproxy),
        proxy("Envoy", "target/peers/bin/envoy", ENVOY, envoy),
        proxy("nginx", "/usr/sbin/nginx", &["-g", "daemon off;", "-c"], nginx),
        proxy("sniproxy", "/usr/sbin/sniproxy", &["-f", "-c"], sniproxy),
        proxy("Squid", "/usr/sbin/squid", &["-N", "-f"], squid),
    ]
}

const ENVOY: &[&str] = &["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"];

impl Proxy {
    fn start(&self) -> Proxied {
        let lane = Lane::routed(self.name, redirect);
        let folder = lane.folder();
        fs::create_dir_all(&folder).expect("a folder for the proxy");
        chown(&folder, Some(PROXY), Some(PROXY)).expect("a folder of the proxy's");
        let file = folder.join("proxy.yaml");
        fs::write(&file, (self.configuration)(&folder)).expect("the proxy's configuration");
        // more connections than ports that wait would allow
        lane.node.sysctl("ipv4/tcp_tw_reuse", "1");
        lane.node.sysctl("ipv4/ip_local_port_range", "1025 65000");
        let program = fs::canonicalize(&self.program).expect("the proxy's program");
        let mut command = lane.node.command(program);
        command.args(self.arguments).arg(&file);
        let mut process = lane.node.start("proxy", &mut command);
        wait_until(&format!("{} listens", self.name), Duration::from_secs(20), || {
            assert!(process.is_running(), "{} ended: {}", self.name, process.log());
            lane.node.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, LISTENS))).is_ok()
        });
        Proxied { lane, _process: process }
    }
}

fn redirect(node: &Namespace) {
    let chain =
        format!("type nat hook prerouting priority dstnat; iifname bridge0 tcp dport {PORT} redirect to :{LISTENS};");
    let said = output_with_input(
        node.command("nft").args(["-f", "-"]),
        &format!("table ip way {{ chain in {{ {chain} }}; }}\n"),
    );
    assert!(said.success(), "nft: {}", said.stderr);
}

fn haproxy(_: &Path) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  \
         option splice-auto\nfrontend in\n  bind :{LISTENS}\n  tcp-request inspect-delay 5s\n  \
         tcp-request content accept if {{ req.ssl_sni -i {NAME} }}\n  tcp-request content reject\n  default_backend out\n\
         backend out\n  server sink {SINK}:{PORT}\n"
    )
}

fn nginx(folder: &Path) -> String {
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nuser root;\nworker_processes 1;\npid {0}/nginx.pid;\nerror_log {0}/error.log;\n\
         events {{ worker_connections 4000; }}\nstream {{\n  map $ssl_preread_server_name $to {{ {NAME} {SINK}:{PORT}; default \"\"; }}\n  \
         server {{ listen {LISTENS} backlog=4096; ssl_preread on; tcp_nodelay on; proxy_pass $to; }}\n}}\n",
        folder.display()
    )
}

fn sniproxy(folder: &Path) -> String {
    format!(
        "user root\npidfile {0}/sniproxy.pid\nerror_log {{ filename {0}/error.log }}\nlistener 0.0.0.0:{LISTENS} {{\n  proto tls\n  table hosts\n}}\n\
         table hosts {{\n  {1} {SINK}:{PORT}\n}}\n",
        folder.display(),
        NAME.replace('.', "\\.")
    )
}

/// Peeks and splices (Squid's words), to where the connection was going.
fn squid(folder: &Path) -> String {
    let pair = Authority::new(&folder.join("keys")).issue("squid", &[NAME]);
    fs::write(folder.join("hosts"), format!("{SINK} {NAME}\n")).expect("a hosts file");
    let said = output(std::process::Command::new("chown").arg("-R").arg(format!("{PROXY}:{PROXY}")).arg(folder));
    assert!(said.success(), "chown: {}", said.stderr);
    format!(
        "http_port 127.0.0.1:3128\nhttps_port {LISTENS} intercept ssl-bump generate-host-certificates=off tls-cert={} tls-key={}\n\
         acl first at_step SslBump1\nacl allowed ssl::server_name {NAME}\nssl_bump peek first\nssl_bump splice allowed\nssl_bump terminate all\n\
         http_access allow all\ncache deny all\naccess_log none\ncache_log {2}/cache.log\npid_filename {2}/squid.pid\ncoredump_dir {2}\n\
         hosts_file {2}/hosts\nmax_filedescriptors 8192\nshutdown_lifetime 0 seconds\npinger_enable off\n",
        pair.certificate.display(),
        pair.key.display(),
        folder.display()
    )
}

fn envoy(_: &Path) -> String {
    let types = "type.googleapis.com/envoy.extensions.filters";
    let at = |address: &str, port| format!("{{ socket_address: {{ address: {address}, port_value: {port} }} }}");
    format!(
        "static_resources:\n  listeners:\n  - address: {}\n    listener_filters:\n    - name: tls_inspector\n      \
         typed_config: {{ \"@type\": {types}.listener.tls_inspector.v3.TlsInspector }}\n    filter_chains:\n    \
         - filter_chain_match: {{ server_names: [{NAME}] }}\n      filters:\n      - name: tcp_proxy\n        \
         typed_config: {{ \"@type\": {types}.network.tcp_proxy.v3.TcpProxy, stat_prefix: sink, cluster: sink }}\n  clusters:\n  \
         - name: sink\n    type: STATIC\n    connect_timeout: 5s\n    load_assignment:\n      cluster_name: sink\n      endpoints:\n      \
         - lb_endpoints: [{{ endpoint: {{ address: {} }} }}]\n",
        at("0.0.0.0", LISTENS),
        at(&SINK.to_string(), PORT)
    )
}
