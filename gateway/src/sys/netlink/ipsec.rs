//! The node's IPsec policies, by number only (`XFRM_MSG_GETSPDINFO` of `linux/xfrm.h`).

use std::io;

use rtnetlink::sys::{Socket, SocketAddr};

const NETLINK_XFRM: isize = 6;
const GET_INFO: u16 = 0x25;
const INFO: u16 = 0x24;
/// `XFRMA_SPD_INFO`
const COUNTS: u16 = 1;

/// How many policies there are for packets that come in, go out or are forwarded; 0 where the kernel has no IPsec.
pub fn ipsec_policies() -> io::Result<u32> {
    let mut socket = match Socket::new(NETLINK_XFRM) {
        Ok(socket) => socket,
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        Err(error) => return Err(error),
    };
    socket.set_non_blocking(true)?; // the kernel answers before the request's call returns
    socket.bind(&SocketAddr::new(0, 0))?;
    let mut request = Vec::with_capacity(20);
    request.extend(20u32.to_ne_bytes());
    request.extend(GET_INFO.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend([0; 12]); // sequence, port, flags
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    let mut answer = bytes::BytesMut::with_capacity(4096);
    socket.recv(&mut answer, 0)?;
    counts(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an answer without the policies' number"))
}

fn counts(answer: &[u8]) -> Option<u32> {
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if half(4)? != INFO {
        return None;
    }
    let mut at = 20;
    loop {
        let (length, kind) = (usize::from(half(at)?), half(at + 2)?);
        if kind == COUNTS {
            return Some(word(at + 4)?.saturating_add(word(at + 8)?).saturating_add(word(at + 12)?));
        }
        at += length.max(4).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_directions_are_added() {
        let mut answer = vec![0; 20];
        answer[4..6].copy_from_slice(&INFO.to_ne_bytes());
        for (kind, words) in [(9u16, &[7u32][..]), (COUNTS, &[1, 2, 4, 100, 100, 100])] {
            answer.extend((4 + 4 * words.len() as u16).to_ne_bytes());
            answer.extend(kind.to_ne_bytes());
            answer.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }
        assert_eq!(counts(&answer), Some(7));
        assert_eq!(counts(&answer[..30]), None);
        assert_eq!(counts(&[]), None);
    }
}
