//! Table `inet tidegate`: loading it, and knowing whether it is still as it was loaded.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::sync::Arc;

use super::observe::Table;
use super::ruleset::{self, Ruleset};
use crate::sys::nft::{Nft, NftError};

/// What is known of table `inet tidegate`.
#[derive(Debug, Default)]
pub(super) struct TableMemory {
    /// Loaded last.
    loaded: Option<Arc<Ruleset>>,
    /// What `nft` shows of it, once that was asked.
    shown: Option<Shown>,
    /// How it was found last, and at which change of nf_tables: while that number stands, it is so still.
    seen: Option<(u32, Table)>,
}

/// The digest of a listing in which the elements of each set are sorted: the kernel lists them in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown(u64);

impl TableMemory {
    /// How the table is now.
    pub(super) async fn look(&mut self, nft: &Nft) -> Result<Table, NftError> {
        let generation = nft.generation();
        let found = match &self.seen {
            Some((then, table)) if generation == Some(*then) => Some(table.clone()),
            _ => None,
        };
        if let Some(table) = &found
            && (self.shown.is_some() || self.loaded.is_none())
        {
            return Ok(table.clone());
        }
        let shown = nft.list(ruleset::FAMILY, ruleset::TABLE).await?.as_deref().map(Shown::of);
        if let Some(table) = found {
            // As this process made it, if nobody was quicker than the listing.
            if nft.generation() == generation {
                self.shown = shown;
            }
            return Ok(table);
        }
        let table = match (shown, &self.loaded) {
            (None, _) => Table::Absent,
            (Some(_), Some(ruleset)) if shown == self.shown => Table::As(Arc::clone(ruleset)),
            (Some(_), _) => Table::Other,
        };
        self.seen = generation.map(|generation| (generation, table.clone()));
        Ok(table)
    }

    /// Fills the table anew; `None` deletes it.
    pub(super) async fn load(&mut self, nft: &Nft, ruleset: Option<&Arc<Ruleset>>) -> Result<(), NftError> {
        let text = ruleset.map_or_else(|| ruleset::DELETE.to_owned(), |ruleset| ruleset.text());
        self.run(nft, text, ruleset).await
    }

    /// Makes the table of one that was found to be as `was`, and differs in elements only.
    pub(super) async fn change(&mut self, nft: &Nft, to: &Arc<Ruleset>, was: &Ruleset) -> Result<(), NftError> {
        self.run(nft, to.text_after(was), Some(to)).await
    }

    async fn run(&mut self, nft: &Nft, text: String, to: Option<&Arc<Ruleset>>) -> Result<(), NftError> {
        *self = Self::default();
        let before = nft.generation();
        nft.load(text).await?;
        let after = nft.generation();
        let Some(to) = to.map(Arc::clone) else { return Ok(()) };
        match (before, after) {
            // The next look lists what the table became, at leisure.
            (Some(before), Some(after)) if after == before.wrapping_add(1) => {
                self.loaded = Some(Arc::clone(&to));
                self.seen = Some((after, Table::As(to)));
            }
            // Somebody else changed something too: the next look finds another table, and fills it anew.
            (Some(_), _) => {}
            (None, _) => {
                self.shown = nft.list(ruleset::FAMILY, ruleset::TABLE).await?.as_deref().map(Shown::of);
                self.loaded = Some(to);
            }
        }
        Ok(())
    }
}

impl Shown {
    /// `elements = { …, … }`, of one line or more, is what is sorted.
    fn of(listing: &str) -> Self {
        const ELEMENTS: &str = "elements = {";
        let mut digest = DefaultHasher::new();
        let mut elements: Option<Vec<&str>> = None;
        for line in listing.lines() {
            let text = line.trim();
            let text = match text.strip_prefix(ELEMENTS) {
                Some(first) => {
                    elements = Some(Vec::new());
                    first
                }
                None => text,
            };
            let Some(list) = &mut elements else {
                digest.write(text.as_bytes());
                digest.write_u8(b'\n');
                continue;
            };
            let end = text.strip_suffix('}');
            list.extend(end.unwrap_or(text).split(',').map(str::trim).filter(|element| !element.is_empty()));
            if end.is_some() {
                list.sort_unstable();
                for element in elements.take().unwrap_or_default() {
                    digest.write(element.as_bytes());
                    digest.write_u8(b',');
                }
            }
        }
        Self(digest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_the_same_in_any_order_and_rules_are_not() {
        let listing = |elements: &str| {
            Shown::of(&format!(
                "table inet tidegate {{\n\tset workloads4 {{\n\t\ttype ipv4_addr\n\t\telements = {{ {elements} }}\n\t}}\n\n\t\
                 chain within {{\n\t\taccept\n\t\tdrop\n\t}}\n}}\n"
            ))
        };
        let first = listing("10.1.0.2, 10.1.0.3,\n\t\t\t     10.1.0.4");
        assert_eq!(first, listing("10.1.0.4,\n\t\t\t     10.1.0.2,\n\t\t\t     10.1.0.3"));
        for other in ["10.1.0.2, 10.1.0.3", "10.1.0.2, 10.1.0.3, 10.1.0.4 timeout 1h", "10.1.0.2, 10.1.0.3, 10.1.0.5"] {
            assert_ne!(first, listing(other), "{other}");
        }
        assert_ne!(Shown::of("accept\ndrop\n"), Shown::of("drop\naccept\n"));
    }
}
