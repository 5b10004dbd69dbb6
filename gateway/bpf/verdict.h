/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the policy says about a flow. All precedence between rules was resolved when the tables were compiled: the
 * longest match is the whole answer. `decide` is asked for a new flow, and again for an open one after a change.
 */
#pragma once

struct verdict {
	__u8 reason;
	__u8 origin; /* of a flow that is decided again */
	__u8 pad[2];
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

static __always_inline __u8 decide_by_name(struct workload *w, struct flow_key *k, struct verdict *v, __u64 now)
{
	struct learned_key key = { .workload = w->id, .address = k->remote };
	v->reason = REASON_DENIED_BY_DEFAULT;
#pragma unroll
	for (int i = 0; i < LEARNED_SLOTS; i++) {
		__u64 expires_ns = 0;
		__u32 name = load_slot(&key, i, &expires_ns);
		if (!name)
			break; /* slots fill from the first */
		struct rule *r = rule_by_name(w->egress_policy, name, k->protocol, k->remote_port);
		if (!r)
			continue;
		v->rule = r->rule;
		v->name = name;
		if (expires_ns > now) {
			return v->reason = REASON_ALLOWED_BY_NAME;
		}
		v->reason = REASON_NAME_EXPIRED;
	}
	return v->reason;
}

CHECKED_ALONE __u8 decide_egress(struct workload *w, struct flow_key *k, struct verdict *v, __u64 now)
{
	if (!w || !k || !v)
		return REASON_KERNEL_ERROR;
	if (is_closed_by_node(k))
		return v->reason = REASON_NODE_ADDRESS;
	struct rule *r = rule_by_address(w->egress_policy, class_of(w->generation, &k->remote), k->protocol, k->remote_port);
	if (r && r->action != ACTION_UNDECIDED) {
		v->rule = r->rule;
		v->name = 0;
		if (r->action == ACTION_DENY)
			return v->reason = REASON_DENIED_BY_CIDR; /* 7 */
		return v->reason = r->rule ? REASON_ALLOWED_BY_CIDR : REASON_ALLOWED_BY_DEFAULT; /* 8, 9 */
	}
	return decide_by_name(w, k, v, now); /* 8, 9 */
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
	struct rule *r = rule_by_address(w->ingress_policy, class_of(w->generation, &k->remote), k->protocol, k->local_port);
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
	__u32 name = v->name;
	__u8 reason = decide_egress(w, k, v, now);
	if (!name || passes(reason) || reason == REASON_DENIED_BY_CIDR || reason == REASON_NODE_ADDRESS)
		return reason;
	struct rule *r = rule_by_name(w->egress_policy, name, k->protocol, k->remote_port);
	v->name = name;
	if (!r)
		return reason;
	v->rule = r->rule;
	return v->reason = REASON_ALLOWED_BY_NAME;
}
