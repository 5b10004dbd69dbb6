//! Pinned tables of the kernel, read and filled from outside (bpf(2)): for what happens when one has no room left.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::check;

const LOOKUP: libc::c_int = 1;
const UPDATE: libc::c_int = 2;
const DELETE: libc::c_int = 3;
const OBJECT_GET: libc::c_int = 7;
const OBJECT_INFO: libc::c_int = 15;
/// `BPF_NOEXIST`
const NEW_ONLY: u64 = 1;
/// `BPF_MAP_TYPE_LPM_TRIE`
const PREFIX_TRIE: u32 = 11;

#[repr(C)]
struct Pin {
    path: u64,
    descriptor: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    descriptor: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Ask {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// Entries of nobody that leave a table no room; they go when this is dropped.
#[derive(Debug)]
pub struct Filling {
    map: OwnedFd,
    keys: Vec<Vec<u8>>,
}

impl Filling {
    /// Fills the hash table or prefix trie that is pinned there.
    ///
    /// # Errors
    /// When it cannot be opened, or refuses an entry for another reason than its size.
    pub fn of(pin: &Path) -> io::Result<Self> {
        let (map, info) = open(pin)?;
        let mut filling = Self { map, keys: Vec::new() };
        let value = vec![0; info.value_size as usize];
        for number in 0..=info.max_entries {
            let key = junk(&info, number);
            match filling.change(&key, Some(&value)) {
                Ok(()) => filling.keys.push(key),
                Err(error) if matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) => return Ok(filling),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("it took more than it says it can"))
    }

    /// With a value an entry comes, without one it goes.
    fn change(&self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let mut element = Element {
            descriptor: self.map.as_raw_fd() as u32,
            pad: 0,
            key: key.as_ptr() as u64,
            value: value.map_or(0, |value| value.as_ptr() as u64),
            flags: if value.is_some() { NEW_ONLY } else { 0 },
        };
        call(if value.is_some() { UPDATE } else { DELETE }, &mut element).map(drop)
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        for key in &self.keys {
            // What the daemon has cleared away itself is gone already.
            let _gone = self.change(key, None);
        }
    }
}

/// The first element of the array that is pinned there, in words of eight bytes.
///
/// # Errors
/// When it cannot be opened or read.
pub fn first_words(pin: &Path) -> io::Result<Vec<u64>> {
    let (map, info) = open(pin)?;
    let (key, mut words) = (0u32, vec![0u64; info.value_size.div_ceil(8) as usize]);
    let mut element = Element {
        descriptor: map.as_raw_fd() as u32,
        pad: 0,
        key: std::ptr::from_ref(&key) as u64,
        value: words.as_mut_ptr() as u64,
        flags: 0,
    };
    call(LOOKUP, &mut element)?;
    Ok(words)
}

fn open(pin: &Path) -> io::Result<(OwnedFd, Info)> {
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut get = Pin { path: path.as_ptr() as u64, descriptor: 0, flags: 0 };
    // SAFETY: the path is NUL-terminated and outlives the call; the answer is a fresh descriptor.
    let map = unsafe { OwnedFd::from_raw_fd(call(OBJECT_GET, &mut get)?) };
    let mut info = Info::default();
    let mut ask = Ask {
        descriptor: map.as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    call(OBJECT_INFO, &mut ask)?;
    Ok((map, info))
}

/// A key that no frame and no resource has.
fn junk(info: &Info, number: u32) -> Vec<u8> {
    let mut key = vec![0xee; info.key_size as usize];
    let end = key.len();
    key[end - 4..].copy_from_slice(&(0xee00_0000 | number).to_be_bytes());
    if info.kind == PREFIX_TRIE {
        key[..4].copy_from_slice(&((info.key_size - 4) * 8).to_ne_bytes());
    }
    key
}

fn call<T>(command: libc::c_int, argument: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `argument` begins like the member of `union bpf_attr` for `command`; what it points to outlives the call and
    // has the sizes that the kernel was asked for.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(argument), size_of::<T>()) };
    check(libc::c_int::try_from(result).map_err(io::Error::other)?)
}
