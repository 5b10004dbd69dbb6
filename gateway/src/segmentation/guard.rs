//! Table `bridge tidegate`: a port of an adopted bridge passes nothing before the kernel programs are on it.
//!
//! Who makes a port, a container engine, sets it up before anybody else hears of it. The table drops by the bridge's name
//! whatever comes from or goes to a port that is not listed, so that there is no moment in which a new one is open; it is
//! listed when it is closed by the programs. Needs `nft_meta_bridge` (Linux 5.1, a module in distributions' kernels).

use std::collections::BTreeSet;

use config::names::InterfaceName;

use crate::sys::nft::{Nft, NftError};

const FAMILY: &str = "bridge";
const TABLE: &str = "tidegate";
const DELETE: &str = "table bridge tidegate {}\ndelete table bridge tidegate\n";

/// Refused where the kernel cannot tell a port's bridge; leaves nothing.
const PROBE: &str = "table bridge tidegate_probe {\n  chain probe {\n    meta ibrname \"tidegate\" drop\n  }\n}\n\
                     delete table bridge tidegate_probe\n";

/// The table as it shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Adopted bridges, there or not.
    pub bridges: BTreeSet<InterfaceName>,
    /// Indexes of the ports that frames may come from and go to.
    pub ports: BTreeSet<u32>,
}

impl Guard {
    /// The transaction that makes the table, whatever was in it.
    fn text(&self) -> String {
        let bridges: Vec<String> = self.bridges.iter().map(|bridge| format!("\"{bridge}\"")).collect();
        let ports: Vec<String> = self.ports.iter().map(u32::to_string).collect();
        let elements = if ports.is_empty() { String::new() } else { format!(" elements = {{ {} }}", ports.join(", ")) };
        let bridges = bridges.join(", ");
        format!(
            "{DELETE}table {FAMILY} {TABLE} {{\n  set closed {{ type iface_index;{elements} }}\n  \
             chain from_ports {{\n    type filter hook prerouting priority -300; policy accept;\n    \
             meta ibrname {{ {bridges} }} iif != @closed drop\n  }}\n  \
             chain to_ports {{\n    type filter hook postrouting priority 300; policy accept;\n    \
             meta obrname {{ {bridges} }} oif != @closed drop\n  }}\n}}\n"
        )
    }
}

/// The state of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GuardState {
    /// There is none.
    #[default]
    Absent,
    /// There is one, as this made it.
    As(Guard),
    /// There is one, and nobody knows what made it what it is.
    Other,
    /// This kernel has none; its words.
    Unsupported(String),
}

/// What is known of the table.
#[derive(Debug, Default)]
pub(super) struct GuardMemory {
    /// Whether the kernel can have it, once that was asked; else its words.
    supported: Option<Result<(), String>>,
    /// Loaded last, and what `nft` shows of it.
    loaded: Option<(Guard, String)>,
    /// How it was found last, and at which change of nf_tables.
    seen: Option<(u32, GuardState)>,
}

impl GuardMemory {
    /// How the table is now; `needed`: whether there shall be one.
    pub(super) async fn look(&mut self, nft: &Nft, needed: bool) -> Result<GuardState, NftError> {
        if needed && self.supported.is_none() {
            self.supported = match nft.load(PROBE.to_owned()).await {
                Ok(()) => Some(Ok(())),
                Err(NftError::Refused { text, .. }) => Some(Err(text.split_whitespace().collect::<Vec<_>>().join(" "))),
                Err(other) => return Err(other),
            };
        }
        if let Some(Err(words)) = &self.supported {
            return Ok(if needed { GuardState::Unsupported(words.clone()) } else { GuardState::Absent });
        }
        let generation = nft.generation();
        match &self.seen {
            // nobody else is expected to make a table of this name
            Some((_, GuardState::Absent)) if !needed => return Ok(GuardState::Absent),
            Some((then, state)) if generation == Some(*then) => return Ok(state.clone()),
            _ => {}
        }
        let state = match (nft.list(FAMILY, TABLE).await?, &self.loaded) {
            (None, _) => GuardState::Absent,
            (Some(listing), Some((guard, shown))) if listing == *shown => GuardState::As(guard.clone()),
            (Some(_), _) => GuardState::Other,
        };
        self.seen = generation.map(|generation| (generation, state.clone()));
        Ok(state)
    }

    /// Makes the table anew; `None` deletes it.
    pub(super) async fn load(&mut self, nft: &Nft, guard: Option<&Guard>) -> Result<(), NftError> {
        (self.loaded, self.seen) = (None, None);
        nft.load(guard.map_or_else(|| DELETE.to_owned(), Guard::text)).await?;
        if let Some(guard) = guard {
            self.loaded = nft.list(FAMILY, TABLE).await?.map(|listing| (guard.clone(), listing));
        }
        Ok(())
    }
}
