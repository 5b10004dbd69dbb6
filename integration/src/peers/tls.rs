//! TLS clients of rustls that trust a test's authority.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A connection that is about to ask for that name.
pub fn client(authority: &Path, name: &str) -> ClientConnection {
    let name = name.to_owned().try_into().expect("a server name");
    ClientConnection::new(Arc::new(config(authority)), name).expect("a client")
}

/// A client's configuration, TLS 1.3.
pub fn config(authority: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).expect("an authority") {
        roots.add(certificate.expect("an authority")).expect("an authority");
    }
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Everyone's.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
