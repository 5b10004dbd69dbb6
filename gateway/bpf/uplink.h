/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Translation at the uplink. What leaves is translated there, wherever it came from: by the fast path, which translates
 * ordinary packets itself before it hands them over, or from the node's stack. What comes is translated back before the
 * fast path or the stack see it. What has no mapping and is from no network that is masqueraded is the node's own, and
 * is not touched.
 *
 * A flow that was opened from outside to a workload's own address keeps it (its flow says so, or `direct` for a host
 * without one), as connection tracking would.
 */
#pragma once

/* Whether the flow of `out`, and of its workload, was opened from outside to the address that it has here. */
CHECKED_ALONE int is_direct(struct packet *p, struct flow_key *k)
{
	struct attempt *a = own_attempt();
	if (!p || !k || !a)
		return 0;
	if (k->workload) {
		struct flow_key key = *k;
		struct flow *f = bpf_map_lookup_elem(&flows, &key);
		return f && f->origin != ORIGIN_EGRESS;
	}
	struct settings *s = node_settings();
	__u64 *seen = bpf_map_lookup_elem(&direct, &a->out);
	if (!s || !seen || p->now - *seen > (a->out.protocol == IPPROTO_TCP ? s->tcp_idle_ns : s->other_idle_ns))
		return 0;
	*seen = p->now;
	return 1;
}

/* From the world to a host of a masqueraded network, at its own address: what it answers keeps it. */
CHECKED_ALONE int note_direct(struct __sk_buff *skb, struct packet *p)
{
	struct attempt *a = own_attempt();
	if (!p || !a || p->fragment == FRAGMENT_LATER || !masqueraded_network(&p->destination))
		return 0;
	__u64 now = p->now;
	a->out.source = p->destination;
	a->out.destination = p->source;
	a->out.source_port = p->destination_port;
	a->out.destination_port = p->source_port;
	a->out.protocol = p->protocol;
	if (p->icmp_kind == ICMP_ASKS && load_echo_id(skb, p, &a->out.destination_port))
		return 0;
	if (p->icmp_kind == ICMP_ASKS || p->icmp_kind == ICMP_NONE)
		bpf_map_update_elem(&direct, &a->out, &now, BPF_ANY);
	return 1;
}

/* The flow of a leaving packet as its workload has it; `workload` stays 0 for what is of none. */
CHECKED_ALONE int flow_of_source(struct packet *p, struct flow_key *k)
{
	struct workload w = {};
	if (!p || !k)
		return 0;
	struct address source = p->source;
	__u32 *device = bpf_map_lookup_elem(&routed, &source);
	if (device && !load_workload(*device, &w))
		return 0;
	key_of(k, &w, p);
	return 1;
}

/* 0, or why a packet of a masqueraded network cannot leave. */
static __always_inline __u8 leaves(struct __sk_buff *skb, struct packet *p, struct flow_key *k, __u32 network)
{
	struct attempt *a = own_attempt();
	if (!a)
		return REASON_KERNEL_ERROR;
	flow_of_source(p, k);
	if (p->fragment == FRAGMENT_LATER) {
		if (!find_nat_fragment(p, &p->wire.address))
			return REASON_FRAGMENT_UNKNOWN;
		return translate_source(skb, p) ? REASON_KERNEL_ERROR : 0;
	}
	if (p->icmp_kind == ICMP_ANSWERS) {
		tuple_of(&a->out, p);
		if (load_echo_id(skb, p, &a->out.destination_port))
			return REASON_KERNEL_ERROR;
		return is_direct(p, k) ? 0 : REASON_UNSUPPORTED;
	}
	__u8 reason = tuple_out(skb, p);
	if (reason)
		return reason;
	if (!find_mapping(p)) {
		if (is_direct(p, k))
			p->wire.address = p->source;
		else
			reason = make_mapping(p, network);
	}
	if (!reason && p->fragment && remember_nat_fragment(p, &p->wire.address))
		reason = REASON_KERNEL_ERROR;
	if (!reason && p->translated && translate_source(skb, p))
		reason = REASON_KERNEL_ERROR;
	return reason;
}

/* An ICMP error about a flow that has its own address on the wire, too. */
static __always_inline int is_error_of_direct(struct __sk_buff *skb, struct packet *p, struct flow_key *k)
{
	if (flow_of_source(p, k) && k->workload)
		return key_of_inner(skb, p, k) && is_direct(p, k);
	return read_quoted(skb, p) && is_direct(p, k);
}

/* Address and, of IPv4 without options and IPv6, the transport protocol: all that most packets are asked. */
static __always_inline int peek(struct __sk_buff *skb, int which, struct address *a, __u8 *protocol)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		a->w[0] = a->w[1] = 0;
		a->w[2] = bpf_htonl(0xffff);
		return !bpf_skb_load_bytes(skb, ETH_HLEN + (which == SOURCE ? 12 : 16), &a->w[3], 4) &&
		       !bpf_skb_load_bytes(skb, ETH_HLEN + 9, protocol, 1);
	}
	return skb->protocol == bpf_htons(ETH_P_IPV6) &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN + (which == SOURCE ? 8 : 24), a, sizeof(*a)) &&
	       !bpf_skb_load_bytes(skb, ETH_HLEN + 6, protocol, 1);
}

static __always_inline int is_main(const struct nat *n, const struct address *a)
{
	struct address main4 = n->main4, main6 = n->main6;
	return same_address(a, &main4) || same_address(a, &main6);
}

/* Whether what comes to the node's address may be a reply: the others' ports are not of the range. */
static __always_inline int may_be_reply(struct __sk_buff *skb, const struct nat *n, __u8 protocol)
{
	__u8 version;
	__be16 fragment, port;
	__u32 at = ETH_HLEN + sizeof(struct ipv6hdr);
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return 1;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &version, 1) || bpf_skb_load_bytes(skb, ETH_HLEN + 6, &fragment, 2))
			return 0;
		if (version != 0x45 || fragment & bpf_htons(0x1fff))
			return 1;
		at = ETH_HLEN + sizeof(struct iphdr);
	}
	if (bpf_skb_load_bytes(skb, at + 2, &port, sizeof(port)))
		return 0;
	return (__u16)(bpf_ntohs(port) - n->first_port) < n->ports;
}

/* 1: a reply to what was translated; its destination in `p` is the flow's own from now on. Less than 0: it failed. */
static __always_inline int came_back(struct __sk_buff *skb, struct packet *p)
{
	struct endpoint own = {};
	struct attempt *a = own_attempt();
	if (!a)
		return 0;
	if (p->fragment == FRAGMENT_LATER) {
		p->wire.address = p->destination;
		if (!find_nat_fragment(p, &own.address))
			return 0;
		p->destination = own.address;
		p->translated = 1;
		return 1;
	}
	if (p->icmp_kind == ICMP_ERROR)
		return error_came(skb, p);
	tuple_of(&a->back, p);
	if (p->icmp_kind == ICMP_ANSWERS) {
		if (load_echo_id(skb, p, &a->back.destination_port))
			return 0;
	} else if (p->icmp_kind != ICMP_NONE) {
		return 0;
	}
	if (!find_way_back(p, &own))
		return 0;
	if (p->fragment && remember_nat_fragment(p, &own.address))
		return -1;
	p->wire.address = a->back.destination;
	p->wire.port = a->back.destination_port;
	p->destination = own.address;
	p->destination_port = own.port;
	p->translated = 1;
	if (p->icmp_kind == ICMP_ANSWERS)
		p->echo_id = echo_key(own.port);
	return 1;
}
