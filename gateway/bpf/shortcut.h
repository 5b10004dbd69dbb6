/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The way of most packets. What the lists of tidegate.bpf.c and fast.h said of a packet of an open flow holds for the next
 * one with the same head: same device, MACs, addresses, ports, class of service. It stays here until the next hop is asked
 * for again, and no longer than the workload's entry, the node's routes and the flow are as they were; the flow is looked up
 * and counted as ever. A packet that is in any way out of the ordinary (a fragment, SYN, FIN or RST, options, a head that
 * is not in one piece, its last hop, too big) finds nothing here and is asked the lists: they alone judge.
 */
#pragma once

#define SHORTCUT_BITS 11
#define SHORTCUTS (1 << SHORTCUT_BITS)
#define NO_SHORTCUT (-2) /* no action of TC_ACT_* */

/* A packet as it comes to the program. */
union shortcut_key {
	struct {
		struct address source;
		struct address destination;
		__be16 source_port;
		__be16 destination_port;
		__u32 ifindex;
		__u8 macs[2 * MAC_LENGTH]; /* zero at the uplink */
		__u8 protocol;
		__u8 service; /* zero at the uplink */
		__u16 zero;
	};
	__u64 words[KEY_WORDS];
};

struct shortcut {
	union shortcut_key key;
	__u64 made_ns;
	__u64 made_tick_ns; /* the same by a clock that is cheaper, and only as exact as a tick */
	__u64 life_ns; /* the next hop's, as far as it was left */
	struct flow_key flow;
	__u64 opened_ns; /* of that flow: another one, from the other side, may come in its place */
	__u32 stamp; /* of the workload's entry, and all that hangs on it */
	__u32 epoch;
	__u32 workload; /* its device */
	__u32 uplink;
	__u32 generation; /* of the uplink */
	__u32 mtu;
	__u8 macs[2 * MAC_LENGTH]; /* as it leaves */
	struct endpoint to; /* in the place of its own end, if it is translated */
	__u32 translated;
	__s64 difference; /* of the two addresses, for checksums */
};

/* A cache and no state, each CPU's own; see `next_hops`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SHORTCUTS);
	__type(key, __u32);
	__type(value, struct shortcut);
} shortcuts SEC(".maps");

static __always_inline struct shortcut *shortcut_at(const union shortcut_key *key)
{
	__u32 index = place_of(key->words, SHORTCUT_BITS);
	return bpf_map_lookup_elem(&shortcuts, &index);
}

/* The head of an ordinary packet. */
struct head {
	union shortcut_key key;
	__u32 size; /* octets from the IP header on, of the largest packet that this frame is or becomes */
	__u32 l4;
	struct { /* of IPv4, and what is written in its place */
		__u8 macs[2 * MAC_LENGTH];
		__be16 kind;
		struct iphdr ip;
		__be16 source_port;
		__be16 destination_port;
	} __attribute__((packed)) v4;
	__u8 hop_limit;
	__u8 tcp_flags;
};

/* 0: it is not one. What is let through here is what `parse` lets through. */
static __always_inline int read_head(struct __sk_buff *skb, struct head *h, int out)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	union shortcut_key *key = &h->key;
	__u32 length;
	if (skb->vlan_present || data + ETH_HLEN + sizeof(struct iphdr) > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + ETH_HLEN;
		length = bpf_ntohs(ip->tot_len);
		if (*(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(0xbfff) || length + ETH_HLEN > skb->len ||
		    length < sizeof(*ip))
			return 0;
		from_ipv4(&key->source, ip->saddr);
		from_ipv4(&key->destination, ip->daddr);
		key->protocol = ip->protocol;
		key->service = out ? ip->tos : 0;
		h->hop_limit = ip->ttl;
		h->v4.kind = eth->h_proto;
		__builtin_memcpy(&h->v4.ip, ip, sizeof(*ip));
		h->l4 = ETH_HLEN + sizeof(*ip);
		length -= sizeof(*ip);
		data += ETH_HLEN + sizeof(*ip);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + ETH_HLEN;
		if (data + ETH_HLEN + sizeof(*ip) > end)
			return 0;
		length = bpf_ntohs(ip->payload_len);
		if (ip->version != 6 || length + ETH_HLEN + sizeof(*ip) > skb->len)
			return 0;
		__builtin_memcpy(&key->source, &ip->saddr, sizeof(key->source));
		__builtin_memcpy(&key->destination, &ip->daddr, sizeof(key->destination));
		key->protocol = ip->nexthdr;
		key->service = out ? ip->priority << 4 | ip->flow_lbl[0] >> 4 : 0;
		h->hop_limit = ip->hop_limit;
		h->l4 = ETH_HLEN + sizeof(*ip);
		data += ETH_HLEN + sizeof(*ip);
	} else {
		return 0;
	}
	__u32 header = sizeof(struct udphdr);
	h->tcp_flags = 0;
	if (key->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = data;
		if (data + sizeof(*tcp) > end || tcp->syn || tcp->fin || tcp->rst || tcp->doff < 5)
			return 0;
		header = tcp->doff * 4;
		h->tcp_flags = tcp->ack ? TCP_ACK : 0;
	} else if (key->protocol != IPPROTO_UDP || skb->gso_size || data + sizeof(struct udphdr) > end) {
		return 0;
	}
	if (length < header || h->hop_limit <= 1)
		return 0;
	__builtin_memcpy(&key->source_port, data, 4);
	h->v4.source_port = key->source_port;
	h->v4.destination_port = key->destination_port;
	key->ifindex = skb->ifindex;
	key->zero = 0;
	if (out)
		__builtin_memcpy(key->macs, eth, sizeof(key->macs));
	else
		__builtin_memset(key->macs, 0, sizeof(key->macs));
	h->size = wire_size(skb, h->l4, header);
	return 1;
}

