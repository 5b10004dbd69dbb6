//! Typed access to pinned BPF maps by `bpf(2)`: single elements, batches, whole dumps. All of it takes `&self`: the
//! kernel locks. Layouts of the syscall's arguments are those of `union bpf_attr` in `include/uapi/linux/bpf.h`.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use aya::Pod;
use aya::maps::{MapData, MapInfo, RingBuf};
use tokio::io::unix::AsyncFd;

pub use super::mount::is_bpffs;

const LOOKUP: libc::c_int = 1;
const UPDATE: libc::c_int = 2;
const DELETE: libc::c_int = 3;
const OPEN_PIN: libc::c_int = 7;
const LOOKUP_BATCH: libc::c_int = 24;
const UPDATE_BATCH: libc::c_int = 26;
const DELETE_BATCH: libc::c_int = 27;
const DETACH_LINK: libc::c_int = 34;
/// Entries moved by one call.
const CHUNK: usize = 4096;

/// A hash table or a prefix trie whose keys and values have the sizes of `K` and `V`.
#[derive(Debug)]
pub struct Map<K, V> {
    fd: OwnedFd,
    name: &'static str,
    max_entries: u32,
    _kv: PhantomData<fn(K) -> V>,
}

/// A per-CPU array of `V`.
#[derive(Debug)]
pub struct PerCpuArray<V> {
    fd: OwnedFd,
    cpus: usize,
    _v: PhantomData<fn() -> V>,
}

#[repr(C)]
struct Element {
    fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    fd: u32,
    element_flags: u64,
    flags: u64,
}

impl<K: Pod, V: Pod> Map<K, V> {
    /// The map pinned at `path`. Refuses one whose key or value has another size.
    pub fn open(path: &Path, name: &'static str) -> io::Result<Self> {
        let (fd, info) = open_pin(path)?;
        check_size(size_of::<K>(), info.key_size(), "key")?;
        check_size(size_of::<V>(), info.value_size(), "value")?;
        Ok(Self { fd, name, max_entries: info.max_entries(), _kv: PhantomData })
    }

