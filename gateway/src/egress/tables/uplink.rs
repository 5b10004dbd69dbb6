//! Past the node's stack (`bpf/fast.h`): the device towards the world, how old next hops may be, and what became of the
//! packets that may take that way.

use std::sync::PoisonError;

use super::layout as l;
use super::{InTable, TableError, Tables, next_stamp};

/// What became of a packet that may skip the stack; `enum way` of `bpf/tables.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Way {
    /// It left by the uplink, to a next hop that was known.
    Out = 0,
    /// It left by the uplink, and the kernel looks for the next hop's MAC, or whether it still has it.
    Resolved = 1,
    /// It came by the uplink and went into the workload.
    In = 2,
    /// To the stack: no route, unreachable, the node itself, or forwarding is off.
    NotRouted = 3,
    /// To the stack: the far end is not beyond the uplink.
    OtherDevice = 4,
    /// To the stack: its TTL or hop limit ends here.
    LastHop = 5,
    /// To the stack: larger than the path or the workload's link.
    TooBig = 6,
    /// To the stack: a link-local address.
    LinkLocal = 7,
    /// To the stack: a table or a helper of the kernel failed.
    Failed = 8,
    /// To the stack: a fragment from the uplink.
    Fragment = 9,
    /// It left by the uplink as the packet before it, which was judged alike (`bpf/shortcut.h`).
    OutAgain = 10,
    /// It went into the workload as the packet before it.
    InAgain = 11,
}

impl Way {
    /// Every way.
    pub const ALL: [Self; 12] = [
        Self::Out,
        Self::Resolved,
        Self::In,
        Self::NotRouted,
        Self::OtherDevice,
        Self::LastHop,
        Self::TooBig,
        Self::LinkLocal,
        Self::Failed,
        Self::Fragment,
        Self::OutAgain,
        Self::InAgain,
    ];

    /// As metrics have it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Resolved => "resolved",
            Self::In => "in",
            Self::NotRouted => "not-routed",
            Self::OtherDevice => "other-device",
            Self::LastHop => "last-hop",
            Self::TooBig => "too-big",
            Self::LinkLocal => "link-local",
            Self::Failed => "failed",
            Self::Fragment => "fragment",
            Self::OutAgain => "out-again",
            Self::InAgain => "in-again",
        }
    }

    /// Whether the packet skipped the stack.
    pub const fn skips_stack(self) -> bool {
        match self {
            Self::Out | Self::Resolved | Self::In | Self::OutAgain | Self::InAgain => true,
            Self::NotRouted
            | Self::OtherDevice
            | Self::LastHop
            | Self::TooBig
            | Self::LinkLocal
            | Self::Failed
            | Self::Fragment => false,
        }
    }
}

impl Tables {
    /// The device that packets may be sent to past the stack, and taken from; `None`: every packet takes the stack.
    /// Next hops are asked for anew.
    pub fn set_uplink(&self, ifindex: Option<u32>) -> Result<(), TableError> {
        self.change_uplink(|uplink| uplink.ifindex = ifindex.unwrap_or(0))
    }

    /// The uplink as last set.
    pub fn uplink(&self) -> Option<u32> {
        let uplink = self.uplink.get(&0).ok().flatten();
        uplink.map(|uplink| uplink.ifindex).filter(|ifindex| *ifindex != 0)
    }

    /// After a change of routes, neighbours or links, or a write that may end a shortcut (`bpf/shortcut.h`) and changes no
    /// entry of `workloads`: next hops are asked for anew, and the next packet of each flow is asked the lists.
    pub fn ask_again(&self) -> Result<(), TableError> {
        self.change_uplink(|_| {})
    }

    /// Packets by way since the tables were made.
    pub fn ways(&self) -> Result<Vec<(Way, u64)>, TableError> {
        let count = |way: &Way| Ok((*way, self.ways.get(*way as u32).in_table("ways")?.iter().sum()));
        Way::ALL.iter().map(count).collect()
    }

    fn change_uplink(&self, change: impl FnOnce(&mut l::Uplink)) -> Result<(), TableError> {
        let _turn = self.uplink_changes.lock().unwrap_or_else(PoisonError::into_inner);
        let none = l::Uplink { ifindex: 0, generation: 0 };
        let mut uplink = self.uplink.get(&0).in_table("uplink")?.unwrap_or(none);
        change(&mut uplink);
        uplink.generation = next_stamp();
        self.uplink.set(&0, &uplink).in_table("uplink")
    }
}
