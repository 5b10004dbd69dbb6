/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A frame, read once. `parse` answers 0 or the reason to drop it, and refuses what no later step could judge:
 * tags, foreign EtherTypes, IPv4 options, IPv6 extension headers other than a hop-by-hop header in front of MLD and
 * one fragment header, addresses that must not be on a wire, and first fragments that end before the ports do.
 */
#pragma once

#define MAC_LENGTH 6
#define FAMILY_ARP 1
#define FAMILY_IPV4 4
#define FAMILY_IPV6 6
#define FRAGMENT_NONE 0
#define FRAGMENT_FIRST 1
#define FRAGMENT_LATER 2

/* What an ICMP or ICMPv6 message is to us. */
enum icmp_kind { ICMP_NONE, ICMP_ASKS, ICMP_ANSWERS, ICMP_ERROR, ICMP_MLD, ICMP_ND, ICMP_REDIRECTS, ICMP_OTHER };

struct packet {
	__u64 now;
	struct address source;
	struct address destination;
	__u32 bytes;
	__u32 ifindex;
	__u32 l4; /* offset of the transport header */
	__u32 l4_length;
	union {
		__u32 fragment_id;
		__be32 sequence; /* of a whole TCP segment, in the workload's stream: where its own begins, or what one to it acknowledges */
	};
	__be16 source_port;
	__be16 destination_port;
	__be16 echo_id;
	__u8 direction;
	__u8 family;
	__u8 protocol;
	__u8 fragment;
	__u8 multicast;
	__u8 hop_by_hop;
	__u8 hop_limit;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 icmp_kind;
	__u8 mac_source[MAC_LENGTH];
	__u8 mac_destination[MAC_LENGTH];
	__u8 answer; /* ARP or ND for the edge's address: to be answered here */
	__u8 atomic; /* a whole packet with a fragment header (RFC 6946) */
	__u8 l4_header; /* octets of the transport header: TCP and UDP only */
	__u8 service; /* IPv4's type of service, IPv6's traffic class */
	__sum16 header_sum; /* IPv4's */
	__u8 translated; /* `wire` is known */
	__u8 settled; /* and nothing but time ends the mapping */
	__u8 returned; /* by the inspector */
	__u8 long_header; /* of UDP: see is_long_header */
	__u8 pad;
	__u32 hop_slot; /* of fast.h */
	struct endpoint wire; /* its end of this node's side on the uplink */
};

/* The common header of SCTP (RFC 9260, section 3.1); the kernel's headers for programs have none. */
struct sctp_header {
	__be16 source;
	__be16 destination;
	__be32 tag;
	__be32 checksum;
};

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16
#define TCP_URG 32

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]));
}

static __always_inline void from_ipv4(struct address *a, __be32 ip)
{
	a->w[0] = a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = ip;
}

static __always_inline int is_ipv4(const struct address *a)
{
	return !(a->w[0] | a->w[1]) && a->w[2] == bpf_htonl(0xffff);
}

