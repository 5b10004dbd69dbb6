//! From an app's files to what rustls serves: chain, key, client authorities, versions.

use std::sync::Arc;

use config::names::{DnsName, Name};
use config::resource::TlsVersion;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::x509;
use crate::files::{FileError, FilesDir, Stamp};

/// Days before its end from which a certificate is called out.
const EXPIRES_SOON_DAYS: i64 = 14;

/// Which files an app names, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) namespace: Name,
    pub(super) hosts: Vec<DnsName>,
    pub(super) cert_file: String,
    pub(super) key_file: String,
    pub(super) min_version: TlsVersion,
    pub(super) client_ca: Option<String>,
}

/// What a client had to agree to. A connection made under other terms is not served any longer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Terms {
    min_version: TlsVersion,
    client_ca: Option<Vec<u8>>,
}

/// Files that were found good.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) tls: Arc<ServerConfig>,
    pub(super) terms: Arc<Terms>,
    /// Seconds since 1970.
    pub(super) not_after: i64,
    /// What the operator should know though it is served.
    pub(super) warnings: Vec<String>,
}

/// The states of the files, in the order certificate, key, client authorities.
pub(super) type Stamps = [Option<Stamp>; 3];

/// Why files cannot be served. The texts hold no file content.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{file} is not PEM: {error}; write `-----BEGIN CERTIFICATE-----` blocks, leaf first")]
    NotPem { file: String, error: String },
    #[error("{file} holds no certificate; write `-----BEGIN CERTIFICATE-----` blocks, leaf first")]
    Empty { file: String },
    #[error("certificate {number} of {file} cannot be read: {error}; issue it anew")]
    BadCertificate { file: String, number: usize, error: String },
    #[error(
        "{file} holds no usable private key: {error}; write one PEM key without a password (PKCS#8, PKCS#1 or SEC1)"
    )]
    NoKey { file: String, error: String },
    #[error(
        "the key in {key_file} is not the one of the certificate in {cert_file}: {error}; install the pair together"
    )]
    Mismatch { cert_file: String, key_file: String, error: String },
    #[error("the client authorities in {file} cannot be used: {error}; write the CA's certificate as PEM")]
    ClientAuthority { file: String, error: String },
    #[error("TLS cannot be set up: {0}; report this as a bug")]
    Tls(String),
}

/// A PEM file may be this long.
const MAX_BYTES: u64 = 1 << 20;

/// The states of the files now.
pub(super) fn stamps(files: &FilesDir, wanted: &Wanted) -> Stamps {
    let stamp = |file: &str| files.stamp(wanted.namespace.as_str(), file);
    [stamp(&wanted.cert_file), stamp(&wanted.key_file), wanted.client_ca.as_deref().and_then(stamp)]
}

/// Reads and checks the files. `now` is in seconds since 1970.
pub(super) fn load(
    files: &FilesDir,
    wanted: &Wanted,
    provider: &Arc<CryptoProvider>,
    now: i64,
) -> Result<(Loaded, Stamps), CertificateError> {
    let read = |file: &str| files.read(wanted.namespace.as_str(), file, (MAX_BYTES, "a PEM file is meant"));
    let certificate = read(&wanted.cert_file)?;
    let key = read(&wanted.key_file)?;
    let client_ca = wanted.client_ca.as_deref().map(read).transpose()?;
    let stamps = [Some(certificate.stamp), Some(key.stamp), client_ca.as_ref().map(|found| found.stamp)];

    let chain = chain(&wanted.cert_file, &certificate.bytes)?;
    let (not_after, mut warnings) = examine(wanted, &chain, now)?;
    if key.open_to_others {
        warnings.push(format!("the key file {} is readable to group or others; chmod 0600 it", wanted.key_file));
    }
    let private = PrivateKeyDer::from_pem_slice(&key.bytes)
        .map_err(|error| CertificateError::NoKey { file: wanted.key_file.clone(), error: error.to_string() })?;
    let client_ca = client_ca.map(|found| found.bytes);
    let tls = tls(wanted, chain, private, client_ca.as_deref(), provider)?;
    let terms = Arc::new(Terms { min_version: wanted.min_version, client_ca });
    Ok((Loaded { tls: Arc::new(tls), terms, not_after, warnings }, stamps))
}

fn chain(file: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| CertificateError::NotPem { file: file.to_owned(), error: error.to_string() })?;
    if chain.is_empty() {
        return Err(CertificateError::Empty { file: file.to_owned() });
    }
    Ok(chain)
}

/// When the leaf ends, and what is odd about the chain.
fn examine(wanted: &Wanted, chain: &[CertificateDer<'_>], now: i64) -> Result<(i64, Vec<String>), CertificateError> {
    let file = &wanted.cert_file;
    let bad = |at: usize, error: String| CertificateError::BadCertificate { file: file.clone(), number: at + 1, error };
    let mut read = Vec::with_capacity(chain.len());
    for (at, certificate) in chain.iter().enumerate() {
        ParsedCertificate::try_from(certificate).map_err(|error| bad(at, error.to_string()))?;
        read.push(x509::read(certificate).ok_or_else(|| bad(at, "its fields are not those of RFC 5280".to_owned()))?);
    }
    let leaf = ParsedCertificate::try_from(&chain[0]).map_err(|error| bad(0, error.to_string()))?;
    let mut warnings = Vec::new();
    for host in &wanted.hosts {
        let covered = ServerName::try_from(host.as_str())
            .is_ok_and(|name| rustls::client::verify_server_name(&leaf, &name).is_ok());
        if !covered {
            warnings.push(format!("the certificate in {file} does not cover {host}; issue one with that name"));
        }
    }
    for (at, pair) in read.windows(2).enumerate() {
        if pair[0].issuer != pair[1].subject {
            let (this, next) = (at + 1, at + 2);
            warnings
                .push(format!("certificate {next} of {file} did not issue certificate {this}; order them leaf first"));
        }
    }
    let (not_before, not_after) = (read[0].not_before, read[0].not_after);
    let days = (not_after - now).div_euclid(86_400);
    if not_after < now {
        warnings.push(format!("the certificate in {file} has expired; renew it"));
    } else if days < EXPIRES_SOON_DAYS {
        warnings.push(format!("the certificate in {file} expires in {days} days; renew it"));
    }
    if not_before > now {
        warnings.push(format!("the certificate in {file} is not valid yet; check the node's clock or its dates"));
    }
    Ok((not_after, warnings))
}

fn tls(
    wanted: &Wanted,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, CertificateError> {
    let versions: &[&rustls::SupportedProtocolVersion] = match wanted.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let broken = |error: rustls::Error| CertificateError::Tls(error.to_string());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).map_err(broken)?;
    let builder = match (client_ca, &wanted.client_ca) {
        (Some(pem), Some(file)) => {
            let wrong = |error: String| CertificateError::ClientAuthority { file: file.clone(), error };
            let mut roots = RootCertStore::empty();
            for certificate in chain_of_authorities(file, pem)? {
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| wrong(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch {
            cert_file: wanted.cert_file.clone(),
            key_file: wanted.key_file.clone(),
            error: error.to_string(),
        },
        error => CertificateError::NoKey { file: wanted.key_file.clone(), error: error.to_string() },
    })?;
    config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).into();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(broken)?;
    Ok(config)
}

fn chain_of_authorities(file: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    chain(file, pem)
        .map_err(|error| CertificateError::ClientAuthority { file: file.to_owned(), error: error.to_string() })
}
