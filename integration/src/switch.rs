//! A switch at the end of the node's trunk: a bridge that filters by VLAN, with hosts on access ports. Needs a kernel
//! with 8021q.

use crate::namespace::Namespace;
use crate::world::World;

/// The switch, and the node's `trunk0` plugged into it.
#[derive(Clone, Debug)]
pub struct Switch {
    /// Its namespace; the bridge is `switch`, the trunk's port `trunk`.
    pub namespace: Namespace,
}

impl Switch {
    /// Makes the switch and the trunk with these VLANs tagged.
    pub fn new(world: &World, node: &Namespace, vlans: &[u16]) -> Self {
        let namespace = world.namespace("switch", None);
        namespace.ip("link add switch type bridge vlan_filtering 1 vlan_default_pvid 0 stp_state 0");
        namespace.ip("link set switch up");
        world.link((node, "trunk0"), (&namespace, "trunk"));
        namespace.ip("link set trunk master switch");
        for vlan in vlans {
            namespace.ok(&format!("bridge vlan add dev trunk vid {vlan}"));
        }
        Self { namespace }
    }

    /// A host on an access port of the VLAN, with these addresses on its `eth0`. Its port is called as the host.
    pub fn host(&self, world: &World, name: &str, vlan: u16, addresses: &[&str]) -> Namespace {
        let host = world.namespace(name, None);
        world.link((&host, "eth0"), (&self.namespace, name));
        self.namespace.ip(&format!("link set {name} master switch"));
        self.namespace.ok(&format!("bridge vlan add dev {name} vid {vlan} pvid untagged"));
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            host.ip(&format!("addr add {address} dev eth0{nodad}"));
        }
        host
    }
}
