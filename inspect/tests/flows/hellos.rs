//! The first flights of real clients.

use std::sync::Arc;

use rustls::client::{EchGreaseConfig, EchMode};
use rustls::crypto::aws_lc_rs::{default_provider, hpke, kx_group};
use rustls::crypto::{SupportedKxGroup, hpke::Hpke as _};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, quic, version};

/// TLS 1.3 and 1.2, a key share of 32 bytes.
pub(crate) fn ordinary(name: &str) -> Vec<u8> {
    first_flight(config(&[kx_group::X25519], Offer::Both), name)
}

/// With a key share of X25519MLKEM768: too long for one packet.
pub(crate) fn post_quantum(name: &str) -> Vec<u8> {
    let hello = first_flight(config(&[kx_group::X25519MLKEM768, kx_group::X25519], Offer::Both), name);
    assert!(hello.len() > 1_400, "of {} bytes", hello.len());
    hello
}

/// Offers nothing newer than TLS 1.2.
pub(crate) fn tls12_only(name: &str) -> Vec<u8> {
    first_flight(config(&[kx_group::X25519], Offer::Tls12), name)
}

/// Without a server_name extension.
pub(crate) fn nameless() -> Vec<u8> {
    let mut config = config(&[kx_group::X25519], Offer::Both);
    config.enable_sni = false;
    first_flight(config, "nobody.example.com")
}

/// With an encrypted_client_hello extension.
pub(crate) fn encrypted(name: &str) -> Vec<u8> {
    first_flight(config(&[kx_group::X25519], Offer::Ech), name)
}

/// The handshake message of a QUIC client, without records.
pub(crate) fn of_quic(name: &str, is_post_quantum: bool) -> Vec<u8> {
    let groups: &[_] = if is_post_quantum { &[kx_group::X25519MLKEM768] } else { &[kx_group::X25519] };
    let config = Arc::new(config(groups, Offer::Both));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let parameters = vec![0x01, 0x02, 0x47, 0xd0];
    let mut client = quic::ClientConnection::new(config, quic::Version::V1, name, parameters).unwrap();
    let mut message = Vec::new();
    assert!(client.write_hs(&mut message).is_none());
    message
}

/// The same handshake message in records of `size` bytes.
pub(crate) fn in_records(flight: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[22, 3, 1, (piece.len() >> 8) as u8, piece.len() as u8], piece].concat();
    flight[5..].chunks(size).flat_map(record).collect()
}

/// A TLS record with a hello that has only this extension.
pub(crate) fn with_extension(kind: u16, data: &[u8]) -> Vec<u8> {
    let extension = [&kind.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat();
    let mut body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    body.extend((extension.len() as u16).to_be_bytes());
    body.extend(extension);
    let message = [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    in_records(&[&[0; 5][..], &message].concat(), 1 << 14)
}

/// A TLS record with a hello that has only this name.
pub(crate) fn with_name(name: &[u8]) -> Vec<u8> {
    let length = |length: usize| (length as u16).to_be_bytes();
    with_extension(0, &[&length(name.len() + 3)[..], &[0], &length(name.len()), name].concat())
}

enum Offer {
    Both,
    Tls12,
    Ech,
}

fn config(groups: &[&'static dyn SupportedKxGroup], offer: Offer) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::CryptoProvider { kx_groups: groups.to_vec(), ..default_provider() });
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = match offer {
        Offer::Both => builder.with_safe_default_protocol_versions(),
        Offer::Tls12 => builder.with_protocol_versions(&[&version::TLS12]),
        Offer::Ech => {
            let suite = hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;
            let (key, _) = suite.generate_key_pair().unwrap();
            builder.with_ech(EchMode::Grease(EchGreaseConfig::new(suite, key)))
        }
    };
    builder.unwrap().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

fn first_flight(config: ClientConfig, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}
