/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tables that the programs and the daemon share, mirrored in `src/egress/tables/`; a test compares the offsets.
 * All are pinned by name. Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. Ports are in network order,
 * other numbers in the machine's. Times are nanoseconds of CLOCK_BOOTTIME.
 *
 * The memory of a hash table's entry that was replaced or removed may be given to another entry at once, under the eyes
 * of a program that reads it. What decides is therefore read twice, checked against another table, or stamped; and
 * where presence alone decides, it stands in the key.
 *
 * When full: `flows` and `mappings` refuse new flows (TABLE_FULL), a workload's quota (QUOTA_FULL) and a network's
 * (NAT_QUOTA) its own only; `service_flows`, `fragments`, `nat_fragments`, `direct`, `budgets` and `answers` lose their oldest;
 * `events` loses new ones, counted in `losses`; in all other tables the daemon's write fails and the packet finds
 * nothing, which denies, or leaves it to the node's stack (`routed`).
 */
#pragma once

/*
 * A function that the verifier checks once and by itself, not again for each way to each of its calls: without these
 * it walks some 200 000 instructions. It forgets what the caller knew, so that pointers are checked again inside, and
 * a key behind a pointer is copied before it is looked up (6.1 takes none from there).
 */
#define CHECKED_ALONE __attribute__((noinline))

#define MAP(name, kind, size, flags, key_type, value_type)                                                             \
	struct {                                                                                                       \
		__uint(type, kind);                                                                                    \
		__uint(max_entries, size);                                                                             \
		__uint(map_flags, flags);                                                                              \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                                                   \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} name SEC(".maps")
#define HASH(name, size, key, value) MAP(name, BPF_MAP_TYPE_HASH, size, BPF_F_NO_PREALLOC, key, value)
#define LRU(name, size, key, value) MAP(name, BPF_MAP_TYPE_LRU_HASH, size, 0, key, value)
#define TRIE(name, size, key, value) MAP(name, BPF_MAP_TYPE_LPM_TRIE, size, BPF_F_NO_PREALLOC, key, value)

struct address {
	__u32 w[4];
};

/* Written by the daemon, whole, in one update: this is the switch from one policy to the next. */
#define WORKLOAD_SEALED 1   /* nothing passes */
#define WORKLOAD_EXTERNAL 2 /* a router on the VLAN routes, not this node */
#define WORKLOAD_OPEN 4     /* workloadTraffic: Open */
#define WORKLOAD_PROBES 8   /* the node itself may open connections */
#define WORKLOAD_REJECTS 16 /* onDeny: Reject */
#define WORKLOAD_MASQUERADED 32 /* what leaves by the uplink has the node's address; see nat.h */
struct workload {
	__u32 stamp; /* another with each write; the kernel copies a value from its begin to its end */
	__u32 id; /* never used twice */
	__u32 network;
	__u32 epoch; /* goes up with each change that may end flows */
	__u32 generation;
	__u32 egress_policy;
	__u32 ingress_policy;
	__u32 flags;
	__u32 flow_quota;
	__u8 mac[6];
	__u8 gateway_mac[6]; /* sender of frames from the service namespace */
	__u32 bridge; /* where its network's gateway is; 0: its packets take the node's stack (another router) */
	__u32 stamp_again;
};
HASH(workloads, 8192, __u32, struct workload); /* by ifindex of the host side */

struct port_address {
	__u32 ifindex;
	struct address address;
};
HASH(addresses, 32768, struct port_address, struct address); /* the workload's own addresses -> their handles */

struct handle {
	__u32 ifindex;
	__u32 workload;
	struct address address;
	__u8 mac[6];
	__u8 gateway_mac[6];
};
HASH(handles, 32768, struct address, struct handle);

/* A view's 32 bits always match whole: one for all routed networks, one for each other that needs its own. After a restart
 * all of it is loaded beside what is there, so that there is room for twice the prefixes; what is not used takes none. */
struct class4_key {
	__u32 prefix_length;
	__u32 generation;
	__be32 address;
};
TRIE(classes4, 2200000, struct class4_key, __u32);
struct class6_key {
	__u32 prefix_length;
	__u32 generation;
	struct address address;
};
TRIE(classes6, 2200000, struct class6_key, __u32);

