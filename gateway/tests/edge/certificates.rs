//! Certificate files: checked before they are taken, swapped while connections live, kept when their successor is bad.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use gateway::edge::{EdgeConfig, Mode, Timeouts};

use crate::backend::Backend;
use crate::client::read_answer;
use crate::observed::{eventually, metric};
use crate::pki::{Authority, openssl, serial};
use crate::world::{World, edge_mode};

impl World {
    /// The serial number that a new connection is shown.
    fn shown(&self) -> String {
        let pem = self.folder.join("shown");
        std::fs::write(&pem, self.s_client(&format!("-servername {}", self.host))).unwrap();
        serial(&pem)
    }

    fn move_into_place(&self, from: &str, to: &str) {
        for end in ["key", "pem"] {
            std::fs::rename(self.file(&format!("{from}.{end}")), self.file(&format!("{to}.{end}"))).unwrap();
        }
    }

    fn app_problems(&self) -> Vec<String> {
        self.edge().status().apps[0].problems.clone()
    }
}

#[test]
fn a_new_pair_is_taken_while_connections_live() {
    let world = World::with(Timeouts::default());
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[backend.address])])]);
    let old = serial(&world.file("web.pem"));
    let mut open = world.raw(&world.host, &[b"http/1.1"]);
    let mut ask = || {
        write!(open, "GET / HTTP/1.1\r\nhost: {}\r\n\r\n", world.host).unwrap();
        assert!(read_answer(&mut open).ends_with("hello"));
    };
    ask();
    assert_eq!(world.shown(), old);

    world.issue("next", &world.host);
    let new = serial(&world.file("next.pem"));
    world.move_into_place("next", "web");
    eventually("the new certificate is shown", || world.shown() == new);
    ask();
    assert!(world.app_problems().is_empty());
    assert!((59..=60).contains(&world.edge().status().apps[0].certificate.unwrap().days_left));
    let not_after = metric(r#"tidegate_edge_certificate_not_after_seconds{app="shop/web"}"#).unwrap();
    assert!(not_after > 1.7e9);

    // A reload of the configuration is no reason to end it either.
    world.serve([world.app(&[("/", &[backend.address])])]);
    ask();
}

#[test]
fn a_bad_pair_keeps_the_old_one() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    world.serve([world.app(&[("/", &[backend.address])])]);
    let old = serial(&world.file("web.pem"));

    world.issue("next", &world.host);
    std::fs::rename(world.file("next.key"), world.file("web.key")).unwrap();
    eventually("half a pair is reported", || !world.app_problems().is_empty());
    assert!(world.app_problems()[0].contains("is not the one of the certificate"), "{:?}", world.app_problems());
    assert_eq!(world.shown(), old);
    // Another change of the configuration is not held up by it.
    let checked = world.problems(world.app(&[("/", &[])]));
    assert!(checked.starts_with("warnings: ") && checked.contains("loaded earlier stays in use"), "{checked}");

    let new = serial(&world.file("next.pem"));
    std::fs::rename(world.file("next.pem"), world.file("web.pem")).unwrap();
    eventually("the whole pair is taken", || world.app_problems().is_empty());
    assert_eq!(world.shown(), new);
}

#[test]
fn after_a_restart_a_bad_app_is_closed_until_it_is_mended() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    let apps = vec![world.app(&[("/", &[backend.address])])];
    std::fs::rename(world.file("web.key"), world.file("away.key")).unwrap();
    let (prepared, problems) = world.edge().check_accepted(&EdgeConfig { apps });
    assert!(problems[0].to_string().contains("cannot read web.key"), "{problems:?}");
    world.edge().install(prepared);
    assert!(world.s_client(&format!("-servername {}", world.host)).contains("alert internal error"));
    std::fs::rename(world.file("away.key"), world.file("web.key")).unwrap();
    eventually("the app opens", || world.app_problems().is_empty());
    assert_eq!(world.fetch("/", &[]).0, "hello");
}

#[test]
fn a_mounted_secret_changes_by_its_links() {
    let world = World::new();
    let backend = Backend::saying(world.address(2, 8080), "hello");
    for (folder, stem) in [("..1", "one"), ("..2", "two")] {
        world.issue(stem, &world.host);
        std::fs::create_dir(world.file(folder)).unwrap();
        for end in ["pem", "key"] {
            let name = format!("tls.{end}");
            std::fs::rename(world.file(&format!("{stem}.{end}")), world.file(folder).join(name)).unwrap();
        }
    }
    symlink("..1", world.file("..data")).unwrap();
    symlink("..data/tls.pem", world.file("tls.pem")).unwrap();
    symlink("..data/tls.key", world.file("tls.key")).unwrap();
    let mut app = world.app(&[("/", &[backend.address])]);
    app.mode = edge_mode("tls");
    world.serve([app]);
    assert_eq!(world.shown(), serial(&world.file("..1/tls.pem")));
    symlink("..2", world.file("..next")).unwrap();
    std::fs::rename(world.file("..next"), world.file("..data")).unwrap();
    eventually("the other folder is shown", || world.shown() == serial(&world.file("..2/tls.pem")));
}

