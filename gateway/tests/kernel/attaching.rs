//! Programs on devices: they outlive the daemon, are replaced without a gap, and are put back.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use gateway::egress::tables::Tables;
use policy::reason::Reason::*;

use super::frames::*;
use super::world::*;

/// Sends a frame into `w1` from its other end, and why it passed or not there.
fn arrives(node: &Node, frame: &[u8]) -> Vec<u8> {
    let before = node.counts();
    send(frame, false);
    wait_until("the frame is counted", || node.counts() != before);
    let after = node.counts();
    after.into_iter().filter(|(reason, n)| before[reason] != *n).map(|(reason, _)| reason).collect()
}

/// `with_head`: a `struct virtio_net_hdr` is in front of it (packet(7), PACKET_VNET_HDR).
pub(crate) fn send(frame: &[u8], with_head: bool) {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    // SAFETY: plain arguments; the descriptor is owned at once.
    let socket = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)) };
    let on = libc::c_int::from(with_head);
    let size = size_of::<libc::c_int>() as u32;
    // SAFETY: an integer with its length.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, VNET_HEAD, (&raw const on).cast(), size) };
    assert_eq!(set, 0);
    // SAFETY: a zeroed sockaddr_ll is a valid one.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = ifindex("w1p") as i32;
    let length = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: a buffer with its length and an address with its length.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length)
    };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

/// `linux/if_packet.h`
const VNET_HEAD: libc::c_int = 15;

/// Frames of the kernel's own making would be counted between ours.
pub(crate) fn quiet(device: &str) {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1").unwrap();
}

/// Who holds the programs of a workload that is attached.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Filters,
    Links,
}

/// Nodes with a workload attached, held by each that this kernel has.
fn attached(test: impl Fn(Node, By)) {
    for by in [By::Filters, By::Links] {
        let node = Node::new();
        if by == By::Links && !node.tables.has_tcx() {
            continue;
        }
        quiet("w1");
        quiet("w1p");
        node.tables.attach(node.device).unwrap();
        if by == By::Links {
            node.tables.hold_by_links(node.device).unwrap();
        }
        test(node, by);
    }
}

#[test]
fn links_take_the_place_of_filters() {
    let node = Node::new();
    if !node.tables.has_tcx() {
        return;
    }
    node.tables.attach(node.device).unwrap();
    let filters = || {
        let shown = |side| Command::new("tc").args(["filter", "show", "dev", "w1", side]).output().unwrap().stdout;
        [shown("ingress"), shown("egress")]
            .map(|text| String::from_utf8(text).unwrap().matches("direct-action").count())
    };
    assert_eq!((filters(), listed().len()), ([1, 1], 0));
    assert!(node.tables.is_young(node.device));
    assert!(!node.tables.settle_one().unwrap(), "it has just come");
    node.tables.hold_by_links(node.device).unwrap();
    assert_eq!((filters(), listed().len()), ([0, 0], 2));
    assert!(!node.tables.is_young(node.device));
    node.tables.attach(node.device).unwrap();
    assert_eq!((filters(), listed().len()), ([0, 0], 2), "they stay");
    node.tables.detach(node.device).unwrap();
    assert_eq!((filters(), listed().len()), ([0, 0], 0));
}

#[test]
fn programs_outlive_the_daemon_and_the_next_one_replaces_them() {
    attached(|node, _| outlive(node));
}

fn outlive(mut node: Node) {
    let denied = out(&plain(OWN4, "10.8.0.1", TCP, &tcp(1, 80, SYN)));
    assert_eq!(arrives(&node, &denied), [DeniedByDefault as u8]);
    let path = node.bpffs.path();
    let limits = node.limits.clone();
    drop(std::mem::replace(&mut node.tables, Tables::open(&limits, &path).unwrap()));
    assert_eq!(arrives(&node, &denied), [DeniedByDefault as u8], "once, not by two programs");
    assert!(!node.tables.ensure_attached(node.device).unwrap(), "the new program is there already");
    node.tables.attach(node.device).unwrap();
    assert_eq!(arrives(&node, &denied), [DeniedByDefault as u8]);
    node.tables.detach(node.device).unwrap();
    node.tables.detach(node.device).unwrap();
    assert!(node.tables.ensure_attached(node.device).unwrap());
    assert_eq!(arrives(&node, &denied), [DeniedByDefault as u8]);
}

