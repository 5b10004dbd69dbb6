/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A question that this very workload asked before is answered here, from what the daemon answered then (`answers`). The
 * packet becomes the answer and goes back, from whom it was sent to.
 *
 * What the daemon does for each question holds here, too. The policy allows the name, and whatever else the answer depends
 * on is as it was: `answer_rules` is what it was when the daemon was asked, and each change sets it to 0 until it is in
 * force. The kernel has the addresses: a learned name of the answer's class is there for each of them, for as long as after
 * an answer of the daemon's. In the last part of an answer's life the daemon is asked, which then asks servers ahead of time.
 *
 * Read is only what is one question and nothing else: UDP without IP options or extension headers, a header as stub
 * resolvers send it, a name, and an OPT record without options (RFC 6891) or none. Anything else is the daemon's. The name
 * is not walked: `length` is what the message's length leaves for it, and the table has none that is no name.
 */
#pragma once

enum answered {
	ANSWERED = 0,
	ANSWER_FAILED = 1, /* a helper of the kernel: the packet is dropped */
};

#define NOT_KEPT 100 /* beside the actions: the daemon is to be asked */

#define DNS_RD 0x0100
#define DNS_AD 0x0020
#define DNS_CD 0x0010
#define DNS_IN 1
#define DNS_OPT 41
#define DNS_DO 0x8000 /* of an OPT record's flags */
#define ANSWER_PLAIN 512 /* octets, to a client that sends no OPT record (RFC 1035, 2.3.4) */

struct dns_head {
	struct udphdr udp;
	__be16 id;
	__be16 flags;
	__be16 questions;
	__be16 counts[3];
};
struct dns_end { /* of a question */
	__be16 kind;
	__be16 class;
};
struct dns_opt {
	__u8 name;
	__be16 kind;
	__be16 payload;
	__u8 code;
	__u8 version;
	__be16 flags;
	__be16 length;
	__u8 pad; /* a sum is of words */
} __attribute__((packed));
#define OPT_OCTETS 11

/* One packet's, on this CPU. */
struct answering {
	struct question question;
	struct answer answer;
	struct dns_head head;
	struct dns_end end;
	struct dns_opt opt;
	__u32 most; /* octets that the client takes */
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answering);
} answering SEC(".maps");

static __always_inline struct answering *at_hand(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&answering, &zero);
}

static __always_inline void note_answered(__u32 how)
{
	__u64 *n = bpf_map_lookup_elem(&answered, &how);
	if (n)
		*n += 1;
}

/* Between 1 and `most`, a power of two, for the verifier to see; less than 1 was refused before. */
static __always_inline __u32 bounded(__u32 n, __u32 most)
{
	n -= 1;
	asm volatile("" : "+r"(n));
	return (n & (most - 1)) + 1;
}

/* A to Z of eight octets in lower case. Octets past 127 are no letters; a label's length is below 64. */
static __always_inline __u64 lower(__u64 x)
{
	const __u64 each = 0x0101010101010101;
	__u64 low = x & 0x7f * each;
	__u64 letters = (low + (0x80 - 'A') * each) ^ (low + (0x7f - 'Z') * each);
	return x | (letters & ~x & 0x80 * each) >> 2;
}

/* What an OPT record without options says; less than 0 if it is another. */
static __always_inline int read_opt(struct __sk_buff *skb, struct answering *a, __u32 at)
{
	struct dns_opt *opt = &a->opt;
	opt->pad = 0;
	if (bpf_skb_load_bytes(skb, at, opt, OPT_OCTETS) || opt->name || opt->kind != bpf_htons(DNS_OPT) || opt->code ||
	    opt->version || opt->flags & ~bpf_htons(DNS_DO) || opt->length)
		return -1;
	__u32 payload = bpf_ntohs(opt->payload);
	a->most = payload < ANSWER_PLAIN ? ANSWER_PLAIN : payload;
	return opt->flags ? OPT_DNSSEC : OPT_PLAIN;
}

