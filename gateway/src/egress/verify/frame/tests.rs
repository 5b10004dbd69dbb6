use super::*;
use crate::workload::WorkloadId;

const PAYLOAD: &[u8] = b"the first bytes";

fn head() -> Vec<u8> {
    let mut head = 0x7467_6874u32.to_ne_bytes().to_vec();
    [7u32, 3, 100].iter().for_each(|word| head.extend(word.to_ne_bytes()));
    [555u64, 666].iter().for_each(|word| head.extend(word.to_ne_bytes()));
    head
}

fn vnet(flags: u8) -> Vec<u8> {
    let mut vnet = vec![flags, 0];
    [HEAD as u16 + 54, 0, HEAD as u16 + 34, 16].iter().for_each(|word| vnet.extend(word.to_ne_bytes()));
    vnet
}

/// `extra` stands between an IPv6 header and the transport's.
fn frame(v6: bool, protocol: u8, extra: &[u8], segment: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0xfe, 2, 0, 0, 0, 0, 1];
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(((extra.len() + segment.len()) as u16).to_be_bytes());
        frame.extend([if extra.is_empty() { protocol } else { HOP_BY_HOP }, 64]);
        frame.extend("fd00:1::2".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend(extra);
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + segment.len() as u16).to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 1, 0, 2, 1, 2, 3, 4]);
    }
    frame.extend(segment);
    frame
}

fn tcp() -> Vec<u8> {
    let mut segment = vec![0x0f, 0xa0, 1, 0xbb];
    segment.extend(100u32.to_be_bytes());
    segment.extend(0x0102_0304u32.to_be_bytes());
    segment.extend([0x60, 0x18, 1, 0, 0xab, 0xcd, 0, 0, 1, 1, 1, 0]);
    segment.extend(PAYLOAD);
    segment
}

fn udp() -> Vec<u8> {
    [&[0x0f, 0xa0, 1, 0xbb, 0, 8 + PAYLOAD.len() as u8, 0, 0], PAYLOAD].concat()
}

#[test]
fn flow_payload_and_number_are_read() {
    let options = [TCP, 0, 5, 2, 0, 0, 1, 0];
    let far = |v6| if v6 { "[2001:db8::1]:443" } else { "1.2.3.4:443" };
    for (v6, extra) in [(false, &[][..]), (true, &[]), (true, &options)] {
        for protocol in [TCP, UDP] {
            if protocol == UDP && !extra.is_empty() {
                continue;
            }
            let segment = if protocol == TCP { tcp() } else { udp() };
            // Ethernet's padding is none of the payload
            let bytes = [vnet(0), head(), frame(v6, protocol, extra, &segment), vec![0; 9]].concat();
            let held = Held::read(&bytes).unwrap();
            assert_eq!((held.flow.workload, held.flow.opened_ns, held.head.first), (WorkloadId(3), 555, 100));
            assert_eq!((held.flow.protocol, held.flow.local.port()), (protocol, 4000));
            assert_eq!(held.flow.remote, far(v6).parse().unwrap());
            assert_eq!((held.payload, held.sequence), (PAYLOAD, (protocol == TCP).then_some(100)));
        }
    }
    assert!(Held::read(&[vnet(0), frame(false, TCP, &[], &tcp())].concat()).is_none(), "the kernel's own frames");
    let whole = [vnet(0), head(), frame(true, TCP, &[], &tcp())].concat();
    let readable = (0..whole.len()).filter(|length| Held::read(&whole[..*length]).is_some()).count();
    assert_eq!(readable, 0, "nothing is read of what is cut off");
}

#[test]
fn urgent_octets_are_seen() {
    let mut segment = tcp();
    for urgent in [false, true] {
        segment[13] = if urgent { 0x38 } else { 0x18 };
        let bytes = [vnet(0), head(), frame(false, TCP, &[], &segment)].concat();
        assert_eq!(Held::read(&bytes).unwrap().urgent, urgent);
    }
}

