//! What this kernel and node offer: for `gateway check`, the start-up log and `netctl doctor`.
//!
//! A check looks at the thing itself (a file of procfs or sysfs, a probe that changes nothing) and never at a version
//! number where it can be avoided. [`Weight::Required`] stops `gateway run`; [`Weight::Part`] names the part that
//! refuses or works less well; the rest runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::settings::Settings;
use crate::sys::caps::{self, Capability};
use crate::sys::sysctl::{bridged_frames_pass_netfilter, has_ipv6};
use crate::sys::tap::CLONE;

/// The name of the check of this process's capabilities.
pub const PRIVILEGES: &str = "privileges";

/// What hangs on a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Nothing works without it.
    Required,
    /// One part refuses, or works less well.
    Part,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was looked for.
    pub name: &'static str,
    /// What hangs on it.
    pub weight: Weight,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What falls short without it, and the mend; empty when `ok`.
    pub mend: String,
}

/// Looks at everything. Changes nothing on the node.
pub fn checks(settings: &Settings, vlan: bool) -> Vec<Check> {
    let dropping = dropping_forward_chains(&chains());
    vec![
        privileges(),
        kernel_types(),
        bpf_file_system(&settings.node.bpffs),
        attachment(),
        nft(),
        vlan_interfaces(vlan),
        tap(),
        ipv6(),
        bridge_netfilter(bridged_frames_pass_netfilter().unwrap_or_default(), &dropping),
        forward_policy(&dropping),
    ]
}

/// Whether nothing that is required is missing.
pub fn usable(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.ok || check.weight == Weight::Part)
}

fn check(name: &'static str, weight: Weight, ok: bool, found: impl Into<String>, mend: &str) -> Check {
    Check { name, weight, ok, found: found.into(), mend: if ok { String::new() } else { mend.to_owned() } }
}

fn privileges() -> Check {
    let own = caps::permitted().unwrap_or(0);
    let needed = [
        (Capability::NetAdmin, "CAP_NET_ADMIN"),
        (Capability::SysAdmin, "CAP_SYS_ADMIN"),
        (Capability::Perfmon, "CAP_PERFMON"),
        (Capability::Bpf, "CAP_BPF"),
    ];
    let missing: Vec<&str> = needed
        .into_iter()
        .filter(|(capability, _)| own & (1 << *capability as u8) == 0)
        .map(|(_, name)| name)
        .collect();
    let found = if missing.is_empty() { "all there".to_owned() } else { format!("without {}", missing.join(", ")) };
    check(
        PRIVILEGES,
        Weight::Required,
        missing.is_empty(),
        found,
        "run the gateway as root; it gives up what it does not need after its start",
    )
}

fn kernel_types() -> Check {
    let there = Path::new("/sys/kernel/btf/vmlinux").exists();
    let found = if there { "/sys/kernel/btf/vmlinux" } else { "no /sys/kernel/btf/vmlinux" };
    check(
        "kernel BTF",
        Weight::Required,
        there,
        found,
        "boot a kernel with CONFIG_DEBUG_INFO_BTF (Debian's and all large distributions' have it)",
    )
}

fn bpf_file_system(folder: &Path) -> Check {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        let mut field = line.split(' ');
        let (_, target, kind) = (field.next()?, field.next()?, field.next()?);
        (kind == "bpf").then(|| target.to_owned())
    });
    let over = mounted.filter(|target| folder.starts_with(target)).max_by_key(String::len);
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default().lines().any(|l| l.ends_with("\tbpf"));
    let found = match (&over, known) {
        (Some(target), _) => format!("mounted at {target}"),
        (None, true) => "not mounted yet; the gateway mounts it when it starts".to_owned(),
        (None, false) => "the kernel has none".to_owned(),
    };
    check("bpf file system", Weight::Required, known, found, "boot a kernel with CONFIG_BPF_SYSCALL and CONFIG_BPF_JIT")
}

fn attachment() -> Check {
    let release = release();
    // tcx came with 6.6; a clsact filter does the same work, and others can delete it more easily.
    let tcx = version(&release) >= (6, 6);
    let found =
        if tcx { format!("tcx (kernel {release})") } else { format!("clsact filters (kernel {release} has no tcx)") };
    check("program attachment", Weight::Required, version(&release) >= (6, 1), found, "boot a kernel of 6.1 or later")
}

fn nft() -> Check {
    let output = Command::new("nft").arg("--version").stdin(Stdio::null()).output();
    let found = match &output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(output) => format!("nft failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("nft: {error}"),
    };
    let ok = output.is_ok_and(|o| o.status.success());
    check(
        "nftables",
        Weight::Part,
        ok,
        found,
        "networks that this node routes for are refused; install the package nftables",
    )
}

