//! What workloads resolved: expiry, slots, bounds, failures and restarts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::names::DnsName;
use policy::Ledger;
use policy::ledger::{Changes, GRACE, LINGER, LearnError, Limits, MINIMUM_TTL, RECENT};
use policy::tables::{ClassId, NameId};

use crate::kernel::Kernel;
use crate::text::dns;
use crate::world::SECOND;

const WORKLOAD: u32 = 1;

fn address(number: u32) -> IpAddr {
    IpAddr::V4((0xcb00_7100 + number).into())
}

/// The class of `a1.example` is that of its first letter; those of `x` open nothing.
fn by_letter(name: &DnsName) -> Option<ClassId> {
    let first = u32::from(name.as_str().as_bytes()[0]);
    (first != u32::from(b'x')).then_some(ClassId(first))
}

fn learn(ledger: &mut Ledger, now: u64, name: &str, number: u32, ttl: u32) -> Result<Changes, LearnError> {
    ledger.learn(now * SECOND, WORKLOAD, &dns(name), &[(address(number), ttl)], by_letter)
}

/// The names in the slots of the only write, with their expiry in seconds.
fn slots(ledger: &Ledger, changes: &Changes) -> Vec<(String, u64)> {
    assert_eq!((changes.slots.len(), changes.removed.len()), (1, 0), "{changes:?}");
    let slots = changes.slots[0].slots.iter().flatten();
    slots.map(|slot| (ledger.name(slot.name).unwrap().to_string(), slot.expires_ns / SECOND)).collect()
}

fn expected(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(name, expires)| (name.to_string(), *expires)).collect()
}

#[test]
fn expiry_is_prolonged_and_never_shortened() {
    let mut ledger = Ledger::new(Limits::default());
    let grace = u64::from(GRACE);
    let first = learn(&mut ledger, 100, "a.example", 1, 60).unwrap();
    assert_eq!(first.names, [(NameId(1), dns("a.example"))]);
    assert_eq!(slots(&ledger, &first), expected(&[("a.example", 160 + grace)]));
    assert_eq!(learn(&mut ledger, 110, "a.example", 1, 10).unwrap(), Changes::default());
    assert_eq!(learn(&mut ledger, 100, "a.example", 1, 60).unwrap(), Changes::default());
    let longer = learn(&mut ledger, 120, "a.example", 1, 60).unwrap();
    assert_eq!(slots(&ledger, &longer), expected(&[("a.example", 180 + grace)]));
    assert!(longer.names.is_empty());
    let short = learn(&mut ledger, 100, "a.example", 2, 0).unwrap();
    assert_eq!(slots(&ledger, &short), expected(&[("a.example", 100 + u64::from(MINIMUM_TTL) + grace)]));
    let long = learn(&mut ledger, 100, "a.example", 3, u32::MAX).unwrap();
    assert_eq!(slots(&ledger, &long), expected(&[("a.example", 100 + 86_400 + grace)]));
}

#[test]
fn a_slot_for_each_class_and_the_soonest_dropped() {
    let mut ledger = Ledger::new(Limits::default());
    for (name, ttl) in [("a1.example", 10), ("a2.example", 50), ("b.example", 40), ("c.example", 30), ("d.example", 20)]
    {
        learn(&mut ledger, 0, name, 1, ttl).unwrap();
    }
    let changes = learn(&mut ledger, 0, "e.example", 1, 25).unwrap();
    let wanted = [("a2.example", 80), ("b.example", 70), ("c.example", 60), ("e.example", 55)];
    assert_eq!(slots(&ledger, &changes), expected(&wanted));
    assert_eq!(ledger.counters().classes_dropped, 1);
    assert_eq!(ledger.resolved(WORKLOAD, address(1)).len(), 6);
}

#[test]
fn expired_names_linger_and_go() {
    let mut ledger = Ledger::new(Limits::default());
    learn(&mut ledger, 0, "a.example", 1, 10).unwrap();
    learn(&mut ledger, 0, "b.example", 1, 100).unwrap();
    let gone = 10 + u64::from(GRACE + LINGER);
    assert_eq!(ledger.sweep((gone - 1) * SECOND), Changes::default());
    let changes = ledger.sweep(gone * SECOND);
    assert_eq!(slots(&ledger, &changes), expected(&[("b.example", 130)]));
    let changes = ledger.sweep((gone + 90) * SECOND);
    assert_eq!(changes.removed, [(WORKLOAD, address(1))]);
    assert_eq!(ledger.fill().pairs + ledger.fill().workloads, 0);
    assert_eq!(ledger.idle_names().len(), 2);
}

