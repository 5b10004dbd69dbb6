//! Why a packet passed or was dropped. The numbers are part of the kernel's tables and of the metrics: append only.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a verdict fell as it did. Mirrored as `REASON_*` in `gateway/bpf/reasons.h`; append only.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $name = $number,)* }

        impl Reason {
            /// All reasons, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason of a number from the kernel; `None` for one that this build does not know.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The word used in metrics, events and `-o json`: stable.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Not decided yet; never seen outside.
    Unknown = 0, "unknown";
    /// An allow rule by address.
    AllowedByCidr = 1, "allowed-by-cidr";
    /// An allow rule by name; this workload resolved the name to this address.
    AllowedByName = 2, "allowed-by-name";
    /// The namespace's default, or no policy isolates the workload.
    AllowedByDefault = 3, "allowed-by-default";
    /// A reply of a known flow, or a later packet of one.
    KnownFlow = 4, "known-flow";
    /// ARP, ND, DHCP client or MLD of the own segment.
    SegmentControl = 5, "segment-control";
    /// DNS, answered in the service namespace.
    Dns = 6, "dns";
    /// From or to the edge.
    Edge = 7, "edge";
    /// Between workloads of one network with `workloadTraffic: Open`.
    SameNetwork = 8, "same-network";
    /// The node's own probe.
    Probe = 9, "probe";
    /// An ICMP error that speaks of a known flow.
    IcmpErrorOfFlow = 10, "icmp-error-of-flow";
    /// Passes, and an audited policy would deny it.
    Audited = 11, "audited";
    /// Of a flow whose handshake was not read yet: to the inspector, or a segment without payload.
    Held = 12, "held";
    /// Truncated, bad lengths, an address that must not be on a wire.
    Malformed = 32, "malformed";
    /// IPv4 options, an EtherType or an extension header that is not spoken here.
    Unsupported = 33, "unsupported";
    /// A VLAN tag from a workload.
    Tagged = 34, "tagged";
    /// The frame came through a device that no workload is registered for.
    UnknownDevice = 35, "unknown-device";
    /// Source MAC is not the workload's.
    SpoofedMac = 36, "spoofed-mac";
    /// Source address is not the workload's (IPv4, IPv6, ARP or ND).
    SpoofedAddress = 37, "spoofed-address";
    /// Router advertisement or DHCP server message where none belongs.
    RogueServer = 38, "rogue-server";
    /// The node's own address, and no edge listener.
    NodeAddress = 39, "node-address";
    /// A deny rule.
    DeniedByCidr = 40, "denied-by-cidr";
    /// Nothing allows it, and the default denies.
    DeniedByDefault = 41, "denied-by-default";
    /// The workload has no policy yet.
    Sealed = 42, "sealed";
    /// The workload's own flow quota is used up.
    QuotaFull = 43, "quota-full";
    /// The flow table is full.
    TableFull = 44, "table-full";
    /// A fragment whose first fragment was not seen or was denied.
    FragmentUnknown = 45, "fragment-unknown";
    /// Multicast or broadcast that the segment does not need.
    Multicast = 46, "multicast";
    /// From the service namespace to a port that is not exposed.
    NotExposed = 47, "not-exposed";
    /// A flow that was open and that the present policy does not allow.
    Revoked = 48, "revoked";
    /// A helper of the kernel failed; closed.
    KernelError = 49, "kernel-error";
    /// An ICMP error that belongs to no known flow.
    IcmpErrorUnknown = 50, "icmp-error-unknown";
    /// A name that this policy allows was resolved to this address once, and its time is over.
    NameExpired = 51, "name-expired";
    /// A frame to a workload that has neither its MAC nor its address: flooded or misrouted.
    Misdirected = 52, "misdirected";
    /// A port that is exposed is opened by the edge, and by nobody beside it.
    EdgeOnly = 53, "edge-only";
    /// Source NAT has no port left for this network towards this far end.
    NatExhausted = 54, "nat-exhausted";
    /// The network has as many NAT mappings as one may have.
    NatQuota = 55, "nat-quota";
    /// The uplink has no address of this family that a source could be translated to.
    NatNoAddress = 56, "nat-no-address";
    /// A deny rule by name: the handshake names it, or the workload went by that name.
    DeniedByName = 57, "denied-by-name";
    /// The handshake names a host that no rule allows here, or that this workload did not resolve to this address.
    SniMismatch = 58, "sni-mismatch";
    /// The handshake names no host, and only rules that ask for one allow the flow.
    NoSni = 59, "no-sni";
    /// Neither TLS nor QUIC, and only rules that ask for either allow the flow.
    NotTls = 60, "not-tls";
    /// The handshake could not be read to its end, and only rules that ask for a name in it allow the flow.
    UnreadableHello = 61, "unreadable-hello";
    /// A packet of a flow whose handshake is to be read first, and that cannot wait for it.
    NotVerified = 62, "not-verified";
    /// As much waits for its handshake to be read as may wait.
    HoldFull = 63, "hold-full";
    /// Nothing on this node reads handshakes now.
    NoInspector = 64, "no-inspector";
}

impl Reason {
    /// Whether a packet with this reason passes.
    pub const fn passes(self) -> bool {
        (self as u8) < 32 && !matches!(self, Self::Unknown)
    }
}
