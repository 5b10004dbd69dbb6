//! The workloads of this node, kept between changes: whom selectors and named ports resolve to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use config::names::Name;

use super::block::Block;
use crate::model::{Model, Subject};
use crate::peers::{Resident, View};

/// A [`View`] that is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Routed,
    Own(Name),
}

impl From<View<'_>> for Place {
    fn from(view: View<'_>) -> Self {
        match view {
            View::Routed => Self::Routed,
            View::Own(network) => Self::Own(network.clone()),
        }
    }
}

/// Who is behind each address of each view.
#[derive(Clone, Debug, Default)]
pub(super) struct Residents(BTreeMap<Place, BTreeMap<IpAddr, Arc<Subject>>>);

impl Residents {
    /// Those of the model.
    pub(super) fn of(model: &Model<'_>) -> Self {
        let mut residents = Self::default();
        for resident in model.residents() {
            residents.join(model, resident);
        }
        residents
    }

    /// One without a namespace is nobody's peer.
    pub(super) fn join(&mut self, model: &Model<'_>, resident: &Resident) {
        if model.namespace(&resident.subject).is_none() {
            return;
        }
        let subject = Arc::new(resident.subject.clone());
        let of_view = self.0.entry(model.view(&resident.subject).into()).or_default();
        of_view.extend(resident.addresses.iter().map(|address| (*address, Arc::clone(&subject))));
    }

    /// Takes it away wherever it is; answers where it was, with the addresses that were its own.
    pub(super) fn leave(&mut self, resident: &Resident) -> Vec<(Place, Vec<Block>)> {
        let mut left = Vec::new();
        for (place, of_view) in &mut self.0 {
            let own = |address: &&IpAddr| of_view.get(address).is_some_and(|own| **own == resident.subject);
            let own: Vec<IpAddr> = resident.addresses.iter().filter(own).copied().collect();
            for address in &own {
                of_view.remove(address);
            }
            if !own.is_empty() {
                left.push((place.clone(), own.into_iter().map(Block::of).collect()));
            }
        }
        left
    }

    /// Every address of a view with its workload.
    pub(super) fn at(&self, place: &Place) -> impl Iterator<Item = (IpAddr, &Subject)> {
        self.0.get(place).into_iter().flatten().map(|(address, subject)| (*address, &**subject))
    }
}

/// A workload's addresses as prefixes.
pub(super) fn blocks(resident: &Resident) -> Vec<Block> {
    resident.addresses.iter().map(|address| Block::of(*address)).collect()
}
