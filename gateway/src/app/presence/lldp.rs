//! What a switch says of itself (IEEE 802.1AB), and which VLANs it names (IEEE 802.1Q, annex D: OUI 00-80-C2).

use std::collections::BTreeSet;

/// A switch at the other end of a cable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Its system name, or the identifier of its chassis.
    pub(super) name: String,
    /// VLANs that it names: of the port, and those with names.
    pub(super) vlans: BTreeSet<u16>,
}

const HEADER: usize = 14;
const ETHERTYPE: [u8; 2] = [0x88, 0xcc];
const IEEE_8021: [u8; 3] = [0x00, 0x80, 0xc2];

/// Reads a frame as far as it is there; `None` where it is none.
pub(super) fn read(frame: &[u8]) -> Option<Neighbour> {
    if frame.get(12..HEADER)? != ETHERTYPE {
        return None;
    }
    let mut neighbour = Neighbour::default();
    let mut rest = &frame[HEADER..];
    while let [first, second, behind @ ..] = rest {
        let (kind, length) = (first >> 1, usize::from(first & 1) << 8 | usize::from(*second));
        let Some(value) = behind.get(..length) else { break };
        rest = &behind[length..];
        match (kind, value) {
            (0, _) => break,
            (1, [_, chassis @ ..]) if neighbour.name.is_empty() => neighbour.name = shown(chassis),
            (5, name) if !name.is_empty() => neighbour.name = shown(name),
            (127, [a, b, c, subtype, id @ ..]) if [*a, *b, *c] == IEEE_8021 => {
                // Port VLAN ID (0: there is none), and VLAN Name
                if let (1 | 3, [high, low, ..]) = (subtype, id) {
                    neighbour.vlans.insert(u16::from_be_bytes([*high, *low]) & 0xfff);
                }
            }
            _ => {}
        }
    }
    neighbour.vlans.remove(&0);
    Some(neighbour)
}

/// Text, or octets as they are written.
fn shown(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) if !text.is_empty() && text.chars().all(|c| !c.is_control()) => text.to_owned(),
        _ => octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(parts: &[(u8, &[u8])]) -> Vec<u8> {
        let mut frame = [&[1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 9][..], &ETHERTYPE].concat();
        for (kind, value) in parts {
            frame.extend([kind << 1, value.len() as u8]);
            frame.extend(*value);
        }
        frame
    }

    #[test]
    fn the_name_and_the_vlans_of_a_switch_are_read() {
        let chassis = [4, 2, 0, 0, 0, 0, 9];
        let port_vlan = [0, 0x80, 0xc2, 1, 0, 1];
        let named = [0, 0x80, 0xc2, 3, 0, 100, 1, b'a'];
        let others = [0, 0x12, 0x0f, 1, 3, 0, 0, 0, 0];
        let whole = frame(&[(1, &chassis), (127, &port_vlan), (127, &named), (127, &others), (5, b"sw-1"), (0, &[])]);
        assert_eq!(read(&whole), Some(Neighbour { name: "sw-1".to_owned(), vlans: [1, 100].into() }));
        let nameless = read(&frame(&[(1, &chassis)])).unwrap();
        assert_eq!((nameless.name.as_str(), nameless.vlans.len()), ("02:00:00:00:00:09", 0));
        // Cut anywhere it is read as far as it goes.
        (0..whole.len()).for_each(|end| drop(read(&whole[..end])));
        assert_eq!(read(&whole[..10]), None);
    }
}
