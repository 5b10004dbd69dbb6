//! Resources that the tests apply, as text.

/// Two node-local networks of both families and a namespace in each: `shop` in `tenant-a` (10.100.0.0/24,
/// fd00:100::/64) and `bank` in `tenant-b` (10.200.0.0/24, fd00:200::/64). Nothing is allowed.
pub fn two_tenants() -> String {
    network("tenant-a", 100, "")
        + &network("tenant-b", 200, "")
        + &namespace("shop", "tenant-a")
        + &namespace("bank", "tenant-b")
}

/// A network with the subnets 10.`number`.0.0/24 and fd00:`number`::/64, routed by the node; `more` are further lines of
/// its spec, indented by two.
pub fn network(name: &str, number: u16, more: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: Network\nmetadata: {{ name: {name} }}\nspec:\n  subnets:\n    \
         - {{ cidr: 10.{number}.0.0/24, gateway: 10.{number}.0.1 }}\n    \
         - {{ cidr: \"fd00:{number}::/64\", gateway: \"fd00:{number}::1\" }}\n  gateway: Node\n{more}"
    )
}

/// As [`network`], on a VLAN of `trunk0`; the id is the number.
pub fn vlan_network(name: &str, number: u16, more: &str) -> String {
    network(name, number, &format!("  vlan: {{ parent: trunk0, id: {number} }}\n{more}"))
}

/// A namespace that denies by default, both ways.
pub fn namespace(name: &str, network: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: Namespace\nmetadata: {{ name: {name} }}\n\
         spec: {{ network: {network} }}\n"
    )
}

/// A namespace that denies nothing by default, as Kubernetes has it.
pub fn open_namespace(name: &str, network: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: Namespace\nmetadata: {{ name: {name} }}\n\
         spec: {{ network: {network}, egressDefault: Allow, ingressDefault: Allow }}\n"
    )
}

/// A NetworkPolicy; `spec` is the lines of its spec, indented by two.
pub fn network_policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{ name: {name}, namespace: {namespace} }}\nspec:\n{spec}"
    )
}

/// A policy of `namespace` for all its workloads; `rules` are the lines of its spec, indented by two.
pub fn policy(namespace: &str, name: &str, rules: &str) -> String {
    policy_for(namespace, name, "{}", rules)
}

/// As [`policy`], for the workloads that the selector names.
pub fn policy_for(namespace: &str, name: &str, selector: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{ name: {name}, namespace: {namespace} }}\n\
         spec:\n  selector: {selector}\n{rules}"
    )
}

/// An allow list with one rule of these CIDRs; `ports` as in the file (`[ { protocol: TCP, port: 7 } ]`), or empty for
/// all.
pub fn allow_cidrs(cidrs: &[&str], ports: &str) -> String {
    format!("  allow:\n{}", cidr_rule(cidrs, ports))
}

/// One rule of CIDRs for a list.
pub fn cidr_rule(cidrs: &[&str], ports: &str) -> String {
    let quoted: Vec<String> = cidrs.iter().map(|cidr| format!("\"{cidr}\"")).collect();
    let ports = if ports.is_empty() { String::new() } else { format!("      ports: {ports}\n") };
    format!("    - cidrs: [{}]\n{ports}", quoted.join(", "))
}

/// One rule of names for an allow list, not verified by TLS.
pub fn name_rule(names: &[&str], ports: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let ports = if ports.is_empty() { String::new() } else { format!("      ports: {ports}\n") };
    format!("    - dnsNames: [{}]\n{ports}      verify: None\n", quoted.join(", "))
}

/// A policy of the admin tier for all workloads of the namespaces that the selector names.
pub fn cluster_policy(name: &str, namespaces: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: ClusterEgressPolicy\nmetadata: {{ name: {name} }}\n\
         spec:\n  namespaceSelector: {namespaces}\n  selector: {{}}\n{rules}"
    )
}
