/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * track: one lookup in the connection table, where each direction has an entry of its own. A hit under the current
 * revision already knows everything: verdict, identities and next hop.
 */

INLINE void F(account)(struct F(packet) *p, struct connection *conn)
{
	conn->last_seen = ticks();
	__sync_fetch_and_add(&conn->packets, 1);
	__sync_fetch_and_add(&conn->bytes, p->skb->len);
}

INLINE void F(reopen)(struct connection *conn, u32 now)
{
	conn->tcp_sent = 0;
	conn->tcp_seen = 0;
	conn->flags &= CONN_REPLY;
	conn->packets = 0;
	conn->bytes = 0;
	conn->created = now;
}

/*
 * SYN, FIN and RST: the few packets that change a connection's state. Each direction writes its own `tcp_sent` and the
 * other's `tcp_seen`, so that two CPUs never write the same byte. A connection is closed when both sides have sent FIN,
 * or one RST. A SYN after that is a new connection of the same ports.
 */
INLINE void F(transition)(struct F(packet) *p, struct connection *conn)
{
	struct F(tuple) back_key;
	struct connection *back;
	u8 flags = p->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST);

	F(reverse)(&back_key, &p->tuple);
	back = ON(connections, lookup)(&back_key);
	if ((p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && (conn->flags & CONN_CLOSED)) {
		u32 now = ticks();

		F(reopen)(conn, now);
		if (back)
			F(reopen)(back, now);
		p->egress_rule = conn->egress_rule;
		p->ingress_rule = conn->ingress_rule;
		p->source_identity = conn->source_identity;
		p->destination_identity = conn->destination_identity;
		p->source_endpoint = conn->source_endpoint;
		p->destination_endpoint = conn->destination_endpoint;
		F(event)(p, EVENT_NEW, 0, 0);
	}
	conn->tcp_sent |= flags;
	if (back)
		back->tcp_seen |= flags;
	if (!(conn->flags & CONN_CLOSED) && ((flags & TCP_RST) || (conn->tcp_sent & conn->tcp_seen & TCP_FIN)))
		F(closed)(p, conn, back);
}

INLINE int F(track)(struct F(packet) *p)
{
	struct connection *conn = ON(connections, lookup)(&p->tuple);
	struct F(tuple) back_key;

	p->conn = conn;
	if (likely(conn && conn->revision == p->revision &&
		   (!FROM_WORKLOAD || conn->source_ifindex == p->skb->ifindex))) {
		p->established = 1;
		if (unlikely(p->related))
			return NEXT;
		F(account)(p, conn);
		if (unlikely(p->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST)))
			F(transition)(p, conn);
		return NEXT;
	}
	if (p->related)
		return conn ? NEXT : DROP(REASON_UNKNOWN_ICMP);
	if (conn) {
		p->reply = conn->flags & CONN_REPLY;
		return NEXT;
	}
	/* The table is bounded and forgets what was idle longest. If it still knows the other direction, this is not new. */
	F(reverse)(&back_key, &p->tuple);
	conn = ON(connections, lookup)(&back_key);
	if (conn)
		p->reply = !(conn->flags & CONN_REPLY);
	return NEXT;
}
