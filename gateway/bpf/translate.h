/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What source NAT (nat.h) does to a packet: the address and port of this node's side, the checksums, and in an ICMP error
 * the packet that it quotes (RFC 5508). Later fragments carry no ports and follow their first one, by its addresses and
 * number; one that comes before its first is not known.
 */
#pragma once

static __always_inline long load_echo_id(struct __sk_buff *skb, const struct packet *p, __be16 *id)
{
	return bpf_skb_load_bytes(skb, p->l4 + 4, id, sizeof(*id));
}

static __always_inline void tuple_of(struct tuple *t, const struct packet *p)
{
	t->source = p->source;
	t->destination = p->destination;
	t->source_port = p->source_port;
	t->destination_port = p->destination_port;
	t->protocol = p->protocol;
}

/* Into `out`: what a leaving packet is looked up by. 0, or why it can have no mapping. */
CHECKED_ALONE __u8 tuple_out(struct __sk_buff *skb, struct packet *p)
{
	struct attempt *a = own_attempt();
	if (!p || !a)
		return REASON_KERNEL_ERROR;
	switch (p->protocol) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (p->icmp_kind != ICMP_ASKS || load_echo_id(skb, p, &p->source_port))
			return REASON_UNSUPPORTED;
		break;
	case IPPROTO_DCCP: /* their checksums cover the addresses */
	case IPPROTO_UDPLITE:
		return REASON_UNSUPPORTED;
	}
	tuple_of(&a->out, p);
	return 0;
}

/* Where the transport's checksum is; 0: nothing there covers an address or a port. */
static __always_inline __u32 sum_offset(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 2;
	default:
		return 0;
	}
}

static __always_inline __u32 port_offset(__u8 protocol, int which)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 ? 4 : which == SOURCE ? 0 : 2;
}

static __always_inline long replace_transport(struct __sk_buff *skb, struct packet *p, int which,
					      const struct endpoint *from, const struct endpoint *to)
{
	__u32 sum = sum_offset(p->protocol);
	__u64 flags = p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	if (!sum)
		return 0;
	sum += p->l4;
	if (p->family == FAMILY_IPV6) {
		__s64 difference =
			bpf_csum_diff((__be32 *)from->address.w, 16, (__be32 *)to->address.w, 16, 0);
		if (bpf_l4_csum_replace(skb, sum, 0, difference, flags | BPF_F_PSEUDO_HDR))
			return -1;
	} else if (p->protocol != IPPROTO_ICMP &&
		   bpf_l4_csum_replace(skb, sum, from->address.w[3], to->address.w[3], flags | BPF_F_PSEUDO_HDR | 4)) {
		return -1;
	}
	if (from->port == to->port)
		return 0;
	if (bpf_l4_csum_replace(skb, sum, from->port, to->port, flags | 2))
		return -1;
	return bpf_skb_store_bytes(skb, p->l4 + port_offset(p->protocol, which), &to->port, sizeof(to->port), 0);
}

/*
 * An IPv4 header's own checksum keeps the sum of the packet as it was; in IPv6 the address must be taken out of the
 * device's sum by itself, as the transport's checksum was told of a header that has none (BPF_F_PSEUDO_HDR).
 */
static __always_inline long replace_in_header(struct __sk_buff *skb, const struct packet *p, int which,
					      const struct endpoint *from, const struct endpoint *to)
{
	if (p->family == FAMILY_IPV6)
		return bpf_skb_store_bytes(skb, ETH_HLEN + (which == SOURCE ? 8 : 24), to->address.w, 16,
					   BPF_F_RECOMPUTE_CSUM);
	if (bpf_l3_csum_replace(skb, ETH_HLEN + 10, from->address.w[3], to->address.w[3], 4))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN + (which == SOURCE ? 12 : 16), &to->address.w[3], 4, 0);
}

static __always_inline long translate(struct __sk_buff *skb, struct packet *p, int which, const struct endpoint *from,
				      const struct endpoint *to)
{
	if (is_ipv4(&to->address) != (p->family == FAMILY_IPV4))
		return -1;
	if (p->fragment != FRAGMENT_LATER && replace_transport(skb, p, which, from, to))
		return -1;
	return replace_in_header(skb, p, which, from, to);
}

