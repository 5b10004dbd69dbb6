//! A certificate authority of the world's own, by `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::output;

/// An authority and the folder that it writes to.
#[derive(Clone, Debug)]
pub struct Authority {
    folder: PathBuf,
}

/// A chain and its key, PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Leaf first.
    pub certificate: PathBuf,
    /// PKCS#8.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one, keys in `folder`.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder for certificates");
        let authority = Self { folder: folder.to_owned() };
        let (key, certificate) = (authority.path("ca.key"), authority.certificate());
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &text(&key)]);
        let subject = ["-subj", "/CN=The World's Authority", "-addext", "basicConstraints=critical,CA:TRUE"];
        let files = ["req", "-x509", "-new", "-days", "30", "-key", &text(&key), "-out", &text(&certificate)];
        openssl(&[&files[..], &subject].concat());
        authority
    }

    /// Its own certificate, for `curl --cacert`.
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// A pair for these names, called `label` in the folder. Each call makes a new key and a new serial number.
    pub fn issue(&self, label: &str, names: &[&str]) -> Pair {
        let key = self.path(&format!("{label}.key"));
        let request = self.path(&format!("{label}.csr"));
        let certificate = self.path(&format!("{label}.crt"));
        let extensions = self.path(&format!("{label}.ext"));
        let alternatives: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let lines = format!("subjectAltName={}\nbasicConstraints=CA:FALSE\n", alternatives.join(","));
        fs::write(&extensions, lines).expect("an extension file");
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &text(&key)]);
        let subject = format!("/CN={}", names.first().expect("at least one name"));
        openssl(&["req", "-new", "-key", &text(&key), "-subj", &subject, "-out", &text(&request)]);
        let (authority, authority_key) = (text(&self.certificate()), text(&self.path("ca.key")));
        let signer = ["x509", "-req", "-days", "20", "-CA", &authority, "-CAkey", &authority_key];
        let files = ["-in", &text(&request), "-out", &text(&certificate), "-extfile", &text(&extensions)];
        openssl(&[&signer[..], &files].concat());
        Pair { certificate, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The serial number of a certificate, as `openssl` prints it.
pub fn serial(certificate: &Path) -> String {
    openssl(&["x509", "-noout", "-serial", "-in", &text(certificate)]).trim().to_owned()
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of the world is text").to_owned()
}

fn openssl(arguments: &[&str]) -> String {
    let said = output(Command::new("openssl").args(arguments));
    assert!(said.success(), "openssl {}: {}", arguments.join(" "), said.stderr);
    said.stdout
}
