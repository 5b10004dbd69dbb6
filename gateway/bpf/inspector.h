/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The inspector's two programs; what is held and why stands in hold.h. */
#pragma once

/* What the daemon says of a held flow, as `settle_held` is run with. */
struct settlement {
	struct flow_key key;
	__u32 key_pad;
	__u64 opened_ns;
	__u32 name; /* that the handshake asks for */
	__u8 reason;
	__u8 hold; /* HOLD_VERIFIED, HOLD_SHOWN or HOLD_DENIED */
	__u8 pad[2];
	__u32 end; /* of what was read of a TCP stream */
	__u32 pad_again;
	__u64 shown; /* and SipHash of its ClientHello */
};
#define SETTLEMENT_WORDS 10

/*
 * Run by the daemon. 1: there is no such flow, or it is denied; 2: it was verified before, by what was read now, and stays
 * so; 3: by something else; 4: it is being so.
 */
SEC("raw_tracepoint")
int settle_held(struct bpf_raw_tracepoint_args *context)
{
	union {
		struct settlement said;
		__u64 words[SETTLEMENT_WORDS];
	} u;
	struct settlement *s = &u.said;
#pragma unroll
	for (int i = 0; i < SETTLEMENT_WORDS; i++)
		u.words[i] = context->args[i];
	struct flow *f = bpf_map_lookup_elem(&flows, &s->key);
	if (!f || f->opened_ns != s->opened_ns)
		return 1;
	if (was_read(f->hold))
		return f->shown == s->shown ? 2 : 3;
	if (f->hold != HOLD_AWAITS)
		return 1;
	if (!claim(f))
		return 4;
	f->name = s->name;
	f->reason = s->reason;
	f->end = s->end;
	f->shown = s->shown;
	barrier();
	f->hold = s->hold;
	barrier(); /* who decides again finds it read */
	if (was_read(s->hold))
		f->epoch = NO_EPOCH;
	return 0;
}

/*
 * What the inspector gives back. Whatever comes here is judged as if the workload had sent it just now; all that is done
 * is to take it to the workload's device, which stands in the place of the workload's MAC.
 */
SEC("classifier")
int from_tap(struct __sk_buff *skb)
{
	struct workload w;
	struct {
		__be16 magic;
		__u32 ifindex;
	} __attribute__((packed)) from;
	if (bpf_skb_load_bytes(skb, MAC_LENGTH, &from, sizeof(from)) || from.magic != bpf_htons(RETURN_MAGIC) ||
	    !load_workload(from.ifindex, &w) || bpf_skb_store_bytes(skb, MAC_LENGTH, w.mac, MAC_LENGTH, 0))
		return TC_ACT_SHOT;
	skb->mark = MARK_RETURNED;
	return bpf_redirect(from.ifindex, BPF_F_INGRESS);
}
