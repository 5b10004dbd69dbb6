//! ECH: who must show the names of its handshakes is not told how to hide them, and everybody else is.

use integration::manifests::{name_rule, namespace, open_namespace, policy, two_tenants};
use integration::site::{DNS, HIDDEN, SHOWN};
use integration::sys::process::Signal;
use integration::{Pod, Site};

const TCP_HTTPS: &str = "[ { protocol: TCP, port: 443 } ]";

/// What a workload is told, in the form of types that nobody knows.
fn told(pod: &Pod, words: &str) -> String {
    let said = pod.ok(&format!(
        "dig @{} {words} hidden.example.com +unknownformat +noall +answer +comments +time=3 +tries=1",
        DNS.v4()
    ));
    assert!(said.contains("status: NOERROR"), "{said}");
    let record = said.lines().find(|line| line.contains("TYPE65")).unwrap_or_default().to_owned();
    let data = record.split_once("\\# ").and_then(|(_, data)| data.split_once(' '));
    data.map(|(_, data)| data.replace(' ', "")).unwrap_or_default()
}

fn written(record: &str) -> String {
    record.replace(' ', "")
}

#[test]
fn one_kept_answer_loses_ech_for_whom_the_name_is_verified() {
    let site = Site::start();
    let verified = format!("  allow:\n    - dnsNames: [hidden.example.com]\n      ports: {TCP_HTTPS}\n");
    let unverified = format!("  allow:\n{}", name_rule(&["hidden.example.com"], TCP_HTTPS));
    site.netctl().apply(
        &(two_tenants()
            + &namespace("mail", "tenant-b")
            + &open_namespace("free", "tenant-b")
            + &open_namespace("wary", "tenant-b")
            + &policy("shop", "shop-egress", &verified)
            + &policy("bank", "bank-egress", &unverified)
            + &policy("mail", "mail-egress", &(unverified.clone() + "  deny:\n    - dnsNames: [ads.example.com]\n"))
            + &policy("wary", "wary-egress", "  deny:\n    - dnsNames: [ads.example.com]\n")),
    );
    let [web, vault, post, free, wary] =
        [("shop", "web-1"), ("bank", "vault-1"), ("mail", "post-1"), ("free", "free-1"), ("wary", "wary-1")]
            .map(|(namespace, name)| site.attach(namespace, name, &[]));
    let all = [(&vault, HIDDEN), (&web, SHOWN), (&post, SHOWN), (&free, HIDDEN), (&wary, SHOWN), (&vault, HIDDEN)];
    let right = || {
        for words in ["TYPE65", "+tcp TYPE65", "+noedns TYPE65"] {
            for (pod, record) in all {
                assert_eq!(told(pod, words), written(record), "{words} of {}", pod.full_name());
            }
        }
    };
    right();
    site.internet.unbound.process().signal(Signal::Stop);
    right();
    site.netctl().apply(&policy("bank", "bank-egress", &verified));
    assert_eq!(told(&vault, "TYPE65"), written(SHOWN), "by the policy that is in force now");
    site.netctl().apply(&policy("bank", "bank-egress", &unverified));
    assert_eq!(told(&vault, "TYPE65"), written(HIDDEN), "what is kept is as it came");
    site.internet.unbound.process().signal(Signal::Continue);
}
