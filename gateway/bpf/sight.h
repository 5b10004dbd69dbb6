/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What most ClientHellos are: one TLS record that is all of the stream's first segment. It is read here, and no frame of
 * such a flow goes to the inspector. All that can be decided is that the flow passes, by a name that this workload resolved
 * to this address and that a rule allows once it is shown. Whatever else there is to say, the inspector says: each doubt
 * leaves the frame on its way there.
 *
 * What was read may be sent again, whole and unchanged: the entry keeps its SipHash-1-3 under a key of this node, and by the
 * same the inspector knows it, should it come in pieces. So a far end cannot come to have pieces of two of them. One that
 * would leave in several packets is the inspector's: a piece of it may be sent again by itself. So is one whose checksum
 * would be written into what is read (csum_start of struct sk_buff, linux/skbuff.h), which the program sees only where the
 * kernel says how its structs are laid out (BTF), and lets itself be read.
 */
#pragma once

#include <bpf/bpf_core_read.h>

#define HELLO_LEAST 44 /* octets: up to the session's length */
#define HELLO_MOST 2048 /* a power of two */
#define HELLO_EXTENSIONS 64
#define NAME_MOST 253 /* RFC 1035, 2.3.4, as text */
#define CHECKSUM_PARTIAL 3

const volatile __u32 reads_kernel = 0; /* set by the daemon; its number keeps the reading out of what is loaded */

struct hello {
	__u8 octets[HELLO_MOST + 8]; /* and zeros behind them, to the end of a word */
	__u64 shown;
	__u64 opened_ns;
	struct flow_key key;
	struct verdict read;
};
/* Room, each CPU's own, for the length of one run: what stands here does not stand on the stack, of which little is left. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hello);
} hellos SEC(".maps");

/* Looked up in each function that looks something up by a key in it: 6.1 takes none from behind an argument. */
static __always_inline struct hello *room(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&hellos, &zero);
}

struct sk_buff___read {
	unsigned char *head, *data;
	__u8 ip_summed : 2;
	__u16 csum_start, csum_offset;
} __attribute__((preserve_access_index));

/* The frame's checksum is complete, or will be written where TCP has it. */
CHECKED_ALONE int is_sum_in_place(struct __sk_buff *skb, struct packet *p)
{
	struct sk_buff___read *b = (void *)skb;
	if (!p || !reads_kernel)
		return 0;
	if (BPF_CORE_READ_BITFIELD_PROBED(b, ip_summed) != CHECKSUM_PARTIAL)
		return 1;
	__u64 room = (__u64)BPF_CORE_READ(b, data) - (__u64)BPF_CORE_READ(b, head);
	return BPF_CORE_READ(b, csum_start) == room + p->l4 &&
	       BPF_CORE_READ(b, csum_offset) == __builtin_offsetof(struct tcphdr, check);
}

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LITTLE(x) __builtin_bswap64(x)
#else
#define LITTLE(x) (x)
#endif
#define ROTATED(x, by) ((x) << (by) | (x) >> (64 - (by)))
#define SIP_ROUND                                                                                                      \
	do {                                                                                                           \
		a += b, b = ROTATED(b, 13) ^ a, a = ROTATED(a, 32);                                                    \
		c += d, d = ROTATED(d, 16) ^ c;                                                                        \
		a += d, d = ROTATED(d, 21) ^ a;                                                                        \
		c += b, b = ROTATED(b, 17) ^ c, c = ROTATED(c, 32);                                                    \
	} while (0)

/* SipHash-1-3 (Aumasson, Bernstein: SipHash: a fast short-input PRF). */
CHECKED_ALONE __u64 fingerprint(struct hello *h, __u32 length)
{
	struct settings *s = node_settings();
	if (!h || !s || length > HELLO_MOST)
		return 0;
	__u64 a = s->key[0] ^ 0x736f6d6570736575, b = s->key[1] ^ 0x646f72616e646f6d;
	__u64 c = s->key[0] ^ 0x6c7967656e657261, d = s->key[1] ^ 0x7465646279746573;
	for (__u32 at = 0; at + 8 <= HELLO_MOST; at += 8) {
		if (at + 8 > length)
			break;
		__u64 word = LITTLE(*(__u64 *)(h->octets + at));
		d ^= word;
		SIP_ROUND;
		a ^= word;
	}
	__u64 word = LITTLE(*(__u64 *)(h->octets + (length & ~7u))) | (__u64)length << 56;
	d ^= word;
	SIP_ROUND;
	a ^= word;
	c ^= 0xff;
	SIP_ROUND;
	SIP_ROUND;
	SIP_ROUND;
	return a ^ b ^ c ^ d;
}