/* What leaves: its source becomes `wire`. */
CHECKED_ALONE int translate_source(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return -1;
	struct endpoint own = { .address = p->source, .port = p->source_port }, wire = p->wire;
	return translate(skb, p, SOURCE, &own, &wire) ? -1 : 0;
}

/* What comes, and was for `wire`. */
CHECKED_ALONE int translate_destination(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return -1;
	struct endpoint own = { .address = p->destination, .port = p->destination_port }, wire = p->wire;
	return translate(skb, p, DESTINATION, &wire, &own) ? -1 : 0;
}

/* Into `back` or `out`: what would answer the quoted packet. 0: it can be of no mapping. */
CHECKED_ALONE int read_quoted(struct __sk_buff *skb, struct packet *p)
{
	struct flow_key k = {};
	__be16 ports[4]; /* of ICMP: type and code, sum, id */
	struct attempt *a = own_attempt();
	if (!p || !a)
		return 0;
	struct quoted *q = &a->quoted;
	struct tuple *t = p->direction == FROM_WORKLOAD ? &a->out : &a->back;
	q->l4 = load_inner(skb, p, &k);
	if (!q->l4 || q->l4 + sizeof(ports) > p->l4 + p->l4_length || bpf_skb_load_bytes(skb, q->l4, ports, sizeof(ports)))
		return 0;
	q->protocol = k.protocol;
	t->source = k.remote;
	t->destination = k.local;
	t->protocol = k.protocol;
	t->source_port = t->destination_port = 0;
	__u8 type = ports[0] & 0xff, kind;
	if (k.protocol == IPPROTO_TCP || k.protocol == IPPROTO_UDP || k.protocol == IPPROTO_SCTP) {
		t->source_port = ports[1];
		t->destination_port = ports[0];
	} else if (k.protocol == p->protocol) {
		kind = p->family == FAMILY_IPV4 ? icmp4_kind(type) : icmp6_kind(type);
		if (kind != ICMP_ASKS && kind != ICMP_ANSWERS)
			return 0;
		t->source_port = kind == ICMP_ASKS ? 0 : ports[2];
		t->destination_port = kind == ICMP_ASKS ? ports[2] : 0;
	}
	return 1;
}

/* The quoted transport's checksum, as far as it is quoted, and the error's own, which covers it. */
static __always_inline long replace_quoted_sum(struct __sk_buff *skb, const struct packet *p, struct quoted *q)
{
	__u32 offset = sum_offset(q->protocol), at = q->l4 + offset;
	__sum16 before, after;
	__s64 difference;
	if (!offset || at + sizeof(before) > p->l4 + p->l4_length)
		return 0;
	if (bpf_skb_load_bytes(skb, at, &before, sizeof(before)))
		return -1;
	if (!before && q->protocol == IPPROTO_UDP)
		return 0;
	if (q->protocol == IPPROTO_ICMP) /* which does not cover addresses */
		difference = bpf_csum_diff((__be32 *)&q->from.port, 4, (__be32 *)&q->to.port, 4, 0);
	else
		difference = bpf_csum_diff((__be32 *)&q->from, sizeof(q->from), (__be32 *)&q->to, sizeof(q->to), 0);
	if (bpf_l4_csum_replace(skb, at, 0, difference, q->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0) ||
	    bpf_skb_load_bytes(skb, at, &after, sizeof(after)))
		return -1;
	return bpf_l4_csum_replace(skb, p->l4 + 2, before, after, 2);
}