/* Whether all that the shortcut was made of is as it was. */
static __always_inline int still_holds(const struct shortcut *s, const union shortcut_key *key, __u64 age)
{
	struct uplink *u = node_uplink();
	if (!same_key(s->key.words, key->words) || age >= s->life_ns || !u || u->generation != s->generation)
		return 0;
	__u32 workload = s->workload;
	struct workload *w = bpf_map_lookup_elem(&workloads, &workload);
	/* no other write has this stamp: what was read under it need not be read again */
	return w && *(volatile __u32 *)&w->stamp == s->stamp && *(volatile __u32 *)&w->stamp_again == s->stamp;
}

/* Of IPv4 what stands before the checksum of the transport is written by `replace_head`. */
static __always_inline long translate_head(struct __sk_buff *skb, struct head *h, const struct shortcut *s, int out)
{
	__u8 protocol = h->key.protocol;
	__u32 sum = h->l4 + sum_offset(protocol), at = h->l4 + port_offset(protocol, out ? SOURCE : DESTINATION);
	__u64 flags = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__be16 port = out ? h->key.source_port : h->key.destination_port;
	if (bpf_l4_csum_replace(skb, sum, 0, s->difference, flags | BPF_F_PSEUDO_HDR) ||
	    (port != s->to.port && bpf_l4_csum_replace(skb, sum, port, s->to.port, flags | 2)))
		return -1;
	if (h->l4 != ETH_HLEN + sizeof(struct iphdr))
		return bpf_skb_store_bytes(skb, at, &s->to.port, sizeof(port), 0) ||
		       bpf_skb_store_bytes(skb, ETH_HLEN + (out ? 8 : 24), s->to.address.w, 16, BPF_F_RECOMPUTE_CSUM);
	__u32 after = (__u16)~h->v4.ip.check + (__u32)(s->difference & 0xffff) + (__u32)(s->difference >> 16 & 0xffff);
	after = (after & 0xffff) + (after >> 16);
	h->v4.ip.check = ~((after & 0xffff) + (after >> 16));
	if (out) {
		h->v4.ip.saddr = s->to.address.w[3];
		h->v4.source_port = s->to.port;
	} else {
		h->v4.ip.daddr = s->to.address.w[3];
		h->v4.destination_port = s->to.port;
	}
	return 0;
}

/* The hop limit goes down by one, and the MACs are those of the next link. */
static __always_inline long replace_head(struct __sk_buff *skb, struct head *h, const struct shortcut *s)
{
	if (h->l4 != ETH_HLEN + sizeof(struct iphdr)) {
		__u8 hops = h->hop_limit - 1;
		return bpf_skb_store_bytes(skb, ETH_HLEN + 7, &hops, sizeof(hops), BPF_F_RECOMPUTE_CSUM) ||
		       bpf_skb_store_bytes(skb, 0, s->macs, sizeof(s->macs), 0);
	}
	h->v4.ip.check = sum_one_hop_on(h->v4.ip.check);
	h->v4.ip.ttl = h->hop_limit - 1;
	__builtin_memcpy(h->v4.macs, s->macs, sizeof(s->macs));
	return bpf_skb_store_bytes(skb, 0, &h->v4, sizeof(h->v4), 0);
}

/* Whether the inspector is to see it: what may begin a QUIC connection (hold.h). */
static __always_inline int may_begin(struct __sk_buff *skb, const struct head *h)
{
	__u8 first = 0;
	bpf_skb_load_bytes(skb, h->l4 + sizeof(struct udphdr), &first, sizeof(first));
	return is_long_header(first);
}

