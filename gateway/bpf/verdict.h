/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the policy says about a flow. All precedence between rules was resolved when the tables were compiled: the
 * longest match is the whole answer. `decide` is asked for a new flow, and again for an open one after a change.
 */
#pragma once

struct verdict {
	__u8 reason;
	__u8 pad[3];
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

/* The rule that allows a name in a policy, if there is one. */
static __always_inline struct rule *rule_by_name(__u32 policy, __u32 name, __u32 protocol, __u32 port)
{
	struct name_class_key key = { .policy = policy, .name = name };
	__u32 *class = bpf_map_lookup_elem(&name_classes, &key);
	struct rule *r = class && *class ? rule_of(policy, *class, protocol, port) : 0;
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

/* What this workload itself resolved to this address. */
static __always_inline __u8 decide_by_name(struct workload *w, struct flow_key *k, struct verdict *v, __u64 now)
{
	struct learned_key key = { .workload = w->id, .address = k->remote };
	struct learned *l = bpf_map_lookup_elem(&learned, &key);
	v->reason = REASON_DENIED_BY_DEFAULT;
	if (!l)
		return v->reason;
#pragma unroll
	for (int i = 0; i < LEARNED_SLOTS; i++) {
		__u32 name = l->slots[i].name;
		if (!name)
			continue;
		struct rule *r = rule_by_name(w->egress_policy, name, k->protocol, k->remote_port);
		if (!r)
			continue;
		v->rule = r->rule;
		v->name = name;
		if (l->slots[i].expires_ns > now) {
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

/* After a change: does a flow that is open live on? Its name needs no live address, only a policy that allows it. */
static __always_inline __u8 decide_again(struct workload *w, struct flow_key *k, struct flow *f, struct verdict *v, __u64 now)
{
	if (f->origin != ORIGIN_EGRESS)
		return decide_ingress(w, k, v, f->origin);
	__u8 reason = decide_egress(w, k, v, now);
	if (!f->name || passes(reason) || reason == REASON_DENIED_BY_CIDR || reason == REASON_NODE_ADDRESS)
		return reason;
	struct rule *r = rule_by_name(w->egress_policy, f->name, k->protocol, k->remote_port);
	if (!r)
		return reason;
	v->rule = r->rule;
	v->name = f->name;
	return v->reason = REASON_ALLOWED_BY_NAME;
}
