/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The stage ABI: what every stage, ours or a third party's, may use.
 *
 * A stage is written once and instantiated for IPv4 and for IPv6. `F(name)` is `name4` or `name6`, whichever family
 * is being instantiated. Everything is inlined into one program per attach point: there are no calls between programs
 * and no global variables, because the compiler's output is loaded without relocations.
 */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define INLINE static inline __attribute__((always_inline))
#define be16(x) ((__be16)__builtin_bswap16(x))
#define be32(x) ((__be32)__builtin_bswap32(x))

#define true 1
#define false 0

/* BCC's own declaration of this helper lacks the third argument. */
static long (*redirect_neigh)(u32 ifindex, void *neighbor, int size, u64 flags) = (void *)BPF_FUNC_redirect_neigh;

#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)
#define F(name) GLUE(name, FAMILY)
/* A map that exists once per family: ON(connections, lookup)(&key) is connections4_lookup(&key) for IPv4. */
#define ON(map, verb) GLUE(F(map), _##verb)

/*
 * What a stage returns. NEXT is our own value, no kernel action: the following stage runs. Everything else is final:
 *   DROP(reason)   the packet is dropped, counted, and an event says why
 *   DISCARD        the packet is dropped and only counted (noise, such as multicast listener reports)
 *   TO_STACK       the packet goes to the host's own stack
 *   TAKEN(action)  the stage has arranged everything itself; `action` is what the program returns
 */
#define NEXT 0
#define DROP(reason) (-(int)(reason))
#define TO_STACK 1
#define DISCARD 2
#define TAKEN(action) (16 + (int)(action))

/* Leave the packet to whoever comes next: other programs at the same hook, then the stack (TCX_NEXT). */
#define PASS TC_ACT_UNSPEC

/* One stage. PLUGIN is defined by the composer in front of each plugin's text, so names never collide. */
#define STAGE(name) INLINE int F(GLUE(PLUGIN, _##name))(struct F(packet) *p)
/* A plugin's own helper function, instantiated per family as well. */
#define LOCAL(name) F(GLUE(PLUGIN, _##name))

/* The first of the words in `conn->slot` that the plugin has under this name (`Stage.slots`). */
#define SLOT(conn, name) (&(conn)->slot[GLUE(GLUE(SLOT_, PLUGIN), _##name)])

/* Connection flags (`connection.flags`). */
#define CONN_REPLY 1  /* this entry is the direction from server to client */
#define CONN_CLOSED 2 /* the close was reported */
#define CONN_NAT 4    /* packets go on with other addresses or ports than they come with */

/* Event flags (`event.flags`). */
#define EVENT_FLAG_AUDITED 1 /* it passed only because a policy is rehearsed; reason and rules are those that would hold */

/* Where a packet goes (`connection.next_hop`). */
#define HOP_STACK 0  /* the host's own stack: local delivery, or its routing */
#define HOP_LOCAL 1  /* a workload of this node: straight into its namespace */
#define HOP_DEVICE 2 /* out of a device of the node; the kernel resolves the neighbour */
#define HOP_PROXY 3  /* a proxy of this node: the host's stack, by the mark, and `steer` finds its socket */

/* Marks, in Cilium's numbering: what the host's routing takes for local, and what a proxy's own sockets send. */
#define MARK_TO_PROXY 0x200
#define MARK_FROM_PROXY 0xb00
#define MARK_MASK 0xf00

/* Obligations (`packet.owed`): a decision that demands something which another stage must deliver. What is still owed
 * when the connection would be entered drops the packet, so a missing or failed plugin closes the door. */
#define OWED_PROXY 1
#define OWED_AUTH 2
#define OWED_ENCRYPTION 4

/* RFC 792 and RFC 4443. Not from linux/icmp.h, which drags the C library's socket headers in. */
#define ICMP_ECHO 8
#define ICMP_ECHOREPLY 0
#define ICMP_DEST_UNREACH 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129

/* Messages with an identifier (RFC 792, RFC 4443, RFC 8335): bits by type, those of IPv6 from 128 on. */
#define ICMP_QUERIES4 (1ull << 0 | 1ull << 8 | 0x3full << 13 | 3ull << 42)
#define ICMP_QUERIES6 (3ull << 0 | 3ull << 32)

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

/* Time in connection entries: units of 2^24 ns (16.8 ms) of the monotonic clock, 32 bits, compared modulo 2^32. */
#define TICK_SHIFT 24
INLINE u64 coarse_ns(void)
{
#if COARSE_CLOCK
	return bpf_ktime_get_coarse_ns();
#else
	return bpf_ktime_get_ns(); /* before Linux 5.11; some 30 ns dearer */
#endif
}

INLINE u32 ticks(void)
{
	return coarse_ns() >> TICK_SHIFT;
}

/* One step of a program: its verdict, unless it is NEXT, ends it. Used by the generated functions only. */
#define STEP(function)                                                                                                 \
	verdict = F(function)(p);                                                                                      \
	if (verdict)                                                                                                   \
		goto finish;