#define RULE_ANY_PROTOCOL 64 /* prefix lengths; 72 is any port of a protocol, 72 + n a block of ports */
#define RULE_WHOLE 88
struct rule_key {
	__u32 prefix_length;
	__u32 policy;
	__u32 class;
	__u8 protocol;
	__be16 port;
} __attribute__((packed));
#define ACTION_UNDECIDED 0
#define ACTION_ALLOW 1
#define ACTION_DENY 2
#define RULE_ADMIN 1       /* of the admin tier */
#define RULE_ADMIN_NAMES 2 /* names that the admin tier allows come first */
#define RULE_ALL_NAMES 4   /* every name that a rule allows comes first */
#define RULE_AUDIT_ADMIN 8 /* `audit` is of the admin tier, above every name */
#define RULE_VERIFY 16     /* what it lets pass waits until its handshake was judged */
#define RULE_SHOWN 32      /* of a name: of a flow that was read it allows only the name that was shown */
struct rule {
	__u8 action;
	__u8 flags;
	__u8 pad[2];
	__u32 rule; /* 0: the default */
	__u32 audit; /* would deny what this lets pass; 0: none */
};
TRIE(rules, 1048576, struct rule_key, struct rule);

#define LEARNED_SLOTS 4
struct learned_key {
	__u32 workload;
	struct address address;
};
struct learned_slot {
	__u32 name; /* 0: free */
	__u32 pad;
	__u64 expires_ns;
};
struct learned {
	struct learned_slot slots[LEARNED_SLOTS];
};
HASH(learned, 65536, struct learned_key, struct learned);
struct name_class_key {
	__u32 policy;
	__u32 name;
};
HASH(name_classes, 262144, struct name_class_key, __u32);
struct name_text {
	char text[256]; /* lower case, zeros behind it */
};
HASH(names, 65536, __u32, struct name_text); /* for the daemon's restart, and for sight.h */

/* DNS answers that a workload had, for when it asks again; see answers.h. */
#define QUESTION_OCTETS 128 /* of a name, as a message has it */
#define OPT_NONE 0
#define OPT_PLAIN 1
#define OPT_DNSSEC 2 /* DO is set */
struct question {
	__u32 workload;
	__be16 kind;
	__be16 flags; /* the header's: RD, AD and CD */
	__u8 opt;
	__u8 length; /* of the name */
	__u8 pad[6];
	__u8 name[QUESTION_OCTETS]; /* in lower case; zero behind it */
};
#define ANSWER_ADDRESSES 8
#define ANSWER_TTLS 16
#define ANSWER_OCTETS 508
struct answer {
	__u32 stamp; /* another with each write; the kernel copies a value from its begin to its end */
	__u32 class; /* of the name in the workload's policy; 0: it opens nothing */
	__u32 pad;
	__u8 addresses;
	__u8 ttls;
	__u16 length; /* of `octets`, at least 1 */
	__u64 rules; /* it is true while `answer_rules` says so */
	__u64 ask_ns; /* from then on the daemon is asked */
	__u64 expires_ns;
	__u64 opens_ns; /* what is learned of the addresses must last until then */
	struct address address[ANSWER_ADDRESSES];
	__u16 ttl[ANSWER_TTLS]; /* where in `octets` */
	__be16 flags;
	__be16 counts[3]; /* of the records behind the question */
	__u8 octets[ANSWER_OCTETS]; /* all that is behind the question */
	__u32 stamp_again;
};
LRU(answers, 8192, struct question, struct answer);
MAP(answer_rules, BPF_MAP_TYPE_ARRAY, 1, 0, __u32, __u64); /* never the same again; 0: the daemon answers everything */
MAP(answered, BPF_MAP_TYPE_PERCPU_ARRAY, 2, 0, __u32, __u64); /* questions by `enum answered` */

