//! Names and numbers of the interfaces of the calling thread's network namespace.

use std::ffi::CString;
use std::io;

/// The number of the interface of that name.
pub fn index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: `name` ends with NUL.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// The name of the interface of that number.
pub fn name(index: u32) -> io::Result<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: a buffer of IF_NAMESIZE bytes, as if_indextoname(3) asks.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_and_numbers_are_of_each_other() {
        assert_eq!(super::name(super::index("lo").unwrap()).unwrap(), "lo");
        assert!(super::index("no-such-link").is_err() && super::name(u32::MAX).is_err());
    }
}
