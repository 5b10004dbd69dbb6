//! Tries every line, asks for its rule, and prints expected beside seen.

use std::time::Duration;

use integration::frame::Mac;
use integration::process::{Said, output};
use integration::site::{API, NODE4};
use integration::sys::packet::Received;
use integration::traffic::{MUST_COME, Outcome, STAYS_AWAY};
use integration::wait::patience;

use crate::lines::{Attempt, End, Line, lines};
use crate::stage::{Segments, Stage, Trunk};

/// Prints the table; whether every line is as expected.
pub(crate) fn show(stage: &Stage) -> bool {
    let place = match stage.segments {
        Segments::Local => "node-local segments",
        Segments::Vlan => "VLANs 100 and 200",
    };
    println!("\ntwo tenants on {place}, kernel {}:\n", integration::kernel::release());
    row("FROM", "TO", "EXPECTED", "SEEN", "RULE");
    let mut good = true;
    for line in lines(stage) {
        let seen = attempt(stage, &line);
        let rule = line.by.map(|_| rule(stage, &line));
        let wrong_rule = line.by.is_some_and(|by| rule.as_deref() != Some(by));
        let same = seen == line.expected && !wrong_rule;
        good &= same;
        let to = if line.note.is_empty() {
            line.attempt.shown()
        } else {
            format!("{} ({})", line.attempt.shown(), line.note)
        };
        row(&line.from, &to, line.expected.shown(), seen.shown(), rule.as_deref().unwrap_or("-"));
        if !same {
            println!(
                "   ^ differs: expected {}{}",
                line.expected.shown(),
                line.by.map(|by| format!(" by {by}")).unwrap_or_default()
            );
        }
    }
    if let Some(trunk) = &stage.trunk {
        good &= vlans_stay_apart(stage, trunk);
    }
    println!("\n{}", if good { "every line is as expected" } else { "NOT every line is as expected" });
    good
}

/// Prints what `netctl` says of this world.
pub(crate) fn show_netctl(stage: &Stage) {
    for words in [
        "get networks",
        "get namespaces",
        "get workloads -A -o wide",
        "get egresspolicies -A",
        "get exposedapps -A",
        "flows -n shop",
        "explain --from shop/web-1 --to api.example.com:443",
    ] {
        println!("\n$ netctl {words}");
        let said = stage.site.netctl().run(&words.split(' ').collect::<Vec<_>>());
        let (shown, left_out) = head_and_tail(&said.stdout, 24);
        print!("{shown}{}", said.stderr);
        if left_out > 0 {
            println!("({left_out} older lines left out)");
        }
    }
}

/// The first line, which names the columns, and the last ones.
fn head_and_tail(text: &str, count: usize) -> (String, usize) {
    let lines: Vec<&str> = text.lines().collect();
    let left_out = lines.len().saturating_sub(count);
    let shown = lines.iter().enumerate().filter(|(index, _)| *index == 0 || *index > left_out);
    (shown.map(|(_, line)| format!("{line}\n")).collect(), left_out)
}

fn row(from: &str, to: &str, expected: &str, seen: &str, rule: &str) {
    println!("{from:<17} → {to:<67} {expected:<13} {seen:<13} {rule}");
}

fn attempt(stage: &Stage, line: &Line<'_>) -> End {
    let authority = stage.authority.certificate();
    let curl = |name: &str, words: &[String]| {
        let mut command = line.inside.command("curl");
        command
            .args(["-sS", "-o", "/dev/null", "--max-time", &(8 * patience()).to_string(), "--cacert"])
            .arg(&authority);
        end_of(&output(command.args(words).arg(name)))
    };
    match &line.attempt {
        Attempt::Https(name) => curl(&format!("https://{name}/"), &[]),
        Attempt::AtApi(name) => {
            curl(&format!("https://{name}/"), &["--resolve".to_owned(), format!("{name}:443:{}", API.v4())])
        }
        Attempt::Http(name) => curl(&format!("http://{name}/"), &[]),
        Attempt::Edge(name) => {
            curl(&format!("https://{name}/"), &["--resolve".to_owned(), format!("{name}:443:{NODE4}")])
        }
        Attempt::Bare(target) => {
            let bound = if line.expected == End::Reached { MUST_COME } else { STAYS_AWAY };
            match line.inside.attempt(*target, bound) {
                Outcome::Reached => End::Reached,
                Outcome::Silent => End::NoAnswer,
                Outcome::Refused | Outcome::Prohibited => End::Refused,
            }
        }
    }
}

fn end_of(said: &Said) -> End {
    const COULD_NOT_RESOLVE: i32 = 6;
    const COULD_NOT_CONNECT: i32 = 7;
    const TIMED_OUT: i32 = 28;
    const RESET_IN_HANDSHAKE: i32 = 35;
    match said.status {
        0 => End::Reached,
        COULD_NOT_RESOLVE => End::NameRefused,
        COULD_NOT_CONNECT | RESET_IN_HANDSHAKE => End::Refused,
        TIMED_OUT => End::NoAnswer,
        _ => End::Other,
    }
}

/// The rule that `netctl explain` names, or the reason where no rule speaks.
fn rule(stage: &Stage, line: &Line<'_>) -> String {
    let (to, protocol) = line.attempt.explained();
    let words = ["explain", "--from", &line.from, "--to", &to, "--proto", protocol, "-o", "json"];
    let said = stage.site.netctl().run(&words);
    let Ok(explained) = serde_json::from_str::<serde_json::Value>(&said.stdout) else {
        return format!("explain: {}", said.stderr.trim());
    };
    let text = explained["rule"].as_str().or_else(|| explained["reason"].as_str());
    text.unwrap_or("explain names neither rule nor reason").to_owned()
}

/// Whether the captures of the whole demo show each tenant's frames under its own tag only.
fn vlans_stay_apart(stage: &Stage, trunk: &Trunk) -> bool {
    let mut good = true;
    let tenants = [(100u16, &stage.pods[0..2]), (200, &stage.pods[2..4])];
    for (index, (vlan, pods)) in tenants.into_iter().enumerate() {
        let of_tenant = |seen: &Received| pods.iter().any(|pod| seen.bytes[6..12] == pod.mac.0);
        // Something to be seen: each pod asks its whole segment for an address that nobody has.
        for pod in pods {
            let nobody = std::net::Ipv4Addr::from([10, vlan.to_be_bytes()[1], 0, 99]);
            let question = integration::frame::arp(1, (pod.mac, pod.v4), (Mac::BROADCAST, nobody), pod.mac);
            pod.send_frame(integration::Pod::INTERFACE, &question);
        }
        integration::wait::happens_within(Duration::from_secs(2), || trunk.trunk.frames().iter().any(of_tenant));
        let frames: Vec<Received> = trunk.trunk.frames().into_iter().filter(of_tenant).collect();
        let strayed = frames.iter().filter(|seen| seen.vlan != Some(vlan)).count();
        let heard = trunk.heard[1 - index].frames().iter().filter(|seen| of_tenant(seen)).count();
        let apart = !frames.is_empty() && strayed == 0 && heard == 0;
        good &= apart;
        let from = format!("VLAN {vlan}");
        let seen = if apart { "never seen" } else { "SEEN" };
        let evidence = format!("{} frames on the trunk, all tagged {vlan}", frames.len());
        row(&from, "the other VLAN (frames of this tenant)", "never seen", seen, if apart { &evidence } else { "-" });
    }
    good
}
