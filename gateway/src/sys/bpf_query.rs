//! `BPF_PROG_QUERY` for tcx: which programs are on a device. By number only, since opening a program by its number needs
//! CAP_SYS_ADMIN, which the daemon has given up (`bpf_prog_query` in `kernel/bpf/syscall.c` asks for CAP_NET_ADMIN).

use std::io;

use super::bpf::call;

const QUERY: libc::c_int = 16;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
const INGRESS: u32 = 46;
const EGRESS: u32 = 47;
/// Most programs that one device may have (`BPF_MPROG_MAX`).
const MOST: usize = 64;

#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// The numbers of the programs at a device's tcx hook, in their order. `InvalidInput` where the kernel has no tcx.
pub fn tcx_programs(ifindex: u32, egress: bool) -> io::Result<Vec<u32>> {
    let mut numbers = vec![0u32; MOST];
    let mut query = Query {
        ifindex,
        attach_type: if egress { EGRESS } else { INGRESS },
        query_flags: 0,
        attach_flags: 0,
        programs: numbers.as_mut_ptr() as u64,
        count: MOST as u32,
        pad: 0,
        program_flags: 0,
        links: 0,
        link_flags: 0,
        revision: 0,
    };
    match call(QUERY, &mut query) {
        Ok(_) => {}
        // No program was ever there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    numbers.truncate(query.count as usize);
    Ok(numbers)
}
