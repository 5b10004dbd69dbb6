/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who a workload may say it is, and the segment's own control traffic: ARP (RFC 826), ND (RFC 4861), MLD (RFC 3810),
 * DHCP clients. Control passes no policy, so what could carry it off the link is refused: a unicast ND message
 * must stay on the link by an address of it, a DHCP client must broadcast.
 */
#pragma once

#define ND_OPTIONS 8

/* 169.254.77.1 and fe80::77: where a workload of an External network sees the edge. Nobody on the segment has them. */
static __always_inline int is_edge_address(const struct address *a)
{
	if (is_ipv4(a))
		return a->w[3] == bpf_htonl(0xa9fe4d01);
	return a->w[0] == bpf_htonl(0xfe800000) && !(a->w[1] | a->w[2]) && a->w[3] == bpf_htonl(0x77);
}

/* The handle of an address of the workload at this device; none if the address is not its own. */
static __always_inline struct address *handle_of(__u32 ifindex, const struct address *a)
{
	struct port_address key = { .ifindex = ifindex, .address = *a };
	return bpf_map_lookup_elem(&addresses, &key);
}

static __always_inline int is_on_link(__u32 network, const struct address *a)
{
	struct subnet_key key = { .prefix_length = 160, .network = network, .address = *a };
	return bpf_map_lookup_elem(&subnets, &key) != 0;
}

static __always_inline int is_udp(const struct packet *p, __u16 source, __u16 destination)
{
	return p->protocol == IPPROTO_UDP && p->fragment != FRAGMENT_LATER && p->source_port == bpf_htons(source) &&
	       p->destination_port == bpf_htons(destination);
}

static __always_inline int is_dhcp_client(const struct packet *p)
{
	if (p->family == FAMILY_IPV4)
		return is_udp(p, 68, 67) && p->destination.w[3] == 0xffffffff;
	return is_udp(p, 546, 547) && is_link_multicast6(&p->destination) && is_link_local6(&p->source);
}

/* What a server sends to a client's port; nothing else of a server is for a workload. */
static __always_inline int is_for_dhcp_client(const struct packet *p)
{
	return p->family == FAMILY_IPV4 ? is_udp(p, 67, 68) : is_udp(p, 547, 546);
}

/* What a server sends, or who claims to be one. */
static __always_inline int is_dhcp_server(const struct packet *p)
{
	if (p->protocol != IPPROTO_UDP || p->fragment == FRAGMENT_LATER)
		return 0;
	if (p->family == FAMILY_IPV4)
		return p->source_port == bpf_htons(67) || p->destination_port == bpf_htons(68);
	return p->source_port == bpf_htons(547) || p->destination_port == bpf_htons(546);
}

/* ::, as DAD, router solicitations and MLD have it; 0.0.0.0 of a DHCP client. */
static __always_inline int may_be_unspecified(const struct packet *p)
{
	if (p->family == FAMILY_IPV4)
		return is_dhcp_client(p);
	return p->icmp_kind == ICMP_MLD || (p->icmp_kind == ICMP_ND && (p->icmp_type == 133 || p->icmp_type == 135));
}

struct arp {
	__be16 hardware, protocol;
	__u8 hardware_length, protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
} __attribute__((packed));

static __always_inline __u8 load_arp(struct __sk_buff *skb, struct arp *a)
{
	if (bpf_skb_load_bytes(skb, ETH_HLEN, a, sizeof(*a)) || a->hardware != bpf_htons(1) ||
	    a->protocol != bpf_htons(ETH_P_IP) || a->hardware_length != 6 || a->protocol_length != 4)
		return REASON_MALFORMED;
	return a->operation == bpf_htons(1) || a->operation == bpf_htons(2) ? 0 : REASON_UNSUPPORTED;
}

CHECKED_ALONE __u8 arp_from_workload(struct __sk_buff *skb, struct packet *p, struct workload *w)
{
	struct arp a;
	if (!p || !w)
		return REASON_KERNEL_ERROR;
	__u8 bad = load_arp(skb, &a);
	if (bad)
		return bad;
	__be32 sender, target;
	__builtin_memcpy(&sender, a.sender, 4);
	__builtin_memcpy(&target, a.target, 4);
	from_ipv4(&p->source, sender);
	from_ipv4(&p->destination, target);
	if (!same_mac(a.sender_mac, w->mac))
		return REASON_SPOOFED_MAC;
	int asks = a.operation == bpf_htons(1);
	if (sender ? !handle_of(p->ifindex, &p->source) : !asks)
		return REASON_SPOOFED_ADDRESS;
	p->answer = asks && w->flags & WORKLOAD_EXTERNAL && is_edge_address(&p->destination);
	return REASON_SEGMENT_CONTROL;
}

