/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The context that all stages of a packet share, instantiated per family. It lives on the program's stack. When a
 * program is cut into tail calls, it crosses the cut in a per-CPU map; the pointers at the end do not cross and are
 * found again.
 *
 * `client` is who opened the connection and `server` whom it was opened to, whichever way this packet goes.
 */
struct F(packet) {
	struct F(tuple) tuple;  /* as it came */
	struct F(tuple) translated; /* as it goes on; known from translate on */
	u32 revision;           /* of the rules that hold now */
	u32 source_identity;
	u32 destination_identity;
	u32 client_identity;
	u32 server_identity;
	u16 source_endpoint;    /* 0: not a workload of this node */
	u16 destination_endpoint;
	u16 client_endpoint;
	u16 server_endpoint;
	__be16 service_port;    /* the server's port; ICMP: the request's type */
	u16 proxy_port;
	u32 egress_rule;        /* the rule that let it out of the client, for events and counters */
	u32 ingress_rule;       /* the rule that let it into the server */
	u32 egress_l7;          /* the layer 7 rules that a proxy has to enforce, by number: the client's side */
	u32 ingress_l7;         /* the same of the server's */
	u32 mark;
	u32 service;            /* the service whose address was exchanged, 0: none */
	u32 backend;            /* the backend of it that was chosen */
	u8 owed;                /* OWED_… */
	u8 auth;                /* the authentication mode that the decision asks for */
	u8 tcp_flags;
	u8 icmp_type;
	u8 icmp_code;
	u8 reply;               /* this packet goes from server to client */
	u8 established;         /* the connection's entry was found, and decided under the current revision */
	u8 related;             /* an ICMP error about a packet of `tuple`, reversed */
	u8 half;                /* the table has forgotten this direction of the connection, but not the other */
	u8 resolved;            /* both sides are known, and the source is who it says */
	u8 nat;                 /* `translated` is not `tuple` */
	u8 anew;                /* there is an entry, but of a connection that is over and gives way to this one */
	u8 fragment;            /* a later fragment: there is no transport header */
	u8 fragmented;          /* a fragment, the first one or a later one */
	u8 next_hop;            /* HOP_… */
	u8 audited;             /* it would be dropped if what is rehearsed were enforced: see `audits` */
	u32 ifindex;            /* of the next hop */
	u32 source_link;        /* the interfaces of the two workloads, 0: no workload of this node */
	u32 destination_link;
	u32 l4;                 /* offset of the transport header */
	struct __sk_buff *skb;
	struct F(connection) *conn;       /* this direction's entry, or NULL */
	struct endpoint *source;       /* the workload of this node with that address, or NULL */
	struct endpoint *destination;
};

/*
 * Whom this packet is from and for, in a stage that runs for every packet: on the established path only the connection's
 * entry knows, and it is not copied, because most programs don't want it and it is on another cache line.
 */
#undef SOURCE_ENDPOINT
#undef DESTINATION_ENDPOINT
#define SOURCE_ENDPOINT ((u32)(p->conn ? p->conn->source_endpoint : p->source_endpoint))
#define DESTINATION_ENDPOINT ((u32)(p->conn ? p->conn->destination_endpoint : p->destination_endpoint))

_Static_assert(sizeof(struct F(packet)) <= sizeof(struct scratch), "the context must fit into the scratch");

/*
 * Between two parts of the way of a first packet: the context once through a map. The program is what it was, but the
 * verifier, which walks each path with all that it knows of the values on the stack, knows nothing of what comes out of a
 * map. So it walks the second part once, instead of once for each way through the first.
 */
INLINE bool F(blur)(struct F(packet) *p)
{
	struct F(connection) *conn = p->conn;
	struct endpoint *source = p->source, *destination = p->destination;
	struct __sk_buff *skb = p->skb;
	u32 zero = 0;
	struct scratch *s = scratch_lookup(&zero);

	if (!s)
		return false;
	p->conn = 0;
	p->source = p->destination = 0;
	p->skb = 0;
	__builtin_memcpy(s, p, sizeof(*p));
	asm volatile("" ::: "memory"); /* or else the compiler sees through it */
	__builtin_memcpy(p, s, sizeof(*p));
	p->skb = skb;
	p->conn = conn;
	p->source = source;
	p->destination = destination;
	return true;
}

/* The same before the connection is entered. Whether there is a workload at either end need not be walked apart any more. */
INLINE bool F(let_go)(struct F(packet) *p)
{
	p->source = p->destination = 0;
	return F(blur)(p);
}
