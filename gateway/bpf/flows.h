/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flow table: allowed flows only, never evicted, a quota for each workload. The key is the workload's view, so that
 * one lookup finds a flow from both directions. Every entry has an idle time: a packet that finds an entry past it
 * finds nothing, and a timer of the kernel, which needs no daemon, takes such entries away.
 */
#pragma once

/* The flow that a packet belongs to, from the workload's view. */
static __always_inline void key_of(struct flow_key *k, const struct workload *w, const struct packet *p)
{
	int out = p->direction == FROM_WORKLOAD;
	k->workload = w->id;
	k->protocol = p->protocol;
	k->local = out ? p->source : p->destination;
	k->remote = out ? p->destination : p->source;
	k->local_port = out ? p->source_port : p->destination_port;
	k->remote_port = out ? p->destination_port : p->source_port;
	if (p->icmp_kind == ICMP_ASKS || p->icmp_kind == ICMP_ANSWERS) {
		int asked_here = (p->icmp_kind == ICMP_ASKS) == out;
		k->local_port = asked_here ? p->echo_id : 0;
		k->remote_port = asked_here ? 0 : p->echo_id;
	}
}

#define SEEN_ANSWER 1    /* the side that did not open it has sent */
#define SEEN_CONFIRMED 2 /* and the opener went on: a handshake, not a flood's half-open entry */
#define SEEN_FIN_OPENER 4
#define SEEN_FIN_ANSWERER 8
#define SEEN_RST 16

static __always_inline int is_over(__u8 tcp)
{
	return tcp & SEEN_RST || (tcp & SEEN_FIN_OPENER && tcp & SEEN_FIN_ANSWERER);
}

static __always_inline int is_closed(const struct flow *f)
{
	return is_over(f->tcp);
}

static __always_inline int is_stale(const struct flow *f, __u8 protocol, const struct settings *s, __u64 now)
{
	__u64 idle = s->other_idle_ns;
	if (f->hold == HOLD_DENIED || (protocol == IPPROTO_TCP && is_closed(f)))
		idle = s->closed_idle_ns;
	else if (protocol == IPPROTO_TCP && f->tcp & SEEN_CONFIRMED)
		idle = s->tcp_idle_ns;
	return now > f->last_seen_ns && now - f->last_seen_ns > idle;
}

/* Whoever deletes the entry, and nobody else, gives its place back to the workload. */
static __noinline int remove_flow(struct flow_key *k)
{
	__u32 id = k->workload;
	if (bpf_map_delete_elem(&flows, k))
		return 0;
	struct usage *u = bpf_map_lookup_elem(&usage, &id);
	if (u)
		__sync_fetch_and_sub(&u->flows, 1);
	return 1;
}

static __always_inline int is_from_opener(const struct flow *f, __u8 direction)
{
	return (f->origin == ORIGIN_EGRESS) == (direction == FROM_WORKLOAD);
}

/* What is known of a connection after one more packet of it. */
static __always_inline __u8 tcp_after(__u8 before, __u8 flags, int opener)
{
	__u8 tcp = flags & TCP_RST ? before | SEEN_RST : before & ~SEEN_RST;
	if (!opener)
		tcp |= SEEN_ANSWER;
	else if (tcp & SEEN_ANSWER && !(flags & (TCP_SYN | TCP_RST)))
		tcp |= SEEN_CONFIRMED;
	if (flags & TCP_FIN)
		tcp |= opener ? SEEN_FIN_OPENER : SEEN_FIN_ANSWERER;
	return tcp;
}

static __always_inline void touch(struct flow *f, __u8 direction, __u32 bytes, __u64 now, __u8 tcp_flags)
{
	if (direction == FROM_WORKLOAD) {
		__sync_fetch_and_add(&f->packets_out, 1);
		__sync_fetch_and_add(&f->bytes_out, bytes);
	} else {
		__sync_fetch_and_add(&f->packets_in, 1);
		__sync_fetch_and_add(&f->bytes_in, bytes);
	}
	f->last_seen_ns = now;
	__u8 tcp = tcp_after(f->tcp, tcp_flags, is_from_opener(f, direction));
	if (tcp != f->tcp)
		f->tcp = tcp;
}

/*
 * A SYN asks for a new connection, whatever the table knows of the old one: an open flow does not keep its address
 * open. Only a repeated SYN of the same handshake belongs to the entry that it made. 1: decide anew.
 */
