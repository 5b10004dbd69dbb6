//! `net.ipv4.ip_local_reserved_ports` (`Documentation/networking/ip-sysctl.rst`): ports that the kernel gives to no socket
//! that asks for any. What others reserved is kept, and what was added here is written down in a file before it is
//! added, so that it can be taken away again, by another run of the daemon too.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

const LIST: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// A set of ports, written as the kernel does: `80,50000-59999`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet(Box<[bool; 1 << 16]>);

/// The list or the file beside the store cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}: {source}; is it writable for this process?")]
pub struct ReserveError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl PortSet {
    /// No port.
    pub fn none() -> Self {
        Self(Box::new([false; 1 << 16]))
    }

    /// One range.
    pub fn of(range: &RangeInclusive<u16>) -> Self {
        let mut set = Self::none();
        range.clone().for_each(|port| set.0[usize::from(port)] = true);
        set
    }

    /// `None` if it is no list of ports.
    fn parse(text: &str) -> Option<Self> {
        let mut set = Self::none();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first..=last).for_each(|port| set.0[usize::from(port)] = true);
        }
        Some(set)
    }

    fn with(&self, other: &Self) -> Self {
        self.each(other, |own, others| own || others)
    }

    fn without(&self, other: &Self) -> Self {
        self.each(other, |own, others| own && !others)
    }

    fn each(&self, other: &Self, both: impl Fn(bool, bool) -> bool) -> Self {
        let mut set = self.clone();
        set.0.iter_mut().zip(other.0.iter()).for_each(|(own, others)| *own = both(*own, *others));
        set
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut next = 0;
        while let Some(first) = (next..1 << 16).find(|port| self.0[*port]) {
            let end = (first..1 << 16).find(|port| !self.0[*port]).unwrap_or(1 << 16);
            let comma = if next == 0 { "" } else { "," };
            match end - first {
                1 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{}", end - 1)?,
            }
            next = end;
        }
        Ok(())
    }
}

/// Makes these the ports that are reserved besides those of others; [`PortSet::none`] takes away what was added. `note` is
/// the file of what was added. Answers whether anything had to change.
pub fn reserve(wanted: &PortSet, note: &Path) -> Result<bool, ReserveError> {
    reserve_in(Path::new(LIST), wanted, note)
}

fn reserve_in(list: &Path, wanted: &PortSet, note: &Path) -> Result<bool, ReserveError> {
    let now = read(list)?;
    let noted = if note.exists() { read(note)? } else { PortSet::none() };
    let others = now.without(&noted);
    let added = wanted.without(&others);
    if added != noted {
        // what is noted is never less than what is in the list
        write(note, &added.with(&noted))?;
    }
    let next = others.with(&added);
    if next != now {
        write(list, &next)?;
    }
    if added == PortSet::none() && note.exists() {
        let gone = fs::remove_file(note);
        gone.map_err(|source| ReserveError { doing: "remove", path: note.to_owned(), source })?;
    } else if added != noted {
        write(note, &added)?;
    }
    Ok(next != now)
}

fn read(path: &Path) -> Result<PortSet, ReserveError> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|source| ReserveError { doing: "read", path: path.to_owned(), source })?;
    let unread = || io::Error::new(io::ErrorKind::InvalidData, "it is no list of ports");
    PortSet::parse(&text).ok_or_else(|| ReserveError { doing: "understand", path: path.to_owned(), source: unread() })
}

fn write(path: &Path, ports: &PortSet) -> Result<(), ReserveError> {
    // the kernel takes an empty line for no port, and nothing at all for no change
    let written = fs::write(path, format!("{ports}\n"));
    written.map_err(|source| ReserveError { doing: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(before: &str) -> (PathBuf, PathBuf, impl Fn(&str) -> String) {
        let folder = std::env::temp_dir().join(format!("tidegate-ports-{}-{}", std::process::id(), before.len()));
        fs::create_dir_all(&folder).unwrap();
        let (list, note) = (folder.join("list"), folder.join("note"));
        fs::write(&list, format!("{before}\n")).unwrap();
        let (at, to) = (list.clone(), note.clone());
        let set = move |wanted: &str| {
            reserve_in(&at, &PortSet::parse(wanted).unwrap(), &to).unwrap();
            fs::read_to_string(&at).unwrap().trim().to_owned()
        };
        (list, note, set)
    }

    #[test]
    fn sets_are_written_as_the_kernel_does() {
        for text in ["", "80", "0-65535", "1,3,5-9,65535"] {
            assert_eq!(PortSet::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(PortSet::parse("7-3,5\n").unwrap().to_string(), "5");
        assert_eq!(PortSet::parse("80,http"), None);
        assert_eq!(PortSet::of(&(50_000..=59_999)).to_string(), "50000-59999");
    }

    #[test]
    fn what_others_reserved_stays_whatever_comes_and_goes() {
        let (list, note, set) = world("80,50000-50009");
        assert_eq!(set("50000-59999"), "80,50000-59999");
        assert_eq!(set("50000-59999"), "80,50000-59999", "again, as after a restart");
        assert_eq!(set("51000-51999"), "80,50000-50009,51000-51999", "another range");
        fs::write(&list, "80,90,50000-50009,51000-51999\n").unwrap();
        assert_eq!(set(""), "80,90,50000-50009");
        assert!(!note.exists());
        // the node was started anew, and the list is as it was before
        assert_eq!(set("50000-59999"), "80,90,50000-59999");
        fs::write(&list, "80\n").unwrap();
        assert_eq!(set("50000-59999"), "80,50000-59999");
        assert_eq!(set(""), "80");
        fs::remove_dir_all(list.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_list_that_is_none_is_named() {
        let (list, note, _) = world("nonsense");
        let error = reserve_in(&list, &PortSet::none(), &note).unwrap_err().to_string();
        assert!(error.contains("understand") && error.contains("no list of ports"), "{error}");
        fs::remove_dir_all(list.parent().unwrap()).unwrap();
    }
}
