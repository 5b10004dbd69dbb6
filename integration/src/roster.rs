//! The named list of tests that the second kernel runs, in this order, in one boot.
//!
//! A line is a test program and the full name of one of its tests. Emulation is slow: a test earns its place here by
//! what is different there: 8021q and bridges that filter by VLAN, tc filters instead of tcx links.

/// Test program and test: of this crate, or with its module of the gateway's.
pub const SECOND_KERNEL: &[(&str, &str)] = &[
    ("worlds", "a_switch_keeps_vlans_apart"),
    ("segmentation", "frames_of_one_vlan_are_never_seen_on_another_after_the_daemons_death_too"),
    ("segmentation", "hopping_poisoned_learning_and_floods_of_addresses_stay_on_their_own_vlan"),
    ("segmentation", "workloads_on_vlans_reach_the_internet_by_their_policy"),
    ("segmentation", "a_vlan_network_leaves_no_sub_interface_behind"),
    ("segments", "vlan::a_vlan_is_made_kept_and_deleted"),
    ("segments", "vlan::a_vlan_that_another_program_has_is_refused"),
    ("segments", "vlan::tenants_reach_their_own_vlan_and_no_other"),
    ("segments", "vlan::parents_and_tags_of_any_sort"),
    ("segments", "vlan::a_parent_goes_down_goes_away_changes_its_name_and_comes_back"),
    ("presence", "a_vlan_is_seen_silent_or_in_conflict_and_a_switch_is_believed"),
    ("adoption", "a_port_is_closed_before_anybody_has_seen_it_where_the_kernel_can_tell_its_bridge"),
    ("adoption", "ports_of_a_bridge_without_an_engine_are_workloads_by_their_names"),
    ("egress", "only_what_is_named_is_reached_in_both_families"),
    ("names", "each_lookup_followed_at_once_by_a_connection_loses_no_syn"),
    ("names", "dns_works_where_a_router_of_the_segment_routes_and_the_bridge_has_no_address"),
    ("names", "dns_works_with_bridge_netfilter_strict_reverse_paths_and_a_foreign_firewall"),
    ("verify", "of_two_names_at_one_address_the_allowed_one_is_reached"),
    ("verify", "quic_is_judged_by_the_same_name_each_connection_of_a_socket_by_its_own"),
    ("spoofing", "a_foreign_source_address_or_mac_does_not_leave"),
    ("restart", "a_killed_daemon_cuts_no_flow_and_opens_nothing"),
    ("restart", "stale_flows_are_swept_by_the_daemon_and_without_it_by_the_kernel"),
    ("fast_path", "a_network_without_nat_needs_nothing_of_the_nodes_firewall"),
    ("nat", "a_server_sees_the_node_and_each_workload_gets_its_own_answers"),
    ("edge", "both_protocols_reach_the_workloads_in_turn_and_the_headers_tell_the_client"),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_name_of_the_list_is_a_test() {
        for (program, test) in SECOND_KERNEL {
            let own = Path::new(env!("CARGO_MANIFEST_DIR"));
            let file = match test.split_once("::") {
                None => own.join(format!("tests/{program}.rs")),
                Some((module, _)) => own.join(format!("../gateway/tests/{program}/{module}.rs")),
            };
            let text = std::fs::read_to_string(&file).unwrap();
            let name = test.rsplit("::").next().unwrap();
            assert!(text.contains(&format!("fn {name}(")), "{program} has no test {test}");
        }
    }
}
