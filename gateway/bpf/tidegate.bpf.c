/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The gate in the kernel. `from_workload` is at the tc ingress of a workload's host-side veth, `to_workload` at its tc
 * egress, `from_service` at the tc ingress of tg0, `from_uplink` at that of the uplink, `to_uplink` at its tc egress. Each
 * asks its list, from the top; the first line that speaks decides, and each return carries the line's number.
 *
 * From a workload
 *   0 unknown or sealed device                                                            drop
 *   1 malformed, unsupported, tagged                                                      drop
 *   2 not the workload's own MAC or address, a router advertisement, a DHCP server        drop
 *   3 known flow of the current epoch; fragment, ICMP error of one; reply to the edge     pass
 *   4 the segment's own control: ARP, ND, DHCP client, MLD                                pass
 *   5 port 53, UDP or TCP, whatever the server                                            service namespace, or answered
 *     other multicast; the node's own addresses, apart from the edge's listeners          drop
 *   6 admin tier: deny by CIDR                                                            drop
 *     allow by CIDR or learned name                                                       pass
 *   7 deny by CIDR                                                                        drop
 *   8 allow by CIDR or learned name                                                       pass
 *   9 the default
 *     what passes only under a certain name                                               hold, until it was read
 *
 * To a workload
 *   0 unknown or sealed device                                                            drop
 *   1 malformed, unsupported, tagged, not the workload's own MAC or address               drop
 *   2 reply of a known flow; fragment, ICMP error of one                                  pass
 *   3 from tg0 to an exposed port: `from_service` does it, as redirect_peer skips this;
 *     the node's own connections, if it probes                                            pass, else drop
 *     anybody else to an exposed port                                                     drop
 *   4 ARP, ND, if they claim no address of the workload's; RA, and DHCP from a server's port
 *     to a client's, from the router's side of an External network                        pass
 *     other multicast                                                                     drop
 *   5 admin tier                                                                          (no such policies yet)
 *   6 ingress policies
 *   7 same network, if workloadTraffic: Open                                              pass
 *   8 ingressDefault
 *
 * From the uplink: what is for a workload that this node routes for, by its own address or in reply to what was
 * translated (nat.h), is asked the list "To a workload", and comes neither from the same network nor from the node. All
 * else is not judged.
 *
 * From a trunk, a parent of VLANs: nothing is judged; who is heard on which VLAN is noted (trunk.h).
 *
 * To the uplink: what is of a masqueraded network leaves with the node's address or the network's own, or not at all.
 *
 * A packet of an open flow that is like the one before it is not asked: it goes the same way (shortcut.h).
 *
 * What passes goes past the node's stack if it may (fast.h). Otherwise it returns TC_ACT_UNSPEC: the filters of others
 * after this one still run, and the packet goes on into the node's stack. A drop is final; its sender is told if it is
 * inside, and policy denied it (reject.h).
 */
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "reasons.h"
#include "tables.h"
#include "parse.h"
#include "spoof.h"
#include "verdict.h"
#include "hold.h"
#include "flows.h"
#include "sight.h"
#include "icmp.h"
#include "service.h"
#include "nat.h"
#include "translate.h"
#include "fast.h"
#include "uplink.h"
#include "sweep.h"
#include "events.h"
#include "shortcut.h"
#include "reject.h"
#include "inspector.h"
#include "answers.h"
#include "trunk.h"

static __always_inline int is_dns(const struct packet *p)
{
	return (p->protocol == IPPROTO_UDP || p->protocol == IPPROTO_TCP) && p->fragment != FRAGMENT_LATER &&
	       p->destination_port == bpf_htons(53);
}

/* Whether an ICMP message is of a kind that a policy can speak of: echo. */
static __always_inline int is_foreign_icmp(const struct packet *p)
{
	return p->icmp_kind != ICMP_NONE && p->icmp_kind != ICMP_ASKS && p->icmp_kind != ICMP_ANSWERS;
}

static __always_inline __u8 judge_from_workload(struct __sk_buff *skb, struct workload *w, struct packet *p,
					   struct flow_key *k, struct verdict *v)
{
	__u8 reason = parse(skb, p);
	k->workload = w->id;
	if (w->flags & WORKLOAD_SEALED)
		return REASON_SEALED; /* 0 */
	if (reason)
		return reason; /* 1 */
	if (!same_mac(p->mac_source, w->mac))
		return REASON_SPOOFED_MAC; /* 2 */
	if (p->family == FAMILY_ARP)
		return arp_from_workload(skb, p, w); /* 2, 4 */
	key_of(k, w, p);
	if (!handle_of(p->ifindex, &p->source) && !(is_unspecified(&p->source) && may_be_unspecified(p)))
		return REASON_SPOOFED_ADDRESS; /* 2 */
	if (is_dhcp_server(p) || p->icmp_kind == ICMP_REDIRECTS)
		return REASON_ROGUE_SERVER; /* 2 */

