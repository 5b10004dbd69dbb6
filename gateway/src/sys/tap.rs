//! A TAP device (`Documentation/networking/tuntap.rst`): frames that the node sends to it are read here, and what is written
//! here enters the node by it. Frames come and go as the kernel has them, not cut and without a checksum where the
//! hardware would do that, behind a [`VNET`]-octet head (`struct virtio_net_hdr`).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::sysctl::Sysctl;
use super::{interface, sysctl};

/// Where the kernel gives out such devices.
pub const CLONE: &str = "/dev/net/tun";
/// Octets in front of each frame.
pub const VNET: usize = 10;
/// Longest frame with its head: an IP packet of 64 KiB, and room for what is in front of it.
pub const LONGEST: usize = 66 * 1024;

// linux/if_tun.h
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const IFF_TAP: i32 = 0x0002;
const IFF_MULTI_QUEUE: i32 = 0x0100;
const IFF_NO_PI: i32 = 0x1000;
const IFF_VNET_HDR: i32 = 0x4000;
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO: libc::c_ulong = 0x02 | 0x04 | 0x08;
/// Since Linux 6.2.
const TUN_F_USO: libc::c_ulong = 0x20 | 0x40;
/// Frames that wait to be read.
const QUEUE: i32 = 8192;

/// One queue of the device.
#[derive(Debug)]
pub struct Tap {
    file: File,
    ifindex: u32,
}

impl Tap {
    /// Opens the device in this thread's network namespace, making it if it is not there. It stays when this process ends,
    /// with its number: frames wait in nobody's queue meanwhile, and are dropped. A second opener shares the frames with the
    /// first until that one ends.
    pub fn open(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(CLONE)?;
        let mut request = named(name)?;
        request.ifr_ifru.ifru_flags = (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE) as libc::c_short;
        // SAFETY: a descriptor of this process and a request that lives through the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
        // SAFETY: by value.
        check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETPERSIST, 1 as libc::c_ulong) })?;
        offload(&file, TUN_F_CSUM | TUN_F_TSO | TUN_F_USO).or_else(|_| offload(&file, TUN_F_CSUM | TUN_F_TSO))?;
        if sysctl::has_ipv6() {
            Sysctl::named(format!("ipv6/conf/{name}/disable_ipv6")).ensure(1).map_err(io::Error::other)?;
        }
        bring_up(name)?;
        Ok(Self { file, ifindex: interface::index(name)? })
    }

    /// Its number.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The next frame with its head, into `buffer`; `None` if none waits.
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a mut [u8]>> {
        match (&self.file).read(buffer) {
            Ok(length) => Ok(Some(&mut buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a frame into the node, its head first.
    pub fn write(&self, head: &[u8; VNET], frame: &[u8]) -> io::Result<()> {
        (&self.file).write_vectored(&[IoSlice::new(head), IoSlice::new(frame)]).map(drop)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Takes the device away, from whoever has it open too.
pub fn remove(name: &str) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(CLONE)?;
    let mut request = named(name)?;
    request.ifr_ifru.ifru_flags = (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE) as libc::c_short;
    // SAFETY: as above.
    check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
    // SAFETY: by value.
    check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETPERSIST, 0 as libc::c_ulong) })
}

fn offload(file: &File, features: libc::c_ulong) -> io::Result<()> {
    // SAFETY: by value.
    check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, features) })
}

/// Up, and with a long queue.
fn bring_up(name: &str) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| std::net::UdpSocket::bind(("::1", 0)))?;
    let mut request = named(name)?;
    request.ifr_ifru.ifru_metric = QUEUE;
    // SAFETY: a socket of this process and a request that lives through the call, here and below.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFTXQLEN, &raw mut request) })?;
    let mut request = named(name)?;
    // SAFETY: see above.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
    // SAFETY: the kernel has just written the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | (libc::IFF_UP | libc::IFF_NOARP) as libc::c_short;
    // SAFETY: see above.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) })
}

fn named(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: integers and arrays of them, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a device's name has at most 15 octets"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
