/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Past the node's stack. What a workload may send goes to the uplink at once, and what may come from there goes into the
 * workload at once, as the stack would forward it: by the same routes, the hop limit lowered, never larger than the link.
 * Whatever needs more than that is left to the stack (TC_ACT_UNSPEC): it answers with ICMP, takes another device, or
 * delivers to the node.
 *
 * A next hop is asked for at most every NEXT_HOP_LIFE_NS, and again when the daemon tells of a change; the daemon's death
 * leaves nothing stale. The packet that asks goes by the kernel's neighbour table, which so keeps looking whether the
 * next hop is still there, and finds it if it was never asked for; the others take the MAC that was found. Neither meets
 * the node's FORWARD rules. The same question is asked about who sends to a workload: only what comes from where the
 * answer would go skips the stack, so that the node's reverse path filter keeps its word on all else.
 *
 * Where a network is masqueraded, an ordinary packet's source is translated here (nat.h), once it is certain that it
 * leaves by the uplink; all else is translated by `to_uplink`, which it meets there.
 */
#pragma once

#define NEXT_HOP_BITS 10
#define NEXT_HOPS (1 << NEXT_HOP_BITS)
#define KEY_WORDS 7 /* of 8 bytes, in a cache's key */
#define NEXT_HOP_LIFE_NS 500000000ull
#define SMALLEST_MTU 1280 /* of a network; what is smaller fits everywhere */
#define ADDRESS_FAMILY_INET 2
#define ADDRESS_FAMILY_INET6 10

/* All that a route may depend on, from the workload's view, and what the answer hangs on. */
union hop_key {
	struct {
		struct address local;
		struct address remote;
		__be16 local_port;
		__be16 remote_port;
		__u8 protocol;
		__u8 service;
		__u16 zero;
		__u32 bridge;
		__u32 uplink;
		__u32 generation;
		__u32 zero_again;
	};
	__u64 words[KEY_WORDS];
};

struct next_hop {
	union hop_key key;
	__u64 found_ns;
	__u32 way; /* WAY_OUT, or why the stack must do it */
	__u32 mtu; /* the smaller of the route's and the uplink's */
	__u8 macs[2 * MAC_LENGTH];
	struct endpoint wire; /* the flow's own mapping; port 0: not known here */
};

/* A cache and no state: each program's own, each CPU's own, so that nobody reads what another is writing. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NEXT_HOPS);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

static __always_inline void take(__u32 way)
{
	__u64 *n = bpf_map_lookup_elem(&ways, &way);
	if (n)
		*n += 1;
}

static __always_inline struct uplink *node_uplink(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&uplink, &zero);
}

static __always_inline void hop_key_of(union hop_key *key, const struct packet *p, const struct workload *w,
				       const struct uplink *u)
{
	int out = p->direction == FROM_WORKLOAD;
	key->local = out ? p->source : p->destination;
	key->remote = out ? p->destination : p->source;
	key->local_port = out ? p->source_port : p->destination_port;
	key->remote_port = out ? p->destination_port : p->source_port;
	key->protocol = p->protocol;
	key->service = out ? p->service : 0;
	key->bridge = w->bridge;
	key->uplink = u->ifindex;
	key->generation = u->generation;
}

/* Where a key has its place in a cache of 2^bits. */
static __always_inline __u32 place_of(const __u64 words[KEY_WORDS], __u32 bits)
{
	__u64 hash = 0;
#pragma unroll
	for (int i = 0; i < KEY_WORDS; i++)
		hash += words[i] * (0x9e3779b97f4a7c15ull * (2 * i + 1));
	return (hash ^ hash >> 29) * 0xbf58476d1ce4e5b9ull >> (64 - bits);
}

static __always_inline int same_key(const __u64 a[KEY_WORDS], const __u64 b[KEY_WORDS])
{
	__u64 difference = 0;
#pragma unroll
	for (int i = 0; i < KEY_WORDS; i++)
		difference |= a[i] ^ b[i];
	return !difference;
}