static __always_inline __u32 octet(const struct hello *h, __u32 at)
{
	return h->octets[at & (HELLO_MOST - 1)];
}

static __always_inline __u32 two_octets(const struct hello *h, __u32 at)
{
	return octet(h, at) << 8 | octet(h, at + 1);
}

/*
 * Where the server_name extension is in a ClientHello that these octets are (RFC 8446, 4.1.2 and 5.1): its data's offset,
 * with its length in the upper half. 0: there is none, or not one, or the octets are something else.
 */
CHECKED_ALONE __u32 find_server_name(struct hello *h, __u32 length)
{
	__u32 found = 0, at = HELLO_LEAST - 1;
	if (!h || length < HELLO_LEAST || length > HELLO_MOST)
		return 0;
	if (octet(h, 0) != 22 || octet(h, 1) != 3 || two_octets(h, 3) != length - 5 || octet(h, 5) != 1 ||
	    octet(h, 6) || two_octets(h, 7) != length - 9)
		return 0;
	__u32 session = octet(h, at);
	at += 1 + session;
	if (session > 32 || at + 2 > length)
		return 0;
	__u32 suites = two_octets(h, at);
	at += 2 + suites;
	if (suites < 2 || suites % 2 || at >= length)
		return 0;
	__u32 methods = octet(h, at);
	at += 1 + methods;
	if (!methods || at + 2 > length || two_octets(h, at) != length - at - 2)
		return 0;
	at += 2;
	for (int i = 0; i < HELLO_EXTENSIONS; i++) {
		if (at == length)
			return found;
		if (at + 4 > length)
			return 0;
		__u32 kind = two_octets(h, at), size = two_octets(h, at + 2);
		at += 4;
		if (at + size > length || (!kind && found))
			return 0;
		if (!kind)
			found = size << 16 | at;
		at += size;
	}
	return 0;
}

/* Whether what stands there is that name, in any case. */
CHECKED_ALONE int is_name(struct hello *h, __u32 name, __u32 at, __u32 length)
{
	__u32 key = name;
	struct name_text *t = bpf_map_lookup_elem(&names, &key);
	if (!h || !t || !length || length > NAME_MOST)
		return 0;
	for (__u32 i = 0; i <= NAME_MOST; i++) {
		__u32 c = octet(h, at + i);
		if (i >= length) {
			if (t->text[i])
				return 0;
			break;
		}
		if (c - 'A' < 26)
			c += 'a' - 'A';
		if (!c || c != (__u8)t->text[i])
			return 0;
	}
	barrier();
	return bpf_map_lookup_elem(&names, &key) == t; /* it was this one's all the time */
}

/* Who writes a verdict into a flow that waits for one: nobody else does. */
static __always_inline int claim(struct flow *f)
{
	return !__sync_val_compare_and_swap(&f->claimed, 0, 1);
}

/* The name that is asked for, if it is one that the workload resolved to the address, and whose time was not over then. */
CHECKED_ALONE __u32 shown_name(struct hello *h, __u32 length, __u64 then)
{
	if (!h)
		return 0;
	__u32 place = find_server_name(h, length), at = place & 0xffff, size = place >> 16;
	/* one entry, of type host_name (RFC 6066, 3) */
	if (size < 6 || two_octets(h, at) != size - 2 || octet(h, at + 2) || two_octets(h, at + 3) != size - 5)
		return 0;
	struct learned_key key = { .workload = h->key.workload, .address = h->key.remote };
#pragma unroll
	for (int i = 0; i < LEARNED_SLOTS; i++) {
		__u64 expires_ns = 0;
		__u32 name = load_slot(&key, i, &expires_ns);
		if (!name)
			break;
		if (expires_ns > then && is_name(h, name, at + 5, size - 5))
			return name;
	}
	return 0;
}