    /// Its name, as pinned.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it can hold.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// A copy of a value.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let mut element = self.element(key, value.as_mut_ptr() as u64);
        match call(LOOKUP, &mut element) {
            // SAFETY: the kernel wrote the whole value, whose size `open` compared; any bits are a `V`.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Inserts or replaces, in one step for those who look it up.
    pub fn set(&self, key: &K, value: &V) -> io::Result<()> {
        call(UPDATE, &mut self.element(key, std::ptr::from_ref(value) as u64)).map(|_| ())
    }

    /// Removes; whether it was there.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        match call(DELETE, &mut self.element(key, 0)) {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Inserts or replaces many. Sorted keys are the quickest for a trie.
    pub fn set_all(&self, entries: &[(K, V)]) -> io::Result<()> {
        for chunk in entries.chunks(CHUNK) {
            let keys: Vec<K> = chunk.iter().map(|e| e.0).collect();
            let values: Vec<V> = chunk.iter().map(|e| e.1).collect();
            let mut batch = self.batch(keys.as_ptr() as u64, values.as_ptr() as u64, chunk.len());
            call(UPDATE_BATCH, &mut batch)?;
        }
        Ok(())
    }

    /// Removes many; those that are not there are passed over.
    pub fn remove_all(&self, keys: &[K]) -> io::Result<()> {
        for mut rest in keys.chunks(CHUNK) {
            while !rest.is_empty() {
                let mut batch = self.batch(rest.as_ptr() as u64, 0, rest.len());
                match call(DELETE_BATCH, &mut batch) {
                    Ok(_) => break,
                    Err(e) if e.raw_os_error() == Some(libc::ENOENT) => rest = &rest[batch.count as usize + 1..],
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    /// Every entry, as far as they hold still: one that comes or goes meanwhile may be missing or there.
    pub fn dump(&self) -> io::Result<Vec<(K, V)>> {
        let mut all = Vec::new();
        let mut room = CHUNK;
        let mut position = vec![0u8; size_of::<K>().max(8)];
        let mut next = position.clone();
        let mut started = false;
        loop {
            let mut keys = Vec::<K>::with_capacity(room);
            let mut values = Vec::<V>::with_capacity(room);
            let mut batch = self.batch(keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64, room);
            batch.in_batch = if started { position.as_ptr() as u64 } else { 0 };
            batch.out_batch = next.as_mut_ptr() as u64;
            let over = match call(LOOKUP_BATCH, &mut batch) {
                Ok(_) => false,
                Err(e) => match e.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    Some(libc::EINTR) => continue,
                    Some(libc::ENOSPC) if room < 1 << 20 => {
                        room *= 2; // a bucket of the hash table holds more than this
                        continue;
                    }
                    _ => return Err(e),
                },
            };
            let count = (batch.count as usize).min(room);
            // SAFETY: the kernel wrote `count` keys and values into the capacity it was given; any bits are valid.
            unsafe {
                keys.set_len(count);
                values.set_len(count);
            }
            all.extend(keys.into_iter().zip(values));
            if over {
                return Ok(all);
            }
            std::mem::swap(&mut position, &mut next);
            started = true;
        }
    }

    fn element(&self, key: &K, value: u64) -> Element {
        Element { fd: self.fd.as_raw_fd() as u32, pad: 0, key: std::ptr::from_ref(key) as u64, value, flags: 0 }
    }

    fn batch(&self, keys: u64, values: u64, count: usize) -> Batch {
        let fd = self.fd.as_raw_fd() as u32;
        Batch { in_batch: 0, out_batch: 0, keys, values, count: count as u32, fd, element_flags: 0, flags: 0 }
    }
}

impl<K: Pod + Ord, V: Pod + PartialEq> Map<K, V> {
    /// Makes the map hold exactly `wanted` of the entries that `mine` picks; the others stay.
    pub fn become_exactly(&self, wanted: &BTreeMap<K, V>, mine: impl Fn(&K, &V) -> bool) -> io::Result<()> {
        let present: BTreeMap<K, V> = self.dump()?.into_iter().filter(|(k, v)| mine(k, v)).collect();
        for (key, value) in wanted {
            if present.get(key) != Some(value) {
                self.set(key, value)?;
            }
        }
        for key in present.keys().filter(|key| !wanted.contains_key(key)) {
            self.remove(key)?;
        }
        Ok(())
    }
}

impl<V: Pod> PerCpuArray<V> {
    /// The array pinned at `path`. `V` is a multiple of 8 bytes long.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (fd, info) = open_pin(path)?;
        check_size(size_of::<V>(), info.value_size(), "value")?;
        check_size(size_of::<V>().next_multiple_of(8), info.value_size(), "value")?;
        let cpus = aya::util::nr_cpus().map_err(|(_, e)| e)?;
        Ok(Self { fd, cpus, _v: PhantomData })
    }

    /// The values of all CPUs at `index`.
    pub fn get(&self, index: u32) -> io::Result<Vec<V>> {
        let mut values = Vec::<V>::with_capacity(self.cpus);
        let mut element = Element {
            fd: self.fd.as_raw_fd() as u32,
            pad: 0,
            key: std::ptr::from_ref(&index) as u64,
            value: values.as_mut_ptr() as u64,
            flags: 0,
        };
        call(LOOKUP, &mut element)?;
        // SAFETY: the kernel wrote one value for each possible CPU, each a multiple of 8 bytes as `open` made sure.
        unsafe { values.set_len(self.cpus) };
        Ok(values)
    }
}

/// Takes a pinned link's program from its device before this returns (closing a link's last handle does so later), and
/// removes the pin. One that is not there is no failure.
pub fn detach_link(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut open = Pin { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    match call(OPEN_PIN, &mut open) {
        Ok(fd) => {
            // SAFETY: a descriptor that the kernel just made for us.
            let link = unsafe { OwnedFd::from_raw_fd(fd) };
            let _its_device_may_be_gone = call(DETACH_LINK, &mut (link.as_raw_fd() as u32));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    std::fs::remove_file(pin)
}

/// The ring pinned at `path`, for a tokio runtime to wait on. Must be called in one.
pub fn open_ring(path: &Path) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    let data = MapData::from_pin(path).map_err(io::Error::other)?;
    let ring = RingBuf::try_from(aya::maps::Map::RingBuf(data)).map_err(io::Error::other)?;
    // SAFETY: the ring owns its map's descriptor, never exchanges it, and is dropped after its registration.
    unsafe { AsyncFd::register(ring) }.map_err(Into::into)
}

/// Time since boot, suspended time included: the clock of the tables.
pub fn boot_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec to be written. The call cannot fail with this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn open_pin(path: &Path) -> io::Result<(OwnedFd, MapInfo)> {
    let other = |e: aya::maps::MapError| io::Error::other(format!("{}: {e}", path.display()));
    let data = MapData::from_pin(path).map_err(other)?;
    let info = data.info().map_err(other)?;
    Ok((data.fd().as_fd().try_clone_to_owned()?, info))
}

fn check_size(ours: usize, theirs: u32, what: &str) -> io::Result<()> {
    if ours == theirs as usize {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("its {what} has {theirs} bytes, this build has {ours}")))
}

/// What the kernel answers is 0, or a new descriptor.
pub(super) fn call<T>(command: libc::c_int, argument: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `argument` begins like the member of `union bpf_attr` that belongs to `command`, and what it points to lives
    // through the call and has the sizes that the map was checked for.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(argument), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
