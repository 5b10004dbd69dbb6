//! How DNS servers do, for `status`.

use std::time::SystemTime;

use config::api::{Condition, ConditionState, DnsFailure, DnsServer, Timestamp};
use config::upstream::Upstream;
use tokio::time::Instant;

use super::desired::Desired;
use super::gate::Gate;
use crate::egress::dns::{Failing, Seen};

/// Those that were asked, and are still somebody's.
pub(crate) fn servers(gate: &Gate, desired: &Desired) -> Vec<DnsServer> {
    let networks = || desired.resources.networks().filter_map(|network| network.dns.as_ref());
    let is_asked = |seen: &Seen| {
        gate.upstreams.contains(&seen.upstream) || networks().any(|dns| dns.upstreams.contains(&seen.upstream))
    };
    let present = seen(gate).into_iter().filter(is_asked);
    present
        .map(|seen| DnsServer {
            address: seen.upstream.with_port(),
            device: seen.device.map(|device| device.to_string()),
            answered: seen.answered.map(time),
            failing: seen.failing.map(|failing| DnsFailure {
                since: time(failing.since),
                last: time(failing.last),
                times: failing.times,
                why: failing.why,
            }),
        })
        .collect()
}

/// `dns`, while none of the node's own servers answers.
pub(crate) fn condition(gate: &Gate) -> Option<Condition> {
    let seen = seen(gate);
    let away = |server: &Upstream| {
        let own = seen.iter().find(|seen| seen.upstream == *server && seen.device.is_none())?;
        own.failing.as_ref().filter(|failing| failing.is_away())
    };
    let away: Vec<&Failing> = gate.upstreams.iter().map(away).collect::<Option<_>>()?;
    let last_to_go = away.into_iter().max_by_key(|failing| failing.since)?;
    let (which, mend) = match gate.upstreams.len() {
        1 => ("the node's DNS server does not answer", "check `[dns] upstreams` and the route there"),
        _ => ("none of the node's DNS servers answers", "check `[dns] upstreams` and the routes there"),
    };
    Some(Condition {
        what: "dns".to_owned(),
        state: ConditionState::Degraded,
        since: time(last_to_go.since),
        text: format!("{which}: {}", last_to_go.why),
        mend: mend.to_owned(),
    })
}

fn seen(gate: &Gate) -> Vec<Seen> {
    gate.upstream_health.get().map(|health| health.seen()).unwrap_or_default()
}

fn time(at: Instant) -> Timestamp {
    SystemTime::now().checked_sub(at.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH).into()
}
