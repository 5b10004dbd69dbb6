//! Networks' own egress addresses on the uplink, each alone (/32, /128), so that this node answers for them there.
//!
//! Ours have a mark ([`LinkAddress::ours`]); one without it was there before, and is neither used nor taken away.

use config::names::InterfaceName;

use super::refusal::Refusal;
use crate::segmentation::desired::Desired;
use crate::segmentation::observe::Observed;
use crate::segmentation::step::Step;
use crate::sys::netlink::LinkAddress;

/// What is to be put on the uplink and what is to be taken away, and what cannot be. While no uplink is known, those that
/// are wanted stay where they are.
pub(super) fn steps(desired: &Desired, observed: &Observed) -> (Vec<Step>, Vec<Refusal>) {
    let uplink = desired.node.uplink.and_then(|index| observed.link_at(index));
    let (mut add, mut delete, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    let wanted = || {
        let own = |network: &config::resource::Network| network.snat.own().collect::<Vec<_>>();
        desired.networks.values().flat_map(move |network| own(network).into_iter().map(move |ip| (network, ip)))
    };
    let name = |there: &LinkAddress| observed.link_at(there.index).map(|link| link.name.clone());
    for (network, address) in wanted() {
        let there = || observed.addresses.iter().filter(move |there| there.address.ip() == address);
        let others: Option<InterfaceName> = there().find(|there| !there.ours).and_then(name);
        match (others, uplink) {
            (Some(link), _) => {
                refusals.push(Refusal::EgressAddressTaken { network: network.name.clone(), address, link });
            }
            (None, Some(uplink)) if there().any(|there| there.index == uplink.index) => {}
            (None, Some(uplink)) => add.push(Step::AddOwnAddress { link: uplink.name.clone(), address }),
            (None, None) if there().next().is_some() => {}
            (None, None) => refusals.push(Refusal::NoUplink { network: network.name.clone(), address }),
        }
    }
    for there in observed.addresses.iter().filter(|there| there.ours) {
        let in_place = uplink.is_none_or(|uplink| uplink.index == there.index);
        let stays = in_place && wanted().any(|(_, address)| address == there.address.ip());
        if let (false, Some(link)) = (stays, name(there)) {
            delete.push(Step::DeleteOwnAddress { link, address: there.address.ip() });
        }
    }
    delete.extend(add);
    (delete, refusals)
}