/* Every option has a length; a link-layer address in one is `own`, if that is given. */
static __always_inline __u8 check_nd_options(struct __sk_buff *skb, __u32 at, __u32 left, const __u8 *own)
{
#pragma unroll /* the verifier of 6.1 loses a counter that is spilled */
	for (int i = 0; i < ND_OPTIONS; i++) {
		__u8 o[8];
		if (!left)
			return 0;
		if (left < sizeof(o) || bpf_skb_load_bytes(skb, at, o, sizeof(o)))
			return REASON_MALFORMED;
		__u32 size = o[1] * 8u;
		if (!size || size > left)
			return REASON_MALFORMED;
		if (o[0] == 1 || o[0] == 2) { /* source, target link-layer address */
			if (size != 8)
				return REASON_MALFORMED;
			if (own && !same_mac(o + 2, own))
				return REASON_SPOOFED_MAC;
		}
		at += size;
		left -= size;
	}
	return left ? REASON_MALFORMED : 0;
}

#define ND_HAS_TARGET(type) ((type) == 135 || (type) == 136)

static __always_inline __u8 check_nd_shape(struct packet *p)
{
	if (p->hop_limit != 255 || p->icmp_code || (ND_HAS_TARGET(p->icmp_type) && p->l4_length < 24))
		return REASON_MALFORMED;
	return 0;
}

CHECKED_ALONE __u8 nd_from_workload(struct __sk_buff *skb, struct packet *p, struct workload *w)
{
	if (!p || !w)
		return REASON_KERNEL_ERROR;
	__u8 bad = check_nd_shape(p);
	if (bad)
		return bad;
	if (p->icmp_type == 134)
		return REASON_ROGUE_SERVER;
	if (is_unspecified(&p->source) && !is_link_multicast6(&p->destination))
		return REASON_MALFORMED;
	if (!is_link_multicast6(&p->destination) && !is_link_local6(&p->destination) && !is_link_local6(&p->source) &&
	    !is_on_link(w->network, &p->destination))
		return REASON_UNSUPPORTED; /* a router would forward it */
	__u32 options = 8;
	if (ND_HAS_TARGET(p->icmp_type)) {
		struct address target;
		__u8 flags;
		options = 24;
		if (bpf_skb_load_bytes(skb, p->l4 + 8, &target, sizeof(target)) ||
		    bpf_skb_load_bytes(skb, p->l4 + 4, &flags, 1))
			return REASON_MALFORMED;
		if (p->icmp_type == 136 && flags & 0x80) /* "I am a router" */
			return REASON_ROGUE_SERVER;
		p->answer = p->icmp_type == 135 && w->flags & WORKLOAD_EXTERNAL && is_edge_address(&target);
		int own_only = p->icmp_type == 136 || is_unspecified(&p->source); /* advertisement; DAD */
		if (own_only && !p->answer && !handle_of(p->ifindex, &target))
			return REASON_SPOOFED_ADDRESS;
	}
	bad = check_nd_options(skb, p->l4 + options, p->l4_length - options, w->mac);
	return bad ? bad : REASON_SEGMENT_CONTROL;
}

static __always_inline __u8 mld_from_workload(struct packet *p)
{
	if (p->icmp_type == 130)
		return REASON_ROGUE_SERVER;
	if (p->hop_limit != 1 || !is_link_multicast6(&p->destination) ||
	    !(is_link_local6(&p->source) || is_unspecified(&p->source)))
		return REASON_MALFORMED;
	return REASON_SEGMENT_CONTROL;
}

CHECKED_ALONE __u8 arp_to_workload(struct __sk_buff *skb, struct packet *p)
{
	struct arp a;
	if (!p)
		return REASON_KERNEL_ERROR;
	__u8 bad = load_arp(skb, &a);
	if (bad)
		return bad;
	__be32 sender, target;
	__builtin_memcpy(&sender, a.sender, 4);
	__builtin_memcpy(&target, a.target, 4);
	from_ipv4(&p->source, sender);
	from_ipv4(&p->destination, target);
	/* someone else's claim to an address of this workload would only break it */
	if (handle_of(p->ifindex, &p->source))
		return REASON_SPOOFED_ADDRESS;
	return REASON_SEGMENT_CONTROL;
}

/* As with ARP: someone else's claim to an address of this workload would only break it. */
static __always_inline int claims_own(struct __sk_buff *skb, struct packet *p)
{
	struct address target;
	if (handle_of(p->ifindex, &p->source))
		return 1;
	if (p->icmp_type != 136 && !is_unspecified(&p->source)) /* neither an advertisement nor DAD */
		return 0;
	return !bpf_skb_load_bytes(skb, p->l4 + 8, &target, sizeof(target)) && handle_of(p->ifindex, &target);
}

CHECKED_ALONE __u8 nd_to_workload(struct __sk_buff *skb, struct packet *p, int from_router_side)
{
	if (!p)
		return REASON_KERNEL_ERROR;
	__u8 bad = check_nd_shape(p);
	if (bad)
		return bad;
	if (p->icmp_type == 134 && !(from_router_side && is_link_local6(&p->source)))
		return REASON_ROGUE_SERVER;
	if (p->icmp_type == 133)
		return REASON_MULTICAST; /* a workload is no router */
	if (claims_own(skb, p))
		return REASON_SPOOFED_ADDRESS;
	__u32 options = p->icmp_type == 134 ? 16 : 24;
	if (p->l4_length < options)
		return REASON_MALFORMED;
	bad = check_nd_options(skb, p->l4 + options, p->l4_length - options, 0);
	return bad ? bad : REASON_SEGMENT_CONTROL;
}
