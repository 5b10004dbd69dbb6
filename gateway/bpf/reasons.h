/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Why a packet passed or was dropped: the numbers of `policy::reason`, append only. A test compares the two lists. */
#pragma once

enum reason {
	REASON_UNKNOWN = 0, /* not decided yet */
	REASON_ALLOWED_BY_CIDR = 1,
	REASON_ALLOWED_BY_NAME = 2,
	REASON_ALLOWED_BY_DEFAULT = 3,
	REASON_KNOWN_FLOW = 4,
	REASON_SEGMENT_CONTROL = 5,
	REASON_DNS = 6,
	REASON_EDGE = 7,
	REASON_SAME_NETWORK = 8,
	REASON_PROBE = 9,
	REASON_ICMP_ERROR_OF_FLOW = 10,
	REASON_AUDITED = 11, /* passes, and an audited policy would deny it */
	/* from here on the packet is dropped */
	REASON_MALFORMED = 32,
	REASON_UNSUPPORTED = 33,
	REASON_TAGGED = 34,
	REASON_UNKNOWN_DEVICE = 35,
	REASON_SPOOFED_MAC = 36,
	REASON_SPOOFED_ADDRESS = 37,
	REASON_ROGUE_SERVER = 38,
	REASON_NODE_ADDRESS = 39,
	REASON_DENIED_BY_CIDR = 40,
	REASON_DENIED_BY_DEFAULT = 41,
	REASON_SEALED = 42,
	REASON_QUOTA_FULL = 43,
	REASON_TABLE_FULL = 44,
	REASON_FRAGMENT_UNKNOWN = 45,
	REASON_MULTICAST = 46,
	REASON_NOT_EXPOSED = 47,
	REASON_REVOKED = 48,
	REASON_KERNEL_ERROR = 49,
	REASON_ICMP_ERROR_UNKNOWN = 50,
	REASON_NAME_EXPIRED = 51,
	REASON_MISDIRECTED = 52,
	REASON_EDGE_ONLY = 53,
};

#define FIRST_DROP 32
#define REASONS 64

static __always_inline int passes(__u8 reason)
{
	return reason != REASON_UNKNOWN && reason < FIRST_DROP;
}
