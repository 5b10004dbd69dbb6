//! Table `inet tidegate`: loading it, and knowing whether it is still as it was loaded.

use super::observe::Table;
use super::ruleset;
use crate::sys::nft::{Nft, NftError};

/// What is known of table `inet tidegate`.
#[derive(Debug, Default)]
pub(super) struct TableMemory {
    /// Loaded last: the ruleset, and what `nft` then showed.
    loaded: Option<(String, String)>,
    /// How it was found last, and at which change of nf_tables: while that number stands, it is so still.
    seen: Option<(u32, Table)>,
}

impl TableMemory {
    /// How the table is now.
    pub(super) async fn look(&mut self, nft: &Nft) -> Result<Table, NftError> {
        let generation = nft.generation();
        if let (Some(now), Some((then, table))) = (generation, &self.seen)
            && now == *then
        {
            return Ok(table.clone());
        }
        let table = match (nft.list(ruleset::FAMILY, ruleset::TABLE).await?, &self.loaded) {
            (None, _) => Table::Absent,
            (Some(listing), Some((ruleset, shown))) if listing == *shown => Table::As(ruleset.clone()),
            (Some(_), _) => Table::Other,
        };
        self.seen = generation.map(|generation| (generation, table.clone()));
        Ok(table)
    }

    /// Fills the table anew; `None` deletes it.
    pub(super) async fn load(&mut self, nft: &Nft, ruleset: Option<&String>) -> Result<(), NftError> {
        *self = Self::default();
        nft.load(ruleset.map_or(ruleset::DELETE, String::as_str).to_owned()).await?;
        if let Some(ruleset) = ruleset {
            let listing = nft.list(ruleset::FAMILY, ruleset::TABLE).await?;
            self.loaded = listing.map(|listing| (ruleset.clone(), listing));
        }
        Ok(())
    }
}
