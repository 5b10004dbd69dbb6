//! `BPF_PROG_TEST_RUN`: one run of a tc program on a packet, without a network; or of a program that takes none.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

const TEST_RUN: libc::c_int = 10;
/// Longest packet given or taken back.
const ROOM: usize = 4096;

/// What a run answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The program's return value.
    pub action: i32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Mean time of a run.
    pub took: Duration,
}

/// The head of `struct __sk_buff`, as far as a run takes it; the rest is zero.
#[repr(C)]
struct Context {
    before: [u32; 2],
    mark: u32,
    between: [u32; 6],
    ingress_ifindex: u32,
    ifindex: u32,
    after: [u32; 37],
}

#[derive(Default)]
#[repr(C)]
struct TestRun {
    program: u32,
    action: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

/// Runs a program `repeat` times on an Ethernet frame at device `ifindex` (0: loopback), which entered the node at
/// `entered_by`.
pub fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    ifindex: u32,
    entered_by: u32,
    repeat: u32,
) -> io::Result<Answer> {
    test_run_marked(program, frame, (ifindex, entered_by), 0, repeat)
}

/// The same of a frame with a mark, `SO_MARK` of socket(7).
pub fn test_run_marked(
    program: BorrowedFd<'_>,
    frame: &[u8],
    (ifindex, ingress_ifindex): (u32, u32),
    mark: u32,
    repeat: u32,
) -> io::Result<Answer> {
    let context = Context { before: [0; 2], mark, between: [0; 6], ingress_ifindex, ifindex, after: [0; 37] };
    let mut packet = vec![0u8; ROOM];
    let mut run = TestRun {
        program: program.as_raw_fd() as u32,
        action: 0,
        size_in: frame.len() as u32,
        size_out: packet.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: packet.as_mut_ptr() as u64,
        repeat,
        duration: 0,
        context_size_in: size_of::<Context>() as u32,
        context_size_out: 0,
        context_in: std::ptr::from_ref(&context) as u64,
        context_out: 0,
    };
    super::bpf::call(TEST_RUN, &mut run)?;
    packet.truncate(run.size_out as usize);
    Ok(Answer { action: run.action as i32, packet, took: Duration::from_nanos(run.duration.into()) })
}

/// Runs a raw tracepoint's program with these arguments (words of 8 bytes, at most 12), on this CPU, and answers what it
/// returns.
pub fn run_without_packet(program: BorrowedFd<'_>, arguments: &[u8]) -> io::Result<i32> {
    let mut run = TestRun {
        program: program.as_raw_fd() as u32,
        context_size_in: arguments.len() as u32,
        context_in: if arguments.is_empty() { 0 } else { arguments.as_ptr() as u64 },
        ..TestRun::default()
    };
    super::bpf::call(TEST_RUN, &mut run)?;
    Ok(run.action as i32)
}