static __always_inline int same_address(const struct address *a, const struct address *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

/* :: or 0.0.0.0 */
static __always_inline int is_unspecified(const struct address *a)
{
	return !(a->w[0] | a->w[1] | a->w[3]) && (!a->w[2] || a->w[2] == bpf_htonl(0xffff));
}

static __always_inline int is_link_local6(const struct address *a)
{
	return (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* ff02::/16 */
static __always_inline int is_link_multicast6(const struct address *a)
{
	return (a->w[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0xff020000);
}

static __always_inline __u8 icmp4_kind(__u8 type)
{
	switch (type) {
	case 8:
		return ICMP_ASKS;
	case 0:
		return ICMP_ANSWERS;
	case 3:  /* destination unreachable */
	case 11: /* time exceeded */
	case 12: /* parameter problem */
		return ICMP_ERROR;
	case 5:
		return ICMP_REDIRECTS;
	default:
		return ICMP_OTHER;
	}
}

static __always_inline __u8 icmp6_kind(__u8 type)
{
	switch (type) {
	case 128:
		return ICMP_ASKS;
	case 129:
		return ICMP_ANSWERS;
	case 1: /* destination unreachable */
	case 2: /* packet too big */
	case 3: /* time exceeded */
	case 4: /* parameter problem */
		return ICMP_ERROR;
	case 130: /* query */
	case 131: /* report, version 1 */
	case 132: /* done */
	case 143: /* report, version 2 */
		return ICMP_MLD;
	case 133: /* router solicitation */
	case 134: /* router advertisement */
	case 135: /* neighbour solicitation */
	case 136: /* neighbour advertisement */
		return ICMP_ND;
	case 137:
		return ICMP_REDIRECTS;
	default:
		return ICMP_OTHER;
	}
}

/* An echo's id as flows have it: not 0, so that the side that asks is always told from the other. */
static __always_inline __be16 echo_key(__be16 id)
{
	return id ? id : 0xffff;
}

static __always_inline __u8 parse_icmp(struct __sk_buff *skb, struct packet *p)
{
	__u8 h[8];
	if (p->l4_length < sizeof(h) || bpf_skb_load_bytes(skb, p->l4, h, sizeof(h)))
		return REASON_MALFORMED;
	p->icmp_type = h[0];
	p->icmp_code = h[1];
	p->icmp_kind = p->protocol == IPPROTO_ICMP ? icmp4_kind(h[0]) : icmp6_kind(h[0]);
	if ((p->icmp_kind == ICMP_ASKS || p->icmp_kind == ICMP_ANSWERS) && p->icmp_code)
		p->icmp_kind = ICMP_OTHER; /* echo has code 0 (RFC 792, RFC 4443), and rules speak of no other */
	__builtin_memcpy(&p->echo_id, h + 4, 2);
	p->echo_id = echo_key(p->echo_id);
	/* what is judged by its inside must be whole (RFC 6980 for ND) */
	if ((p->fragment || p->atomic) && p->icmp_kind != ICMP_ASKS && p->icmp_kind != ICMP_ANSWERS)
		return REASON_MALFORMED;
	return 0;
}

/* What a first fragment must hold, where that is more than the least there can be: 8 bytes. */
static __always_inline __u32 header_length(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return sizeof(struct tcphdr);
	case IPPROTO_SCTP:
		return sizeof(struct sctp_header);
	default:
		return 0;
	}
}

/* By its first octet, what may begin a QUIC connection: Initial of both versions, 0-RTT (RFC 9000, 17.2; RFC 9369, 3.2). */
static __always_inline int is_long_header(__u8 first)
{
	return (first & 0xa0) == 0x80;
}

#define DATAGRAMS_MOST 128 /* of one frame (UDP_MAX_SEGMENTS) */

/* One of the datagrams that a frame is to become (UDP_SEGMENT, udp(7)) may begin a connection, or there are too many to say. */
CHECKED_ALONE int has_long_header(struct __sk_buff *skb, __u32 at, __u32 length)
{
	__u32 size = skb->gso_size, offset = 0;
	for (int i = 0; i < DATAGRAMS_MOST; i++) {
		__u8 first;
		if (offset >= length || bpf_skb_load_bytes(skb, at + offset, &first, sizeof(first)))
			return 0;
		if (is_long_header(first))
			return 1;
		if (!size)
			return 0;
		offset += size;
	}
	return 1;
}

static __always_inline __u8 parse_transport(struct __sk_buff *skb, struct packet *p, __u32 fragment_offset)
{
	if (p->fragment == FRAGMENT_LATER) /* one that reaches into the first's header (RFC 1858) */
		return fragment_offset < header_length(p->protocol) ? REASON_MALFORMED : 0;
	if (p->protocol == IPPROTO_TCP) {
		struct tcphdr h;
		if (p->l4_length < sizeof(h) || bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)))
			return REASON_MALFORMED;
		if (h.doff < 5 || (!p->fragment && h.doff * 4u > p->l4_length))
			return REASON_MALFORMED;
		p->source_port = h.source;
		p->destination_port = h.dest;
		p->l4_header = h.doff * 4;
		if (!p->fragment)
			p->sequence = p->direction == FROM_WORKLOAD ? h.seq : h.ack_seq;
		p->tcp_flags = (h.fin ? TCP_FIN : 0) | (h.syn ? TCP_SYN : 0) | (h.rst ? TCP_RST : 0) |
			       (h.ack ? TCP_ACK : 0) | (h.urg ? TCP_URG : 0);
		return 0;
	}
	if (p->protocol == IPPROTO_UDP) {
		struct udphdr h;
		if (p->l4_length < sizeof(h) || bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)))
			return REASON_MALFORMED;
		p->source_port = h.source;
		p->destination_port = h.dest;
		p->l4_header = sizeof(h);
		p->long_header = has_long_header(skb, p->l4 + sizeof(h), p->l4_length - sizeof(h));
		return 0;
	}
	if (p->protocol == IPPROTO_SCTP) {
		struct sctp_header h;
		if (p->l4_length < sizeof(h) || bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)))
			return REASON_MALFORMED;
		p->source_port = h.source;
		p->destination_port = h.destination;
		return 0;
	}
	if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6) {
		if ((p->protocol == IPPROTO_ICMP) != (p->family == FAMILY_IPV4))
			return REASON_MALFORMED;
		return parse_icmp(skb, p);
	}
	return 0;
}

static __always_inline __u8 parse_ipv4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr ip;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return REASON_MALFORMED;
	if (ip.ihl != 5)
		return REASON_UNSUPPORTED;
	__u32 total = bpf_ntohs(ip.tot_len), fragment = bpf_ntohs(ip.frag_off);
	if (total < sizeof(ip) || total + ETH_HLEN > p->bytes || fragment & 0x8000)
		return REASON_MALFORMED;

	__u32 source = bpf_ntohl(ip.saddr), destination = bpf_ntohl(ip.daddr);
	__u8 from = source >> 24, to = destination >> 24;
	if (from == 127 || (from == 0 && source) || from >= 224 || to == 127 || to == 0 ||
	    (to >= 240 && destination != 0xffffffff))
		return REASON_MALFORMED;
	p->multicast |= to >= 224;

	p->protocol = ip.protocol;
	p->hop_limit = ip.ttl;
	p->service = ip.tos;
	p->header_sum = ip.check;
	p->fragment_id = ip.id;
	__u32 offset = (fragment & 0x1fff) * 8;
	p->fragment = offset ? FRAGMENT_LATER : fragment & 0x2000 ? FRAGMENT_FIRST : FRAGMENT_NONE;
	p->l4 = ETH_HLEN + sizeof(ip);
	p->l4_length = total - sizeof(ip);
	from_ipv4(&p->source, ip.saddr);
	from_ipv4(&p->destination, ip.daddr);
	return parse_transport(skb, p, offset);
}