#[test]
fn numbers_are_used_again_only_when_released() {
    let mut ledger = Ledger::new(Limits { names: 2, ..Limits::default() });
    learn(&mut ledger, 0, "a.example", 1, 10).unwrap();
    learn(&mut ledger, 0, "b.example", 2, 1_000).unwrap();
    assert!(matches!(learn(&mut ledger, 500, "c.example", 3, 10), Err(LearnError::Names(2))));
    assert_eq!(ledger.release([NameId(1), NameId(2)]), [], "both are held");
    ledger.sweep(500 * SECOND);
    assert_eq!(ledger.idle_names(), [NameId(1)]);
    let idle = ledger.idle_names();
    learn(&mut ledger, 500, "a.example", 1, 10).unwrap();
    assert_eq!(ledger.release(idle), [], "it was learned again meanwhile");
    ledger.forget(WORKLOAD);
    assert_eq!(ledger.release(ledger.idle_names()), [NameId(1), NameId(2)]);
    let changes = learn(&mut ledger, 500, "c.example", 3, 10).unwrap();
    assert_eq!(changes.names, [(NameId(3), dns("c.example"))], "a number rests as long as it can");
}

#[test]
fn bounds_refuse_and_take_nothing_live() {
    let mut ledger = Ledger::new(Limits { addresses_per_workload: 2, pairs_per_workload: 3, ..Limits::default() });
    learn(&mut ledger, 0, "a.example", 1, 10).unwrap();
    learn(&mut ledger, 0, "a.example", 2, 100).unwrap();
    let before = ledger.fill();
    assert_eq!(learn(&mut ledger, 1, "a.example", 3, 10), Err(LearnError::WorkloadAddresses(2)));
    let both = [(address(1), 10), (address(3), 10)];
    assert!(ledger.learn(SECOND, WORKLOAD, &dns("b.example"), &both, by_letter).is_err(), "all or nothing");
    learn(&mut ledger, 1, "b.example", 2, 10).unwrap();
    assert_eq!(learn(&mut ledger, 1, "b.example", 1, 10), Err(LearnError::WorkloadPairs(3)));
    assert_eq!(ledger.counters().refused, 3);
    assert_eq!(ledger.fill().addresses, before.addresses);
    ledger.learn(SECOND, 2, &dns("a.example"), &[(address(9), 10)], by_letter).unwrap();

    let changes = learn(&mut ledger, 60, "c.example", 3, 10).unwrap();
    assert_eq!(changes.removed, [(WORKLOAD, address(1))], "what has expired makes room");
    assert_eq!(changes.slots.len(), 1);
    let mut narrow = Ledger::new(Limits { addresses: 1, ..Limits::default() });
    learn(&mut narrow, 0, "a.example", 1, 10).unwrap();
    let other = narrow.learn(0, 2, &dns("a.example"), &[(address(1), 10)], by_letter);
    assert_eq!(other, Err(LearnError::Addresses(1)));
}

#[test]
fn names_of_one_wildcard_stay_flat() {
    let limits = Limits { names_per_address: 4, ..Limits::default() };
    let mut ledger = Ledger::new(limits);
    let mut kernel = Kernel::default();
    let mut releases = 0;
    for count in 0..160_000u64 {
        let name = format!("n{count}.example");
        let changes = match learn(&mut ledger, count / 1_000, &name, 1, 60) {
            Ok(changes) => changes,
            Err(error) => {
                assert_eq!(error, LearnError::Names(limits.names));
                releases += 1;
                ledger.release(ledger.idle_names());
                learn(&mut ledger, count / 1_000, &name, 1, 60).unwrap()
            }
        };
        kernel.write(&changes);
        if count % 1_000 == 0 {
            assert!(ledger.fill().pairs <= limits.names_per_address && ledger.fill().names <= limits.names);
        }
    }
    assert_eq!((releases, ledger.counters().names_dropped, kernel.learned().count()), (2, 0, 1));
}

#[test]
fn rotating_addresses_stay_flat() {
    let mut ledger = Ledger::new(Limits::default());
    let mut kernel = Kernel::default();
    for now in 0..20_000u64 {
        let answer: Vec<_> = (0..4).map(|index| (address((now * 4 + index) as u32 % 400), 5)).collect();
        kernel.write(&ledger.learn(now * SECOND, WORKLOAD, &dns("a.example"), &answer, by_letter).unwrap());
        if now % 10 == 0 {
            kernel.write(&ledger.sweep(now * SECOND));
        }
        assert!(ledger.fill().addresses <= 400);
    }
    assert_eq!((ledger.fill().names, ledger.fill().addresses), (1, 400));
    kernel.write(&ledger.sweep(21_000 * SECOND));
    assert_eq!((ledger.fill().addresses, kernel.learned().count()), (0, 0));
}