static __always_inline struct next_hop *slot_of(const union hop_key *key, struct packet *p)
{
	__u32 index = place_of(key->words, NEXT_HOP_BITS);
	p->hop_slot = index;
	return bpf_map_lookup_elem(&next_hops, &index);
}

static __always_inline int is_found(const struct next_hop *hop, const union hop_key *key, __u64 now)
{
	return same_key(hop->key.words, key->words) && now - hop->found_ns < NEXT_HOP_LIFE_NS;
}

/* Octets from the IP header on of the largest packet that this frame is or becomes. */
static __always_inline __u32 wire_size(struct __sk_buff *skb, __u32 l4, __u32 l4_header)
{
	return (skb->gso_size ? l4 + l4_header + skb->gso_size : skb->len) - ETH_HLEN;
}

static __always_inline int fits(struct __sk_buff *skb, const struct packet *p, __u32 ifindex, __u32 mtu)
{
	__u32 device_mtu = 0;
	if (wire_size(skb, p->l4, p->l4_header) > mtu)
		return 0;
	if (!skb->gso_size || p->protocol == IPPROTO_TCP)
		return 1;
	/* how a tunnel's frame is cut only the kernel knows, and it compares with the device alone */
	return !bpf_check_mtu(skb, ifindex, &device_mtu, 0, BPF_MTU_CHK_SEGS) && device_mtu <= mtu;
}

/*
 * Asks the node's routes as for a packet of this size that came in by the bridge. Answers the way, and the next hop in
 * this CPU's `via`; what may be used again stays in `hop`.
 */
