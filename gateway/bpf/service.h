/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Into the service namespace and out of it: only the workload's address and its handle are exchanged, so that ordinary
 * sockets there see who asks (the handle) and whom (the local address). And the answers to ARP and ND for the address
 * that the edge has on an External network, where nobody on the segment has it.
 */
#pragma once

#define SOURCE 0
#define DESTINATION 1

static __always_inline long replace_address(struct __sk_buff *skb, struct packet *p, int which, struct address *to)
{
	int udp = p->protocol == IPPROTO_UDP;
	__u32 sum = p->l4 + (udp ? 6 : 16);
	__u64 flags = BPF_F_PSEUDO_HDR | (udp ? BPF_F_MARK_MANGLED_0 : 0);
	struct address from = which == SOURCE ? p->source : p->destination, new = *to;

	if (p->family == FAMILY_IPV6) { /* size 0: the difference itself is given */
		__s64 difference = bpf_csum_diff(from.w, sizeof(from), new.w, sizeof(new), 0);
		__u32 at = ETH_HLEN + (which == SOURCE ? 8 : 24);
		if (is_ipv4(&new) || bpf_l4_csum_replace(skb, sum, 0, difference, flags))
			return -1;
		return bpf_skb_store_bytes(skb, at, new.w, sizeof(new), 0);
	}
	__u32 at = ETH_HLEN + (which == SOURCE ? 12 : 16);
	if (!is_ipv4(&new) || bpf_l4_csum_replace(skb, sum, from.w[3], new.w[3], flags | 4) ||
	    bpf_l3_csum_replace(skb, ETH_HLEN + 10, from.w[3], new.w[3], 4))
		return -1;
	return bpf_skb_store_bytes(skb, at, &new.w[3], 4, 0);
}

/* Whether a handle is that of this address at this device: both tables say so. */
static __always_inline int is_handle_of(struct address *handle, __u32 ifindex, const struct address *own)
{
	struct handle *h = bpf_map_lookup_elem(&handles, handle);
	return h && h->ifindex == ifindex && same_address(&h->address, own);
}

/* The packet type is set since `redirect_peer` does not judge the new destination MAC again. */
CHECKED_ALONE int into_service(struct __sk_buff *skb, struct packet *p)
{
	struct settings *s = node_settings();
	if (!p || !s || !s->tg0_ifindex || p->fragment)
		return TC_ACT_SHOT;
	struct address own = p->source;
	struct address *found = handle_of(p->ifindex, &own);
	if (!found)
		return TC_ACT_SHOT;
	struct address handle = *found;
	if (!is_handle_of(&handle, p->ifindex, &own) || replace_address(skb, p, SOURCE, &handle) ||
	    bpf_skb_store_bytes(skb, 0, s->tg1_mac, MAC_LENGTH, 0) || bpf_skb_change_type(skb, 0))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(s->tg0_ifindex, 0);
}

CHECKED_ALONE int out_of_service(struct __sk_buff *skb, struct packet *p, struct handle *h)
{
	__u8 macs[2 * MAC_LENGTH];
	if (!p || !h)
		return TC_ACT_SHOT;
	__u32 ifindex = h->ifindex;
	__builtin_memcpy(macs, h->mac, MAC_LENGTH);
	__builtin_memcpy(macs + MAC_LENGTH, h->gateway_mac, MAC_LENGTH);
	if (replace_address(skb, p, DESTINATION, &h->address) || bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) ||
	    bpf_skb_change_type(skb, 0))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(ifindex, 0);
}

CHECKED_ALONE int answer_arp(struct __sk_buff *skb, struct workload *w)
{
	struct arp a;
	__u8 macs[2 * MAC_LENGTH];
	if (!w || bpf_skb_load_bytes(skb, ETH_HLEN, &a, sizeof(a)))
		return TC_ACT_SHOT;
	__u8 asked[4];
	__builtin_memcpy(asked, a.target, 4);
	__builtin_memcpy(a.target, a.sender, 4);
	__builtin_memcpy(a.target_mac, a.sender_mac, MAC_LENGTH);
	__builtin_memcpy(a.sender, asked, 4);
	__builtin_memcpy(a.sender_mac, w->gateway_mac, MAC_LENGTH);
	a.operation = bpf_htons(2);
	__builtin_memcpy(macs, w->mac, MAC_LENGTH);
	__builtin_memcpy(macs + MAC_LENGTH, w->gateway_mac, MAC_LENGTH);
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) || bpf_skb_store_bytes(skb, ETH_HLEN, &a, sizeof(a), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

struct advertisement {
	struct ipv6hdr ip;
	__u8 type, code;
	__be16 sum;
	__be32 flags;
	struct address target;
	__u8 option[2], mac[MAC_LENGTH];
};

/* Solicited and overriding; to all nodes if the question was a DAD of this address (RFC 4861, 7.2.4). */
CHECKED_ALONE int answer_nd(struct __sk_buff *skb, struct packet *p, struct workload *w)
{
	if (!p || !w)
		return TC_ACT_SHOT;
	struct advertisement n = {};
	__u8 macs[2 * MAC_LENGTH];
	struct address all_nodes = { { bpf_htonl(0xff020000), 0, 0, bpf_htonl(1) } };
	int dad = is_unspecified(&p->source);
	struct address *to = dad ? &all_nodes : &p->source;

	if (bpf_skb_load_bytes(skb, p->l4 + 8, &n.target, sizeof(n.target)))
		return TC_ACT_SHOT;
	n.ip.version = 6;
	n.ip.payload_len = bpf_htons(32);
	n.ip.nexthdr = IPPROTO_ICMPV6;
	n.ip.hop_limit = 255;
	__builtin_memcpy(&n.ip.saddr, &n.target, 16);
	__builtin_memcpy(&n.ip.daddr, to, 16);
	n.type = 136;
	n.flags = bpf_htonl(dad ? 0x20000000 : 0x60000000);
	n.option[0] = 2;
	n.option[1] = 1;
	__builtin_memcpy(n.mac, w->gateway_mac, MAC_LENGTH);
	__u32 sum = bpf_csum_diff(0, 0, (__be32 *)&n.ip.saddr, 64, bpf_htonl(32 + IPPROTO_ICMPV6));
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	n.sum = ~sum;
	__builtin_memcpy(macs, w->mac, MAC_LENGTH);
	__builtin_memcpy(macs + MAC_LENGTH, w->gateway_mac, MAC_LENGTH);
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(n), 0) || bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &n, sizeof(n), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}
