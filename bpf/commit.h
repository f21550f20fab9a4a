/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* commit: what was decided becomes the connection's two entries. Later packets need nothing else. */

INLINE void F(macs)(struct connection *c, const struct endpoint *to)
{
	__builtin_memcpy(c->dmac, to->mac, 6);
	__builtin_memcpy(c->smac, to->node_mac, 6);
}

/* The decision again, for an entry that has a history: only what was decided changes, and the revision last. */
INLINE void F(renew)(struct F(packet) *p, struct connection *c, const struct connection *fresh)
{
	c->source_ifindex = fresh->source_ifindex;
	c->next_hop = fresh->next_hop;
	c->ifindex = fresh->ifindex;
	__builtin_memcpy(c->dmac, fresh->dmac, 12);
	c->proxy_port = fresh->proxy_port;
	c->auth = fresh->auth;
	c->mark = fresh->mark;
	c->source_identity = fresh->source_identity;
	c->destination_identity = fresh->destination_identity;
	c->egress_rule = fresh->egress_rule;
	c->ingress_rule = fresh->ingress_rule;
	c->source_endpoint = fresh->source_endpoint;
	c->destination_endpoint = fresh->destination_endpoint;
	asm volatile("" ::: "memory");
	c->revision = fresh->revision;
}

INLINE int F(commit)(struct F(packet) *p)
{
	struct connection fresh = {};
	struct connection *known;
	struct F(tuple) back;

	if (unlikely(p->owed))
		return DROP(p->owed & OWED_AUTH ? REASON_AUTH_REQUIRED :
			    p->owed & OWED_PROXY ? REASON_PROXY_ABSENT : REASON_UNENCRYPTED_TRAFFIC);
	fresh.revision = p->revision;
	fresh.created = fresh.last_seen = ticks();
	fresh.proxy_port = p->proxy_port;
	fresh.auth = p->auth;
	fresh.mark = p->mark;
	fresh.egress_rule = p->egress_rule;
	fresh.ingress_rule = p->ingress_rule;

	/* This direction. */
	fresh.flags = p->reply ? CONN_REPLY : 0;
	fresh.source_ifindex = p->source ? p->source->ifindex : 0;
	fresh.next_hop = p->next_hop;
	fresh.ifindex = p->ifindex;
	if (p->destination)
		F(macs)(&fresh, p->destination);
	fresh.source_identity = p->source_identity;
	fresh.destination_identity = p->destination_identity;
	fresh.source_endpoint = p->source_endpoint;
	fresh.destination_endpoint = p->destination_endpoint;
	fresh.tcp_sent = p->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST);
	fresh.packets = 1;
	fresh.bytes = p->skb->len;
	known = p->conn;
	if (known) {
		F(renew)(p, known, &fresh);
		F(account)(p, known);
	} else {
		if (ON(connections, update)(&p->tuple, &fresh, BPF_ANY))
			return DROP(REASON_CT_MAP_INSERTION_FAILED);
		count(p->skb, COUNTER_ENTERED);
	}

	/* The way back. */
	F(reverse)(&back, &p->tuple);
	fresh.flags = p->reply ? 0 : CONN_REPLY;
	fresh.source_ifindex = p->destination ? p->destination->ifindex : 0;
	fresh.next_hop = p->source ? HOP_LOCAL : HOP_STACK;
	fresh.ifindex = p->source ? p->source->ifindex : 0;
	if (p->source)
		F(macs)(&fresh, p->source);
	fresh.source_identity = p->destination_identity;
	fresh.destination_identity = p->source_identity;
	fresh.source_endpoint = p->destination_endpoint;
	fresh.destination_endpoint = p->source_endpoint;
	fresh.tcp_seen = fresh.tcp_sent;
	fresh.tcp_sent = 0;
	fresh.packets = 0;
	fresh.bytes = 0;
	known = ON(connections, lookup)(&back);
	if (known) {
		F(renew)(p, known, &fresh);
	} else {
		if (ON(connections, update)(&back, &fresh, BPF_ANY))
			return DROP(REASON_CT_MAP_INSERTION_FAILED);
		count(p->skb, COUNTER_ENTERED);
	}
	if (!p->conn && !known)
		F(event)(p, EVENT_NEW, 0, 0);
	return NEXT;
}

/* A verdict against a flow that was let through before: its entries must not live on. */
INLINE void F(forget)(struct F(packet) *p)
{
	struct F(tuple) back;

	if (!p->conn || !p->resolved)
		return; /* whoever forges a packet must not close the connection of another */
	F(reverse)(&back, &p->tuple);
	if (!ON(connections, delete)(&p->tuple))
		count(p->skb, COUNTER_FORGOTTEN);
	if (!ON(connections, delete)(&back))
		count(p->skb, COUNTER_FORGOTTEN);
}