static __always_inline __u32 ask_routes(struct __sk_buff *skb, const union hop_key *key, __u64 now, __u32 size,
					struct next_hop *hop)
{
	struct attempt *a = own_attempt();
	if (!a)
		return WAY_FAILED;
	struct bpf_fib_lookup *f = &a->route;
	struct bpf_redir_neigh *via = &a->via;
	__builtin_memset(f, 0, sizeof(*f));
	__builtin_memset(via, 0, sizeof(*via));
	f->l4_protocol = key->protocol;
	f->sport = key->local_port;
	f->dport = key->remote_port;
	f->tot_len = size < 0xffff ? size : 0xffff;
	f->ifindex = key->bridge;
	if (is_ipv4(&key->local)) {
		f->family = ADDRESS_FAMILY_INET;
		f->tos = key->service;
		f->ipv4_src = key->local.w[3];
		f->ipv4_dst = key->remote.w[3];
	} else {
		f->family = ADDRESS_FAMILY_INET6;
		f->flowinfo = bpf_htonl((__u32)key->service << 20);
		__builtin_memcpy(f->ipv6_src, &key->local, sizeof(f->ipv6_src));
		__builtin_memcpy(f->ipv6_dst, &key->remote, sizeof(f->ipv6_dst));
	}
	long answer = bpf_fib_lookup(skb, f, sizeof(*f), 0);
	__u32 way = WAY_NOT_ROUTED, mtu = 0;
	if (answer == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return WAY_TOO_BIG;
	if (answer == BPF_FIB_LKUP_RET_SUCCESS || answer == BPF_FIB_LKUP_RET_NO_NEIGH)
		way = f->ifindex == key->uplink ? WAY_OUT : WAY_OTHER_DEVICE;
	if (way == WAY_OUT) {
		via->nh_family = f->family; /* IPv4 may go by a router of IPv6 */
		if (f->family == ADDRESS_FAMILY_INET)
			via->ipv4_nh = f->ipv4_dst;
		else
			__builtin_memcpy(via->ipv6_nh, f->ipv6_dst, sizeof(via->ipv6_nh));
		if (answer == BPF_FIB_LKUP_RET_NO_NEIGH)
			return WAY_RESOLVED;
		bpf_check_mtu(skb, key->uplink, &mtu, 0, 0); /* tells the device's MTU whatever it answers */
		mtu = f->mtu_result && f->mtu_result < mtu ? f->mtu_result : mtu;
	}
	hop->key = *key;
	hop->found_ns = now;
	hop->way = way;
	hop->mtu = mtu;
	hop->wire.port = 0;
	__builtin_memcpy(hop->macs, f->dmac, MAC_LENGTH);
	__builtin_memcpy(hop->macs + MAC_LENGTH, f->smac, MAC_LENGTH);
	return way;
}

/* IPv4's checksum when the time to live is one less (RFC 1624). */
static __always_inline __sum16 sum_one_hop_on(__sum16 before)
{
	__u32 sum = before + bpf_htons(0x0100);
	return sum + (sum >= 0xffff);
}

static __always_inline long lower_hop_limit(struct __sk_buff *skb, const struct packet *p)
{
	if (p->family == FAMILY_IPV6) {
		__u8 hops = p->hop_limit - 1;
		return bpf_skb_store_bytes(skb, ETH_HLEN + 7, &hops, sizeof(hops), BPF_F_RECOMPUTE_CSUM);
	}
	struct {
		__u8 hops, protocol;
		__u16 sum;
	} h = { .hops = p->hop_limit - 1, .protocol = p->protocol, .sum = sum_one_hop_on(p->header_sum) };
	return bpf_skb_store_bytes(skb, ETH_HLEN + 8, &h, sizeof(h), 0);
}

#define NO_WAY 255

/*
 * Which way an allowed packet of a workload takes, which sent it to its network's gateway; NO_WAY: it is not for this
 * path. WAY_OUT: the next hop's MACs are in `p`, and its mapping if it is known here. WAY_RESOLVED: the next hop is in
 * this CPU's `via`.
 */
CHECKED_ALONE __u32 way_out(struct __sk_buff *skb, struct packet *p, struct workload *w)
{
	if (!p || !w || !w->bridge || !same_mac(p->mac_destination, w->gateway_mac))
		return NO_WAY;
	struct uplink *u = node_uplink();
	struct nat *n = node_nat();
	if (!u || !u->ifindex || !n || (w->flags & WORKLOAD_MASQUERADED && n->ifindex != u->ifindex))
		return NO_WAY;
	if (is_link_local6(&p->source) || is_link_local6(&p->destination))
		return WAY_LINK_LOCAL;
	if (p->hop_limit <= 1)
		return WAY_LAST_HOP;
	union hop_key key = {};
	hop_key_of(&key, p, w, u);
	struct next_hop *hop = slot_of(&key, p);
	if (!hop)
		return WAY_FAILED;
	__u32 ifindex = key.uplink, mtu = 0;
	if (is_found(hop, &key, p->now)) {
		if (hop->way != WAY_OUT)
			return hop->way;
		if (!fits(skb, p, ifindex, hop->mtu))
			return WAY_TOO_BIG;
		__builtin_memcpy(p->mac_destination, hop->macs, MAC_LENGTH);
		__builtin_memcpy(p->mac_source, hop->macs + MAC_LENGTH, MAC_LENGTH);
		if (hop->wire.port && !(p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST))) {
			p->wire = hop->wire;
			p->translated = p->settled = 1;
		}
		return WAY_OUT;
	}
	__u32 way = ask_routes(skb, &key, p->now, wire_size(skb, p->l4, p->l4_header), hop);
	if (way != WAY_OUT && way != WAY_RESOLVED)
		return way;
	if (bpf_check_mtu(skb, ifindex, &mtu, 0, BPF_MTU_CHK_SEGS)) /* the route's MTU may be larger than the device's */
		return WAY_TOO_BIG;
	return WAY_RESOLVED;
}

/* Whether a packet is translated here: later by `to_uplink` where more than its own ports must be looked at. */
static __always_inline int is_translated_here(const struct packet *p, const struct workload *w, const struct verdict *v)
{
	return w->flags & WORKLOAD_MASQUERADED && !p->fragment && (!v->origin || v->origin == ORIGIN_EGRESS) &&
	       (p->icmp_kind == ICMP_NONE || p->icmp_kind == ICMP_ASKS);
}

