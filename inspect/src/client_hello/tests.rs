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
fn what_was_read_stays() {
    let mut reader = Reader::default();
    let read = reader.push(&flight("shop.example.com", true));
    assert_eq!(read.as_ref().unwrap().as_ref().unwrap().server_name.as_deref(), Some("shop.example.com"));
    for more in [&flight("other.example.com", true)[..], b"no record", &[22, 3, 1, 0, 0]] {
        assert_eq!(reader.push(more), read);
    }
    let mut reader = Reader::default();
    assert_eq!(reader.push(b"GET"), Err(Malformed::NotTls));
    assert_eq!(reader.push(&flight("shop.example.com", true)), Err(Malformed::NotTls));
}

#[test]
fn without_a_name() {
    assert_eq!(
        read(&flight("shop.example.com", false), 11).unwrap(),
        Some(ClientHello { server_name: None, ech: false })
    );
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
    let interrupted = [&in_records(&flight("shop.example.com", true), 100)[..105], &[21, 3, 1, 0, 2, 1, 0]].concat();
    assert_eq!(
        read(&interrupted, 7),
        Err(Malformed::Broken),
        "another protocol does not begin with a handshake record"
    );
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

/// A ClientHello whose message has `length` bytes.
fn of_length(length: usize) -> Vec<u8> {
    let padding = length - bare(&[]).len() - 4;
    let message = bare(&[&[0, 21][..], &(padding as u16).to_be_bytes(), &vec![0; padding]].concat());
    assert_eq!(message.len(), length);
    message
}

#[test]
fn the_bound_is_the_streams_and_not_the_pieces() {
    let records = |length: usize| in_records(&[&[0; 5][..], &of_length(length)].concat(), MAX_FRAGMENT);
    let fits = records(MAX_BYTES - 4 * 5);
    assert_eq!(fits.len(), MAX_BYTES);
    let over = records(MAX_BYTES - 4 * 5 + 1);
    let more = |bytes: Vec<u8>| [bytes, vec![0; 1000]].concat();
    for step in [1, 1000, MAX_BYTES - 1, MAX_BYTES, 2 * MAX_BYTES] {
        assert!(matches!(read(&more(fits.clone()), step), Ok(Some(_))), "in pieces of {step}");
        assert_eq!(read(&more(over.clone()), step), Err(Malformed::TooLong), "in pieces of {step}");
    }
}

#[test]
fn without_records() {
    let hello = flight("shop.example.com", true);
    for length in 0..hello.len() - 5 {
        assert_eq!(message(&hello[5..5 + length]), Ok(None), "of {length} bytes");
    }
    let with_more = [&hello[5..], b"and more"].concat();
    assert_eq!(message(&with_more).unwrap().unwrap().server_name.as_deref(), Some("shop.example.com"));
    assert_eq!(message(&[2]), Err(Malformed::Broken), "a ServerHello");
    assert!(message(&of_length(MAX_BYTES - 1)).is_ok());
    assert_eq!(message(&[1, 0, 0xff, 0xfd]), Err(Malformed::TooLong));
}

#[test]
fn an_encrypted_hello_is_seen() {
    let inner = [0xfe, 0x0d, 0, 1, 1];
    let name = [0, 0, 0, 6, 0, 4, 0, 0, 1, b'a'];
    let hello = message(&bare(&[&inner[..], &name].concat())).unwrap().unwrap();
    assert_eq!(hello, ClientHello { server_name: Some("a".to_owned()), ech: true });
    assert!(!message(&bare(&name)).unwrap().unwrap().ech);
}

/// A ClientHello with these extensions.
fn bare(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let length = (body.len() as u32).to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

#[test]
fn two_names_are_refused() {
    let hello = |extensions: &[u8]| message(&bare(extensions)).map(Option::unwrap);
    let name = [0, 0, 0, 6, 0, 4, 0, 0, 1, b'a'];
    assert_eq!(hello(&name).unwrap().server_name.as_deref(), Some("a"));
    assert_eq!(hello(&[name, name].concat()), Err(Malformed::Broken));
    assert_eq!(hello(&[0, 0, 0, 10, 0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b']), Err(Malformed::Broken));
    assert_eq!(hello(&[0, 0, 0, 5, 0, 3, 0, 0, 0]), Err(Malformed::Broken), "an empty name");
}
