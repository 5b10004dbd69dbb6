/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a VLAN is really there: `from_trunk`, at the tc ingress of a VLAN parent, notes what is heard of each network's
 * VLAN, and passes everything. It looks at ARP, ND and LLDP alone.
 */
#pragma once

#define LLDP_OCTETS 512

struct nd_message {
	struct ipv6hdr ip;
	__u8 type, code;
	__be16 sum;
	__u32 flags;
	struct address target;
} __attribute__((packed));

static __always_inline int is_zero_mac(const __u8 mac[MAC_LENGTH])
{
	return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

/* The address that a frame says its sender has, or means to take; unspecified if it says none. */
static __always_inline int claimed_by(struct __sk_buff *skb, struct address *claimed)
{
	if (skb->protocol == bpf_htons(ETH_P_ARP)) {
		struct arp a;
		__be32 sender, target;
		if (load_arp(skb, &a))
			return 0;
		__builtin_memcpy(&sender, a.sender, 4);
		__builtin_memcpy(&target, a.target, 4);
		from_ipv4(claimed, sender ? sender : target); /* a probe (RFC 5227) has no sender */
		return 1;
	}
	struct nd_message m;
	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, ETH_HLEN, &m, sizeof(m)) ||
	    m.ip.nexthdr != IPPROTO_ICMPV6 || m.ip.hop_limit != 255)
		return 0;
	struct address source;
	__builtin_memcpy(&source, &m.ip.saddr, sizeof(source));
	if (m.type == 136 || (m.type == 135 && is_unspecified(&source)))
		*claimed = m.target;
	else
		*claimed = source;
	return 1;
}

static __always_inline void hear(struct __sk_buff *skb)
{
	struct trunk_key key = {
		.parent = skb->ifindex,
		.protocol = skb->vlan_proto,
		.id = skb->vlan_tci & 0xfff,
	};
	struct claim_key claim = {};
	__u8 mac[MAC_LENGTH];
	__u32 *network = bpf_map_lookup_elem(&trunks, &key);
	if (!network)
		return;
	claim.network = *network;
	struct heard *h = bpf_map_lookup_elem(&heard, &claim.network);
	if (!h || !claimed_by(skb, &claim.address) || bpf_skb_load_bytes(skb, MAC_LENGTH, mac, sizeof(mac)))
		return;
	__u64 now = bpf_ktime_get_boot_ns();
	h->heard_ns = now;
	struct owner *owner = bpf_map_lookup_elem(&claims, &claim);
	if (!owner)
		return;
	if (is_zero_mac(owner->mac)) {
		h->answered_ns = now;
		__builtin_memcpy(h->router, mac, sizeof(mac));
	} else if (!same_mac(owner->mac, mac)) {
		h->claimed_ns = now;
		h->claimed = claim.address;
		__builtin_memcpy(h->claimer, mac, sizeof(mac));
	}
}

static __always_inline void hear_lldp(struct __sk_buff *skb)
{
	__u32 parent = skb->ifindex;
	__u32 length = skb->len;
	struct lldp *l = bpf_map_lookup_elem(&lldp, &parent);
	if (!l)
		return;
	if (length > LLDP_OCTETS)
		length = LLDP_OCTETS;
	if (length < ETH_HLEN || bpf_skb_load_bytes(skb, 0, l->frame, length))
		return;
	l->length = length;
	l->heard_ns = bpf_ktime_get_boot_ns();
}