static __always_inline int is_new_connection(struct flow *f, struct flow_key *k, const struct packet *p, __u64 patience)
{
	if ((p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN)
		return 0;
	int opener = is_from_opener(f, p->direction);
	int other = f->hold != HOLD_NEVER && (p->fragment || f->first - bpf_ntohl(p->sequence) != 1);
	int over = opener ? other || f->tcp != 0 || p->now - f->opened_ns > patience : is_closed(f);
	if (over)
		remove_flow(k);
	return over || !opener;
}

/*
 * A closed connection's entry waits for late segments and counts in the quota meanwhile, so that a workload of many short
 * connections would be refused. Past half of the quota the entry goes with the last segment: what follows both FINs, or
 * a RST. A far end's RST that the workload may not believe (RFC 5961) ends no handshaken flow here.
 */
static __always_inline void release(struct workload *w, struct flow *f, struct flow_key *k, const struct packet *p)
{
	if (k->protocol != IPPROTO_TCP || !is_closed(f) || p->tcp_flags & TCP_FIN)
		return;
	if (p->tcp_flags & TCP_RST && p->direction != FROM_WORKLOAD && f->tcp & SEEN_CONFIRMED)
		return;
	__u32 id = w->id;
	struct usage *u = bpf_map_lookup_elem(&usage, &id);
	if (u && u->flows > w->flow_quota / 2)
		remove_flow(k);
}

#define OLD_EPOCH 255 /* beside the reasons: there is a flow, and it must be decided again */

/*
 * KNOWN_FLOW, OLD_EPOCH, or UNKNOWN: to be decided; of a flow whose handshake is not, or was not, as it should be, what
 * `as_held` says. `counted` is 0 for an ICMP error, which keeps no flow alive.
 */
CHECKED_ALONE __u8 find_flow(struct workload *w, struct flow_key *k, struct packet *p, struct verdict *v, int counted)
{
	if (!w || !k || !p || !v)
		return REASON_KERNEL_ERROR;
	struct settings *s = node_settings();
	struct flow_key key = *k;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);
	if (!f || !s)
		return REASON_UNKNOWN;
	if (is_stale(f, key.protocol, s, p->now)) {
		remove_flow(&key);
		return REASON_UNKNOWN;
	}
	if (counted && is_new_connection(f, &key, p, s->other_idle_ns))
		return REASON_UNKNOWN;
	v->rule = f->rule;
	v->name = f->name;
	v->origin = f->origin;
	v->hold = f->hold;
	if (f->epoch != w->epoch && f->hold == HOLD_DENIED) {
		remove_flow(&key);
		return REASON_UNKNOWN;
	}
	if (f->epoch != w->epoch)
		return OLD_EPOCH;
	if (!counted)
		return as_quoted(f, p);
	__u8 held = as_held(f, p);
	if (is_inspected(p, held))
		return held; /* counted when it comes back */
	touch(f, p->direction, p->bytes, p->now, p->tcp_flags);
	note_handshake(f, p, held);
	release(w, f, &key, p);
	return held ? held : REASON_KNOWN_FLOW;
}

/*
 * A flow that was decided again goes on under the present epoch, or ends. One that is to be read now, and was not, ends:
 * its handshake will not come again.
 */
CHECKED_ALONE __u8 settle_flow(struct workload *w, struct flow_key *k, struct packet *p, struct verdict *v, int counted)
{
	if (!w || !k || !p || !v)
		return REASON_KERNEL_ERROR;
	struct flow_key key = *k;
	struct flow *f = bpf_map_lookup_elem(&flows, &key);
	if (!f)
		return REASON_UNKNOWN;
	if (!passes(v->reason) || (v->hold == HOLD_AWAITS && f->hold != HOLD_AWAITS)) {
		remove_flow(&key);
		return REASON_REVOKED;
	}
	f->rule = v->rule;
	f->reason = v->reason;
	if (!was_read(f->hold)) {
		f->name = v->name;
		f->hold = v->hold;
	}
	v->hold = f->hold;
	barrier();
	f->epoch = w->epoch;
	if (!counted)
		return as_quoted(f, p);
	__u8 held = as_held(f, p);
	if (!is_inspected(p, held)) {
		touch(f, p->direction, p->bytes, p->now, p->tcp_flags);
		note_handshake(f, p, held);
	}
	return held ? held : REASON_KNOWN_FLOW;
}

