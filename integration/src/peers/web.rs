//! A real web server, `nginx`: each site answers with its name, the client's address and the request's headers that
//! matter behind a proxy.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::peers::certificates::Pair;
use crate::process::Background;
use crate::wait::wait_until;

/// One `server` block.
#[derive(Clone, Debug)]
pub struct WebSite {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// First word of every answer.
    pub label: String,
    /// TLS with this pair; plain HTTP without.
    pub tls: Option<Pair>,
}

/// A running `nginx`.
#[derive(Debug)]
pub struct Nginx {
    process: Background,
    folder: PathBuf,
}

impl Nginx {
    /// Starts it; files in `folder`.
    pub fn start(namespace: &Namespace, folder: &Path, sites: &[WebSite]) -> Self {
        fs::create_dir_all(folder.join("body")).expect("a folder for nginx");
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration(folder, sites)).expect("nginx.conf");
        let mut command = namespace.command("nginx");
        command.arg("-c").arg(&file).arg("-p").arg(folder).args(["-g", "daemon off;"]);
        let mut process = namespace.start("nginx", &mut command);
        wait_until("nginx listens", Duration::from_secs(10), || {
            assert!(process.is_running(), "nginx ended: {}", process.log());
            sites.iter().flat_map(|site| &site.listen).all(|address| namespace.listens(*address))
        });
        Self { process, folder: folder.to_owned() }
    }

    /// Its access log: label, client, request line, status.
    pub fn accesses(&self) -> String {
        fs::read_to_string(self.folder.join("access.log")).unwrap_or_default()
    }

    /// Ends it.
    pub fn stop(self) {
        self.process.terminate();
    }
}

fn configuration(folder: &Path, sites: &[WebSite]) -> String {
    let place = folder.display();
    let mut text = format!(
        "user root;\nworker_processes 1;\npid {place}/nginx.pid;\nerror_log {place}/error.log;\n\
         events {{ worker_connections 512; }}\nhttp {{\n  default_type text/plain;\n  keepalive_timeout 60s;\n  ssl_protocols TLSv1.2 TLSv1.3;\n  \
         client_body_temp_path {place}/body;\n  proxy_temp_path {place}/proxy;\n  fastcgi_temp_path {place}/fastcgi;\n  \
         uwsgi_temp_path {place}/uwsgi;\n  scgi_temp_path {place}/scgi;\n  \
         log_format plain '$server_name $remote_addr \"$request\" $status $connection';\n  \
         access_log {place}/access.log plain;\n"
    );
    for site in sites {
        let _infallible = writeln!(text, "  server {{\n    server_name {};", site.label);
        for listen in &site.listen {
            let tls = if site.tls.is_some() { " ssl http2" } else { "" };
            let _infallible = writeln!(text, "    listen {listen}{tls};");
        }
        if let Some(pair) = &site.tls {
            let (certificate, key) = (pair.certificate.display(), pair.key.display());
            let _infallible = writeln!(text, "    ssl_certificate {certificate};\n    ssl_certificate_key {key};");
        }
        let _infallible = writeln!(
            text,
            "    location / {{ return 200 '{} from $remote_addr\\nhost: $http_host\\nuri: $request_uri\\n\
             x-forwarded-for: $http_x_forwarded_for\\nx-forwarded-proto: $http_x_forwarded_proto\\n\
             x-forwarded-host: $http_x_forwarded_host\\nforwarded: $http_forwarded\\nte: $http_te\\n\
             x-hop: $http_x_hop\\nconnection: $connection\\n'; }}\n    \
             location = /slow {{ limit_rate 2k; alias {place}/large; }}\n    \
             location = /large {{ alias {place}/large; }}\n    location = /missing {{ return 404; }}\n  }}",
            site.label
        );
    }
    text.push_str("}\n");
    fs::write(folder.join("large"), "0123456789abcdef".repeat(64 * 1024)).expect("a large file");
    text
}
