/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Stale flows and mappings are taken away: by the daemon, and where it does not, by the kernel's timer. */
#pragma once

struct sweep {
	struct settings *settings;
	__u64 now;
	__u64 hold_ns;
	__u64 reclaimed;
};

static long sweep_flow(void *map, struct flow_key *k, struct flow *f, struct sweep *sweep)
{
	if (is_stale(f, k->protocol, sweep->settings, sweep->now)) {
		struct flow_key key = *k;
		sweep->reclaimed += remove_flow(&key);
	}
	return 0;
}

static long sweep_mapping(void *map, struct tuple *t, struct mapping *m, struct sweep *sweep)
{
	struct tuple key = *t;
	struct address address = m->wire.address;
	if (is_idle(m, key.protocol, sweep->now, sweep->hold_ns) || !bpf_map_lookup_elem(&node_addresses, &address))
		sweep->reclaimed += remove_mapping(&key);
	return 0;
}

/* One whose mapping went by another way. */
static long sweep_way_back(void *map, struct tuple *t, struct way_back *way, struct sweep *sweep)
{
	struct tuple back = *t, out = {};
	if (sweep->now < way->made_ns + SETTLED_NS)
		return 0;
	out.source = way->own.address;
	out.destination = back.source;
	out.source_port = way->own.port;
	out.destination_port = back.source_port;
	out.protocol = back.protocol;
	struct mapping *m = bpf_map_lookup_elem(&mappings, &out);
	if (!m || !is_destination(&back, &m->wire))
		bpf_map_delete_elem(&ways_back, &back);
	return 0;
}

#define TABLES 3
/* What stands behind a call keeps it apart from the next one: Linux 6.1 wants one map at one call. */
#define WALK(map, entry)                                                                                               \
	do {                                                                                                           \
		bpf_for_each_map_elem(&map, entry, sweep, 0);                                                          \
		asm volatile("/* " #map " */" ::: "memory");                                                           \
	} while (0)

/* One table whole. What the memory of its buckets costs is the time that it takes, however few entries there are. */
static int sweep_table(__u32 table, struct sweep *sweep)
{
	struct settings *s = node_settings();
	struct nat *n = node_nat();
	if (!s || !n)
		return 0;
	sweep->settings = s;
	sweep->now = bpf_ktime_get_boot_ns();
	sweep->hold_ns = n->hold_ns;
	if (table == 0)
		WALK(flows, sweep_flow);
	else if (table == 1)
		WALK(mappings, sweep_mapping);
	else
		WALK(ways_back, sweep_way_back);
	return 1;
}

/* The timer's, where packets wait for it: one table at a time, and none while the daemon does it. */
static int sweep(void *map, __u32 *zero, struct sweeper *sweeper)
{
	struct settings *s = node_settings();
	struct swept *daemon = bpf_map_lookup_elem(&swept, zero);
	struct sweep sweep = {};
	if (!s || !daemon)
		return 0;
	if (bpf_ktime_get_boot_ns() - daemon->at_ns > 2 * s->sweep_ns && sweep_table(sweeper->runs % TABLES, &sweep)) {
		sweeper->runs++;
		sweeper->reclaimed += sweep.reclaimed;
		sweeper->took_ns = bpf_ktime_get_boot_ns() - sweep.now;
	}
	bpf_timer_start(&sweeper->timer, s->sweep_ns / TABLES, 0);
	return 0;
}

/* Run once by the daemon at its start: from then on the timer re-arms itself, with the daemon or without. */
SEC("classifier")
int start_sweeper(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct sweeper *s = bpf_map_lookup_elem(&sweeper, &zero);
	if (!s)
		return -1;
	bpf_timer_init(&s->timer, &sweeper, 1 /* CLOCK_MONOTONIC */); /* refused if it runs already: fine */
	if (bpf_timer_set_callback(&s->timer, sweep))
		return -2;
	return bpf_timer_start(&s->timer, 0, 0);
}

/*
 * Run by the daemon, a table at a time: in its own time, not in that of packets, which the kernel takes in between. The
 * kind is the one that needs neither a device nor the kernel's types (`bpf_prog_test_run_raw_tp` of net/bpf/test_run.c).
 */
SEC("raw_tracepoint")
int sweep_now(void *context)
{
	__u32 zero = 0;
	struct swept *s = bpf_map_lookup_elem(&swept, &zero);
	struct sweep sweep = {};
	if (!s || !sweep_table(s->runs % TABLES, &sweep))
		return -1;
	s->at_ns = bpf_ktime_get_boot_ns();
	s->runs++;
	s->reclaimed += sweep.reclaimed;
	s->took_ns = s->at_ns - sweep.now;
	return 0;
}
