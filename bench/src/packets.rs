//! 64-byte UDP frames from a workload's namespace to the far side, counted where they arrive.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::{self, FrameSocket};

/// Where frames begin and where they are counted.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Namespace of the sender.
    pub client: PathBuf,
    /// The sender's device in it.
    pub client_device: String,
    /// Namespace of the receiver.
    pub server: PathBuf,
    /// The receiver's device in it.
    pub server_device: String,
    /// Source address.
    pub from: Ipv4Addr,
    /// Destination address.
    pub to: Ipv4Addr,
}

/// Flows that the frames belong to; each has its own source port.
const FLOWS: u16 = 64;

/// Sends for `length` and answers frames received a second.
pub(crate) fn slice(way: &Way, length: Duration) -> io::Result<f64> {
    let before = received(&way.server, &way.server_device)?;
    let way_there = way.clone();
    let sender = thread::spawn(move || send(&way_there, length));
    let elapsed = sender.join().map_err(|_| io::Error::other("the sender panicked"))??;
    let after = received(&way.server, &way.server_device)?;
    Ok((after - before) as f64 / elapsed.as_secs_f64())
}

fn send(way: &Way, length: Duration) -> io::Result<Duration> {
    sys::enter(&way.client)?;
    sys::pin(0)?;
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let (ifindex, mac) = device(&way.client_device)?;
    let gateway = gateway_mac(&read("arp")?, &way.client_device)?;
    let frames: Vec<[u8; 60]> = (0..FLOWS).map(|flow| frame(gateway, mac, way.from, way.to, 20_000 + flow)).collect();
    let socket = FrameSocket::open(ifindex)?;
    let start = Instant::now();
    while start.elapsed() < length {
        socket.send(&frames);
    }
    Ok(start.elapsed())
}

/// One Ethernet frame of 60 bytes (64 with its check sequence): IPv4, UDP to port 9, 18 bytes of payload.
fn frame(to: [u8; 6], from: [u8; 6], source: Ipv4Addr, destination: Ipv4Addr, port: u16) -> [u8; 60] {
    let mut f = [0u8; 60];
    f[..6].copy_from_slice(&to);
    f[6..12].copy_from_slice(&from);
    f[12..14].copy_from_slice(&[0x08, 0x00]);
    f[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    f[26..30].copy_from_slice(&source.octets());
    f[30..34].copy_from_slice(&destination.octets());
    let sum: u32 = f[14..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    f[24..26].copy_from_slice(&checksum.to_be_bytes());
    f[34..36].copy_from_slice(&port.to_be_bytes());
    f[36..40].copy_from_slice(&[0, 9, 0, 26]);
    f
}

/// Index and address of a device in the thread's namespace. `/sys` shows the namespace it was mounted in, so `ip` is asked.
fn device(name: &str) -> io::Result<(u32, [u8; 6])> {
    let output = std::process::Command::new("ip").args(["-j", "link", "show", name]).output()?;
    let list: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let index = list[0]["ifindex"].as_u64().and_then(|i| u32::try_from(i).ok());
    let mac = list[0]["address"].as_str().and_then(parse_mac);
    index.zip(mac).ok_or_else(|| io::Error::other(format!("no device {name}")))
}

fn gateway_mac(arp: &str, device: &str) -> io::Result<[u8; 6]> {
    let entry = arp.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>()).find(|f| f.last() == Some(&device));
    entry
        .and_then(|fields| parse_mac(fields.get(3)?))
        .ok_or_else(|| io::Error::other(format!("nobody answered ARP on {device} yet; send something through it first")))
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// Frames received by a device so far, from `/proc/net/dev` of that namespace.
fn received(namespace: &Path, device: &str) -> io::Result<u64> {
    let (namespace, device) = (namespace.to_owned(), device.to_owned());
    let reader = thread::spawn(move || -> io::Result<u64> {
        sys::enter(&namespace)?;
        let table = fs::read_to_string("/proc/thread-self/net/dev")?;
        let line = table.lines().find_map(|l| l.trim().strip_prefix(&format!("{device}:")).map(str::to_owned));
        line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
            .ok_or_else(|| io::Error::other(format!("no device {device} in {}", namespace.display())))
    });
    reader.join().map_err(|_| io::Error::other("the counter panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_checksum_is_right() {
        let f = frame([1; 6], [2; 6], Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 9, 0, 2), 20_000);
        let sum: u32 = f[14..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(u16::from_be_bytes([f[16], f[17]]), 46);
    }

    #[test]
    fn the_gateway_is_found_by_device() {
        let arp = "IP address HW type Flags HW address Mask Device\n10.1.0.1 0x1 0x2 02:00:00:00:00:07 * eth0\n";
        assert_eq!(gateway_mac(arp, "eth0").expect("there"), [2, 0, 0, 0, 0, 7]);
        assert!(gateway_mac(arp, "eth1").is_err());
    }
}
