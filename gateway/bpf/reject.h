/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A denied packet's sender is told at once, and does not wait for a timeout: TCP by a reset (RFC 9293, 3.10.7), all else
 * by ICMP's "communication administratively prohibited" (RFC 1812, 5.2.7.1; RFC 4443, 3.1). The packet itself becomes
 * the answer. Told is only who is inside: the workload that sent it, or another one of its network; never a sender that
 * is not who it says. Each workload has so many answers a second. The answer quotes the packet's IP header and 8 octets
 * behind it, by which its socket is found.
 */
#pragma once

enum rejection {
	REJECTED_BY_RESET = 0,
	REJECTED_BY_ICMP = 1,
	REJECTION_OVER_BUDGET = 2,
	REJECTION_FAILED = 3, /* a helper of the kernel */
};

#define QUOTED 8
#define IP_DF 0x4000

struct reset4 {
	struct iphdr ip;
	struct tcphdr tcp;
};
struct reset6 {
	struct ipv6hdr ip;
	struct tcphdr tcp;
};
struct icmp_head {
	__u8 type, code;
	__sum16 sum;
	__be32 unused;
};
struct prohibited4 {
	struct iphdr ip;
	struct icmp_head icmp;
	__u8 quote[sizeof(struct iphdr) + QUOTED];
};
struct prohibited6 {
	struct ipv6hdr ip;
	struct icmp_head icmp;
	__u8 quote[sizeof(struct ipv6hdr) + QUOTED];
};

/* Whether policy denied it, so that its sender may know. */
static __always_inline int is_told(__u8 reason)
{
	switch (reason) {
	case REASON_NODE_ADDRESS:
	case REASON_DENIED_BY_CIDR:
	case REASON_DENIED_BY_DEFAULT:
	case REASON_NAME_EXPIRED:
	case REASON_REVOKED:
	case REASON_EDGE_ONLY:
	case REASON_DENIED_BY_NAME:
	case REASON_SNI_MISMATCH:
	case REASON_NO_SNI:
	case REASON_NOT_TLS:
	case REASON_UNREADABLE_HELLO:
		return 1;
	default:
		return 0;
	}
}

/* A whole packet that is not itself the end of something, from one sender to one receiver. */
static __always_inline int can_be_told(const struct packet *p)
{
	__u32 header = p->family == FAMILY_IPV4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	return p->l4 == ETH_HLEN + header && p->l4_length >= QUOTED && !p->fragment && !p->multicast &&
	       !(p->tcp_flags & TCP_RST) && p->icmp_kind != ICMP_ERROR && !is_unspecified(&p->source);
}

static __always_inline void reject_count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&rejections, &which);
	if (n)
		*n += 1;
}

static __always_inline __sum16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void head4(struct iphdr *ip, const struct packet *p, __u8 protocol, __u16 size)
{
	ip->version = 4;
	ip->ihl = 5;
	ip->tot_len = bpf_htons(size);
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = 64;
	ip->protocol = protocol;
	ip->saddr = p->destination.w[3];
	ip->daddr = p->source.w[3];
	ip->check = folded(bpf_csum_diff(0, 0, (__be32 *)ip, sizeof(*ip), 0));
}

static __always_inline void head6(struct ipv6hdr *ip, const struct packet *p, __u8 protocol, __u16 size)
{
	ip->version = 6;
	ip->payload_len = bpf_htons(size);
	ip->nexthdr = protocol;
	ip->hop_limit = 64;
	__builtin_memcpy(&ip->saddr, &p->destination, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &p->source, sizeof(ip->daddr));
}

/* What the segment's sender would take from a closed port. */
static __always_inline int reset_of(struct __sk_buff *skb, const struct packet *p, struct tcphdr *reset)
{
	struct tcphdr h;
	if (bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)))
		return -1;
	reset->source = h.dest;
	reset->dest = h.source;
	reset->doff = sizeof(*reset) / 4;
	reset->rst = 1;
	if (h.ack) {
		reset->seq = h.ack_seq;
		return 0;
	}
	reset->ack = 1;
	reset->ack_seq = bpf_htonl(bpf_ntohl(h.seq) + p->l4_length - p->l4_header + h.syn + h.fin);
	return 0;
}

/* The frame becomes these octets behind its Ethernet header. */
static __always_inline int become(struct __sk_buff *skb, const void *packet, __u32 size)
{
	return bpf_skb_change_tail(skb, ETH_HLEN + size, 0) || bpf_skb_store_bytes(skb, ETH_HLEN, packet, size, 0);
}