#define ORIGIN_EGRESS 1
#define ORIGIN_INGRESS 2
#define ORIGIN_SAME_NETWORK 3
#define ORIGIN_PROBE 4
#define MARK_RETURNED 0x74676874 /* of a frame between from_tap and from_workload, where it is taken off */
#define HOLD_NEVER 0    /* nothing is to be read */
#define HOLD_AWAITS 1   /* no payload passes in either direction; see hold.h */
#define HOLD_DENIED 2   /* nothing passes */
#define NO_EPOCH (~0u) /* of a flow that is to be decided again at its next packet */
#define HOLD_VERIFIED 3 /* `name` is what the handshake asked for, 0 if it had no name */
#define HOLD_SHOWN 4    /* the same, and the far end has not acknowledged all that was read */
struct flow_key {
	__u32 workload;
	struct address local;
	struct address remote;
	__be16 local_port; /* ICMP echo: the id, on the side that asks; 65535 stands for 0, which is the other side's */
	__be16 remote_port;
	__u8 protocol;
	__u8 pad[3];
};
struct flow {
	__u64 opened_ns;
	__u64 last_seen_ns;
	__u64 packets_out; /* as the program saw them: a GSO frame counts once */
	__u64 bytes_out;
	__u64 packets_in;
	__u64 bytes_in;
	__u32 epoch;
	__u32 rule;
	__u32 name; /* 0: not decided by name */
	__u8 origin;
	__u8 tcp;
	__u8 reason; /* why it was allowed, or, of a HOLD_DENIED one, denied */
	__u8 hold;
	__u32 first; /* TCP's number of the first octet that the opener sends */
	__u32 end; /* and of the one behind what was read of it */
	__u64 shown; /* of TCP, SipHash-1-3 of the ClientHello's records */
	__u32 claimed; /* its verdict is, or is being, written */
	__u32 pad;
};
HASH(flows, 262144, struct flow_key, struct flow);
struct usage {
	__u32 flows;
};
HASH(usage, 8192, __u32, struct usage); /* by workload id */

/* The edge's connections, as flow_key: local is the workload, remote the address the edge came from. */
LRU(service_flows, 65536, struct flow_key, __u64);
struct port_key {
	__u32 workload;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};
HASH(exposed, 16384, struct port_key, __u32);

HASH(node_addresses, 4096, struct address, __u32);
struct listener_key {
	struct address address; /* zero: every address of the node */
	__be16 port;
	__u8 protocol;
	__u8 pad;
};
HASH(node_listeners, 1024, struct listener_key, __u32);
struct segment_key {
	__u32 ifindex; /* of the VLAN sub-interface */
	__u32 network;
};
HASH(segments, 8192, struct segment_key, __u32);
struct subnet_key {
	__u32 prefix_length;
	__u32 network;
	struct address address;
};
TRIE(subnets, 16384, struct subnet_key, __u32); /* what is on-link in a network */

/* What is heard of networks' VLANs on their trunks; see trunk.h. The daemon makes the entries, the program fills them. */
struct trunk_key {
	__u32 parent;
	__be16 protocol; /* of the tag */
	__u16 id;
};
HASH(trunks, 16384, struct trunk_key, __u32); /* to a network */
struct heard {
	__u64 heard_ns; /* anybody */
	__u64 answered_ns; /* who has an address of `claims` without owner: the network's router */
	__u64 claimed_ns; /* who is not the owner of one */
	struct address claimed;
	__u8 router[6];
	__u8 claimer[6];
	__u32 pad;
};
HASH(heard, 8192, __u32, struct heard); /* by network */
struct claim_key {
	__u32 network;
	struct address address;
};
struct owner {
	__u8 mac[6]; /* zeros: nobody of this node */
	__u8 pad[2];
};
HASH(claims, 262144, struct claim_key, struct owner);
struct lldp {
	__u64 heard_ns;
	__u32 length;
	__u32 pad;
	__u8 frame[512]; /* its beginning */
};
HASH(lldp, 1024, __u32, struct lldp); /* by parent */

/* Past the node's stack; see fast.h. */
struct uplink {
	__u32 ifindex; /* 0: every packet takes the stack */
	__u32 generation; /* another after each change of routes, neighbours, links */
};
MAP(uplink, BPF_MAP_TYPE_ARRAY, 1, 0, __u32, struct uplink);
HASH(routed, 32768, struct address, __u32); /* addresses of workloads with a bridge -> ifindex of the host side */