	if (p->icmp_kind == ICMP_ND)
		return nd_from_workload(skb, p, w); /* 2, 4 */
	if (p->icmp_kind == ICMP_MLD)
		return mld_from_workload(p); /* 2, 4 */
	if (is_dhcp_client(p))
		return REASON_SEGMENT_CONTROL; /* 4 */
	if (p->multicast)
		return REASON_MULTICAST;
	if (p->fragment == FRAGMENT_LATER)
		return later_fragment(w, p); /* 3 */
	if (p->icmp_kind == ICMP_ERROR)
		return icmp_error(skb, w, p, k, v); /* 3 */
	if (is_foreign_icmp(p))
		return REASON_UNSUPPORTED; /* 1 */

	reason = known_flow(w, k, p, v, 1);
	if (reason)
		return reason; /* 3 */
	if (p->icmp_kind == ICMP_ANSWERS)
		return REASON_UNSUPPORTED; /* 1: nobody asked, and an answer opens no flow */
	if (bpf_map_lookup_elem(&service_flows, k))
		return p->fragment ? REASON_UNSUPPORTED : REASON_EDGE; /* 3 */
	if (is_dns(p))
		return p->fragment ? REASON_UNSUPPORTED : REASON_DNS; /* 5 */
	v->hold = HOLD_NEVER;
	reason = v->reason = decide_egress(w, k, v, p->now, 0); /* 6, 7, 8, 9 */
	return passes(reason) ? open_flow(w, k, p, v, ORIGIN_EGRESS) : reason;
}

/* Where a packet to a workload came from: 0 the node itself, else the port it entered by. */
static __noinline int origin_of(struct __sk_buff *skb, struct workload *w, struct packet *p)
{
	__u32 in = skb->ingress_ifindex;
	if (!in)
		return ORIGIN_PROBE;
	struct workload other = {};
	if (load_workload(in, &other))
		return other.network == w->network ? ORIGIN_SAME_NETWORK : ORIGIN_INGRESS;
	/* what an External router sends on comes by the segment too, but not from an address of it */
	return is_segment(in, w->network) && is_on_link(w->network, &p->source) ? ORIGIN_SAME_NETWORK : ORIGIN_INGRESS;
}

static __always_inline int is_from_router_side(struct __sk_buff *skb, struct workload *w)
{
	return w->flags & WORKLOAD_EXTERNAL && is_segment(skb->ingress_ifindex, w->network);
}

/* `reason`: why it cannot be read, or 0. */
static __always_inline __u8 judge_to_workload(struct __sk_buff *skb, struct workload *w, struct packet *p,
					 struct flow_key *k, struct verdict *v, __u8 reason, int by_uplink)
{
	k->workload = w->id;
	if (w->flags & WORKLOAD_SEALED)
		return REASON_SEALED; /* 0 */
	if (reason)
		return reason; /* 1 */
	if (!(p->mac_destination[0] & 1) && !same_mac(p->mac_destination, w->mac))
		return REASON_MISDIRECTED; /* 1 */
	if (p->family == FAMILY_ARP)
		return arp_to_workload(skb, p); /* 4 */
	key_of(k, w, p);
	if (p->icmp_kind == ICMP_ND)
		return nd_to_workload(skb, p, is_from_router_side(skb, w)); /* 4 */
	if (is_dhcp_server(p)) /* 4 */
		return is_for_dhcp_client(p) && is_from_router_side(skb, w) ? REASON_SEGMENT_CONTROL : REASON_ROGUE_SERVER;
	if (p->icmp_kind == ICMP_MLD) /* 4 */
		return p->icmp_type == 130 && p->hop_limit == 1 ? REASON_SEGMENT_CONTROL : REASON_MULTICAST;
	if (p->multicast)
		return REASON_MULTICAST;
	if (!handle_of(p->ifindex, &p->destination))
		return REASON_MISDIRECTED; /* 1 */
	if (is_unspecified(&p->source) || handle_of(p->ifindex, &p->source))
		return REASON_SPOOFED_ADDRESS; /* 1 */
	if (p->icmp_kind == ICMP_REDIRECTS)
		return REASON_ROGUE_SERVER;
	if (p->fragment == FRAGMENT_LATER)
		return later_fragment(w, p); /* 2 */
	if (p->icmp_kind == ICMP_ERROR)
		return icmp_error(skb, w, p, k, v); /* 2 */
	if (is_foreign_icmp(p))
		return REASON_UNSUPPORTED; /* 1 */