#[test]
fn what_is_wrong_is_said_before_it_is_taken() {
    let world = World::new();
    let problems = |cert: &str, key: &str| {
        let mut app = world.app(&[("/", &[])]);
        app.mode = Mode::Edge {
            cert_file: cert.to_owned(),
            key_file: key.to_owned(),
            min_version: config::resource::TlsVersion::Tls12,
            client_ca: None,
        };
        world.problems(app)
    };
    let expect = |cert: &str, key: &str, text: &str| {
        let found = problems(cert, key);
        assert!(found.contains(text), "{cert} {key}: {found}");
    };
    assert_eq!(problems("web.pem", "web.key"), "warnings: ");

    std::fs::create_dir_all(world.folder.join("files/other")).unwrap();
    std::fs::copy(world.file("web.key"), world.folder.join("files/other/web.key")).unwrap();
    symlink("../other/web.key", world.file("link.key")).unwrap();
    std::fs::write(world.file("empty.pem"), "").unwrap();
    std::fs::write(world.file("text.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    world.issue("second", "second.example");
    expect("none.pem", "web.key", "problems: exposedapp/shop/web: cannot read none.pem");
    expect("web.pem", "../other/web.key", "leads out of");
    expect("web.pem", "link.key", "leads out of");
    expect("empty.pem", "web.key", "holds no certificate");
    expect("text.pem", "web.key", "certificate 1 of text.pem cannot be read");
    expect("web.pem", "web.pem", "holds no usable private key");
    expect("web.pem", "second.key", "the key in second.key is not the one");

    let (key, protected) = (world.file("web.key"), world.file("protected.key"));
    openssl(&format!("pkcs8 -topk8 -in {} -out {} -passout pass:secret", key.display(), protected.display()));
    expect("web.pem", "protected.key", "without a password");

    expect(
        "second.pem",
        "second.key",
        &format!("warnings: exposedapp/shop/web: the certificate in second.pem does not cover {}", world.host),
    );
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    expect("web.pem", "web.key", "readable to group or others; chmod 0600 it");
    world.ca.issue(&world.file("soon"), &world.host, 5);
    expect("soon.pem", "soon.key", "soon.pem expires in ");
    expired(&world);
    expect("expired.pem", "web.key", "has expired; renew it");
    reverse(&world.file("web.pem"), &world.file("reverse.pem"));
    expect("reverse.pem", "web.key", "is not the one of the certificate");
    let stranger = Authority::new(&world.folder, "stranger").certificate();
    let leaf = std::fs::read_to_string(world.file("web.pem")).unwrap();
    let leaf = leaf.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned();
    std::fs::write(world.file("gap.pem"), leaf + &std::fs::read_to_string(stranger).unwrap()).unwrap();
    expect("gap.pem", "web.key", "certificate 2 of gap.pem did not issue certificate 1");
}

/// A certificate of the key `web.key` whose time is over; `x509 -days` takes none, `ca` takes dates.
fn expired(world: &World) {
    let file = |name: &str| world.file(name).display().to_string();
    openssl(&format!("req -new -key {} -out {} -subj /CN={}", file("web.key"), file("old.csr"), world.host));
    let text = "[ca]\ndefault_ca=d\n[d]\ndatabase=db\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n\
                x509_extensions=x\n[p]\ncommonName=supplied\n[x]\nsubjectAltName=DNS:HOST,DNS:www.HOST\n";
    std::fs::write(world.folder.join("ca.cnf"), text.replace("HOST", &world.host)).unwrap();
    std::fs::write(world.folder.join("db"), "").unwrap();
    std::fs::write(world.folder.join("serial"), "01\n").unwrap();
    let output = Command::new("openssl")
        .current_dir(&world.folder)
        .args("ca -batch -config ca.cnf -cert ca.pem -keyfile ca.key -startdate 20200101000000Z".split(' '))
        .args(["-enddate", "20210101000000Z", "-notext", "-in", &file("old.csr"), "-out", &file("expired.pem")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn reverse(chain: &Path, to: &Path) {
    let text = std::fs::read_to_string(chain).unwrap();
    let blocks: Vec<&str> = text.split_inclusive("-----END CERTIFICATE-----\n").collect();
    std::fs::write(to, blocks.into_iter().rev().collect::<String>()).unwrap();
}

#[test]
fn a_host_belongs_to_one_app() {
    let world = World::new();
    let first = world.app(&[("/", &[])]);
    let second = gateway::edge::App { name: "second".parse().unwrap(), ..first.clone() };
    let problems = world.edge().check(&EdgeConfig { apps: vec![first, second] }).err().unwrap();
    assert!(problems[0].to_string().contains(&format!("the host {} is exposed by shop/web too", world.host)));
}