/* KNOWN_FLOW, REVOKED, what `as_held` says, or UNKNOWN: there is no such flow. */
static __always_inline __u8 known_flow(struct workload *w, struct flow_key *k, struct packet *p, struct verdict *v,
				       int counted)
{
	__u8 reason = find_flow(w, k, p, v, counted);
	if (reason != OLD_EPOCH)
		return reason;
	v->reason = decide_again(w, k, v, p->now);
	return settle_flow(w, k, p, v, counted);
}

/* Enters an allowed flow; answers the verdict's reason, or why it cannot be entered. */
CHECKED_ALONE __u8 open_flow(struct workload *w, struct flow_key *k, struct packet *p, struct verdict *v, int origin)
{
	if (!w || !k || !p || !v)
		return REASON_KERNEL_ERROR;
	__u8 opening = TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN;
	if (v->hold == HOLD_AWAITS && k->protocol == IPPROTO_TCP &&
	    (p->fragment || (p->tcp_flags & opening) != TCP_SYN))
		return REASON_NOT_VERIFIED; /* nobody knows where its stream begins */
	__u32 id = w->id;
	struct usage *u = bpf_map_lookup_elem(&usage, &id);
	if (!u) {
		struct usage none = {};
		bpf_map_update_elem(&usage, &id, &none, BPF_NOEXIST);
		u = bpf_map_lookup_elem(&usage, &id);
		if (!u)
			return REASON_TABLE_FULL;
	}
	if (__sync_fetch_and_add(&u->flows, 1) >= w->flow_quota) {
		__sync_fetch_and_sub(&u->flows, 1);
		return REASON_QUOTA_FULL;
	}
	struct flow f = {
		.opened_ns = p->now,
		.last_seen_ns = p->now,
		.epoch = w->epoch,
		.rule = v->rule,
		.name = v->name,
		.origin = origin,
		.reason = v->reason,
		.hold = v->hold,
		.first = bpf_ntohl(p->sequence) + (p->tcp_flags & TCP_SYN ? 1 : 0),
	};
	__u8 held = as_held(&f, p), passed = held ? held : v->reason;
	if (is_inspected(p, held)) {
		/* counted when it comes back */
	} else if (p->direction == FROM_WORKLOAD) {
		f.packets_out = 1;
		f.bytes_out = p->bytes;
	} else {
		f.packets_in = 1;
		f.bytes_in = p->bytes;
	}
	struct flow_key key = *k;
	int error = bpf_map_update_elem(&flows, &key, &f, BPF_NOEXIST); /* 6.1 does not extend its sign to a long */
	if (!error)
		return passed;
	__sync_fetch_and_sub(&u->flows, 1);
	if (error == -17) /* EEXIST: another CPU was first, or a SYN against an open flow; both were decided */
		return v->hold == HOLD_AWAITS ? REASON_NOT_VERIFIED : passed; /* which may not be held */
	return error == -7 ? REASON_TABLE_FULL : REASON_KERNEL_ERROR; /* E2BIG */
}

static __always_inline void fragment_key_of(struct fragment_key *key, const struct workload *w, const struct packet *p)
{
	key->workload = w->id;
	key->source = p->source;
	key->destination = p->destination;
	key->id = p->fragment_id;
	key->protocol = p->protocol;
}

#define FRAGMENT_LIFE_NS 30000000000ull /* as long as Linux waits for the rest (ip_frag_time) */

/* Only a first fragment that passed is entered; the later ones carry no ports. */
CHECKED_ALONE __u8 remember_fragment(struct workload *w, struct packet *p, int reason)
{
	if (!w || !p)
		return REASON_KERNEL_ERROR;
	struct fragment_key key = {};
	struct fragment value = { .seen_ns = p->now, .epoch = w->epoch };
	fragment_key_of(&key, w, p);
	return bpf_map_update_elem(&fragments, &key, &value, BPF_ANY) ? REASON_KERNEL_ERROR : reason;
}

CHECKED_ALONE __u8 later_fragment(struct workload *w, struct packet *p)
{
	if (!w || !p)
		return REASON_KERNEL_ERROR;
	struct fragment_key key = {};
	fragment_key_of(&key, w, p);
	struct fragment *f = bpf_map_lookup_elem(&fragments, &key);
	if (!f || f->epoch != w->epoch || p->now - f->seen_ns > FRAGMENT_LIFE_NS)
		return REASON_FRAGMENT_UNKNOWN;
	return REASON_KNOWN_FLOW;
}
