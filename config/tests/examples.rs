//! The examples are what the README shows and the demo applies: they parse, fit together, and survive a round trip.

use std::path::{Path, PathBuf};

use config::resource::{Gateway, Kind, Resource};
use config::{Resources, check, from_json, parse};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn load(file: &str) -> Vec<config::Parsed> {
    let text = std::fs::read_to_string(folder().join(file)).expect("an example");
    parse(file, &text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn set(files: &[&str]) -> Resources {
    let mut set = Resources::new();
    for parsed in files.iter().flat_map(|file| load(file)) {
        assert_eq!(set.insert_parsed(parsed), None);
    }
    set
}

fn every_manifest() -> Vec<String> {
    let in_folder = |sub: &str| -> Vec<String> {
        let entries = std::fs::read_dir(folder().join(sub)).expect("the examples");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a text"));
        names.map(|name| format!("{sub}{name}")).collect()
    };
    let mut files = in_folder("");
    files.extend(in_folder("local/"));
    files.retain(|file| file.ends_with(".yaml"));
    files.sort();
    files
}

#[test]
fn the_sets_of_the_readme_are_clean() {
    for files in [
        &[
            "tenant-a.yaml",
            "tenant-b.yaml",
            "address-sets.yaml",
            "admin.yaml",
            "egress.yaml",
            "exposed.yaml",
            "network-policy.yaml",
            "recipe.yaml",
            "docker.yaml",
        ][..],
        &["local/tenant-a.yaml", "local/tenant-b.yaml", "egress.yaml", "exposed.yaml", "recipe.yaml"],
        &["recipe.yaml"],
    ] {
        assert_eq!(check(&set(files)), [], "{files:?}");
    }
}

#[test]
fn every_example_survives_a_round_trip() {
    let files = every_manifest();
    assert_eq!(
        files,
        [
            "address-sets.yaml",
            "admin.yaml",
            "docker.yaml",
            "egress.yaml",
            "exposed.yaml",
            "local/tenant-a.yaml",
            "local/tenant-b.yaml",
            "network-policy.yaml",
            "recipe.yaml",
            "tenant-a.yaml",
            "tenant-b.yaml"
        ]
    );
    for resource in files.iter().flat_map(|file| load(file)).map(|parsed| parsed.resource) {
        let json = resource.to_json();
        assert_eq!(from_json("store", &json), Ok(resource.clone()));
        for text in [json.to_string(), serde_json::to_string_pretty(&json).unwrap()] {
            let again = parse("again.json", &text).unwrap_or_else(|problems| panic!("{problems:#?}"));
            assert_eq!(again.len(), 1);
            assert_eq!(again[0].resource, resource);
            assert_eq!(again[0].resource.to_json(), json);
        }
    }
}

#[test]
fn the_local_tenants_are_the_others_without_vlans() {
    for file in ["tenant-a.yaml", "tenant-b.yaml"] {
        let (with, without) = (load(file), load(&format!("local/{file}")));
        assert_eq!(with.len(), without.len());
        for (with, without) in with.into_iter().zip(without) {
            match (with.resource, without.resource) {
                (Resource::Network(mut with), Resource::Network(without)) => {
                    assert_eq!(with.gateway, Gateway::Node);
                    assert!(with.vlan.take().is_some_and(|vlan| vlan.parent.as_str() == "trunk0"));
                    assert_eq!(with, without);
                }
                (with, without) => assert_eq!(with, without),
            }
        }
    }
}

#[test]
fn every_kind_has_an_example() {
    let set = set(&[
        "tenant-a.yaml",
        "tenant-b.yaml",
        "address-sets.yaml",
        "admin.yaml",
        "egress.yaml",
        "exposed.yaml",
        "network-policy.yaml",
    ]);
    for kind in Kind::ALL {
        assert!(set.of_kind(kind).count() >= 2, "{kind}");
    }
}
