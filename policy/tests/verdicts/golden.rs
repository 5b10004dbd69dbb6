//! Compiled tables as text. `UPDATE_GOLDEN=1 cargo test -p tidegate-policy` writes them anew.

use std::path::Path;

use config::resource::{Default as Fallback, EgressPolicy};
use policy::tables::PolicyId;
use policy::{Model, Node, compile};

use crate::text::{dns, namespace, policy, subject};

/// Holds text against a file of `tests/golden`.
pub(crate) fn compare(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{file} differs; expected:\n{golden}\ngot:\n{text}");
}

fn page(egress: Fallback, policies: &[EgressPolicy], names: &[&str]) -> String {
    let shop = namespace("shop", egress, Fallback::Deny);
    let bank = namespace("bank", Fallback::Allow, Fallback::Allow);
    let node = Node::default();
    let model = Model::new([&shop, &bank], [], policies, [], &node);
    let subjects = [subject("bank", ""), subject("gone", ""), subject("shop", "app=db"), subject("shop", "app=web")];
    let mut compiled = compile(&model, &subjects.clone().into(), 3, PolicyId(10));
    let mut page = compiled.generation().to_string();
    for own in &subjects {
        let at = format!("{} {:?}", own.namespace, own.labels);
        page += &match compiled.policy(own) {
            Some(policy) => format!("{at}: egress {} ingress {}\n", policy.egress.0, policy.ingress.0),
            None => format!("{at}: sealed\n"),
        };
    }
    let web = compiled.policy(&subjects[3]).unwrap().egress;
    for name in names {
        match compiled.name_class(web, &dns(name)) {
            None => page += &format!("{name}: opens nothing\n"),
            Some(made) => {
                page += &format!("{name}: class {}\n", made.class.0);
                made.new_rules.iter().for_each(|line| page += &format!("  {line}\n"));
            }
        }
    }
    page
}

#[test]
fn addresses() {
    let rules = "deny 169.254.169.254/32
                 allow 10.0.0.0/8 !10.9.9.0/24 tcp/443 udp/8000-8010
                 allow 10.9.0.0/16 10.9.0.0/17 tcp/1-65535
                 allow 0.0.0.0/0 ::/0 udp/123
                 allow fd00:1::/64";
    compare("addresses.txt", &page(Fallback::Deny, &[policy("shop", "web", "app=web", rules)], &[]));
}

#[test]
fn a_default_of_allow() {
    let policies = [
        policy("shop", "everybody", "", "deny 10.0.0.0/8 tcp/25\ndeny 10.0.0.0/8 tcp/20-27"),
        policy("shop", "web", "app=web", "allow 10.1.0.0/16 tcp/25-26\nallow 10.1.0.0/16 tcp/28"),
        policy("gone", "unused", "", "allow 0.0.0.0/0"),
    ];
    compare("default-allow.txt", &page(Fallback::Allow, &policies, &[]));
}

#[test]
fn names() {
    let rules = "resolve *.corp.example
                 allow api.example.com *.cdn.example.com tcp/443
                 allow *.example.com tcp/80
                 allow a.cdn.example.com udp/443";
    let names = [
        "x.corp.example",
        "api.example.com",
        "b.cdn.example.com",
        "a.cdn.example.com",
        "cdn.example.com",
        "www.example.com",
        "a.www.example.com",
        "example.com",
    ];
    compare("names.txt", &page(Fallback::Deny, &[policy("shop", "web", "app=web", rules)], &names));
}

#[test]
fn verified_and_denied_names() {
    let rules = "deny ads.example.com
                 deny mail.example.com tcp/465 tcp/8443-8450
                 allow 10.0.0.0/8
                 allow *.example.com tcp/80 tcp/443 @usual
                 allow tls.example.com @tls
                 allow lax.example.com tcp/443";
    let names = ["www.example.com", "tls.example.com", "lax.example.com", "ads.example.com", "mail.example.com"];
    let policies = [policy("shop", "web", "app=web", rules), policy("bank", "p", "", "deny ads.example.com")];
    compare("verify.txt", &page(Fallback::Deny, &policies, &names));
}