CHECKED_ALONE int translate_quoted(struct __sk_buff *skb, struct packet *p)
{
	struct attempt *a = own_attempt();
	if (!p || !a)
		return -1;
	struct quoted *q = &a->quoted;
	__u32 sum = p->l4 + 2, header = p->l4 + 8, source = q->which == SOURCE;
	if (is_ipv4(&q->to.address) != (p->family == FAMILY_IPV4) || replace_quoted_sum(skb, p, q))
		return -1;
	if (q->from.port != q->to.port &&
	    (bpf_l4_csum_replace(skb, sum, q->from.port, q->to.port, 2) ||
	     bpf_skb_store_bytes(skb, q->l4 + port_offset(q->protocol, q->which), &q->to.port, sizeof(q->to.port), 0)))
		return -1;
	if (p->family == FAMILY_IPV4) { /* the quoted header's checksum makes up for its address */
		if (bpf_l3_csum_replace(skb, header + 10, q->from.address.w[3], q->to.address.w[3], 4))
			return -1;
		return bpf_skb_store_bytes(skb, header + (source ? 12 : 16), &q->to.address.w[3], 4, 0) ? -1 : 0;
	}
	__s64 difference = bpf_csum_diff((__be32 *)q->from.address.w, 16, (__be32 *)q->to.address.w, 16, 0);
	if (bpf_l4_csum_replace(skb, sum, 0, difference, 0))
		return -1;
	return bpf_skb_store_bytes(skb, header + (source ? 8 : 24), q->to.address.w, 16, 0) ? -1 : 0;
}

/* An error from the world about what was translated: it becomes one about the flow itself. 1: so it was. */
CHECKED_ALONE int error_came(struct __sk_buff *skb, struct packet *p)
{
	struct attempt *a = own_attempt();
	if (!p || !a || !read_quoted(skb, p) || !same_address(&a->back.destination, &p->destination) ||
	    !find_way_back(p, &a->quoted.to))
		return 0;
	a->quoted.which = SOURCE;
	a->quoted.from.address = a->back.destination;
	a->quoted.from.port = a->back.destination_port;
	if (translate_quoted(skb, p))
		return -1;
	p->wire.address = p->destination;
	p->wire.port = 0;
	p->destination = a->quoted.to.address;
	if (translate_destination(skb, p) ||
	    (p->family == FAMILY_IPV4 && bpf_skb_load_bytes(skb, ETH_HLEN + 10, &p->header_sum, sizeof(p->header_sum))))
		return -1;
	return 1;
}

/*
 * An error about what came for a translated flow: of its workload or host, of a router of its network, or of the node
 * itself. 1: it was. `network` is 0 for what has an address of its own in the world.
 */
CHECKED_ALONE int error_leaves(struct __sk_buff *skb, struct packet *p, __u32 network)
{
	struct attempt *a = own_attempt();
	if (!p || !a || !read_quoted(skb, p) || !find_mapping(p))
		return 0;
	a->quoted.which = DESTINATION;
	a->quoted.from.address = a->out.source;
	a->quoted.from.port = a->out.source_port;
	a->quoted.to = p->wire;
	p->wire.port = 0;
	if (translate_quoted(skb, p))
		return -1;
	return network && translate_source(skb, p) ? -1 : 1;
}

static __always_inline void nat_fragment_key_of(struct fragment_key *key, const struct packet *p)
{
	key->source = p->source;
	key->destination = p->destination;
	key->id = p->fragment_id;
	key->protocol = p->protocol;
}

/* After a first fragment: `address` is what its later ones get. */
CHECKED_ALONE int remember_nat_fragment(struct packet *p, struct address *address)
{
	if (!p || !address)
		return -1;
	struct fragment_key key = {};
	struct nat_fragment value = { .seen_ns = p->now, .address = *address };
	nat_fragment_key_of(&key, p);
	return bpf_map_update_elem(&nat_fragments, &key, &value, BPF_ANY) ? -1 : 0;
}

/* The address that a later fragment gets; 0: its first was not seen. */
CHECKED_ALONE int find_nat_fragment(struct packet *p, struct address *address)
{
	if (!p || !address)
		return 0;
	struct fragment_key key = {};
	nat_fragment_key_of(&key, p);
	struct nat_fragment *f = bpf_map_lookup_elem(&nat_fragments, &key);
	if (!f || p->now - f->seen_ns > FRAGMENT_LIFE_NS)
		return 0;
	*address = f->address;
	return 1;
}