/* What is asked; 0 if all of the packet is one question as it is read here. */
CHECKED_ALONE int read_question(struct __sk_buff *skb, struct packet *p, __u32 workload)
{
	struct answering *a = at_hand();
	if (!p || !a || skb->gso_size || p->protocol != IPPROTO_UDP)
		return -1;
	if (p->l4 != ETH_HLEN + (p->family == FAMILY_IPV4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)))
		return -1;
	struct dns_head *head = &a->head;
	if (p->l4_length <= sizeof(*head) || bpf_skb_load_bytes(skb, p->l4, head, sizeof(*head)))
		return -1;
	if (head->udp.len != bpf_htons(p->l4_length) || head->flags & ~bpf_htons(DNS_RD | DNS_AD | DNS_CD) ||
	    head->questions != bpf_htons(1) || head->counts[0] || head->counts[1] || head->counts[2] & ~bpf_htons(1))
		return -1;
	__u32 behind = sizeof(struct dns_end) + (head->counts[2] ? OPT_OCTETS : 0);
	__u32 length = p->l4_length - sizeof(*head) - behind;
	if (p->l4_length < sizeof(*head) + behind + 2 || length > QUESTION_OCTETS)
		return -1;

	struct question *q = &a->question;
	__u64 *words = (__u64 *)q->name;
	__builtin_memset(q, 0, sizeof(*q));
	__u32 at = p->l4 + sizeof(*head);
	if (bpf_skb_load_bytes(skb, at, q->name, bounded(length, QUESTION_OCTETS)) ||
	    bpf_skb_load_bytes(skb, at + length, &a->end, sizeof(a->end)) || a->end.class != bpf_htons(DNS_IN))
		return -1;
#pragma unroll
	for (int i = 0; i < QUESTION_OCTETS / 8; i++)
		words[i] = lower(words[i]);
	q->workload = workload;
	q->kind = a->end.kind;
	q->flags = head->flags;
	q->length = length;
	a->most = ANSWER_PLAIN;
	if (!head->counts[2])
		return 0;
	int opt = read_opt(skb, a, at + length + sizeof(struct dns_end));
	if (opt < 0)
		return -1;
	q->opt = opt;
	return 0;
}

/*
 * Whether a name of the answer's class is learned of one of its addresses, for long enough. It need not be the one that was
 * asked for: of a class there is one name for each address, and all of them open the same.
 */
CHECKED_ALONE int is_learned(struct workload *w, __u32 index)
{
	struct answering *a = at_hand();
	if (!w || !a || index >= ANSWER_ADDRESSES)
		return 0;
	struct learned_key key = { .workload = w->id, .address = a->answer.address[index] };
#pragma unroll
	for (int i = 0; i < LEARNED_SLOTS; i++) {
		__u64 expires_ns = 0;
		__u32 name = load_slot(&key, i, &expires_ns);
		if (!name)
			return 0;
		if (expires_ns >= a->answer.opens_ns && class_of_name(w->egress_policy, name) == a->answer.class)
			return 1;
	}
	return 0;
}

/* A copy of the answer, of one write as a whole, if it is true now; 0 if so. */
CHECKED_ALONE int find_answer(struct workload *w, __u64 now)
{
	struct answering *a = at_hand();
	__u32 zero = 0;
	if (!w || !a)
		return -1;
	struct answer *found = bpf_map_lookup_elem(&answers, &a->question), *copy = &a->answer;
	if (!found)
		return -1;
	__u32 stamp = *(volatile __u32 *)&found->stamp_again;
	barrier();
	*copy = *found;
	barrier();
	if (*(volatile __u32 *)&found->stamp != stamp || copy->stamp_again != stamp ||
	    bpf_map_lookup_elem(&answers, &a->question) != found)
		return -1;
	__u64 *rules = bpf_map_lookup_elem(&answer_rules, &zero);
	if (!rules || !*rules || copy->rules != *rules || now >= copy->ask_ns || now >= copy->expires_ns)
		return -1;
	if (!copy->class)
		return 0;
	for (__u32 i = 0; i < ANSWER_ADDRESSES; i++) {
		if (i >= copy->addresses)
			break;
		if (!is_learned(w, i))
			return -1;
	}
	return 0;
}

static __always_inline void lower_ttls(struct answer *answer, __u64 now)
{
	__be32 left = bpf_htonl((answer->expires_ns - now) / 1000000000);
	for (__u32 i = 0; i < ANSWER_TTLS; i++) {
		if (i >= answer->ttls)
			break;
		__builtin_memcpy(&answer->octets[answer->ttl[i] & 0x1ff], &left, sizeof(left));
	}
}

/*
 * What the answer's octets add to the sum of the question's, but for the lengths. A sum of octets that begin at an odd
 * place has its octets exchanged (RFC 1071, 2).
 */
