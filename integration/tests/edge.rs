//! Exposed apps behind TLS, asked by real clients from the internet.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use integration::manifests::{allow_cidrs, namespace, policy, two_tenants};
use integration::namespace::Namespace;
use integration::peers::certificates::{Authority, Pair, serial};
use integration::peers::web::{Nginx, WebSite};
use integration::process::output_with_input;
use integration::site::{NODE4, NODE6};
use integration::traffic::Target;
use integration::wait::wait_until;
use integration::{Pod, Site};

const BACKEND: u16 = 8080;

struct Stage {
    site: Site,
    authority: Authority,
    web: Pod,
    web_2: Pod,
    backends: Vec<Nginx>,
}

fn exposed(name: &str, host: &str, label: &str, port: u16, tls: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: ExposedApp\nmetadata: {{ name: {name}, namespace: shop }}\nspec:\n  \
         hosts: [ {host} ]\n  tls: {tls}\n  routes:\n    - path: /\n      backends: [ {{ selector: {{ matchLabels: {{ app: {label} }} }}, port: {port} }} ]\n"
    )
}

fn terminated() -> String {
    exposed(
        "web",
        "shop.example.com",
        "web",
        BACKEND,
        "{ mode: Edge, certificate: { certFile: shop.crt, keyFile: shop.key } }",
    )
}

/// `shop.example.com` on two workloads, with a certificate of the world's authority.
fn stage() -> Stage {
    let site = Site::start();
    let authority = Authority::new(&site.world.folder().join("authority"));
    install(&site, &authority.issue("shop", &["shop.example.com"]));
    site.netctl().apply(&(two_tenants() + &terminated()));
    let web = site.attach("shop", "web-1", &["app=web"]);
    let web_2 = site.attach("shop", "web-2", &["app=web"]);
    let backends = [&web, &web_2].map(|pod| backend(&site, pod)).into();
    Stage { site, authority, web, web_2, backends }
}

fn backend(site: &Site, pod: &Pod) -> Nginx {
    let listen = vec![(pod.v4, BACKEND).into(), (pod.v6, BACKEND).into()];
    let sites = [WebSite { listen, label: pod.name.clone(), tls: None }];
    Nginx::start(pod, &site.world.folder().join(format!("nginx-{}", pod.name)), &sites)
}

/// Puts a pair where `shop` keeps its files, each by one rename.
fn install(site: &Site, pair: &Pair) {
    let folder = site.files("shop");
    for (from, name) in [(&pair.certificate, "shop.crt"), (&pair.key, "shop.key")] {
        let fresh = folder.join(format!("{name}.new"));
        fs::copy(from, &fresh).expect("copy a certificate");
        fs::rename(&fresh, folder.join(name)).expect("install a certificate");
    }
}

impl Stage {
    /// `curl` from the internet, with the authority known and the host at the node's address.
    fn curl(&self, words: &str) -> integration::process::Said {
        let authority: PathBuf = self.authority.certificate();
        let resolve =
            format!("--resolve shop.example.com:443:{NODE4},[{NODE6}] --resolve pass.example.com:443:{NODE4}");
        let line = format!("curl -sS --max-time 10 --cacert {} {resolve} {words}", authority.display());
        self.site.internet.namespace.run(&line)
    }

    #[track_caller]
    fn fetch(&self, words: &str) -> String {
        let mut body = String::new();
        wait_until(&format!("curl {words}"), Duration::from_secs(10), || {
            let said = self.curl(words);
            body = said.stdout + &said.stderr;
            said.status == 0
        });
        body
    }
}

#[test]
fn both_protocols_reach_the_workloads_in_turn_and_the_headers_tell_the_client() {
    let stage = stage();
    for version in ["--http1.1", "--http2"] {
        let bodies: Vec<String> =
            (0..6).map(|_| stage.fetch(&format!("{version} https://shop.example.com/a/b?c=d"))).collect();
        for pod in [&stage.web, &stage.web_2] {
            assert!(
                bodies.iter().any(|body| body.starts_with(&pod.name)),
                "{} is asked in turn: {bodies:#?}",
                pod.name
            );
        }
        let body = &bodies[0];
        assert!(body.contains("host: shop.example.com"), "{body}");
        assert!(body.contains("uri: /a/b?c=d"), "{body}");
        assert!(body.contains("x-forwarded-for: 192.0.2.1\n"), "{body}");
        assert!(body.contains("x-forwarded-proto: https"), "{body}");
        assert!(body.contains("forwarded: ") && body.contains("for=192.0.2.1"), "{body}");
    }
    let version = stage.fetch("--http2 -o /dev/null -w %{http_version} https://shop.example.com/");
    assert_eq!(version, "2");
    let by_ipv6 = stage.fetch("-6 https://shop.example.com/");
    assert!(by_ipv6.contains("x-forwarded-for: 2001:db8:ff::1"), "{by_ipv6}");
}