#[test]
fn lookups_that_open_nothing_are_kept_for_the_next_policy() {
    let mut ledger = Ledger::new(Limits::default());
    for count in 0..2 * RECENT as u32 {
        assert_eq!(learn(&mut ledger, 0, &format!("x{count}.example"), count, 60).unwrap(), Changes::default());
    }
    assert_eq!((ledger.fill().recent, ledger.fill().names), (RECENT, 0));
    let last = 2 * RECENT as u32 - 1;
    assert_eq!(ledger.resolved(WORKLOAD, address(last)).len(), 1);
    let changes = ledger.reslot(10 * SECOND, WORKLOAD, |name| (*name == dns("x511.example")).then_some(0));
    assert_eq!(slots(&ledger, &changes), expected(&[("x511.example", 90)]));
    assert_eq!(ledger.resolved(WORKLOAD, address(last)).len(), 1);
    let changes = ledger.reslot(10 * SECOND, WORKLOAD, |_| None::<u32>);
    assert_eq!((changes.slots.len(), changes.removed), (0, vec![(WORKLOAD, address(last))]));
    ledger.sweep(1_000 * SECOND);
    assert_eq!(ledger.fill().workloads, 0);
}

#[test]
fn pairs_of_classes_bridge_a_change_of_policy() {
    let mut ledger = Ledger::new(Limits::default());
    for (name, ttl) in [("a1.example", 60), ("a3.example", 70), ("a4.example", 80), ("a5.example", 85)] {
        learn(&mut ledger, 0, name, 1, ttl).unwrap();
    }
    let changes = learn(&mut ledger, 0, "a2.example", 1, 90).unwrap();
    let longest = [("a2.example", 120), ("a5.example", 115), ("a4.example", 110), ("a3.example", 100)];
    assert_eq!(slots(&ledger, &changes), expected(&longest), "as many of a class as there is room for");
    let new = |name: &DnsName| (*name == dns("a1.example")).then_some(1);
    let changes = ledger.reslot(0, WORKLOAD, |name| Some((by_letter(name), new(name))));
    let each_class_first = [("a2.example", 120), ("a1.example", 90), ("a5.example", 115), ("a4.example", 110)];
    assert_eq!(slots(&ledger, &changes), expected(&each_class_first));
    let changes = ledger.reslot(0, WORKLOAD, new);
    assert_eq!(slots(&ledger, &changes), expected(&[("a1.example", 90)]));
}

#[test]
fn a_write_that_failed_comes_again() {
    let mut ledger = Ledger::new(Limits::default());
    let changes = learn(&mut ledger, 0, "a.example", 1, 60).unwrap();
    ledger.failed(&changes);
    assert_eq!(ledger.learn(0, 2, &dns("b.example"), &[], by_letter).unwrap(), Changes::default(), "not another's");
    assert_eq!(learn(&mut ledger, 0, "a.example", 1, 60).unwrap(), changes);
    ledger.failed(&changes);
    assert_eq!(ledger.sweep(0), changes);
    let gone = ledger.forget(WORKLOAD);
    assert_eq!(gone.removed, [(WORKLOAD, address(1))]);
    ledger.failed(&gone);
    assert_eq!(ledger.sweep(0), gone);
    assert_eq!(ledger.sweep(0), Changes::default());
}

#[test]
fn a_restart_finds_what_the_kernel_holds() {
    let mut ledger = Ledger::new(Limits::default());
    let mut kernel = Kernel::default();
    let mut names = BTreeMap::new();
    for (name, number, ttl) in [("a.example", 1, 60), ("b.example", 1, 90), ("a.example", 2, 30), ("c.example", 3, 30)]
    {
        let changes = learn(&mut ledger, 0, name, number, ttl).unwrap();
        kernel.write(&changes);
        names.extend(changes.names);
    }
    let lost = names.remove(&NameId(3)).unwrap();
    names.insert(NameId(9), dns("only-a-flow.example"));
    let mut restored = Ledger::restore(Limits::default(), names, kernel.learned());
    assert_eq!(restored.resolved(WORKLOAD, address(1)), ledger.resolved(WORKLOAD, address(1)));
    assert_eq!(restored.resolved(WORKLOAD, address(2)), ledger.resolved(WORKLOAD, address(2)));
    assert_eq!(restored.idle_names(), [NameId(9)]);
    assert_eq!(restored.sweep(0).removed, [(WORKLOAD, address(3))], "{lost} has no text any more");
    assert_eq!(restored.sweep(0), Changes::default());
    let changes = restored.learn(0, 7, &lost, &[(address(3), 60)], by_letter).unwrap();
    assert_eq!(changes.names, [(NameId(10), lost)]);
    let tight = Limits { addresses_per_workload: 1, ..Limits::default() };
    let mut tight =
        Ledger::restore(tight, [(NameId(1), dns("a.example")), (NameId(2), dns("b.example"))], kernel.learned());
    assert_eq!(tight.sweep(0).removed, [(WORKLOAD, address(2)), (WORKLOAD, address(3))]);
}