/* What became of a packet that may skip the stack: `Way` of the daemon, append only. */
enum way {
	WAY_OUT = 0, /* by the uplink, to a next hop that was known */
	WAY_RESOLVED = 1, /* by the uplink, the kernel looks for the next hop's MAC */
	WAY_IN = 2, /* from the uplink to the workload */
	/* these the stack takes */
	WAY_NOT_ROUTED = 3, /* no route, unreachable, the node itself, forwarding is off */
	WAY_OTHER_DEVICE = 4, /* the far end is not beyond the uplink */
	WAY_LAST_HOP = 5, /* its TTL or hop limit ends here: time exceeded */
	WAY_TOO_BIG = 6, /* for the path or the workload's link: fragmentation needed */
	WAY_LINK_LOCAL = 7, /* an address that is never forwarded */
	WAY_FAILED = 8, /* a table or helper of the kernel */
	WAY_FRAGMENT = 9, /* from the uplink: the stack may put it together */
	/* as the packet before it, see shortcut.h */
	WAY_OUT_AGAIN = 10,
	WAY_IN_AGAIN = 11,
};
#define WAYS 16
MAP(ways, BPF_MAP_TYPE_PERCPU_ARRAY, WAYS, 0, __u32, __u64); /* packets by way */

/* Source NAT at the uplink; see nat.h. */
struct nat {
	__u32 ifindex; /* where addresses are translated; 0: nowhere */
	__u16 first_port; /* both in the machine's order */
	__u16 ports;
	__u32 quota; /* mappings that one network may have */
	__u32 pad;
	__u64 hold_ns; /* a closed connection's port is given to nobody else so long */
	struct address main4; /* the uplink's addresses that most of what leaves has; zero: none */
	struct address main6;
};
MAP(nat, BPF_MAP_TYPE_ARRAY, 1, 0, __u32, struct nat);
struct prefix_key {
	__u32 prefix_length;
	struct address address;
};
TRIE(masqueraded, 16384, struct prefix_key, __u32); /* sources -> their network */
TRIE(egress_addresses, 1024, struct prefix_key, struct address); /* destinations -> the uplink's address for them */
struct own_key {
	__u32 network;
	__u32 ipv6;
};
HASH(own_addresses, 16384, struct own_key, struct address); /* what a network leaves with in the place of that */
struct endpoint {
	struct address address;
	__be16 port; /* ICMP echo: the id */
	__u16 zero;
};
/* A packet's own addresses and ports. ICMP echo: the id is the port of the side that asks, the other's is 0. */
struct tuple {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 pad[3];
};
struct mapping {
	__u64 last_seen_ns;
	struct endpoint wire; /* what the far end sees as source */
	__u32 network;
	__u8 tcp; /* as a flow's */
	__u8 over; /* set by the daemon: to be taken away */
	__u8 pad[6];
};
HASH(mappings, 262144, struct tuple, struct mapping); /* by what leaves */
struct way_back {
	__u64 made_ns;
	struct endpoint own; /* the source before translation */
	__u32 pad;
};
HASH(ways_back, 262144, struct tuple, struct way_back); /* by what comes */
HASH(nat_usage, 8192, __u32, struct usage); /* mappings by network */
/* Other hosts' flows that were opened from outside to their own address, by what leaves: their replies keep it. */
LRU(direct, 16384, struct tuple, __u64);
struct nat_fragment {
	__u64 seen_ns;
	struct address address; /* of the side that is translated; its own where it is not */
};

struct fragment_key {
	__u32 workload;
	struct address source;
	struct address destination;
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
};
struct fragment {
	__u64 seen_ns;
	__u32 epoch;
	__u32 pad;
};
LRU(fragments, 16384, struct fragment_key, struct fragment);
LRU(nat_fragments, 16384, struct fragment_key, struct nat_fragment); /* workload: 0; addresses as they came */