#[test]
fn what_a_client_claims_about_itself_is_not_believed_and_hop_headers_end_here() {
    let stage = stage();
    let claims =
        "-H X-Forwarded-For:198.51.100.9 -H Forwarded:for=198.51.100.9 -H Connection:x-hop -H X-Hop:1 -H TE:gzip";
    let body = stage.fetch(&format!("--http1.1 {claims} https://shop.example.com/"));
    assert!(!body.contains("198.51.100.9"), "{body}");
    assert!(body.contains("x-hop: \n") && body.contains("te: \n"), "{body}");
}

#[test]
fn backends_are_kept_alive_and_large_bodies_come_whole() {
    let stage = stage();
    let sums: Vec<String> = ["--http1.1", "--http2"]
        .map(|version| {
            stage.fetch(&format!("{version} -o /dev/null -w %{{size_download}} https://shop.example.com/large"))
        })
        .into();
    assert_eq!(sums, ["1048576", "1048576"]);
    for _ in 0..8 {
        stage.fetch("https://shop.example.com/");
    }
    for backend in &stage.backends {
        let log = backend.accesses();
        let connections: std::collections::BTreeSet<&str> =
            log.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        assert!(connections.len() < log.lines().count(), "requests share connections to a backend:\n{log}");
    }
}

#[test]
fn a_swapped_certificate_is_served_and_open_connections_live_on() {
    let stage = stage();
    stage.fetch("https://shop.example.com/");
    let folder = stage.site.world.folder().to_owned();
    let mut slow = {
        let authority = stage.authority.certificate();
        let mut command = stage.site.internet.namespace.command("curl");
        command.args(["-sS", "--max-time", "60", "--limit-rate", "256k", "--cacert"]).arg(authority);
        command.arg("--resolve").arg(format!("shop.example.com:443:{NODE4}")).arg("-o").arg(folder.join("slow"));
        stage.site.internet.namespace.start("slow", command.arg("https://shop.example.com/large"))
    };
    wait_until("the slow download has begun", Duration::from_secs(10), || folder.join("slow").exists());

    let next = stage.authority.issue("shop-next", &["shop.example.com"]);
    install(&stage.site, &next);
    let wanted = serial(&next.certificate);
    wait_until("the new certificate is served", Duration::from_secs(15), || {
        handshake(&stage, "shop.example.com", "-tls1_3").contains(&wanted)
    });

    wait_until("the slow download is done", Duration::from_secs(30), || !slow.is_running());
    assert_eq!(fs::metadata(folder.join("slow")).unwrap().len(), 1_048_576, "a swap cuts no connection");

    // A pair that does not fit together is refused; the one in use stays.
    fs::write(stage.site.files("shop").join("shop.key"), "not a key").unwrap();
    let said = handshake(&stage, "shop.example.com", "-tls1_2");
    assert!(said.contains(&wanted), "{said}");
}

#[test]
fn old_tls_and_unknown_names_are_refused() {
    let stage = stage();
    stage.fetch("https://shop.example.com/");
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(handshake(&stage, "shop.example.com", version).contains("serial="), "{version}");
    }
    let old = stage.curl("--tls-max 1.1 https://shop.example.com/");
    assert!(!old.success(), "TLS 1.1 is refused: {}", old.stdout);
    assert!(
        !handshake(&stage, "other.example.com", "-tls1_3").contains("serial="),
        "an unknown name gets no certificate"
    );
    let misdirected = stage.fetch("-o /dev/null -w %{http_code} -H Host:other.example.com https://shop.example.com/");
    assert_eq!(misdirected, "421");
}

