/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the daemon hears: every packet counts by its reason; a new flow and a drop are also told through the ring, so
 * many a second for each workload. What was not told is counted in `losses`.
 */
#pragma once

static __always_inline void count(__u32 bytes, __u8 reason)
{
	__u32 index = reason < REASONS ? reason : REASON_UNKNOWN;
	struct counter *c = bpf_map_lookup_elem(&counters, &index);
	if (!c)
		return;
	c->packets++;
	c->bytes += bytes;
}

static __always_inline void lose(__u32 why)
{
	__u64 *n = bpf_map_lookup_elem(&losses, &why);
	if (n)
		*n += 1;
}

/* Whether the workload had less of this than its share in this second. Two CPUs may both take the last place. */
static __always_inline int within_budget(__u32 workload, __u64 now, __u32 kind)
{
	struct settings *s = node_settings();
	if (!s)
		return 0;
	__u64 second = now / 1000000000;
	struct budget *b = bpf_map_lookup_elem(&budgets, &workload);
	if (!b || b->second != second) {
		struct budget fresh = {
			.second = second,
			.flows = kind == EVENT_FLOW || kind == EVENT_VERIFIED,
			.drops = kind == EVENT_DROP,
			.rejections = kind == BUDGET_REJECTIONS,
		};
		bpf_map_update_elem(&budgets, &workload, &fresh, BPF_ANY);
		return 1;
	}
	if (kind == BUDGET_REJECTIONS)
		return __sync_fetch_and_add(&b->rejections, 1) < s->rejections;
	if (kind == EVENT_FLOW || kind == EVENT_VERIFIED)
		return __sync_fetch_and_add(&b->flows, 1) < s->flow_events;
	return __sync_fetch_and_add(&b->drops, 1) < s->drop_events;
}

static __noinline void write_event(struct event *e, struct packet *p, struct flow_key *k, struct verdict *v, __u32 kind)
{
	e->time_ns = p->now;
	e->workload = k->workload;
	e->ifindex = p->ifindex;
	e->rule = v->rule;
	e->name = v->name;
	e->local = k->local;
	e->remote = k->remote;
	e->local_port = k->local_port;
	e->remote_port = k->remote_port;
	e->protocol = k->protocol;
	e->kind = kind;
	e->direction = p->direction;
	e->reason = v->reason;
}

CHECKED_ALONE int tell(struct packet *p, struct flow_key *k, struct verdict *v, __u32 kind)
{
	if (!p || !k || !v)
		return 0;
	if (!within_budget(k->workload, p->now, kind)) {
		lose(LOST_OVER_BUDGET);
		return 0;
	}
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		lose(LOST_RING_FULL);
		return 0;
	}
	write_event(e, p, k, v, kind);
	bpf_ringbuf_submit(e, 0);
	return 1;
}
