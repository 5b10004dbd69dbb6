//! What can be seen without the daemon: the kernel's release, and files below /proc and /sys. The daemon's own checks
//! load programs and make links, and are the ones that count.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use config::api::{Check, Doctor};

/// The oldest kernel that Tidegate is tried on.
const OLDEST: (u32, u32) = (6, 1);

/// All of them; the first says that the daemon does not run, and why.
pub(super) fn checks(no_daemon: String, mend: String) -> Doctor {
    let daemon = Check { name: "daemon".to_owned(), ok: false, required: true, found: no_daemon, mend };
    Doctor { checks: vec![daemon, root(), kernel(), btf(), bpffs(), forwarding(4), forwarding(6), bridge_firewall()] }
}

fn check(name: &str, ok: bool, found: String, mend: &str) -> Check {
    Check { name: name.to_owned(), ok, required: true, found, mend: if ok { String::new() } else { mend.to_owned() } }
}

fn root() -> Check {
    // The owner of our own entry in /proc is the effective user of this process.
    let uid = fs::metadata("/proc/self").map(|own| own.uid());
    let found = uid.as_ref().map_or_else(ToString::to_string, |uid| format!("netctl runs as uid {uid}"));
    check("user", matches!(uid, Ok(0)), found, "run netctl and the gateway as root")
}

fn kernel() -> Check {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST;
    check("kernel", version >= OLDEST, format!("Linux {release}"), &format!("use Linux {major}.{minor} or later"))
}

fn btf() -> Check {
    let there = Path::new("/sys/kernel/btf/vmlinux").exists();
    let found = if there { "the kernel describes its types" } else { "there is no /sys/kernel/btf/vmlinux" };
    check(
        "BTF",
        there,
        found.to_owned(),
        "use a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions build theirs",
    )
}

fn bpffs() -> Check {
    let mounts = read("/proc/mounts").unwrap_or_default();
    let mut point = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?)).filter(|(_, kind)| *kind == "bpf").map(|(point, _)| point.to_owned())
    });
    match point.next_back() {
        Some(point) => check("bpf file system", true, format!("mounted on {point}"), ""),
        None => check("bpf file system", false, "not mounted".to_owned(), "mount -t bpf bpf /sys/fs/bpf"),
    }
}

fn forwarding(family: u8) -> Check {
    let path = format!("/proc/sys/net/ipv{family}/{}", if family == 4 { "ip_forward" } else { "conf/all/forwarding" });
    let name = format!("IPv{family} forwarding");
    match read(&path).as_deref() {
        Some("1") => check(&name, true, "on".to_owned(), ""),
        Some(_) => check(&name, true, "off; the gateway turns it on where a network is routed here".to_owned(), ""),
        None => check(&name, false, format!("{path} cannot be read"), &format!("use a kernel with IPv{family}")),
    }
}

/// With br_netfilter a forward drop of the host's firewall stops ND between a workload and an External router.
fn bridge_firewall() -> Check {
    let on = |key: &str| read(&format!("/proc/sys/net/bridge/bridge-nf-call-{key}")).is_some_and(|value| value == "1");
    let found = if on("iptables") || on("ip6tables") {
        "on: a forward drop of the host's firewall would stop neighbour discovery towards External routers"
    } else {
        "off"
    };
    check("br_netfilter", true, found.to_owned(), "")
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
