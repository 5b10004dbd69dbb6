use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// The first flight of a real client.
fn flight(name: &'static str, sni: bool) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.enable_sni = sni;
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8], step: usize) -> Result<Option<ClientHello>, Malformed> {
    let mut reader = Reader::default();
    for piece in bytes.chunks(step) {
        if let Some(hello) = reader.push(piece)? {
            return Ok(Some(hello));
        }
    }
    Ok(None)
}

/// The same handshake message in records of `size` bytes.
fn in_records(flight: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[22, 3, 1, (piece.len() >> 8) as u8, piece.len() as u8], piece].concat();
    flight[5..].chunks(size).flat_map(record).collect()
}

#[test]
fn a_real_hello_split_anywhere() {
    let hello = flight("shop.example.com", true);
    for step in 1..=hello.len() {
        let read = read(&hello, step).unwrap().unwrap();
        assert_eq!(read.server_name.as_deref(), Some("shop.example.com"), "in pieces of {step}");
    }
    for size in [1, 2, 3, 5, 100] {
        let read = read(&in_records(&hello, size), 7).unwrap().unwrap();
        assert_eq!(read.server_name.as_deref(), Some("shop.example.com"), "in records of {size}");
    }
}

#[test]
fn every_byte_is_kept_for_who_serves() {
    let bytes = [flight("shop.example.com", true), b"and more".to_vec()].concat();
    let mut reader = Reader::default();
    assert!(reader.push(&bytes).unwrap().is_some());
    assert_eq!(reader.into_bytes(), bytes);
}

#[test]
fn without_a_name() {
    assert_eq!(read(&flight("shop.example.com", false), 11).unwrap(), Some(ClientHello { server_name: None }));
}

#[test]
fn a_cut_hello_is_never_whole_and_never_wrong() {
    let hello = flight("shop.example.com", true);
    for length in 0..hello.len() {
        assert_eq!(read(&hello[..length], 16), Ok(None), "of {length} bytes");
    }
}

#[test]
fn no_change_of_a_byte_panics() {
    let hello = flight("shop.example.com", true);
    for at in 0..hello.len() {
        for value in [0, 1, 2, 3, 22, 127, 128, 255] {
            let mut changed = hello.clone();
            changed[at] = value;
            let _ = read(&changed, 64);
        }
    }
}

#[test]
fn other_protocols_are_known_by_their_first_bytes() {
    assert_eq!(read(b"GET / HTTP/1.1\r\n", 1), Err(Malformed::NotTls));
    assert_eq!(read(&[22, 2], 2), Err(Malformed::NotTls));
    assert_eq!(read(&[21, 3, 1, 0, 2, 1, 0], 7), Err(Malformed::NotTls));
}

#[test]
fn bounds_hold() {
    assert_eq!(read(&[22, 3, 1, 0, 0], 5), Err(Malformed::Broken), "an empty record");
    assert_eq!(read(&[22, 3, 1, 0x40, 1], 5), Err(Malformed::Broken), "a record above 2^14");
    assert_eq!(read(&[22, 3, 1, 0, 4, 1, 2, 0, 0], 9), Err(Malformed::TooLong), "128 KiB announced");
    assert_eq!(read(&[22, 3, 1, 0, 4, 2, 0, 0, 9], 9), Err(Malformed::Broken), "a ServerHello");
    let dribble = in_records(&[&[0; 5][..], &[1, 1, 0, 0], &[0; 40_000]].concat(), 1);
    assert_eq!(read(&dribble, 1000), Err(Malformed::TooLong), "64 KiB of one-byte records");
}

#[test]
fn two_names_are_refused() {
    let hello = |extensions: &[u8]| {
        let mut body = vec![3, 3];
        body.extend([0; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        parse(&body)
    };
    let name = [0, 0, 0, 6, 0, 4, 0, 0, 1, b'a'];
    assert_eq!(hello(&name).unwrap().server_name.as_deref(), Some("a"));
    assert_eq!(hello(&[name, name].concat()), Err(Malformed::Broken));
    assert_eq!(hello(&[0, 0, 0, 10, 0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b']), Err(Malformed::Broken));
    assert_eq!(hello(&[0, 0, 0, 5, 0, 3, 0, 0, 0]), Err(Malformed::Broken), "an empty name");
}
