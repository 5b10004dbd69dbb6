/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the policy says about a flow. All precedence between rules was resolved when the tables were compiled: the
 * longest match is the whole answer. `decide` is asked for a new flow, and again for an open one after a change.
 */
#pragma once

/* Of a flow: its handshake was, and it passed. */
static __always_inline int was_read(__u8 hold)
{
	return hold >= HOLD_VERIFIED;
}

struct verdict {
	__u8 reason;
	__u8 origin; /* of a flow that is decided again */
	__u8 worth; /* of what allows it */
	__u8 hold; /* before: of the flow that is decided again; behind: HOLD_AWAITS if the handshake is to be read first */
	__u32 rule;
	__u32 name;
};

static __always_inline __u32 class_of(__u32 generation, const struct address *a)
{
	__u32 *class;
	if (is_ipv4(a)) {
		struct class4_key key = { .prefix_length = 64, .generation = generation, .address = a->w[3] };
		class = bpf_map_lookup_elem(&classes4, &key);
	} else {
		struct class6_key key = { .prefix_length = 160, .generation = generation, .address = *a };
		class = bpf_map_lookup_elem(&classes6, &key);
	}
	return class ? *class : 0;
}

static __always_inline struct rule *rule_of(__u32 policy, __u32 class, __u32 protocol, __u32 port)
{
	struct rule_key key = {
		.prefix_length = RULE_WHOLE, .policy = policy, .class = class, .protocol = protocol, .port = port
	};
	return bpf_map_lookup_elem(&rules, &key);
}

static __always_inline struct rule *rule_by_address(__u32 policy, __u32 class, __u32 protocol, __u32 port)
{
	struct rule *r = rule_of(policy, class, protocol, port);
	return r || !class ? r : rule_of(policy, 0, protocol, port);
}

/* What stands in a port's place in a rule: of ICMP type and code, and only an echo request opens a flow. */
static __always_inline __be16 rule_port(__u8 protocol, __be16 port)
{
	switch (protocol) {
	case IPPROTO_ICMP:
		return bpf_htons(8 << 8);
	case IPPROTO_ICMPV6:
		return bpf_htons(128 << 8);
	default:
		return port;
	}
}

/* 0: no rule of the policy speaks of the name. */
static __always_inline __u32 class_of_name(__u32 policy, __u32 name)
{
	struct name_class_key key = { .policy = policy, .name = name };
#pragma unroll
	for (int i = 0; i < READ_TRIES; i++) {
		__u32 *found = bpf_map_lookup_elem(&name_classes, &key);
		if (!found)
			return 0;
		__u32 class = *(volatile __u32 *)found;
		barrier();
		if (bpf_map_lookup_elem(&name_classes, &key) == found)
			return class;
	}
	return 0;
}

/* The rule that allows a name in a policy, if there is one. */
static __always_inline struct rule *rule_by_name(__u32 policy, __u32 name, __u32 protocol, __u32 port)
{
	__u32 class = class_of_name(policy, name);
	struct rule *r = class ? rule_of(policy, class, protocol, port) : 0;
	return r && r->action == ACTION_ALLOW ? r : 0;
}

static __always_inline int is_listener(const struct address *a, __be16 port, __u8 protocol)
{
	struct listener_key key = { .address = *a, .port = port, .protocol = protocol };
	if (bpf_map_lookup_elem(&node_listeners, &key))
		return 1;
	__builtin_memset(&key.address, 0, sizeof(key.address));
	return bpf_map_lookup_elem(&node_listeners, &key) != 0;
}

static __always_inline int is_closed_by_node(const struct flow_key *k)
{
	struct address remote = k->remote;
	if (is_edge_address(&remote))
		return 1;
	return bpf_map_lookup_elem(&node_addresses, &remote) && !is_listener(&remote, k->remote_port, k->protocol);
}

/* One of the names that this workload itself resolved to this address; none if there is none. */
static __noinline __u32 load_slot(struct learned_key *key, __u32 index, __u64 *expires_ns)
{
#pragma unroll
	for (int i = 0; i < READ_TRIES; i++) {
		struct learned *l = bpf_map_lookup_elem(&learned, key);
		if (!l || index >= LEARNED_SLOTS)
			return 0;
		__u32 name = *(volatile __u32 *)&l->slots[index].name;
		*expires_ns = *(volatile __u64 *)&l->slots[index].expires_ns;
		barrier();
		if (bpf_map_lookup_elem(&learned, key) == l)
			return name;
	}
	return 0;
}

