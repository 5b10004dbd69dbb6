//! What DNS taught: which names a workload resolved to an address, and what those names are in a policy.
//!
//! A name that no policy speaks of needs no class; a new policy needs the classes of all names in use before the first
//! workload is switched to it, since open flows by name end where their name has none.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use config::names::DnsName;
use policy::tables::{ClassId, NameId, PolicyId};

use super::layout as l;
use super::{InTable, TableError, Tables, nanoseconds};
use crate::workload::WorkloadId;

/// Names one address of a workload can have at a time.
pub const SLOTS: usize = 4;

/// One name that a workload resolved to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedSlot {
    /// The name.
    pub name: NameId,
    /// Until when it opens new flows, as time since boot ([`crate::sys::bpf::boot_time`]).
    pub expires: Duration,
}

/// An entry of the table of learned addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedAddress {
    /// Who resolved it.
    pub workload: WorkloadId,
    /// The answer.
    pub address: IpAddr,
    /// For which names.
    pub slots: Vec<LearnedSlot>,
}

impl Tables {
    /// Makes these, the first [`SLOTS`] of them, the names of an address for one workload; none removes the address.
    /// When this returns, the very next packet is judged by it.
    pub fn learn(&self, workload: WorkloadId, address: IpAddr, slots: &[LearnedSlot]) -> Result<(), TableError> {
        let key = l::LearnedKey { workload: workload.0, address: l::address(address) };
        if slots.is_empty() {
            return self.learned.remove(&key).in_table("learned").map(|_| ());
        }
        let mut value = l::Learned { slots: [l::Slot { name: 0, pad: 0, expires_ns: 0 }; SLOTS] };
        for (free, slot) in value.slots.iter_mut().zip(slots) {
            *free = l::Slot { name: slot.name.0, pad: 0, expires_ns: nanoseconds(slot.expires) };
        }
        self.learned.set(&key, &value).in_table("learned")
    }

    /// Everything learned, for a restart.
    pub fn learned(&self) -> Result<Vec<LearnedAddress>, TableError> {
        let slot = |s: &l::Slot| LearnedSlot { name: NameId(s.name), expires: Duration::from_nanos(s.expires_ns) };
        let entry = |(key, value): (l::LearnedKey, l::Learned)| LearnedAddress {
            workload: WorkloadId(key.workload),
            address: l::ip(key.address),
            slots: value.slots.iter().filter(|s| s.name != 0).map(slot).collect(),
        };
        Ok(self.learned.dump().in_table("learned")?.into_iter().map(entry).collect())
    }

    /// Keeps a name's text, so that a restarted daemon knows what its number means.
    pub fn write_name(&self, id: NameId, name: &DnsName) -> Result<(), TableError> {
        let mut text = [0; 256];
        text[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
        self.names.set(&id.0, &l::NameText { text }).in_table("names")
    }

    /// Forgets names and their classes, the classes first. Walks the table of classes whole, once for all of them.
    pub fn remove_names(&self, ids: &BTreeSet<NameId>) -> Result<(), TableError> {
        if ids.is_empty() {
            return Ok(());
        }
        let classes = self.name_classes.dump().in_table("name_classes")?.into_iter().map(|(key, _)| key);
        let classes: Vec<_> = classes.filter(|key| ids.contains(&NameId(key.name))).collect();
        self.name_classes.remove_all(&classes).in_table("name_classes")?;
        let ids: Vec<u32> = ids.iter().map(|id| id.0).collect();
        self.names.remove_all(&ids).in_table("names")
    }

    /// All names, for a restart. One that is no name any more is passed over.
    pub fn names(&self) -> Result<Vec<(NameId, DnsName)>, TableError> {
        let name = |(id, value): (u32, l::NameText)| {
            let end = value.text.iter().position(|b| *b == 0).unwrap_or(value.text.len());
            let text = String::from_utf8_lossy(&value.text[..end]).into_owned();
            DnsName::try_from(text).ok().map(|name| (NameId(id), name))
        };
        Ok(self.names.dump().in_table("names")?.into_iter().filter_map(name).collect())
    }

    /// What a name is in a policy: the class whose rules speak of it. `None`: nothing speaks of it.
    pub fn write_name_class(&self, policy: PolicyId, name: NameId, class: Option<ClassId>) -> Result<(), TableError> {
        let key = l::NameClassKey { policy: policy.0, name: name.0 };
        match class {
            Some(class) => self.name_classes.set(&key, &class.0).in_table("name_classes"),
            None => self.name_classes.remove(&key).in_table("name_classes").map(|_| ()),
        }
    }
}