/*
 * The octets of a packet that may be a hello, and what they are known by. 0: they are not to be had. They are read where
 * nobody else can write: pages of a frame may be its sender's, too (sendfile(2), MSG_ZEROCOPY), so that the frame gets a
 * copy of its own first.
 */
CHECKED_ALONE __u32 take_hello(struct __sk_buff *skb, struct packet *p, struct hello *h)
{
	if (!p || !h || skb->gso_size || !is_sum_in_place(skb, p))
		return 0;
	__u32 length = payload_of(p);
	if (length > HELLO_MOST)
		return 0;
	asm volatile("" : "+r"(length)); /* two comparisons, which the verifier understands, and not one of a difference */
	if (length < HELLO_LEAST || bpf_skb_pull_data(skb, p->l4 + p->l4_header + length) ||
	    bpf_skb_load_bytes(skb, p->l4 + p->l4_header, h->octets, length))
		return 0;
	__builtin_memset(h->octets + length, 0, 8);
	h->shown = fingerprint(h, length);
	return length;
}

#define SHOWN_AGAIN (~0u)

/* The name that a whole hello asks for, SHOWN_AGAIN if it is the one that was read before, or 0. */
CHECKED_ALONE __u32 read_at_sight(struct __sk_buff *skb, struct packet *p, struct flow_key *k)
{
	struct hello *h = room();
	if (!p || !k || !h)
		return 0;
	h->key = *k;
	struct flow *f = bpf_map_lookup_elem(&flows, &h->key);
	if (!f || bpf_ntohl(p->sequence) != f->first)
		return 0;
	h->opened_ns = f->opened_ns;
	__u32 length = take_hello(skb, p, h);
	if (!length)
		return 0;
	if (f->hold == HOLD_SHOWN)
		return f->end - f->first == length && f->shown == h->shown ? SHOWN_AGAIN : 0;
	return f->hold == HOLD_AWAITS ? shown_name(h, length, f->opened_ns) : 0;
}

static __always_inline void sighted(void)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&sights, &zero);
	if (n)
		*n += 1;
}

/* Writes the verdict, if there is one to write, and counts the packet. */
CHECKED_ALONE int settle_at_sight(struct workload *w, struct packet *p, struct verdict *v, __u32 name)
{
	struct hello *h = room();
	if (!w || !p || !v || !h)
		return 0;
	struct flow *f = bpf_map_lookup_elem(&flows, &h->key);
	if (!f || f->opened_ns != h->opened_ns)
		return 0;
	if (name == SHOWN_AGAIN) {
		v->reason = REASON_KNOWN_FLOW;
	} else {
		if (f->hold != HOLD_AWAITS || !claim(f))
			return 0;
		v->rule = f->rule = h->read.rule;
		v->name = f->name = name;
		v->reason = f->reason = REASON_ALLOWED_BY_NAME;
		f->end = f->first + payload_of(p);
		f->shown = h->shown;
		barrier();
		f->hold = HOLD_SHOWN;
		sighted();
	}
	v->hold = HOLD_SHOWN;
	touch(f, p->direction, p->bytes, p->now, p->tcp_flags);
	release(w, f, &h->key, p);
	return 1;
}

/* Whether the policy lets the flow pass by that name, once it is shown. */
CHECKED_ALONE int allows_shown(struct workload *w, struct flow_key *k, __u64 now, __u32 name)
{
	struct hello *h = room();
	if (!w || !k || !h)
		return 0;
	struct verdict read = { .hold = HOLD_VERIFIED };
	h->read = read;
	return decide_egress(w, k, &h->read, now, name) == REASON_ALLOWED_BY_NAME && h->read.name == name &&
	       !is_denied_by_name(w, k, &h->read, name);
}

/*
 * Of a packet that is for the inspector: 1 if it needs none, and passes. The flow is verified by it then, or was, and it is
 * the same again.
 */
static __always_inline int verify_at_sight(struct __sk_buff *skb, struct packet *p, struct flow_key *k,
					   struct workload *w, struct verdict *v)
{
	if (p->protocol != IPPROTO_TCP || p->returned)
		return 0;
	__u32 name = read_at_sight(skb, p, k);
	if (!name || (name != SHOWN_AGAIN && !allows_shown(w, k, p->now, name)))
		return 0;
	return settle_at_sight(w, p, v, name);
}
