//! What the running kernel has, and loud skips where it lacks something.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::process::output;
use crate::world::World;

/// The kernel's release, as `uname -r`.
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Whether the kernel holds programs on devices by links (tcx, from 6.6 on).
pub fn has_tcx() -> bool {
    let release = release();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

/// Loads a module if the kernel has modules; whether it then is there must be tried.
pub fn load_module(name: &str) {
    if Path::new("/lib/modules").join(release()).exists() {
        output(Command::new("modprobe").arg("-q").arg(name));
    }
}

/// Whether VLAN sub-interfaces and bridges that filter by VLAN can be made, found by making them.
pub fn has_vlans() -> bool {
    load_module("8021q");
    let world = World::new();
    let probe = world.namespace("vlan-probe", None);
    let bridge = probe.run("ip link add switch type bridge vlan_filtering 1").success();
    probe.ip("link add trunk0 type veth peer name port0");
    bridge && probe.run("ip link add link trunk0 name trunk0.2 type vlan id 2").success()
}

/// Whether bridges can hand frames to the IP firewall (br_netfilter).
pub fn has_bridge_netfilter() -> bool {
    load_module("br_netfilter");
    Path::new("/proc/sys/net/bridge").exists()
}

/// Says loudly that a test is skipped, and writes it to the file that `run-tests` counts from.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: {test}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("TIDEGATE_SKIPS") {
        let file = File::options().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file that skips are counted from");
    }
}