#define EVENT_FLOW 1
#define EVENT_DROP 2
#define EVENT_VERIFIED 3 /* EVENT_FLOW, and the handshake asked for `name` */
#define FROM_WORKLOAD 1
#define TO_WORKLOAD 2
#define FROM_SERVICE 3
struct event {
	__u64 time_ns;
	__u32 workload; /* 0: none */
	__u32 ifindex;
	__u32 rule;
	__u32 name;
	struct address local;
	struct address remote;
	__be16 local_port;
	__be16 remote_port;
	__u8 protocol;
	__u8 kind;
	__u8 direction;
	__u8 reason;
};
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} events SEC(".maps");
#define BUDGET_REJECTIONS 4 /* beside the kinds of events */
struct budget {
	__u64 second;
	__u32 flows;
	__u32 drops;
	__u32 rejections;
	__u32 held; /* in this window, see hold.h */
	__u64 window;
};
LRU(budgets, 8192, __u32, struct budget); /* events of a workload in this second, and answers to it */

struct counter {
	__u64 packets;
	__u64 bytes;
};
MAP(counters, BPF_MAP_TYPE_PERCPU_ARRAY, REASONS, 0, __u32, struct counter); /* by reason */
#define LOST_RING_FULL 0
#define LOST_OVER_BUDGET 1
MAP(losses, BPF_MAP_TYPE_PERCPU_ARRAY, 2, 0, __u32, __u64); /* events that were not sent */
MAP(rejections, BPF_MAP_TYPE_PERCPU_ARRAY, 4, 0, __u32, __u64); /* denied packets whose sender was told, see reject.h */
MAP(sights, BPF_MAP_TYPE_PERCPU_ARRAY, 1, 0, __u32, __u64); /* flows verified without the inspector, see sight.h */

struct settings {
	__u64 tcp_idle_ns;
	__u64 other_idle_ns;
	__u64 closed_idle_ns;
	__u64 sweep_ns;
	__u32 tg0_ifindex; /* 0: no service namespace yet; DNS is dropped */
	__u32 flow_events; /* a second and workload */
	__u32 drop_events;
	__u32 rejections;
	__u8 tg1_mac[6];
	__u8 pad[2];
	__u32 inspector; /* ifindex of the TAP that held frames go to; 0: they are dropped */
	__u32 holds; /* a workload's share of it, see hold.h */
	__u64 key[2]; /* of this node, for `flow.shown` */
};
MAP(settings, BPF_MAP_TYPE_ARRAY, 1, 0, __u32, struct settings);
struct sweeper {
	struct bpf_timer timer;
	__u64 runs;
	__u64 reclaimed;
	__u64 took_ns; /* the last run */
};
MAP(sweeper, BPF_MAP_TYPE_ARRAY, 1, 0, __u32, struct sweeper);
struct swept { /* the same by the daemon; another table, as a program of its kind may not have one with a timer */
	__u64 at_ns;
	__u64 runs;
	__u64 reclaimed;
	__u64 took_ns;
};
MAP(swept, BPF_MAP_TYPE_ARRAY, 1, 0, __u32, struct swept);

#define barrier() asm volatile("" ::: "memory")
#define READ_TRIES 3

/* A copy of a device's entry, of one write as a whole: the end is read first, the begin last. 0: there is none. */
CHECKED_ALONE int load_workload(__u32 ifindex, struct workload *to)
{
	if (!to)
		return 0;
#pragma unroll
	for (int i = 0; i < READ_TRIES; i++) {
		struct workload *w = bpf_map_lookup_elem(&workloads, &ifindex);
		if (!w)
			return 0;
		__u32 stamp = *(volatile __u32 *)&w->stamp_again;
		barrier();
		*to = *w;
		barrier();
		if (*(volatile __u32 *)&w->stamp == stamp && to->stamp_again == stamp)
			return 1;
	}
	return 0;
}

static __always_inline int is_segment(__u32 ifindex, __u32 network)
{
	struct segment_key key = { .ifindex = ifindex, .network = network };
	return bpf_map_lookup_elem(&segments, &key) != 0;
}

static __always_inline struct settings *node_settings(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&settings, &zero);
}