/* Which names may open a flow. */
enum names { NAMES_NONE, NAMES_ADMIN, NAMES_ALL };

static __always_inline enum names names_first(const struct rule *r)
{
	if (!r || r->action == ACTION_UNDECIDED)
		return NAMES_ALL;
	if (r->flags & RULE_ALL_NAMES)
		return NAMES_ALL;
	return r->flags & RULE_ADMIN_NAMES ? NAMES_ADMIN : NAMES_NONE;
}

/* What a name is worth: the admin tier's before others, and what needs no look at the handshake before what does. */
enum worth { WORTH_NOTHING, WORTH_EXPIRED, WORTH_ONCE_VERIFIED, WORTH_ALL, WORTH_ADMIN_VERIFIED, WORTH_ADMIN };

static __always_inline int is_admin(const struct verdict *v)
{
	return v->worth >= WORTH_ADMIN_VERIFIED;
}

/*
 * The names that the workload resolved to the address. `own` is the name of an open flow, which needs no live address, or
 * 0. Where the handshake was `read`, its name is the only one that a rule which wants it read can mean.
 */
static __always_inline __u8 decide_by_name(struct workload *w, struct flow_key *k, struct verdict *v, __u64 now,
					   __u32 own, int read, enum names asked)
{
	struct learned_key key = { .workload = w->id, .address = k->remote };
	__be16 port = rule_port(k->protocol, k->remote_port);
	v->reason = REASON_DENIED_BY_DEFAULT;
#pragma unroll
	for (int i = 0; i <= LEARNED_SLOTS; i++) {
		__u64 expires_ns = ~0ull;
		__u32 name = i ? load_slot(&key, i - 1, &expires_ns) : own;
		if (!name && i)
			break; /* slots fill from the first */
		struct rule *r = name ? rule_by_name(w->egress_policy, name, k->protocol, port) : 0;
		if (!r)
			continue;
		int admin = r->flags & RULE_ADMIN, verify = r->flags & RULE_VERIFY;
		if ((!admin && asked == NAMES_ADMIN) || (r->flags & RULE_SHOWN && read && i))
			continue;
		verify = verify && !read;
		__u8 worth = (verify ? WORTH_ONCE_VERIFIED : WORTH_ALL) + (admin ? WORTH_ADMIN - WORTH_ALL : 0);
		if (expires_ns <= now)
			worth = WORTH_EXPIRED;
		if (worth <= v->worth)
			continue;
		v->worth = worth;
		v->rule = r->rule;
		v->name = name;
		v->hold = verify ? HOLD_AWAITS : HOLD_NEVER;
		v->reason = worth == WORTH_EXPIRED ? REASON_NAME_EXPIRED : REASON_ALLOWED_BY_NAME;
		if (worth == WORTH_ADMIN)
			break;
	}
	return v->reason;
}

/* It passes; the rule that is named is the one that would deny it. A name by which it passes stays. */
static __always_inline __u8 audited(struct verdict *v, __u32 rule)
{
	v->rule = rule;
	return v->reason = REASON_AUDITED;
}

/* What was read in a handshake is denied where no rule of a higher tier allowed the flow. */
CHECKED_ALONE int is_denied_by_name(struct workload *w, struct flow_key *k, struct verdict *v, __u32 read)
{
	if (!w || !k || !v)
		return 1;
	__u32 class = read ? class_of_name(w->egress_policy, read) : 0;
	struct rule *r = class ? rule_of(w->egress_policy, class, k->protocol, k->remote_port) : 0;
	if (!r || r->action != ACTION_DENY || (is_admin(v) && !(r->flags & RULE_ADMIN)))
		return 0;
	v->rule = r->rule;
	v->name = read;
	return 1;
}