/// The serial number of the certificate that `openssl s_client` is shown, or what it says instead.
fn handshake(stage: &Stage, name: &str, version: &str) -> String {
    let authority = stage.authority.certificate();
    let mut command = stage.site.internet.namespace.command("openssl");
    command.args(["s_client", "-connect", &format!("{NODE4}:443"), "-servername", name, version, "-CAfile"]);
    let said = output_with_input(command.arg(authority), "");
    let file = stage.site.world.folder().join("shown.crt");
    fs::write(&file, &said.stdout).expect("write a certificate");
    if !said.stdout.contains("BEGIN CERTIFICATE") {
        return said.stderr;
    }
    serial(&file)
}

#[test]
fn passthrough_goes_by_server_name_and_ends_at_the_workload() {
    let stage = stage();
    let pair = stage.authority.issue("pass", &["pass.example.com"]);
    let pod = stage.site.attach("shop", "own-tls-1", &["app=own-tls"]);
    let listen = vec![(pod.v4, 8443).into()];
    let sites = [WebSite { listen, label: "own-tls".to_owned(), tls: Some(pair.clone()) }];
    let _backend = Nginx::start(&pod, &stage.site.world.folder().join("nginx-own-tls"), &sites);
    stage.site.netctl().apply(&exposed("pass", "pass.example.com", "own-tls", 8443, "{ mode: Passthrough }"));
    let body = stage.fetch("--http2 https://pass.example.com/");
    assert!(body.starts_with("own-tls"), "{body}");
    let shown = handshake(&stage, "pass.example.com", "-tls1_3");
    assert!(shown.contains(&serial(&pair.certificate)), "{shown}");
    assert!(stage.fetch("https://shop.example.com/").starts_with("web-"), "the other app is untouched");
}

#[test]
fn nghttp_multiplexes_requests_on_one_connection() {
    let stage = stage();
    stage.fetch("https://shop.example.com/");
    let urls = (0..8).map(|number| format!("https://shop.example.com/{number}")).collect::<Vec<_>>().join(" ");
    let said = stage.site.internet.namespace.run(&format!("nghttp -nv {urls}"));
    assert_eq!(said.stdout.matches(":status: 200").count(), 8, "{}{}", said.stdout, said.stderr);
    assert_eq!(said.stdout.matches("The negotiated protocol: h2").count(), 1, "one connection: {}", said.stdout);
    let multiplexed = stage
        .curl("--http2 --parallel --parallel-immediate https://shop.example.com/[1-8] -o /dev/null -w %{http_code}\\n");
    assert_eq!(multiplexed.stdout.matches("200").count(), 8, "{}{}", multiplexed.stdout, multiplexed.stderr);
}

#[test]
fn a_missing_backend_is_said_in_the_answer_and_in_the_log() {
    let mut stage = stage();
    stage.fetch("https://shop.example.com/");
    stage.backends.drain(..).for_each(Nginx::stop);
    let code = stage.fetch("-o /dev/null -w %{http_code} https://shop.example.com/");
    assert_eq!(code, "502");
    for name in ["web-1", "web-2"] {
        stage.site.netctl().ok(&["detach", name, "-n", "shop"]);
    }
    let code = stage.fetch("-o /dev/null -w %{http_code} https://shop.example.com/");
    assert_eq!(code, "503");
    assert!(stage.site.daemon.log().contains("shop.example.com"), "the log names the app");
}

#[test]
fn nobody_but_the_edge_opens_connections_to_an_exposed_port() {
    let stage = stage();
    stage.fetch("https://shop.example.com/");
    // Everything but the exposure lets them in: the network is Open, and the namespace allows what comes.
    let everything = allow_cidrs(&["0.0.0.0/0", "::/0"], "");
    let lax = namespace("shop", "tenant-a, ingressDefault: Allow");
    stage.site.netctl().apply(&(lax + &policy("bank", "all", &everything) + &policy("shop", "all", &everything)));
    let ledger = stage.site.attach("bank", "ledger-1", &[]);
    let neighbour = stage.site.attach("shop", "neighbour-1", &[]);
    let others: [&Namespace; 3] = [&ledger, &neighbour, &stage.site.internet.namespace];
    let targets =
        [stage.web.v4.into(), stage.web.v6.into()].map(|address: IpAddr| Target::new("tcp", address, BACKEND));
    for target in targets {
        others.iter().for_each(|other| other.must_not_reach(target));
        stage.site.node.must_not_reach(target);
    }
    stage.site.netctl().ok(&["delete", "exposedapp", "web", "-n", "shop"]);
    for target in targets {
        others.iter().for_each(|other| other.must_reach(target));
    }
}
