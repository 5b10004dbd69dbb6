//! What upstream Kubernetes says of selectors and of NetworkPolicies, as far as it can be read.

use config::resource::{Labels, Resource, selects};
use integration::conformance::Cases;
use serde_json::{Value, json};

fn policy_selecting(selector: &Value) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "EgressPolicy",
        "metadata": { "name": "p", "namespace": "shop" },
        "spec": { "selector": selector },
    })
}

#[test]
fn network_policies_are_accepted_as_by_the_api_server() {
    let Some(cases) = Cases::find("network_policies_are_accepted_as_by_the_api_server") else { return };
    let (mut accepted, mut refused) = (0, 0);
    for case in cases.read("validation.json").as_array().expect("cases") {
        let (name, text) = (&case["name"], case["policy"].as_str().expect("a text"));
        match (config::parse("case.yaml", text), case["accept"] == true) {
            (Ok(parsed), true) => {
                accepted += 1;
                let json = parsed[0].resource.to_json();
                if let Some(types) = case.get("policy_types") {
                    assert_eq!(json["spec"]["policyTypes"], *types, "{name}");
                }
                assert_eq!(config::from_json("again", &json).as_ref(), Ok(&parsed[0].resource), "{name}");
            }
            (Err(_), false) => refused += 1,
            (read, wanted) => panic!("{name}: accept is {wanted}, and this is {read:#?}"),
        }
    }
    assert_eq!(accepted + refused, 57);
    println!("{accepted} accepted, {refused} refused");
}

#[test]
fn selectors_select_what_kubernetes_selects() {
    let Some(cases) = Cases::find("selectors_select_what_kubernetes_selects") else { return };
    let file = cases.read("selectors.json");
    let labels: Vec<Labels> = serde_json::from_value(file["labels"].clone()).expect("label sets");
    let mut answers = 0;
    for row in file["rows"].as_array().expect("rows") {
        let policy = config::from_json("row", &policy_selecting(&row["selector"]));
        let Ok(Resource::EgressPolicy(policy)) = policy else { panic!("{}: {policy:?}", row["selector"]) };
        let wanted = row["matches"].as_str().expect("a text");
        let found: String = labels.iter().map(|own| if selects(&policy.selector, own) { '1' } else { '0' }).collect();
        assert_eq!(found, wanted, "{}", row["selector"]);
        answers += found.len();
    }
    assert_eq!(answers, 840);
}
