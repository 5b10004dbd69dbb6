//! What a later release brings. It is refused by name until then: a field that was read and not obeyed would be a
//! promise nobody keeps.

macro_rules! later {
    ($($(#[$doc:meta])* $name:ident: $what:literal, $mend:literal;)*) => {
        /// Something that this release knows and does not do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Later { $($(#[$doc])* $name,)* }

        impl Later {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)*];

            /// What is refused.
            pub(crate) const fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }

            /// What to write until then.
            pub(crate) const fn mend(self) -> &'static str {
                match self { $(Self::$name => $mend,)* }
            }
        }
    };
}

later! {
    /// `tls.acme`, `certificate.acme`
    Acme:
        "certificates by ACME come in a later release",
        "name `certificate.certFile` and `keyFile`; they are read again when they change";
    /// Kubernetes' cluster-wide policies
    ClusterNetworkPolicy:
        "cluster-wide network policies of Kubernetes come in a later release",
        "write a ClusterEgressPolicy";
    /// `dns.via: Network` where a router of the VLAN routes
    DnsThroughExternal:
        "`via: Network` under `gateway: External` comes in a later release",
        "write `via: Node`, or `gateway: Node`";
    /// `protocol: GRE` and so on
    OtherProtocol:
        "rules for protocols other than TCP, UDP, SCTP, ICMP and ICMPv6 come in a later release",
        "use one of these, or leave `ports` out to mean every protocol";
    /// `mode: Reencrypt`
    Reencrypt:
        "`mode: Reencrypt` comes in a later release",
        "use `Edge`, or `Passthrough` to a backend that speaks TLS";
    /// `*.example.com` as an exposed host
    WildcardHost:
        "wildcard hosts come in a later release",
        "name each host";
}

impl Later {
    /// The later release's kind, by `kind:`.
    pub(crate) fn kind(kind: &str) -> Option<Self> {
        match kind {
            "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" | "ClusterNetworkPolicy" => {
                Some(Self::ClusterNetworkPolicy)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The golden file shows how each is refused; this holds that it shows all of them.
    #[test]
    fn everything_that_waits_is_refused_in_the_golden_file() {
        let golden = include_str!("../../tests/golden/later.problems");
        for later in Later::ALL {
            let told = format!(": {}; {}", later.what(), later.mend());
            assert!(golden.lines().any(|line| line.ends_with(&told)), "{later:?} has no example");
        }
    }
}
