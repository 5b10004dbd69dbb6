/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hold and verify. A flow that may pass only under a certain name (`verify: TLS`, or a deny rule by name at its port) is
 * opened as HOLD_AWAITS: TCP's handshake passes, payload of the workload goes to the inspector's TAP behind a `held` head,
 * payload of the other side is dropped, as is what a SYN carries; its Fast Open option (RFC 7413) is overwritten, so that
 * none comes. What one segment shows whole is read by the program itself (sight.h), and goes to no inspector. The inspector reads who is asked for and says its verdict (`settle_held`); then it gives the frames back
 * as they were, by `from_tap`, which takes them to the workload's device: `from_workload` judges them like all others, and
 * has nothing of the inspector but the verdict.
 *
 * What was read is what the far end gets. A connection is opened by its SYN only, and what is read begins at that SYN's
 * number, which the far end has agreed to; urgent octets, which would be missing there (RFC 6093), do not pass. Until it has
 * acknowledged what was read (HOLD_SHOWN), a segment that begins before its end goes to the inspector too, which lets
 * repetitions through and nothing else, and nothing behind it passes (both know it by `flow.shown`); of UDP, what may begin another QUIC connection goes
 * there as long as the flow lives.
 *
 * A verdict is for one flow: `opened_ns` went with each frame, and another flow under the same key has another. It is
 * given under no epoch, so that the flow's next packet is decided again, by what the tables say of its name now.
 * Of a denied flow nothing passes but the reset by which the inspector ends it at the other side, not even an ICMP error
 * about it, and nothing takes a shortcut. About one that waits, no error of the workload's passes.
 *
 * The TAP's queue is one for all, so each workload has its share of it: so many units in 17 ms, a unit for each frame and
 * each 2 KiB of it. Past it frames are dropped (HOLD_FULL), to be sent again; without an inspector they wait in the queue,
 * or are dropped: closed in either case.
 */
#pragma once

#define HOLD_WINDOW_BITS 24 /* of nanoseconds */
#define HOLD_UNIT_BITS 11 /* of octets */
#define HELD_MAGIC 0x74676874 /* tells held frames from what the kernel itself sends to a device */
#define RETURN_MAGIC 0x7467 /* in front of the ifindex, in the source MAC of a frame that comes back */

/* In front of a held frame. All in the machine's order. */
struct held {
	__u32 magic;
	__u32 ifindex; /* of the workload's device */
	__u32 workload;
	__u32 first; /* TCP's number of the stream's first octet */
	__u64 opened_ns;
	__u64 held_ns;
};

#define SEEN_HANDSHAKE 32 /* beside those of flows.h: the far end has acknowledged the SYN */

#define OPTION_END 0
#define OPTION_NOTHING 1
#define OPTION_FAST_OPEN 34
#define OPTION_EXPERIMENT 254
#define EXPERIMENT_FAST_OPEN 0xf989 /* RFC 7413, section 4.1.1 */
#define OPTIONS_MOST 40

static __always_inline __u32 payload_of(const struct packet *p)
{
	return p->l4_length > p->l4_header ? p->l4_length - p->l4_header : 0;
}

/* A segment without payload that says nothing of another stream than the one that is read: a far end that keeps nothing
 * of a SYN (SYN cookies) takes the next segment's word for where the stream begins. A reset begins none. */
static __always_inline int is_of_stream(const struct flow *f, const struct packet *p)
{
	__u32 before = f->first - bpf_ntohl(p->sequence);
	if (p->tcp_flags & TCP_RST)
		return 1;
	return p->tcp_flags & TCP_SYN ? before == 1 && !(p->tcp_flags & TCP_FIN) : before <= 1; /* 1: keepalive */
}

/* What a verdict on a handshake makes of the flow's packet; 0: nothing, it passes as any other. */
static __always_inline __u8 as_held(const struct flow *f, const struct packet *p)
{
	int out = p->direction == FROM_WORKLOAD, udp = p->protocol == IPPROTO_UDP;
	__u32 payload = payload_of(p);
	if (f->hold == HOLD_DENIED) /* the inspector's own reset, to the other side; more would follow a fragment */
		return out && p->tcp_flags & TCP_RST && !p->fragment && !payload ? REASON_KNOWN_FLOW : f->reason;
	if (was_read(f->hold)) {
		if (!out || p->returned || (!udp && f->hold == HOLD_VERIFIED))
			return 0;
		if (p->fragment || p->tcp_flags & TCP_URG)
			return REASON_NOT_VERIFIED;
		if (udp)
			return p->long_header ? REASON_HELD : 0;
		if (!payload)
			return is_of_stream(f, p) ? 0 : REASON_NOT_VERIFIED;
		if (p->tcp_flags & TCP_SYN)
			return REASON_NOT_VERIFIED;
		return (__s32)(bpf_ntohl(p->sequence) - f->end) < 0 ? REASON_HELD : REASON_NOT_VERIFIED;
	}
	if (f->hold != HOLD_AWAITS)
		return 0;
	if (p->fragment || (p->tcp_flags & TCP_SYN && payload) || (!out && payload))
		return REASON_NOT_VERIFIED;
	if (udp)
		return REASON_HELD;
	if (!out)
		return p->tcp_flags & TCP_ACK && bpf_ntohl(p->sequence) != f->first ? REASON_NOT_VERIFIED : REASON_HELD;
	if (p->tcp_flags & TCP_URG || (payload ? !(f->tcp & SEEN_HANDSHAKE) : !is_of_stream(f, p)))
		return REASON_NOT_VERIFIED;
	return REASON_HELD;
}