CHECKED_ALONE int become_reset(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return -1;
	if (p->family == FAMILY_IPV4) {
		struct reset4 r = {};
		if (reset_of(skb, p, &r.tcp))
			return -1;
		head4(&r.ip, p, IPPROTO_TCP, sizeof(r));
		/* the addresses, and the segment right behind them */
		__u32 sum = bpf_csum_diff(0, 0, &r.ip.saddr, 8 + sizeof(r.tcp), bpf_htonl(sizeof(r.tcp) + IPPROTO_TCP));
		r.tcp.check = folded(sum);
		return become(skb, &r, sizeof(r));
	}
	struct reset6 r = {};
	if (reset_of(skb, p, &r.tcp))
		return -1;
	head6(&r.ip, p, IPPROTO_TCP, sizeof(r.tcp));
	__u32 sum = bpf_csum_diff(0, 0, (__be32 *)&r.ip.saddr, 32 + sizeof(r.tcp), bpf_htonl(sizeof(r.tcp) + IPPROTO_TCP));
	r.tcp.check = folded(sum);
	return become(skb, &r, sizeof(r));
}

CHECKED_ALONE int become_prohibited(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return -1;
	if (p->family == FAMILY_IPV4) {
		struct prohibited4 e = { .icmp = { .type = 3, .code = 13 } };
		if (bpf_skb_load_bytes(skb, ETH_HLEN, e.quote, sizeof(e.quote)))
			return -1;
		e.icmp.sum = folded(bpf_csum_diff(0, 0, (__be32 *)&e.icmp, sizeof(e.icmp) + sizeof(e.quote), 0));
		head4(&e.ip, p, IPPROTO_ICMP, sizeof(e));
		return become(skb, &e, sizeof(e));
	}
	struct prohibited6 e = { .icmp = { .type = 1, .code = 1 } };
	__u32 size = sizeof(e.icmp) + sizeof(e.quote);
	if (bpf_skb_load_bytes(skb, ETH_HLEN, e.quote, sizeof(e.quote)))
		return -1;
	head6(&e.ip, p, IPPROTO_ICMPV6, size);
	e.icmp.sum = folded(bpf_csum_diff(0, 0, (__be32 *)&e.ip.saddr, 32 + sizeof(e.icmp) + sizeof(e.quote),
					  bpf_htonl(sizeof(e.icmp) + sizeof(e.quote) + IPPROTO_ICMPV6)));
	return become(skb, &e, sizeof(e));
}

/* 0 if the frame is the answer now, from whom it was sent to. */
static __always_inline int become_rejection(struct __sk_buff *skb, struct packet *p, const __u8 *to, const __u8 *from)
{
	__u8 macs[2 * MAC_LENGTH];
	__builtin_memcpy(macs, to, MAC_LENGTH);
	__builtin_memcpy(macs + MAC_LENGTH, from, MAC_LENGTH);
	int tcp = p->protocol == IPPROTO_TCP;
	if ((tcp ? become_reset(skb, p) : become_prohibited(skb, p)) ||
	    bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) || bpf_skb_change_type(skb, 0)) {
		reject_count(REJECTION_FAILED);
		return -1;
	}
	reject_count(tcp ? REJECTED_BY_RESET : REJECTED_BY_ICMP);
	return 0;
}

static __always_inline int may_tell(const struct packet *p, const struct workload *w, __u8 reason)
{
	if (!(w->flags & WORKLOAD_REJECTS) || !is_told(reason) || !can_be_told(p))
		return 0;
	if (within_budget(w->id, p->now, BUDGET_REJECTIONS))
		return 1;
	reject_count(REJECTION_OVER_BUDGET);
	return 0;
}

/* Of what a workload sends: back into it. The frame is dropped if it cannot be. */
CHECKED_ALONE int reject_sender(struct __sk_buff *skb, struct packet *p, struct workload *w, __u32 reason)
{
	if (!p || !w || !may_tell(p, w, reason) || become_rejection(skb, p, p->mac_source, p->mac_destination))
		return TC_ACT_SHOT;
	return bpf_redirect_peer(p->ifindex, 0);
}

/* Of what was sent to a workload: back to the port of its own network that it came from, whose flow it ends. */
CHECKED_ALONE int reject_neighbour(struct __sk_buff *skb, struct packet *p, struct workload *w, __u32 reason)
{
	struct workload sender;
	__u32 device = skb->ingress_ifindex;
	if (!p || !w || !device || !load_workload(device, &sender) || sender.network != w->network ||
	    !same_mac(p->mac_source, sender.mac) || !may_tell(p, w, reason) ||
	    become_rejection(skb, p, p->mac_source, p->mac_destination))
		return TC_ACT_SHOT;
	return bpf_redirect(device, 0);
}