	reason = known_flow(w, k, p, v, 1);
	if (reason)
		return reason; /* 2 */
	if (p->icmp_kind == ICMP_ANSWERS)
		return REASON_UNSUPPORTED; /* 1 */
	int origin = by_uplink ? ORIGIN_INGRESS : origin_of(skb, w, p);
	v->hold = HOLD_NEVER;
	reason = v->reason = decide_ingress(w, k, v, origin); /* 3, 6, 7, 8 */
	return passes(reason) ? open_flow(w, k, p, v, origin) : reason;
}

/* The verdict becomes an action, is counted and told. */
static __always_inline int conclude(struct packet *p, struct flow_key *k, struct verdict *v)
{
	count(p->bytes, v->reason);
	switch (v->reason) {
	case REASON_ALLOWED_BY_CIDR:
	case REASON_ALLOWED_BY_NAME:
	case REASON_ALLOWED_BY_DEFAULT:
	case REASON_SAME_NETWORK:
	case REASON_PROBE:
	case REASON_AUDITED:
		tell(p, k, v, v->hold == HOLD_SHOWN ? EVENT_VERIFIED : EVENT_FLOW);
		return TC_ACT_UNSPEC;
	case REASON_KNOWN_FLOW:
	case REASON_SEGMENT_CONTROL:
	case REASON_DNS:
	case REASON_EDGE:
	case REASON_ICMP_ERROR_OF_FLOW:
	case REASON_HELD:
		return TC_ACT_UNSPEC;
	default:
		if (v->hold == HOLD_DENIED) /* the inspector told it, once */
			return TC_ACT_SHOT;
		/* A segment's chatter, nobody's attempt: counted only. */
		if (p->multicast && (p->direction == TO_WORKLOAD || v->reason == REASON_SEALED))
			return TC_ACT_SHOT;
		if (!k->local.w[3] && !k->remote.w[3]) { /* no flow key was made: say what the frame had */
			k->local = p->direction == FROM_WORKLOAD ? p->source : p->destination;
			k->remote = p->direction == FROM_WORKLOAD ? p->destination : p->source;
			k->protocol = p->protocol;
		}
		tell(p, k, v, EVENT_DROP);
		return TC_ACT_SHOT;
	}
}

SEC("classifier")
int from_workload(struct __sk_buff *skb)
{
	int action = take_shortcut(skb, 1);
	if (action != NO_SHORTCUT)
		return action;
	struct packet p = { .now = bpf_ktime_get_boot_ns(), .direction = FROM_WORKLOAD };
	struct flow_key k = {};
	struct verdict v = { .reason = REASON_UNKNOWN_DEVICE };
	struct workload w = {};
	__u32 ifindex = skb->ifindex;
	__u32 way = NO_WAY;

	action = TC_ACT_UNSPEC;
	p.bytes = skb->len;
	p.ifindex = ifindex;
	if (skb->mark == MARK_RETURNED) {
		p.returned = 1;
		skb->mark = 0;
	}
	if (!load_workload(ifindex, &w))
		return conclude(&p, &k, &v); /* 0 */
	v.reason = judge_from_workload(skb, &w, &p, &k, &v);
	if (passes(v.reason) && p.fragment == FRAGMENT_FIRST)
		v.reason = remember_fragment(&w, &p, v.reason);

	if (v.reason == REASON_HELD && p.tcp_flags & TCP_SYN && strip_fast_open(skb, &p))
		v.reason = REASON_KERNEL_ERROR;
	if (is_inspected(&p, v.reason) && !verify_at_sight(skb, &p, &k, &w, &v)) {
		action = into_tap(skb, &p, &k);
		if (action == TC_ACT_SHOT)
			v.reason = has_inspector() ? REASON_HOLD_FULL : REASON_NO_INSPECTOR;
		conclude(&p, &k, &v);
		return action;
	}
	if (v.reason == REASON_DNS) {
		action = answer_kept(skb, &p, &w);
		if (action == NOT_KEPT)
			action = into_service(skb, &p);
	} else if (v.reason == REASON_EDGE) {
		action = into_service(skb, &p);
	} else if (v.reason == REASON_SEGMENT_CONTROL && p.answer) {
		action = p.family == FAMILY_ARP ? answer_arp(skb, &w) : answer_nd(skb, &p, &w);
	} else if (passes(v.reason) && v.reason != REASON_SEGMENT_CONTROL) {
		way = way_out(skb, &p, &w);
	}
	if (way == WAY_OUT || way == WAY_RESOLVED) {
		__u8 refused = 0;
		if (!is_translated_here(&p, &w, &v))
			p.translated = 0; /* the mapping at hand is for the flow's ordinary packets */
		else if (!p.translated)
			refused = mapping_of(skb, &p, w.network);
		if (refused)
			v.reason = refused;
		else
			action = leave(skb, &p, way);
		if (way == WAY_OUT && action == TC_ACT_REDIRECT && v.reason == REASON_KNOWN_FLOW && v.hold != HOLD_SHOWN)
			remember_way_out(&p, &w, &k);
	} else if (way != NO_WAY) {
		take(way);
	}
	if (action == TC_ACT_SHOT)
		v.reason = REASON_KERNEL_ERROR;
	return conclude(&p, &k, &v) == TC_ACT_UNSPEC ? action : reject_sender(skb, &p, &w, v.reason);
}