/// Programs in both lists of `w1`, where the kernel has tcx.
fn listed() -> Vec<u32> {
    let both = [TcAttachType::Ingress, TcAttachType::Egress];
    both.iter()
        .flat_map(|side| SchedClassifier::query_tcx("w1", *side).unwrap().1)
        .map(|program| program.id())
        .collect()
}

#[test]
fn what_somebody_removes_is_put_back() {
    attached(put_back);
}

fn put_back(node: Node, by: By) {
    assert!(!node.tables.ensure_attached(node.device).unwrap());
    if by == By::Links {
        for entry in std::fs::read_dir(node.tables.folder().join("links")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    } else {
        assert!(Command::new("tc").args(["qdisc", "del", "dev", "w1", "clsact"]).status().unwrap().success());
    }
    // a link goes a little after its pin
    wait_until("the programs are gone", || by == By::Filters || listed().is_empty());
    assert!(node.tables.ensure_attached(node.device).unwrap());
    assert!(!node.tables.ensure_attached(node.device).unwrap());
    let denied = out(&plain(OWN4, "10.8.0.1", TCP, &tcp(1, 80, SYN)));
    assert_eq!(arrives(&node, &denied), [DeniedByDefault as u8]);
}

#[test]
fn a_device_that_is_gone_leaves_its_number_to_the_next() {
    attached(|node, _| number_given_again(node));
}

fn number_given_again(node: Node) {
    ip("link del w1");
    assert!(node.tables.ensure_attached(node.device).is_err());
    let error = node.tables.attach(node.device).unwrap_err().to_string();
    assert!(error.contains(&format!("device {}", node.device)), "{error}");
    ip(&format!("link add w1 index {} type veth peer name w1p", node.device));
    node.tables.attach(node.device).unwrap();
    quiet("w1");
    quiet("w1p");
    ip("link set w1 up");
    ip("link set w1p up");
    let denied = out(&plain(OWN4, "10.8.0.1", TCP, &tcp(1, 80, SYN)));
    assert_eq!(arrives(&node, &denied), [DeniedByDefault as u8]);
}

#[test]
fn filters_of_others_still_run() {
    attached(|node, _| others_run(node));
}

fn others_run(node: Node) {
    let tc = |arguments: &str| assert!(Command::new("tc").args(arguments.split(' ')).status().unwrap().success());
    // somebody's filter after ours: the same program once more, so that what reaches it is counted twice
    let program = node.tables.folder().join("programs/from_workload");
    tc(&format!("filter add dev w1 ingress prio 100 bpf direct-action object-pinned {}", program.display()));
    let passes = ethernet(MAC, BROADCAST, 0x0806, &arp(1, MAC, OWN4, GATEWAY4));
    let drops = ethernet(MAC, BROADCAST, 0x0806, &arp(2, MAC, GATEWAY4, OWN4));
    let before = node.counts();
    send(&passes, false);
    wait_until("both filters count", || node.counts()[&(SegmentControl as u8)] == before[&(SegmentControl as u8)] + 2);
    assert_eq!(arrives(&node, &drops), [SpoofedAddress as u8]);
    assert_eq!(node.counts()[&(SpoofedAddress as u8)], 1, "a drop is final");
}

extern "C" fn nothing(_signal: libc::c_int) {}

#[test]
fn signals_during_verification_keep_no_program_out() {
    let node = Node::new();
    // SAFETY: a handler that does nothing may run anywhere.
    unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as libc::sighandler_t) };
    // SAFETY: names the calling thread.
    let verifying = unsafe { libc::pthread_self() };
    let begin = Instant::now();
    let (opened, took) = thread::scope(|scope| {
        scope.spawn(|| {
            while begin.elapsed() < Duration::from_millis(500) {
                // SAFETY: that thread lives until this scope ends.
                assert_eq!(unsafe { libc::pthread_kill(verifying, libc::SIGUSR1) }, 0);
                thread::yield_now();
            }
        });
        (Tables::open(&node.limits, &node.bpffs.path()), begin.elapsed())
    });
    assert!(opened.is_ok(), "{}", opened.unwrap_err());
    assert!(took > Duration::from_millis(400), "no signal met the verifier");
}
