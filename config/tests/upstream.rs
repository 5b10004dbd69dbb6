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