CHECKED_ALONE __u32 difference(__u32 odd)
{
	struct answering *a = at_hand();
	if (!a)
		return 0;
	struct answer *answer = &a->answer;
	__u32 length = answer->length;
	if (length & 3)
		__builtin_memset(&answer->octets[length & 0x1ff], 0, 4);
	__s64 sum = bpf_csum_diff(0, 0, (__be32 *)answer->octets, (length + 3) & 0x1fc, 0);
	if (a->head.counts[2])
		sum = bpf_csum_diff((__be32 *)&a->opt, sizeof(a->opt), 0, 0, sum);
	__u16 folded_sum = ~folded(sum);
	__be16 *before = &a->head.flags, *after = &answer->flags;
	sum = odd ? __builtin_bswap16(folded_sum) : folded_sum;
	sum += *after + (__u16)~*before;
#pragma unroll
	for (int i = 0; i < 3; i++)
		sum += answer->counts[i] + (__u16)~a->head.counts[i];
	return (__u16)~folded(sum);
}

static __always_inline int store_heads(struct __sk_buff *skb, struct packet *p, struct answering *a, __u32 payload)
{
	__u8 macs[2 * MAC_LENGTH];
	__builtin_memcpy(macs, p->mac_source, MAC_LENGTH);
	__builtin_memcpy(macs + MAC_LENGTH, p->mac_destination, MAC_LENGTH);
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) || bpf_skb_change_type(skb, 0))
		return -1;
	struct dns_head *head = &a->head;
	__be16 port = head->udp.source;
	head->udp.source = head->udp.dest;
	head->udp.dest = port;
	head->udp.len = bpf_htons(payload);
	head->flags = a->answer.flags;
	__builtin_memcpy(head->counts, a->answer.counts, sizeof(head->counts));
	if (bpf_skb_store_bytes(skb, p->l4, head, sizeof(*head), 0))
		return -1;
	if (p->family == FAMILY_IPV4) {
		struct iphdr ip = {};
		head4(&ip, p, IPPROTO_UDP, sizeof(ip) + payload);
		return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
	}
	struct ipv6hdr ip = {};
	head6(&ip, p, IPPROTO_UDP, payload);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

/*
 * The frame becomes the answer; 0 if it is. Its checksum is the question's with what changes: one that the workload's kernel
 * left to its device (CHECKSUM_PARTIAL) is left to that still, and what was wrong does not become right.
 */
CHECKED_ALONE int become_answer(struct __sk_buff *skb, struct packet *p)
{
	struct answering *a = at_hand();
	if (!p || !a || !a->answer.length)
		return -1;
	lower_ttls(&a->answer, p->now);
	__u32 tail = p->l4 + sizeof(struct dns_head) + a->question.length + sizeof(struct dns_end);
	__u32 length = a->answer.length, payload = tail + length - p->l4;
	__be16 before = a->head.udp.len, after = bpf_htons(payload);
	__u32 sum = difference(a->question.length & 1), at = p->l4 + __builtin_offsetof(struct udphdr, check);
	sum += after + (__u16)~before;
	if (bpf_skb_change_tail(skb, tail + length, 0) ||
	    bpf_skb_store_bytes(skb, tail, a->answer.octets, bounded(length, 512), 0) || store_heads(skb, p, a, payload))
		return -1;
	__u64 mangled = BPF_F_MARK_MANGLED_0;
	if (bpf_l4_csum_replace(skb, at, before, after, mangled | BPF_F_PSEUDO_HDR | sizeof(after)))
		return -1;
	return bpf_l4_csum_replace(skb, at, 0, sum, mangled);
}

/* Answers the action, NOT_KEPT if the frame is as it was. */
CHECKED_ALONE int answer_kept(struct __sk_buff *skb, struct packet *p, struct workload *w)
{
	struct answering *a = at_hand();
	if (!p || !w || !a || read_question(skb, p, w->id) || find_answer(w, p->now))
		return NOT_KEPT;
	__u32 size = sizeof(struct dns_head) - sizeof(struct udphdr) + a->question.length + sizeof(struct dns_end);
	if (size + a->answer.length > a->most)
		return NOT_KEPT;
	if (become_answer(skb, p)) {
		note_answered(ANSWER_FAILED);
		return TC_ACT_SHOT;
	}
	note_answered(ANSWERED);
	return bpf_redirect_peer(p->ifindex, 0);
}
