//! How many files and sockets this process may have open (`man 2 getrlimit`).

use std::io;

use super::check;

/// Raises the soft limit to the hard one, and answers it: each lookup that is being answered has a socket, and a shell's
/// usual 1 024 is what one workload may ask at a time.
pub fn raise() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a struct to be written.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is read only.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = super::raise().unwrap();
        assert_eq!(super::raise().unwrap(), raised);
    }
}
