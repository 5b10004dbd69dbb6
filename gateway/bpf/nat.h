/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Source NAT: which address and port the world sees in the place of a flow's own. A mapping belongs to one flow, far end
 * included (RFC 4787 calls that endpoint-dependent), so that one port serves many far ends, and stands in two tables:
 * `mappings` by what leaves, `ways_back` by what comes. The entry in `ways_back` is made first, and only where there is
 * none: that is what keeps two CPUs from one port. Neither table forgets by itself; a mapping ends when it was idle
 * for as long as its flow may be, when its address is no longer the node's, or by the daemon's word.
 *
 * A port is looked for at random places and then beside the last. A closed connection keeps its port, as a socket in
 * TIME_WAIT does; when nothing else is found, only for as long as late segments may come. One network never takes
 * more than about three quarters of the ports to one far end (`is_share_of`), unless the address is its own, and no more
 * mappings than its quota.
 *
 * TCP, UDP and echo get a port of the range. SCTP keeps its own, since its checksum is not ours to mend; so does what
 * has no ports, one host at a time for each far end.
 */
#pragma once

#define RANDOM_PROBES 16
#define PROBES 128
#define SETTLED_NS 1000000000ull /* after this a way back without its mapping is a remnant */

/* A packet that an ICMP error quotes, and what is to be replaced in it. */
struct quoted {
	struct endpoint from;
	struct endpoint to;
	__u32 l4;
	__u32 which;
	__u8 protocol;
	__u8 pad[3];
};

/* What a program works with on this CPU: too much for its stack. */
struct attempt {
	struct tuple out; /* the packet, or what would answer it, as it leaves before translation */
	struct tuple back; /* the same, as it comes */
	struct tuple other; /* whoever has the port */
	struct way_back way;
	struct mapping mapping;
	struct quoted quoted;
	struct prefix_key to; /* the destination, as `egress_addresses` has it */
	struct bpf_fib_lookup route; /* fast.h's */
	struct bpf_redir_neigh via;
	__u64 now;
	__u64 hold_ns;
	__u32 network;
	__u16 port; /* in the machine's order */
	__u8 found;
	__u8 full;
	__u8 own; /* nobody else has ports of this address */
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct attempt);
} attempts SEC(".maps");

static __always_inline struct nat *node_nat(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&nat, &zero);
}

static __always_inline struct attempt *own_attempt(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&attempts, &zero);
}

static __always_inline void reply_of(struct tuple *back, const struct tuple *out, const struct endpoint *wire)
{
	back->source = out->destination;
	back->destination = wire->address;
	back->source_port = out->destination_port;
	back->destination_port = wire->port;
	back->protocol = out->protocol;
}

static __always_inline int is_source(const struct tuple *t, const struct endpoint *e)
{
	return t->source_port == e->port && same_address(&t->source, &e->address);
}

static __always_inline int is_destination(const struct tuple *t, const struct endpoint *e)
{
	return t->destination_port == e->port && same_address(&t->destination, &e->address);
}

/* The number of the network that an address is translated for; 0: none. */
static __always_inline __u32 masqueraded_network(const struct address *a)
{
	struct prefix_key key = { .prefix_length = 128, .address = *a };
	__u32 *network = bpf_map_lookup_elem(&masqueraded, &key);
	return network ? *network : 0;
}

static __always_inline int is_idle(const struct mapping *m, __u8 protocol, __u64 now, __u64 hold_ns)
{
	struct settings *s = node_settings();
	if (!s || m->over)
		return 1;
	__u64 idle = s->other_idle_ns;
	if (protocol == IPPROTO_TCP && is_over(m->tcp))
		idle = hold_ns;
	else if (protocol == IPPROTO_TCP && m->tcp & SEEN_CONFIRMED)
		idle = s->tcp_idle_ns;
	return now > m->last_seen_ns && now - m->last_seen_ns > idle;
}

static __always_inline void give_back(__u32 network)
{
	struct usage *u = bpf_map_lookup_elem(&nat_usage, &network);
	if (u)
		__sync_fetch_and_sub(&u->flows, 1);
}

/* Whoever deletes the mapping, and nobody else, gives its place back to the network. */
static __noinline int remove_mapping(struct tuple *out)
{
	struct tuple back = {};
	struct mapping *m = bpf_map_lookup_elem(&mappings, out);
	if (!m)
		return 0;
	__u32 network = m->network;
	reply_of(&back, out, &m->wire);
	if (bpf_map_delete_elem(&mappings, out))
		return 0;
	struct way_back *way = bpf_map_lookup_elem(&ways_back, &back);
	if (way && is_source(out, &way->own))
		bpf_map_delete_elem(&ways_back, &back);
	give_back(network);
	return 1;
}