/* The flow's mapping, which is made if there is none; 0, or why there is none. */
CHECKED_ALONE __u8 mapping_of(struct __sk_buff *skb, struct packet *p, __u32 network)
{
	if (!p)
		return REASON_KERNEL_ERROR;
	__u8 reason = tuple_out(skb, p);
	if (!reason && !find_mapping(p))
		reason = make_mapping(p, network);
	if (reason)
		return reason;
	__u32 slot = p->hop_slot;
	struct next_hop *hop = bpf_map_lookup_elem(&next_hops, &slot);
	/* a connection is looked up until it is known to be one, and its end, so that the mapping lives as long */
	if (hop && p->settled && p->icmp_kind == ICMP_NONE)
		hop->wire = p->wire;
	return 0;
}

CHECKED_ALONE int leave(struct __sk_buff *skb, struct packet *p, __u32 way)
{
	__u8 macs[2 * MAC_LENGTH];
	struct uplink *u = node_uplink();
	struct attempt *a = own_attempt();
	if (!p || !a || !u || lower_hop_limit(skb, p))
		return TC_ACT_SHOT;
	if (p->translated && translate_source(skb, p))
		return TC_ACT_SHOT;
	take(way);
	if (way == WAY_RESOLVED)
		return bpf_redirect_neigh(u->ifindex, &a->via, sizeof(a->via), 0);
	__builtin_memcpy(macs, p->mac_destination, MAC_LENGTH);
	__builtin_memcpy(macs + MAC_LENGTH, p->mac_source, MAC_LENGTH);
	return bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) ? TC_ACT_SHOT : bpf_redirect(u->ifindex, 0);
}

/* Whether the stack would forward a packet from the uplink to this workload as it is, but for its hop limit. */
CHECKED_ALONE int is_forwarded(struct __sk_buff *skb, struct packet *p, struct workload *w)
{
	if (!p || !w || !w->bridge)
		return 0;
	struct uplink *u = node_uplink();
	if (!u || u->ifindex != skb->ifindex)
		return 0;
	__u32 device = p->ifindex, mtu = 0, way = WAY_FAILED;
	union hop_key key = {};
	hop_key_of(&key, p, w, u);
	struct next_hop *hop = slot_of(&key, p);
	if (is_link_local6(&p->source) || p->icmp_kind == ICMP_ND || p->icmp_kind == ICMP_MLD) {
		way = WAY_LINK_LOCAL;
	} else if (p->hop_limit <= 1) {
		way = WAY_LAST_HOP;
	} else if (p->fragment) {
		way = WAY_FRAGMENT;
	} else if ((skb->gso_size || p->bytes > SMALLEST_MTU) && bpf_check_mtu(skb, device, &mtu, 0, BPF_MTU_CHK_SEGS)) {
		way = WAY_TOO_BIG;
	} else if (hop && is_found(hop, &key, p->now)) {
		way = hop->way;
	} else if (hop) {
		way = ask_routes(skb, &key, p->now, SMALLEST_MTU, hop);
	}
	if (way == WAY_OUT || way == WAY_RESOLVED)
		return 1;
	take(way);
	return 0;
}

CHECKED_ALONE int into_workload(struct __sk_buff *skb, struct packet *p, struct workload *w)
{
	__u8 macs[2 * MAC_LENGTH];
	if (!p || !w)
		return TC_ACT_SHOT;
	__builtin_memcpy(macs, w->mac, MAC_LENGTH);
	__builtin_memcpy(macs + MAC_LENGTH, w->gateway_mac, MAC_LENGTH);
	if (lower_hop_limit(skb, p) || (p->translated && translate_destination(skb, p)) ||
	    bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return TC_ACT_SHOT;
	take(WAY_IN);
	return bpf_redirect_peer(p->ifindex, 0);
}
