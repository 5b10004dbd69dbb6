//! 64-byte packets whose source is translated, and their answers: against routing that neither looks nor translates, and
//! against the same rules with the kernel's own connection tracking.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::in_turns;
use crate::lane::Lane;
use crate::packets::{self, Sender};
use crate::report::{Measurement, Subject};

const OUT: Subject = Subject {
    title: "64-byte packets a second, masqueraded (not by plain routing)",
    key: "masqueradedPacketsPerSecond",
    unit: 1e3,
    suffix: "k/s",
};
const BACK: Subject = Subject {
    title: "64-byte answers a second to masqueraded packets",
    key: "masqueradedAnswersPerSecond",
    unit: 1e3,
    suffix: "k/s",
};

const ALONE: Subject = Subject { key: "masqueradedForwardingNs", ..packets::ALONE };

/// Both directions in all lanes that this machine has the programs for.
pub(crate) fn measure(slices: u32, slice: Duration) -> [Measurement; 3] {
    let mut lanes = vec![Lane::plain(), Lane::masquerading_nftables()];
    match ["iptables", "ipset"].into_iter().find(|program| !is_there(program)) {
        None => lanes.push(Lane::masquerading_iptables()),
        Some(missing) => eprintln!("bench: SKIPPED: iptables + ipset: there is no `{missing}`; install both packages"),
    }
    lanes.push(Lane::masquerading_tidegate());
    let names: Vec<&str> = lanes.iter().map(|lane| lane.name).collect();
    let direct = Lane::direct();
    let senders: Vec<Sender> = lanes.iter().chain([&direct]).map(Sender::out).collect();
    let out = in_turns(slices, senders.len(), |lane| senders[lane].slice(slice));
    let with_direct: Vec<&str> = names.iter().copied().chain([direct.name]).collect();
    drop(senders);
    let (plain, translated) = lanes.split_first().expect("the first lane is plain routing");
    let senders: Vec<Sender> =
        [Sender::back(plain)].into_iter().chain(translated.iter().map(Sender::back_translated)).collect();
    let back = in_turns(slices, lanes.len(), |lane| senders[lane].slice(slice));
    [
        Measurement::new(OUT, &with_direct, &out),
        Measurement::new(ALONE, &names, &packets::alone(&out)),
        Measurement::new(BACK, &names, &back),
    ]
}

fn is_there(program: &str) -> bool {
    let mut asked = Command::new(program);
    asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}