SEC("classifier")
int to_workload(struct __sk_buff *skb)
{
	struct packet p = { .now = bpf_ktime_get_boot_ns(), .direction = TO_WORKLOAD };
	struct flow_key k = {};
	struct verdict v = { .reason = REASON_UNKNOWN_DEVICE };
	struct workload w = {};
	__u32 ifindex = skb->ifindex;

	p.bytes = skb->len;
	p.ifindex = ifindex;
	if (!load_workload(ifindex, &w))
		return conclude(&p, &k, &v); /* 0 */
	v.reason = judge_to_workload(skb, &w, &p, &k, &v, parse(skb, &p), 0);
	if (v.hold == HOLD_SHOWN)
		note_acknowledged(skb, &p, &k);
	if (passes(v.reason) && p.fragment == FRAGMENT_FIRST)
		v.reason = remember_fragment(&w, &p, v.reason);
	return conclude(&p, &k, &v) == TC_ACT_UNSPEC ? TC_ACT_UNSPEC : reject_neighbour(skb, &p, &w, v.reason);
}

/* On to the stack, or past it to somebody who has no program: as the way back has it. */
static __always_inline int pass_on(struct __sk_buff *skb, struct packet *p)
{
	return p->translated && translate_destination(skb, p) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

SEC("classifier")
int from_trunk(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_LLDP))
		hear_lldp(skb);
	else if (skb->vlan_present)
		hear(skb);
	return TC_ACT_UNSPEC;
}

SEC("classifier")
int from_uplink(struct __sk_buff *skb)
{
	int quick = skb->pkt_type ? NO_SHORTCUT : take_shortcut(skb, 0);
	if (quick != NO_SHORTCUT)
		return quick;
	struct packet p = { .now = bpf_ktime_get_boot_ns(), .direction = TO_WORKLOAD };
	struct flow_key k = {};
	struct verdict v = {};
	struct workload w = {};
	struct nat *n = node_nat();
	__u32 *device = 0;
	__u8 protocol = 0;
	int parsed = 0;

	if (skb->vlan_present || skb->pkt_type || !peek(skb, DESTINATION, &p.destination, &protocol))
		return TC_ACT_UNSPEC;
	int translates = n && n->ifindex == skb->ifindex, node = translates && is_main(n, &p.destination);
	if (node && !may_be_reply(skb, n, protocol))
		return TC_ACT_UNSPEC;
	if (!node)
		device = bpf_map_lookup_elem(&routed, &p.destination);
	if (!device) {
		if (!translates || parse(skb, &p))
			return TC_ACT_UNSPEC;
		parsed = 1;
		int back = came_back(skb, &p);
		if (back < 0) {
			v.reason = REASON_KERNEL_ERROR;
			return conclude(&p, &k, &v);
		}
		if (!back) {
			note_direct(skb, &p);
			return TC_ACT_UNSPEC;
		}
		device = bpf_map_lookup_elem(&routed, &p.destination);
		if (!device)
			return pass_on(skb, &p);
	}
	p.ifindex = *device;
	/* what cannot be read, or needs the stack, comes to `to_workload` */
	if (!load_workload(p.ifindex, &w))
		return pass_on(skb, &p);
	__u32 ifindex = p.ifindex;
	if (!parsed && parse(skb, &p))
		return TC_ACT_UNSPEC;
	p.ifindex = ifindex;
	__builtin_memcpy(p.mac_destination, w.mac, MAC_LENGTH); /* as it will be */
	if (!is_forwarded(skb, &p, &w))
		return pass_on(skb, &p);
	v.reason = judge_to_workload(skb, &w, &p, &k, &v, 0, 1);
	if (v.hold == HOLD_SHOWN)
		note_acknowledged(skb, &p, &k);
	int action = TC_ACT_SHOT;
	if (passes(v.reason)) {
		action = into_workload(skb, &p, &w);
		if (action == TC_ACT_SHOT)
			v.reason = REASON_KERNEL_ERROR;
		else if (v.reason == REASON_KNOWN_FLOW && v.hold != HOLD_SHOWN)
			remember_way_in(skb, &p, &w, &k);
	}
	int verdict = conclude(&p, &k, &v);
	return verdict == TC_ACT_UNSPEC ? action : verdict;
}

