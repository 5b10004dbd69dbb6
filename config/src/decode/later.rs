//! What a later release brings. It is refused by name until then: a field that was read and not obeyed would be a
//! promise nobody keeps.

/// Something that this release knows and does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Later {
    Acme,
    AddressSet,
    Adopt,
    Audit,
    ClusterEgressPolicy,
    ClusterNetworkPolicy,
    DenyNames,
    DnsThroughExternal,
    MatchExpressions,
    NetworkPolicy,
    OtherProtocol,
    OwnAddress,
    Reencrypt,
    VerifyTls,
    VerifyTlsByDefault,
    WildcardHost,
}

impl Later {
    /// What is refused.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Acme => "certificates by ACME come in a later release",
            Self::AddressSet => "AddressSet comes in a later release",
            Self::Adopt => "`adopt` comes in a later release",
            Self::Audit => "`mode: Audit` comes in a later release",
            Self::ClusterEgressPolicy => "ClusterEgressPolicy comes in a later release",
            Self::ClusterNetworkPolicy => "cluster-wide network policies come in a later release",
            Self::DenyNames => "denying by name comes in a later release",
            Self::DnsThroughExternal => "`via: Network` under `gateway: External` comes in a later release",
            Self::MatchExpressions => "`matchExpressions` comes in a later release",
            Self::NetworkPolicy => "NetworkPolicy comes in a later release",
            Self::OtherProtocol => "rules for protocols other than TCP and UDP come in a later release",
            Self::OwnAddress => "`snat` to an address of its own comes in a later release",
            Self::Reencrypt => "`mode: Reencrypt` comes in a later release",
            Self::VerifyTls => "`verify: TLS` comes in a later release",
            Self::VerifyTlsByDefault => {
                "on port 443 `verify` is TLS unless the rule says otherwise, and that comes in a later release"
            }
            Self::WildcardHost => "wildcard hosts come in a later release",
        }
    }

    /// What to write until then.
    pub(crate) const fn mend(self) -> &'static str {
        match self {
            Self::Acme => "name `certificate.certFile` and `keyFile`; they are read again when they change",
            Self::AddressSet => "list the prefixes under `cidrs` of the rules",
            Self::Adopt => "leave it out, and attach the workloads with `netctl attach`",
            Self::Audit => {
                "write `mode: Enforce` or leave it out; `netctl explain` tells beforehand what would be denied"
            }
            Self::ClusterEgressPolicy | Self::ClusterNetworkPolicy => "write an EgressPolicy in each namespace",
            Self::DenyNames => "leave the name out of `allow`; what no rule allows is denied",
            Self::DnsThroughExternal => "write `via: Node`, or `gateway: Node`",
            Self::MatchExpressions => "use `matchLabels`",
            Self::NetworkPolicy => "write an EgressPolicy, and set `ingressDefault` of the Namespace",
            Self::OtherProtocol => "use TCP or UDP, or leave `ports` out to mean every protocol",
            Self::OwnAddress => "write `snat: Masquerade` or `snat: None`",
            Self::Reencrypt => "use `Edge`, or `Passthrough` to a backend that speaks TLS",
            Self::VerifyTls | Self::VerifyTlsByDefault => {
                "write `verify: None`: an address then counts for a name when this workload resolved the name to it"
            }
            Self::WildcardHost => "name each host",
        }
    }

    /// The later release's kind, by `kind:`.
    pub(crate) fn kind(kind: &str) -> Option<Self> {
        match kind {
            "AddressSet" => Some(Self::AddressSet),
            "ClusterEgressPolicy" => Some(Self::ClusterEgressPolicy),
            "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" | "ClusterNetworkPolicy" => {
                Some(Self::ClusterNetworkPolicy)
            }
            "NetworkPolicy" => Some(Self::NetworkPolicy),
            _ => None,
        }
    }
}
