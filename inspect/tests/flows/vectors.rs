//! The client's Initial packets of RFC 9001 §A.2 and RFC 9369 §A.2, which ask for example.com.

use inspect::{Inspection, Progress};
use rustls::quic::Version;

use crate::initial::Initial;
use crate::shown;

const VERSION_1: &[u8] = include_bytes!("../../../fuzz/corpus/quic_initial/rfc9001-a2");
const VERSION_2: &[u8] = include_bytes!("../../../fuzz/corpus/quic_initial/rfc9369-a2");

/// The CRYPTO frame of both packets.
const FRAME: &str = "\
    060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c000000010\
    000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e00050005010000000000330026\
    0024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e040305030603\
    0203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901\
    100f088394c8f03e51570806048000ffff";

#[test]
fn the_packets_of_the_rfcs() {
    for packet in [VERSION_1, VERSION_2] {
        assert_eq!(packet.len(), 1200);
        assert_eq!(Inspection::udp().push(0, packet), shown("example.com"));
    }
}

/// The tests' own packets are as the RFCs say.
#[test]
fn packets_are_built_as_the_rfcs_do() {
    for (version, packet) in [(Version::V1, VERSION_1), (Version::V2, VERSION_2)] {
        let initial = Initial { version, number: 2, number_length: 4, ..Initial::default() };
        assert!(initial.seal(&hex(FRAME)) == packet, "{version:?}");
    }
}

/// AEAD covers each bit of the packet but those of the length, and of the version and ID that give the keys.
#[test]
fn a_flipped_bit_never_makes_another_name() {
    for packet in [VERSION_1, VERSION_2] {
        for bit in 0..packet.len() * 8 {
            let mut flipped = packet.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match Inspection::udp().push(0, &flipped) {
                Progress::Failed(_) => {}
                read => panic!("bit {bit}: {read:?}"),
            }
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
