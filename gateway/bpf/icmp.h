/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors (RFC 792, RFC 4443) carry the head of the packet they speak of. They pass if that packet belongs to a
 * known flow of this workload and the error goes to its sender.
 */
#pragma once

/* Into `k`, as if the workload had sent the inner packet: local is its source. Answers where its transport begins. */
static __always_inline __u32 load_inner(struct __sk_buff *skb, struct packet *p, struct flow_key *k)
{
	__u32 at = p->l4 + 8;
	if (p->family == FAMILY_IPV4) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl != 5 ||
		    ip.frag_off & bpf_htons(0x1fff))
			return 0;
		k->protocol = ip.protocol;
		from_ipv4(&k->local, ip.saddr);
		from_ipv4(&k->remote, ip.daddr);
		return at + sizeof(ip);
	}
	struct ipv6hdr ip;
	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
		return 0;
	__builtin_memcpy(&k->local, &ip.saddr, sizeof(k->local));
	__builtin_memcpy(&k->remote, &ip.daddr, sizeof(k->remote));
	k->protocol = ip.nexthdr;
	at += sizeof(ip);
	if (ip.nexthdr != 44)
		return at;
	__be32 fragment;
	if (bpf_skb_load_bytes(skb, at, &fragment, sizeof(fragment)) || fragment & bpf_htonl(0xfff8))
		return 0;
	k->protocol = bpf_ntohl(fragment) >> 24;
	return at + 8;
}

/* The key of the flow that the error speaks of. 0: it can be none of this workload's. */
CHECKED_ALONE int key_of_inner(struct __sk_buff *skb, struct packet *p, struct flow_key *k)
{
	if (!p || !k)
		return 0;
	__be16 ports[4]; /* of ICMP: type and code, sum, id */
	__u32 at = load_inner(skb, p, k);
	/* what follows the packet in its frame is no part of it */
	if (!at || at + sizeof(ports) > p->l4 + p->l4_length || bpf_skb_load_bytes(skb, at, ports, sizeof(ports)))
		return 0;
	/* a router's error has the router's address, but it always goes to who sent the packet */
	if (!same_address(&k->local, &p->destination))
		return 0;
	__u8 type = ports[0] & 0xff, kind;
	if (k->protocol == IPPROTO_TCP || k->protocol == IPPROTO_UDP || k->protocol == IPPROTO_SCTP) {
		k->local_port = ports[0];
		k->remote_port = ports[1];
	} else if (k->protocol == p->protocol) {
		kind = p->family == FAMILY_IPV4 ? icmp4_kind(type) : icmp6_kind(type);
		if (kind != ICMP_ASKS && kind != ICMP_ANSWERS)
			return 0;
		k->local_port = kind == ICMP_ASKS ? echo_key(ports[2]) : 0;
		k->remote_port = kind == ICMP_ASKS ? 0 : echo_key(ports[2]);
	} else {
		k->local_port = k->remote_port = 0;
	}
	if (p->direction == TO_WORKLOAD)
		return 1;
	if (!same_address(&k->remote, &p->source))
		return 0;
	__be16 port = k->local_port;
	k->local_port = k->remote_port;
	k->remote_port = port;
	k->local = p->source;
	k->remote = p->destination;
	return 1;
}

/* ICMP_ERROR_OF_FLOW, or why the error is dropped. */
static __always_inline __u8 icmp_error(struct __sk_buff *skb, struct workload *w, struct packet *p, struct flow_key *k,
				  struct verdict *v)
{
	if (!key_of_inner(skb, p, k))
		return REASON_ICMP_ERROR_UNKNOWN;
	__u8 reason = known_flow(w, k, p, v, 0);
	if (reason == REASON_KNOWN_FLOW)
		return REASON_ICMP_ERROR_OF_FLOW;
	return reason == REASON_UNKNOWN ? REASON_ICMP_ERROR_UNKNOWN : reason;
}