/* `own`: the name of an open flow that is decided again, or 0. */
CHECKED_ALONE __u8 decide_egress(struct workload *w, struct flow_key *k, struct verdict *v, __u64 now, __u32 own)
{
	if (!w || !k || !v)
		return REASON_KERNEL_ERROR;
	int read = was_read(v->hold);
	v->hold = HOLD_NEVER;
	v->worth = WORTH_NOTHING;
	if (is_closed_by_node(k))
		return v->reason = REASON_NODE_ADDRESS;
	__be16 port = rule_port(k->protocol, k->remote_port);
	struct rule *r = rule_by_address(w->egress_policy, class_of(w->generation, &k->remote), k->protocol, port);
	__u8 action = r ? r->action : ACTION_UNDECIDED;
	__u8 flags = r ? r->flags : 0;
	__u32 rule = r ? r->rule : 0, audit = r ? r->audit : 0;
	enum names asked = names_first(r);
	if (asked != NAMES_NONE && decide_by_name(w, k, v, now, own, read, asked) == REASON_ALLOWED_BY_NAME) {
		int below_audit = flags & RULE_AUDIT_ADMIN || (action == ACTION_UNDECIDED && !is_admin(v));
		return audit && below_audit ? audited(v, audit) : v->reason; /* 6, 8 */
	}
	if (action == ACTION_UNDECIDED)
		return v->reason; /* 9 */
	v->rule = rule;
	v->worth = flags & RULE_ADMIN ? WORTH_ADMIN : WORTH_ALL;
	v->hold = flags & RULE_VERIFY && !read ? HOLD_AWAITS : HOLD_NEVER;
	v->name = read ? own : 0;
	if (action == ACTION_DENY)
		return v->reason = REASON_DENIED_BY_CIDR; /* 6, 7 */
	if (audit)
		return audited(v, audit);
	return v->reason = rule ? REASON_ALLOWED_BY_CIDR : REASON_ALLOWED_BY_DEFAULT; /* 6, 8, 9 */
}

/* `origin`: where the flow comes from, ORIGIN_INGRESS if neither from the same network nor from the node. */
CHECKED_ALONE __u8 decide_ingress(struct workload *w, struct flow_key *k, struct verdict *v, __u32 origin)
{
	if (!w || !k || !v)
		return REASON_KERNEL_ERROR;
	v->rule = 0;
	if (origin == ORIGIN_PROBE)
		return v->reason = w->flags & WORKLOAD_PROBES ? REASON_PROBE : REASON_DENIED_BY_DEFAULT; /* 3 */
	struct port_key port = { .workload = w->id, .port = k->local_port, .protocol = k->protocol };
	if (bpf_map_lookup_elem(&exposed, &port))
		return v->reason = REASON_EDGE_ONLY; /* 3 */
	__be16 own = rule_port(k->protocol, k->local_port);
	struct rule *r = rule_by_address(w->ingress_policy, class_of(w->generation, &k->remote), k->protocol, own);
	if (r && r->action == ACTION_DENY) {
		v->rule = r->rule;
		return v->reason = REASON_DENIED_BY_CIDR; /* 6 */
	}
	if (r && r->action == ACTION_ALLOW && r->rule) {
		v->rule = r->rule;
		return v->reason = REASON_ALLOWED_BY_CIDR; /* 6 */
	}
	if (origin == ORIGIN_SAME_NETWORK && w->flags & WORKLOAD_OPEN)
		return v->reason = REASON_SAME_NETWORK; /* 7 */
	if (r && r->action == ACTION_ALLOW)
		return v->reason = REASON_ALLOWED_BY_DEFAULT; /* 8 */
	return v->reason = REASON_DENIED_BY_DEFAULT; /* 8 */
}

/* After a change: does the flow that `v` tells of live on? Its name needs no live address, only a policy that allows it. */
static __always_inline __u8 decide_again(struct workload *w, struct flow_key *k, struct verdict *v, __u64 now)
{
	if (v->origin != ORIGIN_EGRESS)
		return decide_ingress(w, k, v, v->origin);
	__u32 read = was_read(v->hold) ? v->name : 0;
	if (passes(decide_egress(w, k, v, now, v->name)) && read && is_denied_by_name(w, k, v, read))
		v->reason = REASON_DENIED_BY_NAME; /* 6, 7 */
	return v->reason;
}
