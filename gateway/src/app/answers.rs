//! Answers that the kernel gives again: under which rules, and what of a name it must still have learned.
//!
//! An answer depends on nearly everything that is in force: policies, a network's servers, who a tenant is, which addresses
//! are the node's. So there is one number for all of it. Each change begins by taking it away ([`Enforcement::hold_answers`]):
//! the kernel answers nothing, and nothing is kept. It ends with another number ([`Enforcement::give_answers`]), so that
//! nothing is found that was kept before. A change that fails half way leaves all answers to the daemon, until one is whole.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use config::names::DnsName;
use policy::ledger::GRACE;

use super::enforcement::{Enforcement, State};
use crate::egress::tables::TableError;
use crate::egress::tables::answers::{ADDRESSES, Kept, Opened};

/// What is learned lasts for so much longer than the TTL says, less what the ledger does not write, and a second for the way.
const LONGER: Duration = Duration::from_secs(GRACE as u64 - 2);

impl Enforcement {
    /// What decides about answers is about to change.
    pub(super) fn hold_answers(&self) -> Result<(), TableError> {
        self.answer_rules.store(0, Ordering::Release);
        self.tables.set_answer_rules(None)
    }

    /// It has changed, and is in force. In the middle of another change nothing happens: that ends with this, too.
    pub(super) fn give_answers(&self, state: &State) -> Result<(), TableError> {
        if state.unknown_past || state.node_unknown {
            return Ok(());
        }
        let next = self.tables.next_answer_rules()?;
        self.tables.set_answer_rules(Some(next))?;
        self.answer_rules.store(next.get(), Ordering::Release);
        Ok(())
    }

    /// The number of what is in force.
    pub(super) fn rules(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.answer_rules.load(Ordering::Acquire))
    }

    /// Keeps an answer for its asker, if that was told it under the present rules. One whose addresses are too many for the
    /// kernel to look after is not kept.
    pub(super) fn keep_answer(
        &self,
        asker: IpAddr,
        rules: NonZeroU64,
        name: &DnsName,
        addresses: &[(IpAddr, u32)],
        kept: &Kept,
    ) -> Result<(), TableError> {
        let state = &mut *self.state();
        let State { compiled, askers, .. } = state;
        let Some(asker) = askers.get(&asker).filter(|_| self.rules() == Some(rules)) else { return Ok(()) };
        let policy = asker.policy.egress;
        let class = if addresses.is_empty() { None } else { compiled.name_class(policy, name) };
        let opened = match class {
            // No rule speaks of the name: its addresses are as open or closed as ever.
            None => None,
            Some(class) => {
                if !class.new_rules.is_empty() {
                    compiled.name_rules_lost(policy, class.class);
                    return Ok(());
                }
                let mut addresses: Vec<IpAddr> = addresses.iter().map(|(address, _)| *address).collect();
                addresses.sort_unstable();
                addresses.dedup();
                if addresses.len() > ADDRESSES {
                    return Ok(());
                }
                Some(Opened { class: class.class, addresses, until: kept.expires + LONGER })
            }
        };
        self.tables.keep_answer(asker.workload, rules, kept, opened.as_ref())
    }
}
