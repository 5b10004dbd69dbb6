//! Certificates, made by the `openssl` command.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate authority and what it issues, in a folder.
pub(crate) struct Authority {
    folder: PathBuf,
    name: String,
}

impl Authority {
    /// Makes one in `folder`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let authority = Self { folder: folder.to_owned(), name: name.to_owned() };
        let (key, certificate) = (authority.path("key"), authority.path("pem"));
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {certificate} -days 30 \
             -subj /CN={name} -addext basicConstraints=critical,CA:TRUE"
        ));
        authority
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// Issues a pair for `host`, written to `<stem>.pem` (leaf and authority) and `<stem>.key`.
    pub(crate) fn issue(&self, stem: &Path, host: &str, days: i64) {
        let stem = stem.display().to_string();
        let (key, request, leaf, extensions) =
            (format!("{stem}.key"), format!("{stem}.csr"), format!("{stem}.leaf"), format!("{stem}.ext"));
        openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {request} -subj /CN={host}"
        ));
        std::fs::write(&extensions, format!("subjectAltName=DNS:{host},DNS:www.{host}\n")).unwrap();
        openssl(&format!(
            "x509 -req -in {request} -CA {} -CAkey {} -CAcreateserial -days {days} -extfile {extensions} -out {leaf}",
            self.path("pem"),
            self.path("key"),
        ));
        let chain = std::fs::read_to_string(&leaf).unwrap() + &std::fs::read_to_string(self.certificate()).unwrap();
        std::fs::write(format!("{stem}.pem"), chain).unwrap();
        for made in [request, leaf, extensions] {
            std::fs::remove_file(made).unwrap();
        }
    }

    fn path(&self, end: &str) -> String {
        self.folder.join(format!("{}.{end}", self.name)).display().to_string()
    }
}

/// Runs `openssl` with arguments without spaces in them.
pub(crate) fn openssl(arguments: &str) {
    let output = Command::new("openssl").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The serial number of the certificate in a PEM file.
pub(crate) fn serial(pem: &Path) -> String {
    let output = Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(pem).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