/* What a known packet becomes, or NO_SHORTCUT. */
CHECKED_ALONE int take_shortcut(struct __sk_buff *skb, int out)
{
	struct head h;
	if (!read_head(skb, &h, out))
		return NO_SHORTCUT;
	struct shortcut *s = shortcut_at(&h.key);
	struct settings *limits = node_settings();
	if (!s || !limits || h.size > s->mtu)
		return NO_SHORTCUT;
	__u64 age = bpf_ktime_get_coarse_ns() - s->made_tick_ns, now = s->made_ns + age;
	if (!still_holds(s, &h.key, age))
		return NO_SHORTCUT;
	struct flow *f = bpf_map_lookup_elem(&flows, &s->flow);
	if (!f || f->opened_ns != s->opened_ns || f->epoch != s->epoch || is_closed(f) || f->hold == HOLD_DENIED ||
	    is_stale(f, s->flow.protocol, limits, now))
		return NO_SHORTCUT;
	if (f->hold && out && h.key.protocol == IPPROTO_UDP && may_begin(skb, &h))
		return NO_SHORTCUT;
	touch(f, out ? FROM_WORKLOAD : TO_WORKLOAD, skb->len, now, h.tcp_flags);
	__u32 device = out ? s->uplink : s->workload;
	if ((s->translated && translate_head(skb, &h, s, out)) || replace_head(skb, &h, s)) {
		count(skb->len, REASON_KERNEL_ERROR);
		return TC_ACT_SHOT;
	}
	count(skb->len, REASON_KNOWN_FLOW);
	take(out ? WAY_OUT_AGAIN : WAY_IN_AGAIN);
	return out ? bpf_redirect(device, 0) : bpf_redirect_peer(device, 0);
}

/* Whether what the lists said of this packet holds for those after it, too. */
static __always_inline int is_lasting(const struct packet *p)
{
	return (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP) && !p->fragment && !p->atomic;
}

/* `key` has the packet's own addresses and ports. */
static __always_inline struct shortcut *new_shortcut(struct packet *p, const union shortcut_key *key,
						     const struct workload *w, const struct flow_key *k)
{
	__u32 slot = p->hop_slot;
	struct next_hop *hop = bpf_map_lookup_elem(&next_hops, &slot);
	struct shortcut *s = shortcut_at(key);
	struct flow_key flow = *k;
	struct flow *f = bpf_map_lookup_elem(&flows, &flow);
	if (!hop || hop->way != WAY_OUT || !s || !f)
		return 0;
	s->key = *key;
	s->made_ns = p->now;
	s->made_tick_ns = bpf_ktime_get_coarse_ns();
	s->life_ns = hop->found_ns + NEXT_HOP_LIFE_NS - p->now;
	s->flow = flow;
	s->opened_ns = f->opened_ns;
	s->stamp = w->stamp;
	s->epoch = w->epoch;
	s->uplink = hop->key.uplink;
	s->generation = hop->key.generation;
	s->mtu = hop->mtu;
	s->translated = p->translated;
	return s;
}

/* The lists let a packet of an open flow out by the uplink. */
CHECKED_ALONE int remember_way_out(struct packet *p, struct workload *w, struct flow_key *k)
{
	if (!p || !w || !k || !is_lasting(p) || (p->translated && !p->settled))
		return 0;
	union shortcut_key key = {
		.source = p->source,
		.destination = p->destination,
		.source_port = p->source_port,
		.destination_port = p->destination_port,
		.ifindex = p->ifindex,
		.protocol = p->protocol,
		.service = p->service,
	};
	__builtin_memcpy(key.macs, w->gateway_mac, MAC_LENGTH);
	__builtin_memcpy(key.macs + MAC_LENGTH, w->mac, MAC_LENGTH);
	struct shortcut *s = new_shortcut(p, &key, w, k);
	if (!s)
		return 0;
	s->workload = p->ifindex;
	__builtin_memcpy(s->macs, p->mac_destination, MAC_LENGTH);
	__builtin_memcpy(s->macs + MAC_LENGTH, p->mac_source, MAC_LENGTH);
	if (p->translated) {
		s->to = p->wire;
		s->difference = bpf_csum_diff((__be32 *)p->source.w, 16, (__be32 *)s->to.address.w, 16, 0);
	}
	return 1;
}

/* The lists let a packet of an open flow from the uplink into the workload. */
CHECKED_ALONE int remember_way_in(struct __sk_buff *skb, struct packet *p, struct workload *w, struct flow_key *k)
{
	if (!p || !w || !k || !is_lasting(p) || (p->translated && !p->settled))
		return 0;
	__u32 device = p->ifindex, mtu = 0;
	union shortcut_key key = {
		.source = p->source,
		.destination = p->translated ? p->wire.address : p->destination,
		.source_port = p->source_port,
		.destination_port = p->translated ? p->wire.port : p->destination_port,
		.ifindex = skb->ifindex,
		.protocol = p->protocol,
	};
	struct shortcut *s = new_shortcut(p, &key, w, k);
	if (!s)
		return 0;
	bpf_check_mtu(skb, device, &mtu, 0, 0); /* tells the device's MTU whatever it answers */
	s->mtu = mtu;
	s->workload = device;
	__builtin_memcpy(s->macs, w->mac, MAC_LENGTH);
	__builtin_memcpy(s->macs + MAC_LENGTH, w->gateway_mac, MAC_LENGTH);
	if (p->translated) {
		s->to.address = p->destination;
		s->to.port = p->destination_port;
		s->difference = bpf_csum_diff((__be32 *)p->wire.address.w, 16, (__be32 *)p->destination.w, 16, 0);
	}
	return 1;
}
