//! How many questions one workload may put in a second: all of them, and those that servers must be asked for.
//!
//! Owns one lock around one time for each workload (GCRA: the time at which its budget is whole again), at most
//! [`REMEMBERED`] of them. What tunnels through DNS are made of costs more: each of their questions is a new one, with long
//! labels or of a type that carries much.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;

use super::question::Question;

/// Seconds' worth of questions that may come at once.
const BURST: u32 = 4;
/// Workloads remembered. When there are more, those whose budget is whole are forgotten: nothing is lost with them.
const REMEMBERED: usize = 16_384;
/// What a question costs that looks like a tunnel's.
const DEAR: u32 = 10;
/// Longest label, and longest name, of people's names, in bytes. Content networks and mail's keys stay below.
const LONG_LABEL: usize = 45;
const LONG_NAME: usize = 120;

/// A budget of questions a second for each workload.
#[derive(Debug)]
pub(super) struct Rate {
    /// Between two questions.
    every: Duration,
    whole: Mutex<HashMap<u32, Instant>>,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), whole: Mutex::default() }
    }

    /// Whether the workload's budget has room for so many.
    pub(super) fn take(&self, account: u32, cost: u32, now: Instant) -> bool {
        // A panic elsewhere cannot leave a time half-written.
        let mut all = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED && !all.contains_key(&account) {
            all.retain(|_, whole| *whole > now);
            if all.len() >= REMEMBERED {
                return false;
            }
        }
        let whole = all.entry(account).or_insert(now);
        let after = (*whole).max(now) + self.every * cost;
        let fits = after <= now + Duration::from_secs(BURST.into());
        if fits {
            *whole = after;
        }
        fits
    }
}

/// What a question costs of the second budget.
pub(super) fn cost(question: &Question) -> u32 {
    let name = question.query.name();
    let long = name.len() > LONG_NAME || name.iter().any(|label| label.len() > LONG_LABEL);
    let roomy = matches!(question.query.query_type(), RecordType::TXT | RecordType::NULL | RecordType::Unknown(_));
    if long || roomy { DEAR } else { 1 }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Message, Query};
    use hickory_resolver::proto::rr::Name;

    use super::super::question::{Read, read};
    use super::*;

    fn asked(name: &str, kind: RecordType) -> Question {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        match read(&message.to_vec().unwrap()) {
            Read::Question(question) => question,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_burst_passes_and_then_so_many_a_second_for_each_workload() {
        let rate = Rate::new(10);
        let [a, b] = [1, 2];
        let start = Instant::now();
        let passed = |account, millis: u64, tries: u32| {
            (0..tries).filter(|_| rate.take(account, 1, start + Duration::from_millis(millis))).count()
        };
        assert_eq!(passed(a, 0, 100), 40, "four seconds' worth at once");
        assert_eq!(passed(a, 99, 10), 0);
        assert_eq!(passed(a, 1_000, 100), 10, "then ten a second");
        assert_eq!(passed(b, 1_000, 100), 40, "another workload has its own");
        assert_eq!(passed(a, 60_000, 100), 40, "and no more is saved up");
    }

    #[test]
    fn who_has_asked_little_is_forgotten_and_who_has_asked_much_is_not() {
        let rate = Rate::new(10);
        let start = Instant::now();
        let one_more = REMEMBERED as u32;
        (0..one_more).for_each(|account| assert!(rate.take(account, 1, start)));
        assert!(!rate.take(one_more, 1, start), "no room");
        let later = start + Duration::from_secs(1);
        (0..40).for_each(|_| assert!(rate.take(7, 1, later)));
        assert!(rate.take(one_more, 1, later));
        assert!(!rate.take(7, 1, later), "its debt is kept");
        assert_eq!(rate.whole.lock().unwrap().len(), 2);
    }

    #[test]
    fn what_tunnels_ask_costs_more() {
        let label = "a".repeat(46);
        for (name, kind, expected) in [
            ("api.example.com.", RecordType::A, 1),
            ("d111111abcdef8.cloudfront.example.", RecordType::HTTPS, 1),
            ("_443._tcp.api.example.com.", RecordType::TLSA, 1),
            ("api.example.com.", RecordType::TXT, DEAR),
            ("api.example.com.", RecordType::NULL, DEAR),
            ("api.example.com.", RecordType::Unknown(65_399), DEAR),
            (&format!("{label}.example.com."), RecordType::A, DEAR),
            (&format!("{0}.{0}.{0}.example.com.", &label[..40]), RecordType::A, DEAR),
        ] {
            assert_eq!(cost(&asked(name, kind)), expected, "{name} {kind}");
        }
    }
}