static __always_inline void see(struct mapping *m, const struct packet *p, int opener)
{
	m->last_seen_ns = p->now;
	if (p->protocol != IPPROTO_TCP)
		return;
	__u8 before = m->tcp;
	/* a new connection in the place of a closed one */
	if (opener && is_over(before) && (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN)
		before = 0;
	__u8 after = tcp_after(before, p->tcp_flags, opener);
	if (after != m->tcp)
		m->tcp = after;
}

/* Whether the flow of `out` has a mapping; then `wire` is set. */
CHECKED_ALONE int find_mapping(struct packet *p)
{
	struct attempt *a = own_attempt();
	struct nat *n = node_nat();
	if (!p || !a || !n)
		return 0;
	struct mapping *m = bpf_map_lookup_elem(&mappings, &a->out);
	if (!m)
		return 0;
	struct endpoint wire = m->wire;
	reply_of(&a->back, &a->out, &wire);
	/* both tables say so, and the address is still the node's */
	struct way_back *way = bpf_map_lookup_elem(&ways_back, &a->back);
	if (!way || !is_source(&a->out, &way->own) || is_idle(m, a->out.protocol, p->now, n->hold_ns) ||
	    !bpf_map_lookup_elem(&node_addresses, &wire.address)) {
		remove_mapping(&a->out);
		return 0;
	}
	if (p->icmp_kind != ICMP_ERROR) /* which keeps nothing alive */
		see(m, p, 1);
	p->wire = wire;
	p->translated = 1;
	p->settled = a->out.protocol != IPPROTO_TCP || m->tcp & SEEN_CONFIRMED;
	return 1;
}

/* Three of four ports towards a far end; another network's three are others. */
static __always_inline int is_share_of(__u32 network, const struct tuple *back, __u16 port)
{
	__u32 hash = (network ^ back->source.w[3]) * 0x9e3779b1u + port;
	hash = (hash ^ hash >> 15) * 0x85ebca6bu;
	hash = (hash ^ hash >> 13) * 0xc2b2ae35u;
	return (hash >> 30) != 0;
}

/* Takes the port of `a->back` from a flow that has no right to it any more. */
static __always_inline int reclaim(struct attempt *a)
{
	struct way_back *way = bpf_map_lookup_elem(&ways_back, &a->back);
	if (!way)
		return 1;
	a->other.source = way->own.address;
	a->other.source_port = way->own.port;
	a->other.destination = a->back.source;
	a->other.destination_port = a->back.source_port;
	a->other.protocol = a->back.protocol;
	__u64 made = way->made_ns;
	struct mapping *m = bpf_map_lookup_elem(&mappings, &a->other);
	if (!m || !is_destination(&a->back, &m->wire)) {
		if (a->now - made < SETTLED_NS)
			return 0;
		bpf_map_delete_elem(&ways_back, &a->back);
		return 1;
	}
	if (!is_idle(m, a->back.protocol, a->now, a->hold_ns))
		return 0;
	__u32 network = m->network;
	if (!bpf_map_delete_elem(&mappings, &a->other)) {
		bpf_map_delete_elem(&ways_back, &a->back);
		give_back(network);
	}
	return 1;
}

static __noinline int take_port(struct attempt *a)
{
	int error = bpf_map_update_elem(&ways_back, &a->back, &a->way, BPF_NOEXIST);
	if (error == -17 && reclaim(a)) /* EEXIST */
		error = bpf_map_update_elem(&ways_back, &a->back, &a->way, BPF_NOEXIST);
	a->found = !error;
	a->full = error && error != -17;
	return a->found || a->full;
}

static long try_port(__u32 i, void *unused)
{
	struct attempt *a = own_attempt();
	struct nat *n = node_nat();
	if (!a || !n || !n->ports)
		return 1;
	__u32 place = i < RANDOM_PROBES ? bpf_get_prandom_u32() : (__u32)(a->port - n->first_port) + 1;
	a->port = n->first_port + place % n->ports;
	if (!a->own && !is_share_of(a->network, &a->back, a->port))
		return 0;
	a->back.destination_port = bpf_htons(a->port);
	return take_port(a);
}

static __always_inline int takes_port(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* 0, or why there is none. */
static __noinline __u8 find_port(struct attempt *a, struct nat *n)
{
	struct settings *s = node_settings();
	__u64 unused = 0;
	if (!s)
		return REASON_KERNEL_ERROR;
	a->found = a->full = 0;
	a->hold_ns = n->hold_ns;
	if (takes_port(a->out.protocol)) {
		bpf_loop(PROBES, try_port, &unused, 0);
		if (!a->found && !a->full) {
			a->hold_ns = s->closed_idle_ns;
			bpf_loop(PROBES, try_port, &unused, 0);
		}
	} else {
		a->back.destination_port = a->out.source_port;
		take_port(a);
	}
	if (a->found)
		return 0;
	return a->full ? REASON_TABLE_FULL : REASON_NAT_EXHAUSTED;
}

/* 0 and the new mapping of `out` in `wire`, or why there is none. */
CHECKED_ALONE __u8 make_mapping(struct packet *p, __u32 network)
{
	struct nat *n = node_nat();
	struct attempt *a = own_attempt();
	if (!p || !n || !a)
		return REASON_KERNEL_ERROR;
	struct own_key own = { .network = network, .ipv6 = !is_ipv4(&a->out.destination) };
	struct address *address = bpf_map_lookup_elem(&own_addresses, &own);
	a->to.prefix_length = 128;
	a->to.address = a->out.destination;
	a->own = address != 0;
	if (!address)
		address = bpf_map_lookup_elem(&egress_addresses, &a->to);
	if (!address)
		return REASON_NAT_NO_ADDRESS;
	a->mapping.wire.address = *address;
	if (!bpf_map_lookup_elem(&node_addresses, &a->mapping.wire.address))
		return REASON_NAT_NO_ADDRESS;
	struct usage *u = bpf_map_lookup_elem(&nat_usage, &network);
	if (!u) {
		struct usage none = {};
		bpf_map_update_elem(&nat_usage, &network, &none, BPF_NOEXIST);
		u = bpf_map_lookup_elem(&nat_usage, &network);
		if (!u)
			return REASON_TABLE_FULL;
	}
	if (__sync_fetch_and_add(&u->flows, 1) >= n->quota) {
		__sync_fetch_and_sub(&u->flows, 1);
		return REASON_NAT_QUOTA;
	}
	a->now = p->now;
	a->network = network;
	a->way.made_ns = p->now;
	a->way.own.address = a->out.source;
	a->way.own.port = a->out.source_port;
	a->mapping.wire.port = 0;
	reply_of(&a->back, &a->out, &a->mapping.wire);
	__u8 reason = find_port(a, n);
	if (reason) {
		__sync_fetch_and_sub(&u->flows, 1);
		return reason;
	}
	a->mapping.wire.port = a->back.destination_port;
	a->mapping.network = network;
	a->mapping.tcp = 0;
	see(&a->mapping, p, 1);
	p->wire = a->mapping.wire;
	p->translated = 1;
	int error = bpf_map_update_elem(&mappings, &a->out, &a->mapping, BPF_NOEXIST);
	if (!error)
		return 0;
	bpf_map_delete_elem(&ways_back, &a->back);
	__sync_fetch_and_sub(&u->flows, 1);
	p->translated = 0;
	if (error == -17) /* EEXIST: another CPU was first */
		return find_mapping(p) ? 0 : REASON_KERNEL_ERROR;
	return error == -7 ? REASON_TABLE_FULL : REASON_KERNEL_ERROR; /* E2BIG */
}

/* The source that `back` is a reply to; what comes keeps a mapping, too. */
CHECKED_ALONE int find_way_back(struct packet *p, struct endpoint *own)
{
	struct nat *n = node_nat();
	struct attempt *a = own_attempt();
	if (!p || !a || !own || !n)
		return 0;
	struct way_back *way = bpf_map_lookup_elem(&ways_back, &a->back);
	if (!way)
		return 0;
	*own = way->own;
	a->out.source = own->address;
	a->out.destination = a->back.source;
	a->out.source_port = own->port;
	a->out.destination_port = a->back.source_port;
	a->out.protocol = a->back.protocol;
	struct mapping *m = bpf_map_lookup_elem(&mappings, &a->out);
	if (!m || !is_destination(&a->back, &m->wire) || is_idle(m, a->back.protocol, p->now, n->hold_ns))
		return 0;
	if (p->icmp_kind != ICMP_ERROR)
		see(m, p, 0);
	p->settled = a->out.protocol != IPPROTO_TCP || m->tcp & SEEN_CONFIRMED;
	return 1;
}