fn tap() -> Check {
    let found = std::fs::OpenOptions::new().read(true).write(true).open(CLONE);
    let text = found.as_ref().map_or_else(|error| format!("{CLONE}: {error}"), |_| CLONE.to_owned());
    check(
        "TAP devices",
        Weight::Part,
        found.is_ok(),
        text,
        "flows that rules verify by name (`verify: TLS`, the default on port 443) are refused; load the module tun",
    )
}

fn vlan_interfaces(there: bool) -> Check {
    let found = if there { "8021q" } else { "the kernel makes no interface of type vlan (8021q)" };
    check(
        "VLAN interfaces",
        Weight::Part,
        there,
        found,
        "networks with `vlan` are refused, node-local ones work; boot a kernel with CONFIG_VLAN_8021Q, or load 8021q",
    )
}

fn ipv6() -> Check {
    let there = has_ipv6();
    check(
        "IPv6",
        Weight::Required,
        there,
        if there { "enabled" } else { "disabled" },
        "start the kernel without ipv6.disable=1",
    )
}

/// `on`: whether IPv4 and IPv6 frames are shown to the node's rules; `dropping`: the forward chains that drop by policy.
fn bridge_netfilter(on: (bool, bool), dropping: &[String]) -> Check {
    let judges = |chain: &&String| match chain.split(' ').next() {
        Some("ip") => on.0,
        Some("ip6") => on.1,
        Some("inet") => on.0 || on.1,
        _ => false,
    };
    let judges: Vec<&str> = dropping.iter().filter(judges).map(String::as_str).collect();
    let switched = match on {
        (false, false) => "off",
        (true, false) => "on for IPv4",
        (false, true) => "on for IPv6",
        (true, true) => "on",
    };
    let found = match (on, judges.is_empty()) {
        ((false, false), _) => switched.to_owned(),
        (_, true) => format!("{switched}, and no forward chain drops by policy"),
        (_, false) => format!("{switched}, and policy drop in {}", judges.join(", ")),
    };
    check(
        "bridge netfilter",
        Weight::Part,
        judges.is_empty(),
        found,
        "the node's FORWARD rules also judge frames inside a tenant's segment, and a drop there stops a workload's neighbour discovery to an External router; set net.bridge.bridge-nf-call-iptables and -ip6tables to 0 unless something on this node needs them",
    )
}

fn forward_policy(dropping: &[String]) -> Check {
    let found = if dropping.is_empty() {
        "no forward chain drops by policy".to_owned()
    } else {
        format!("policy drop in {}", dropping.join(", "))
    };
    check(
        "node's FORWARD rules",
        Weight::Part,
        dropping.is_empty(),
        found,
        "allowed packets of Node networks pass the node's own forward chains too, where they do not go by the fast path (fragments, another device than the uplink), and this one drops what it does not name (Docker sets that); accept the bridges tgb* there",
    )
}

/// What `nft list chains` says; nothing where it cannot be asked.
fn chains() -> String {
    let listed = Command::new("nft").args(["list", "chains"]).stdin(Stdio::null()).output();
    listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// `family table chain` of each base chain on the forward hook with policy drop, read from `nft list chains`.
fn dropping_forward_chains(text: &str) -> Vec<String> {
    let (mut table, mut chain, mut found) = ("", "", Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches(" {");
        } else if line.contains("hook forward") && line.contains("policy drop") {
            found.push(format!("{table} {chain}"));
        }
    }
    found
}

/// The kernel's release, as `uname -r` has it.
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_compared_by_its_numbers() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), (6, 1));
        assert_eq!(version("6.18.44-x"), (6, 18));
        assert!(version("5.10.0") < (6, 1));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn only_forward_chains_that_drop_are_named() {
        let text = "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\ntable inet x {\n\tchain f {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n";
        assert_eq!(dropping_forward_chains(text), ["ip filter FORWARD"]);
    }

    #[test]
    fn bridged_frames_matter_only_where_something_drops_them() {
        let dropping = ["ip filter FORWARD".to_owned()];
        let ok = |on, dropping: &[String]| bridge_netfilter(on, dropping).ok;
        assert!(ok((false, false), &dropping) && ok((true, true), &[]) && ok((false, true), &dropping));
        assert!(!ok((true, false), &dropping) && !ok((false, true), &["inet f forward".to_owned()]));
        assert_eq!(bridge_netfilter((true, true), &[]).found, "on, and no forward chain drops by policy");
        assert_eq!(
            bridge_netfilter((true, false), &dropping).found,
            "on for IPv4, and policy drop in ip filter FORWARD"
        );
    }

    #[test]
    fn a_missing_part_does_not_stop_the_rest() {
        let part = check("a", Weight::Part, false, "", "mend");
        let required = check("b", Weight::Required, false, "", "mend");
        assert!(usable(std::slice::from_ref(&part)));
        assert!(!usable(&[part, required]));
    }
}