#[test]
fn a_frame_goes_back_as_it_was_but_for_its_way() {
    let own = frame(false, TCP, &[], &tcp());
    for flags in [0, NEEDS_CHECKSUM] {
        let bytes = [vnet(flags), head(), own.clone()].concat();
        let kept = Held::read(&bytes).unwrap().keep();
        let (vnet, frame) = kept.parts();
        assert_eq!((&frame[..6], &frame[12..]), (&own[..6], &own[12..]));
        assert_eq!(frame[6..12], [0x74, 0x67, 7, 0, 0, 0], "the device, on a machine of little end");
        let word = |at: usize| u16::from_ne_bytes([vnet[at], vnet[at + 1]]);
        let from = if flags == NEEDS_CHECKSUM { 34 } else { HEAD as u16 + 34 };
        assert_eq!((vnet[0], word(2), word(6), word(8)), (flags, 54, from, 16));
    }
}

#[test]
fn the_reset_is_at_the_first_octet_and_its_sums_are_right() {
    for v6 in [false, true] {
        let bytes = [vnet(0), head(), frame(v6, TCP, &[], &tcp())].concat();
        let held = Held::read(&bytes).unwrap();
        let kept = held.reset(77);
        let (_, frame) = kept.parts();
        let (ip, length) = if v6 { (&frame[22..54], 54) } else { (&frame[26..34], 34) };
        let segment = &frame[length..];
        assert_eq!(segment.len(), 20);
        assert_eq!(segment[..8], [0x0f, 0xa0, 1, 0xbb, 0, 0, 0, 77]);
        assert_eq!(segment[8..14], [1, 2, 3, 4, 0x50, RST_ACK]);
        assert_eq!(folded(sum_of(ip, 20) + sum(segment)), 0, "TCP's sum");
        if v6 {
            assert_eq!(frame[18..20], 20u16.to_be_bytes());
        } else {
            assert_eq!(frame[16..18], 40u16.to_be_bytes());
            assert_eq!(folded(sum(&frame[14..34])), 0, "IPv4's sum");
        }
    }
}

#[test]
fn a_checksum_that_would_be_finished_elsewhere_is_refused() {
    let frame = frame(false, TCP, &[], &tcp());
    for (at, wrong) in [(CHECKSUM_FROM, HEAD as u16 + 20), (CHECKSUM_AT, 10)] {
        let mut vnet = vnet(NEEDS_CHECKSUM);
        assert!(Held::read(&[vnet.clone(), head(), frame.clone()].concat()).is_some());
        vnet[at..at + 2].copy_from_slice(&wrong.to_ne_bytes());
        assert!(
            Held::read(&[vnet, head(), frame.clone()].concat()).is_none(),
            "octets of the hello would be written over"
        );
    }
}

#[test]
fn datagrams_that_came_as_one_frame_are_read_one_by_one() {
    const LONG: [u8; 12] = [0xc0, 0, 0, 0, 1, 2, 7, 7, 0, 0, 0, 0];
    let other = |id: u8| [&LONG[..6], &[id, id], &LONG[8..]].concat();
    let read = |size: u16, second: Vec<u8>| {
        let payload = [LONG.to_vec(), second].concat();
        let segment = [&[0x0f, 0xa0, 1, 0xbb, 0, 8 + payload.len() as u8, 0, 0], &payload[..]].concat();
        let mut vnet = vnet(0);
        vnet[1] = 5; // VIRTIO_NET_HDR_GSO_UDP_L4
        vnet[SIZE_AT..SIZE_AT + 2].copy_from_slice(&size.to_ne_bytes());
        let bytes = [vnet, head(), frame(false, UDP, &[], &segment)].concat();
        let held = Held::read(&bytes).unwrap();
        (held.payloads().count(), held.is_of_one_connection())
    };
    assert_eq!(read(12, other(7)), (2, true));
    assert_eq!(read(12, other(9)), (2, false), "the second begins another connection");
    assert_eq!(read(12, vec![0x40; 12]), (2, false), "or is of one that nobody has read");
    assert_eq!(read(0, other(9)), (1, true), "a single datagram");
}