/* The far end has agreed to the stream that is to be read. */
static __always_inline void note_handshake(struct flow *f, const struct packet *p, __u8 held)
{
	__u8 both = TCP_SYN | TCP_ACK;
	if (held == REASON_HELD && p->direction != FROM_WORKLOAD && (p->tcp_flags & (both | TCP_RST)) == both)
		f->tcp |= SEEN_HANDSHAKE;
}

/* The same of an ICMP error about it: what the error quotes would be payload. */
static __always_inline __u8 as_quoted(const struct flow *f, const struct packet *p)
{
	if (f->hold == HOLD_DENIED)
		return f->reason;
	return f->hold == HOLD_AWAITS && p->direction == FROM_WORKLOAD ? REASON_NOT_VERIFIED : REASON_KNOWN_FLOW;
}

/* Whether a packet that passes by `as_held` is for the inspector: UDP always, as nothing of it comes before payload. */
static __always_inline int is_inspected(const struct packet *p, __u8 reason)
{
	return reason == REASON_HELD && p->direction == FROM_WORKLOAD && (p->protocol == IPPROTO_UDP || payload_of(p));
}

/* Whether the workload had less of the inspector's queue than its share. Two CPUs may both take the last place. */
static __always_inline int may_hold(__u32 workload, __u64 now, __u32 bytes, const struct settings *s)
{
	struct budget *b = bpf_map_lookup_elem(&budgets, &workload);
	__u64 window = now >> HOLD_WINDOW_BITS;
	__u32 units = 1 + (bytes >> HOLD_UNIT_BITS);
	if (!b) {
		struct budget fresh = { .window = window, .held = units };
		return !bpf_map_update_elem(&budgets, &workload, &fresh, BPF_ANY);
	}
	if (b->window != window) {
		b->window = window;
		b->held = 0;
	}
	return __sync_fetch_and_add(&b->held, units) + units <= s->holds;
}

static __always_inline int has_inspector(void)
{
	struct settings *s = node_settings();
	return s && s->inspector;
}

/* To the inspector. Answers the action, or less than 0 where there is no room. */
CHECKED_ALONE int into_tap(struct __sk_buff *skb, struct packet *p, struct flow_key *k)
{
	if (!p || !k)
		return TC_ACT_SHOT;
	struct settings *s = node_settings();
	struct flow_key key = *k;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);
	if (!s || !f || !s->inspector)
		return TC_ACT_SHOT;
	__u32 tap = s->inspector;
	struct held head = {
		.magic = HELD_MAGIC,
		.ifindex = p->ifindex,
		.workload = key.workload,
		.first = f->first,
		.opened_ns = f->opened_ns,
		.held_ns = p->now,
	};
	if (!may_hold(key.workload, p->now, p->bytes, s) || bpf_skb_change_head(skb, sizeof(head), 0) ||
	    bpf_skb_store_bytes(skb, 0, &head, sizeof(head), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(tap, 0);
}

/* The option's octets become options that say nothing. Its words begin at even octets of the header, as the sum has them. */
CHECKED_ALONE int overwrite_option(struct __sk_buff *skb, __u32 l4, __u32 at, __u32 length)
{
	__u32 word = at - (at - l4) % 2;
	for (int i = 0; i < OPTIONS_MOST / 2; i++, word += 2) {
		__u8 before[2], after[2];
		if (word >= at + length)
			return 0;
		if (bpf_skb_load_bytes(skb, word, before, sizeof(before)))
			return -1;
		after[0] = word >= at ? OPTION_NOTHING : before[0];
		after[1] = word + 1 < at + length ? OPTION_NOTHING : before[1];
		__u16 from = *(__u16 *)before, to = *(__u16 *)after;
		if (bpf_l4_csum_replace(skb, l4 + __builtin_offsetof(struct tcphdr, check), from, to, sizeof(to)) ||
		    bpf_skb_store_bytes(skb, word, after, sizeof(after), 0))
			return -1;
	}
	return 0;
}

/* The far end has what was read of the flow: from now on nobody looks at what the workload sends. */
CHECKED_ALONE int note_acknowledged(struct __sk_buff *skb, struct packet *p, struct flow_key *k)
{
	if (!p || !k)
		return 0;
	struct flow_key key = *k;
	__be32 acknowledged;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);
	if (!f || f->hold != HOLD_SHOWN || (p->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_ACK ||
	    bpf_skb_load_bytes(skb, p->l4 + __builtin_offsetof(struct tcphdr, ack_seq), &acknowledged, 4) ||
	    (__s32)(bpf_ntohl(acknowledged) - f->end) < 0)
		return 0;
	f->hold = HOLD_VERIFIED;
	return 1;
}

/* A client that asked for Fast Open would send payload before there is anybody to answer. */
CHECKED_ALONE int strip_fast_open(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return -1;
	__u32 at = p->l4 + sizeof(struct tcphdr), end = p->l4 + p->l4_header;
	for (int i = 0; i < OPTIONS_MOST; i++) {
		__u8 option[2]; /* kind and length */
		__be16 experiment = 0;
		if (at + sizeof(option) > end || bpf_skb_load_bytes(skb, at, option, sizeof(option)) ||
		    option[0] == OPTION_END)
			return 0;
		if (option[0] == OPTION_NOTHING) {
			at++;
			continue;
		}
		if (option[1] < sizeof(option) || at + option[1] > end)
			return 0; /* nobody can read what is behind it */
		if (option[0] == OPTION_EXPERIMENT && option[1] >= 4)
			bpf_skb_load_bytes(skb, at + 2, &experiment, sizeof(experiment));
		if (option[0] == OPTION_FAST_OPEN || experiment == bpf_htons(EXPERIMENT_FAST_OPEN))
			return overwrite_option(skb, p->l4, at, option[1]);
		at += option[1];
	}
	return 0;
}
