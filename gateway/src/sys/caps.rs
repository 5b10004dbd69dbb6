//! This process's own capabilities (`man 7 capabilities`).
//!
//! [`keep`] is called while the process has one thread, because capabilities belong to threads: those started later
//! inherit what is left. It also empties the bounding set and forbids new privileges, so that a program run as a child
//! (`nft`, which is root by uid) gets at most what is kept here.

use std::io;

use super::check;

/// A capability; its number is the kernel's (`linux/capability.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Read files whatever their mode.
    DacReadSearch = 2,
    /// Ports below 1024.
    NetBindService = 10,
    /// Links, addresses, routes, nf_tables, tc.
    NetAdmin = 12,
    /// Look at processes of other capabilities.
    SysPtrace = 19,
    /// `setns`, `unshare`, mounts.
    SysAdmin = 21,
    /// BPF programs without the verifier's Spectre masking.
    Perfmon = 38,
    /// BPF maps and programs.
    Bpf = 39,
}

/// What the daemon keeps:
/// `NetAdmin` for all of segmentation, tc links and nf_tables; `Bpf` and `Perfmon` for the kernel programs;
/// `NetBindService` for the edge's ports; `DacReadSearch` because tenants' keys below `files_dir` are readable by
/// their owners only. Raw sockets are not used, so CAP_NET_RAW goes too.
pub const DAEMON: &[Capability] = &[
    Capability::DacReadSearch,
    Capability::NetBindService,
    Capability::NetAdmin,
    Capability::Perfmon,
    Capability::Bpf,
];

/// What the namespace helper keeps:
/// `SysAdmin` for `setns`; `NetAdmin` because a netlink socket is worth what its opener may do, and for sysctls;
/// `SysPtrace` because `/proc/PID/ns/net` of a container's process opens only to those who may trace it.
pub const HELPER: &[Capability] = &[Capability::NetAdmin, Capability::SysPtrace, Capability::SysAdmin];

/// Gives up, for good, every capability that is not in `kept`, and the gaining of new ones. A kept one that this
/// process never had stays missing.
pub fn keep(kept: &[Capability]) -> io::Result<()> {
    const LAST: u8 = 63;
    let mask = kept.iter().fold(0u64, |mask, &capability| mask | 1 << capability as u8);
    for number in (0..=LAST).filter(|number| mask & 1 << number == 0) {
        match prctl(libc::PR_CAPBSET_DROP, u64::from(number)) {
            // Beyond the last capability this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => other?,
        }
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64)?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    let had = permitted()?;
    set(had & mask)
}

/// The capabilities that the calling thread may use now, as a bit mask by number.
pub fn permitted() -> io::Result<u64> {
    let header = Header { version: VERSION_3, process: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads one header and writes two data structures, which is what is passed.
    check(unsafe { libc::syscall(libc::SYS_capget, &header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[1].permitted) << 32 | u64::from(data[0].permitted))
}

/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    process: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn set(mask: u64) -> io::Result<()> {
    let header = Header { version: VERSION_3, process: 0 };
    let half = |mask: u64| Data { effective: mask as u32, permitted: mask as u32, inheritable: 0 };
    let data = [half(mask), half(mask >> 32)];
    // SAFETY: version 3 reads one header and two data structures, which is what is passed.
    check(unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) })
}

fn prctl(what: libc::c_int, value: u64) -> io::Result<()> {
    // SAFETY: the requests made here take numbers only.
    check(unsafe { libc::prctl(what, value, 0, 0, 0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_what_is_named_and_nothing_else() {
        let kept = std::thread::spawn(|| {
            keep(&[Capability::NetAdmin]).unwrap();
            permitted().unwrap()
        });
        assert_eq!(kept.join().unwrap(), 1 << Capability::NetAdmin as u8);
        assert!(permitted().unwrap() & 1 << Capability::SysAdmin as u8 != 0, "other threads are untouched");
    }
}