SEC("classifier")
int to_uplink(struct __sk_buff *skb)
{
	struct nat *n = node_nat();
	struct address source;
	__u8 protocol = 0;

	if (!n || n->ifindex != skb->ifindex || skb->vlan_present || !peek(skb, SOURCE, &source, &protocol))
		return TC_ACT_UNSPEC;
	/* the node's own errors speak of what was translated, too */
	int icmp = protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6, node = is_main(n, &source);
	if (node && !icmp)
		return TC_ACT_UNSPEC;
	__u32 network = node ? 0 : masqueraded_network(&source);
	if (!network && !icmp)
		return TC_ACT_UNSPEC;
	struct packet p = { .now = bpf_ktime_get_boot_ns(), .direction = FROM_WORKLOAD };
	struct flow_key k = {};
	struct verdict v = {};
	v.reason = parse(skb, &p);
	if (!network && (v.reason || p.icmp_kind != ICMP_ERROR))
		return TC_ACT_UNSPEC;
	if (!v.reason && p.icmp_kind == ICMP_ERROR) {
		int done = error_leaves(skb, &p, network);
		if (done < 0)
			v.reason = REASON_KERNEL_ERROR;
		else if (!done && network && !is_error_of_direct(skb, &p, &k))
			v.reason = REASON_ICMP_ERROR_UNKNOWN;
	} else if (!v.reason) {
		v.reason = leaves(skb, &p, &k, network);
	}
	return v.reason ? conclude(&p, &k, &v) : TC_ACT_UNSPEC;
}

static __always_inline __u8 judge_from_service(struct handle *h, struct packet *p, struct flow_key *k)
{
	struct workload w = {};
	struct address *handle = handle_of(h->ifindex, &h->address);
	if (!handle || !same_address(handle, &p->destination) || !load_workload(h->ifindex, &w) || w.id != h->workload)
		return REASON_UNKNOWN_DEVICE; /* 0 */
	k->workload = w.id;
	k->local = h->address;
	if (w.flags & WORKLOAD_SEALED)
		return REASON_SEALED; /* 0 */
	if (p->source_port == bpf_htons(53))
		return REASON_DNS;
	struct port_key port = { .workload = w.id, .port = p->destination_port, .protocol = p->protocol };
	if (!bpf_map_lookup_elem(&exposed, &port))
		return REASON_NOT_EXPOSED; /* 3 */
	return bpf_map_update_elem(&service_flows, k, &p->now, BPF_ANY) ? REASON_KERNEL_ERROR : REASON_EDGE; /* 3 */
}

/* Only DNS answers and the edge's connections leave the service namespace, and only to a handle. */
SEC("classifier")
int from_service(struct __sk_buff *skb)
{
	struct packet p = { .now = bpf_ktime_get_boot_ns(), .direction = FROM_SERVICE };
	struct flow_key k = {};
	struct verdict v = {};
	struct handle h = {};
	int action = TC_ACT_SHOT;

	v.reason = parse(skb, &p);
	k.protocol = p.protocol;
	k.local = p.destination;
	k.remote = p.source;
	k.local_port = p.destination_port;
	k.remote_port = p.source_port;
	if (!v.reason && (p.fragment || (p.protocol != IPPROTO_TCP && p.protocol != IPPROTO_UDP)))
		v.reason = REASON_UNSUPPORTED;
	if (!v.reason) {
		struct handle *found = bpf_map_lookup_elem(&handles, &p.destination);
		if (found)
			h = *found;
		v.reason = found ? judge_from_service(&h, &p, &k) : REASON_UNKNOWN_DEVICE;
	}
	if (passes(v.reason)) {
		action = out_of_service(skb, &p, &h);
		if (action == TC_ACT_SHOT)
			v.reason = REASON_KERNEL_ERROR;
	}
	int verdict = conclude(&p, &k, &v);
	return verdict == TC_ACT_UNSPEC ? action : verdict;
}

/* Run by the daemon on a frame of its own, which leaves by the device. */
SEC("classifier")
int send_frame(struct __sk_buff *skb)
{
	return bpf_clone_redirect(skb, skb->ifindex, 0) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