/* ::ffff:0:0/96 and ::1 must not be on a wire (RFC 4291, RFC 6890). */
static __always_inline int never_on_wire6(const struct address *a)
{
	return is_ipv4(a) || (!(a->w[0] | a->w[1] | a->w[2]) && a->w[3] == bpf_htonl(1));
}

static __always_inline int is_extension_header(__u8 next)
{
	switch (next) {
	case 0:   /* hop-by-hop */
	case 43:  /* routing */
	case 44:  /* fragment */
	case 51:  /* authentication */
	case 59:  /* none follows */
	case 60:  /* destination options */
	case 135: /* mobility */
	case 139: /* HIP */
	case 140: /* shim6 */
		return 1;
	default:
		return 0;
	}
}

static __always_inline __u8 parse_ipv6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr ip;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 6)
		return REASON_MALFORMED;
	__u32 left = bpf_ntohs(ip.payload_len), at = ETH_HLEN + sizeof(ip), offset = 0;
	if (left + at > p->bytes)
		return REASON_MALFORMED;
	__builtin_memcpy(&p->source, &ip.saddr, sizeof(p->source));
	__builtin_memcpy(&p->destination, &ip.daddr, sizeof(p->destination));
	__u32 scope = bpf_ntohl(p->destination.w[0]) >> 16;
	if (never_on_wire6(&p->source) || never_on_wire6(&p->destination) || is_unspecified(&p->destination) ||
	    (bpf_ntohl(p->source.w[0]) >> 24) == 0xff || (scope & 0xff0f) == 0xff00 || (scope & 0xff0f) == 0xff01)
		return REASON_MALFORMED;
	p->multicast |= scope >> 8 == 0xff;
	p->hop_limit = ip.hop_limit;
	p->service = ip.priority << 4 | ip.flow_lbl[0] >> 4;

	__u8 next = ip.nexthdr;
	if (next == 0) {
		__u8 h[2];
		if (left < 8 || bpf_skb_load_bytes(skb, at, h, sizeof(h)))
			return REASON_MALFORMED;
		__u32 size = (h[1] + 1u) * 8;
		if (size > 64)
			return REASON_UNSUPPORTED;
		if (size > left)
			return REASON_MALFORMED;
		p->hop_by_hop = 1;
		next = h[0];
		at += size;
		left -= size;
	}
	if (next == 44) {
		__be32 h[2];
		if (left < sizeof(h) || bpf_skb_load_bytes(skb, at, h, sizeof(h)))
			return REASON_MALFORMED;
		next = bpf_ntohl(h[0]) >> 24;
		offset = bpf_ntohl(h[0]) & 0xfff8;
		p->fragment = offset ? FRAGMENT_LATER : bpf_ntohl(h[0]) & 1 ? FRAGMENT_FIRST : FRAGMENT_NONE;
		p->fragment_id = h[1];
		p->atomic = p->fragment == FRAGMENT_NONE;
		at += sizeof(h);
		left -= sizeof(h);
	}
	if (is_extension_header(next))
		return REASON_UNSUPPORTED;
	p->protocol = next;
	p->l4 = at;
	p->l4_length = left;
	__u8 reason = parse_transport(skb, p, offset);
	if (!reason && p->hop_by_hop && p->icmp_kind != ICMP_MLD)
		return REASON_UNSUPPORTED;
	return reason;
}

CHECKED_ALONE __u8 parse(struct __sk_buff *skb, struct packet *p)
{
	struct ethhdr eth;
	if (!p)
		return REASON_KERNEL_ERROR;
	p->bytes = skb->len;
	p->ifindex = skb->ifindex;
	if (skb->vlan_present)
		return REASON_TAGGED;
	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return REASON_MALFORMED;
	__builtin_memcpy(p->mac_source, eth.h_source, MAC_LENGTH);
	__builtin_memcpy(p->mac_destination, eth.h_dest, MAC_LENGTH);
	p->multicast = eth.h_dest[0] & 1;
	switch (bpf_ntohs(eth.h_proto)) {
	case ETH_P_ARP:
		p->family = FAMILY_ARP;
		return 0;
	case ETH_P_IP:
		p->family = FAMILY_IPV4;
		return parse_ipv4(skb, p);
	case ETH_P_IPV6:
		p->family = FAMILY_IPV6;
		return parse_ipv6(skb, p);
	case ETH_P_8021Q:
	case ETH_P_8021AD:
	case ETH_P_QINQ1:
		return REASON_TAGGED;
	default:
		return REASON_UNSUPPORTED;
	}
}
