//! Who else on the node uses ports of source NAT's range: sockets that are bound there, and other programs' rules that
//! masquerade. A port that both have towards one far end is answered to the mapping.

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};

use config::api::Check;

/// As many are named.
const NAMED: usize = 8;

/// What `doctor` says.
pub(super) fn checks(range: &RangeInclusive<u16>) -> [Check; 2] {
    let sockets: BTreeSet<String> = ["tcp", "tcp6", "udp", "udp6"]
        .into_iter()
        .flat_map(|table| sockets(table, &fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default(), range))
        .collect();
    let listed = Command::new("nft").args(["--terse", "list", "ruleset"]).stdin(Stdio::null()).output();
    let rules = listed.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    let span = format!("{}-{}", range.start(), range.end());
    [
        check(
            "sockets in the range of source NAT",
            &sockets,
            format!("none between {span}"),
            format!("bind them outside {span}, or choose another `[egress] snat_ports`"),
        ),
        check(
            "others' source NAT",
            &others_nat(&rules, range),
            "no other rules masquerade to these ports".to_owned(),
            format!("give these rules ports outside {span} (nft: `masquerade to :1024-49999`, iptables: `--to-ports`)"),
        ),
    ]
}

fn check(name: &str, found: &BTreeSet<String>, none: String, mend: String) -> Check {
    let ok = found.is_empty();
    let more = found.len().saturating_sub(NAMED);
    let mut text = found.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    Check {
        name: name.to_owned(),
        ok,
        required: false,
        found: if ok { none } else { text },
        mend: if ok { String::new() } else { mend },
    }
}

/// Of `/proc/net/TABLE` (kernel: `Documentation/networking/proc_net_tcp.rst`): `tcp 50001`, without those in TIME_WAIT.
fn sockets(table: &str, text: &str, range: &RangeInclusive<u16>) -> Vec<String> {
    const TIME_WAIT: &str = "06";
    let socket = |line: &str| {
        let mut field = line.split_whitespace();
        let (_, local, _, state) = (field.next()?, field.next()?, field.next()?, field.next()?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (range.contains(&port) && state != TIME_WAIT).then(|| format!("{} {port}", table.trim_end_matches('6')))
    };
    text.lines().skip(1).filter_map(socket).collect()
}

/// Chains of `nft list ruleset` whose rules give a source to what leaves, with ports that may be of the range.
fn others_nat(text: &str, range: &RangeInclusive<u16>) -> BTreeSet<String> {
    let (mut table, mut chain, mut found) = ("", "", BTreeSet::new());
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches(" {");
        } else if table != "inet tidegate" && gives_source(line) && !is_beside(line, range) {
            found.insert(format!("{table} {chain}"));
        }
    }
    found
}

/// iptables-nft shows what nft cannot say as `xt target "MASQUERADE"`.
fn gives_source(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.any(|word| matches!(word, "masquerade" | "snat" | "\"MASQUERADE\"" | "\"SNAT\""))
}

/// Whether its ports are said, and none is of the range.
fn is_beside(line: &str, range: &RangeInclusive<u16>) -> bool {
    let ports = line.split(" to ").nth(1).and_then(|to| to.split_whitespace().next()?.rsplit_once(':').map(|it| it.1));
    let Some(ports) = ports else { return false };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => last < *range.start() || first > *range.end(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: RangeInclusive<u16> = 50_000..=59_999;

    #[test]
    fn sockets_of_the_range_are_named() {
        let text = "  sl  local_address rem_address   st tx_queue\n\
            0: 00000000:C351 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:0016 00000000:0000 0A 00000000:00000000\n\
            2: 0100007F:C352 0100007F:0016 06 00000000:00000000\n";
        assert_eq!(sockets("tcp", text, &RANGE), ["tcp 50001"]);
        let six = "sl\n 0: 00000000000000000000000000000000:EA5F 00000000000000000000000000000000:0000 07\n";
        assert_eq!(sockets("udp6", six, &RANGE), ["udp 59999"]);
    }

    #[test]
    fn rules_that_masquerade_into_the_range_are_named() {
        let text = "table ip nat {\n\tchain POSTROUTING {\n\t\toifname != \"docker0\" counter masquerade\n\t}\n}\n\
            table ip safe {\n\tchain out {\n\t\tip protocol tcp masquerade to :1024-49999\n\t}\n}\n\
            table ip old {\n\tchain out {\n\t\txt target \"MASQUERADE\"\n\t}\n}\n\
            table ip one {\n\tchain out {\n\t\tsnat to 192.0.2.1:50000-51000\n\t}\n}\n\
            table inet tidegate {\n\tchain postrouting {\n\t\tmasquerade\n\t}\n}\n";
        let found: Vec<String> = others_nat(text, &RANGE).into_iter().collect();
        assert_eq!(found, ["ip nat POSTROUTING", "ip old out", "ip one out"]);
    }
}
