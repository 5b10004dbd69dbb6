//! Table `inet tidegate`: loading it, and knowing whether it is still as it was loaded.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::observe::Table;
use super::ruleset::{self, Ruleset};
use crate::sys::nft::{Nft, NftError};

/// What is known of table `inet tidegate`.
#[derive(Debug, Default)]
pub(super) struct TableMemory {
    /// Loaded last: the ruleset, and what `nft` shows of it.
    loaded: Option<(Ruleset, Shown)>,
    /// How it was found last, and at which change of nf_tables: while that number stands, it is so still.
    seen: Option<(u32, Table)>,
}

/// A listing, with the elements of sets apart.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    rules: String,
    elements: BTreeSet<IpAddr>,
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
            (Some(listing), Some((ruleset, shown))) if Shown::of(&listing) == *shown => Table::As(ruleset.clone()),
            (Some(_), _) => Table::Other,
        };
        self.seen = generation.map(|generation| (generation, table.clone()));
        Ok(table)
    }

    /// Fills the table anew; `None` deletes it.
    pub(super) async fn load(&mut self, nft: &Nft, ruleset: Option<&Ruleset>) -> Result<(), NftError> {
        *self = Self::default();
        nft.load(ruleset.map_or_else(|| ruleset::DELETE.to_owned(), Ruleset::text)).await?;
        if let Some(ruleset) = ruleset {
            let listing = nft.list(ruleset::FAMILY, ruleset::TABLE).await?;
            // Somebody may have been quicker than the listing: then the next look finds another table, and fills it anew.
            let shown = listing.map(|listing| Shown::of(&listing)).filter(|it| it.elements == ruleset.workloads);
            self.loaded = shown.map(|shown| (ruleset.clone(), shown));
        }
        Ok(())
    }

    /// Makes the table of one that was found to be as `was`, and differs in workloads only.
    pub(super) async fn change(&mut self, nft: &Nft, to: &Ruleset, was: &Ruleset) -> Result<(), NftError> {
        let loaded = std::mem::take(self).loaded;
        let before = nft.generation();
        nft.load(to.text_after(was)).await?;
        let after = nft.generation();
        self.loaded =
            loaded.map(|(_, shown)| (to.clone(), Shown { rules: shown.rules, elements: to.workloads.clone() }));
        // A change of somebody else beside this one would have moved the number on too: then the next look lists it.
        if let (Some(before), Some(after)) = (before, after)
            && after == before.wrapping_add(1)
        {
            self.seen = Some((after, Table::As(to.clone())));
        }
        Ok(())
    }
}

impl Shown {
    /// `elements = { …, … }`, of one line or more, is the one part of a listing that workloads change.
    fn of(listing: &str) -> Self {
        const ELEMENTS: &str = "elements = {";
        let (mut rules, mut elements) = (String::new(), BTreeSet::new());
        let mut inside = false;
        for line in listing.lines() {
            let text = line.trim_start();
            let begins = text.strip_prefix(ELEMENTS);
            if !inside && begins.is_none() {
                rules.push_str(line);
                rules.push('\n');
                continue;
            }
            let text = begins.unwrap_or(text);
            let list = text.trim_end().strip_suffix('}');
            inside = list.is_none();
            for element in list.unwrap_or(text).split(',').map(str::trim).filter(|element| !element.is_empty()) {
                match element.parse() {
                    Ok(address) => drop(elements.insert(address)),
                    // Not of ours: a listing with it is another.
                    Err(_) => rules.push_str(element),
                }
            }
        }
        Self { rules, elements }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_a_listing_are_taken_apart_from_its_rules() {
        let listing = "table inet tidegate {\n\tset workloads4 {\n\t\ttype ipv4_addr\n\t\telements = { 10.1.0.2, 10.1.0.3,\n\t\t\t     \
                       10.1.0.4 }\n\t}\n\tset workloads6 {\n\t\ttype ipv6_addr\n\t\telements = { fd00::2 }\n\t}\n}\n";
        let shown = Shown::of(listing);
        let wanted = ["10.1.0.2", "10.1.0.3", "10.1.0.4", "fd00::2"].map(|text| text.parse().unwrap());
        assert_eq!(shown.elements, BTreeSet::from(wanted));
        assert!(shown.rules.contains("type ipv6_addr") && !shown.rules.contains("elements"), "{}", shown.rules);
        assert_ne!(Shown::of(&listing.replace("10.1.0.4", "10.1.0.4 timeout 1h")), shown);
    }
}
