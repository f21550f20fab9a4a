/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * track: one lookup in the connection table, where each direction has an entry of its own. A hit under the current
 * revision already knows everything: verdict, identities and next hop.
 */

INLINE void F(account)(struct F(packet) *p, struct F(connection) *conn)
{
	conn->last_seen = ticks();
	__sync_fetch_and_add(&conn->packets, 1);
	__sync_fetch_and_add(&conn->bytes, p->skb->len);
}

/* What its entry knows of a connection, for an event about it. */
INLINE void F(recall)(struct F(packet) *p, const struct F(connection) *conn)
{
	p->source_identity = conn->source_identity;
	p->destination_identity = conn->destination_identity;
	p->source_endpoint = conn->source_endpoint;
	p->destination_endpoint = conn->destination_endpoint;
	p->egress_rule = conn->egress_rule;
	p->ingress_rule = conn->ingress_rule;
	p->auth = conn->auth;
	p->next_hop = conn->next_hop;
	p->reply = conn->flags & CONN_REPLY;
	p->service = conn->service;
	p->backend = conn->backend;
	p->nat = !!(conn->flags & CONN_NAT);
	F(onward)(&p->translated, &p->tuple, conn);
}

/* A SYN alone: its sender opens a connection. */
INLINE bool F(opens)(const struct F(packet) *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

INLINE void F(reopen)(struct F(connection) *conn, u32 now, u64 packets, u64 bytes)
{
	conn->tcp_sent = 0;
	conn->tcp_seen = 0;
	conn->flags &= CONN_REPLY | CONN_NAT;
	conn->packets = packets;
	conn->bytes = bytes;
	conn->created = now;
	__builtin_memset(conn->slot, 0, sizeof(conn->slot)); /* what plugins noted was about the connection before */
}

/* A client's SYN, already accounted, begins the next connection of the same ports. */
INLINE void F(again)(struct F(packet) *p, struct F(connection) *conn, struct F(connection) *back)
{
	u32 now = ticks();

	F(reopen)(conn, now, 1, p->skb->len);
	if (back)
		F(reopen)(back, now, 0, 0);
	F(recall)(p, conn);
	F(event)(p, EVENT_NEW, 0);
}

/*
 * SYN, FIN and RST: the few packets that change a connection's state. Each direction writes its own `tcp_sent` and the
 * other's `tcp_seen`, so that two CPUs never write the same byte. A connection is closed when both sides have sent FIN,
 * or one RST, or when the side that sent FIN opens the next one. A SYN after that is a new connection of the same ports.
 */
INLINE void F(transition)(struct F(packet) *p, struct F(connection) *conn)
{
	struct F(tuple) back_key;
	struct F(connection) *back;
	u8 flags = p->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST);
	bool again = F(opens)(p) && ((conn->flags & CONN_CLOSED) || (conn->tcp_sent & TCP_FIN));
	bool over = again || (flags & TCP_RST) || ((conn->tcp_sent | flags) & conn->tcp_seen & TCP_FIN);

	F(counterpart)(&back_key, &p->tuple, conn);
	back = ON(connections, lookup)(&back_key);
	if (again) { /* the SYN is not the old connection's */
		conn->packets--;
		conn->bytes -= p->skb->len;
	} else {
		conn->tcp_sent |= flags;
	}
	if (over && !(conn->flags & CONN_CLOSED))
		F(closed)(p, conn, back);
	if (again) {
		F(again)(p, conn, back);
		conn->tcp_sent = flags;
	}
	if (back)
		back->tcp_seen |= flags;
}

/* One more packet of a connection that is known. */
INLINE void F(touch)(struct F(packet) *p, struct F(connection) *conn)
{
	F(account)(p, conn);
	if (unlikely(p->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST))) {
		F(transition)(p, conn);
		F(blur)(p);
	}
}

/*
 * Whether the packet came by the interface of the workload that sends in this direction. Whoever forges another's
 * address must not pass for him, let alone close his connections. A packet that the host itself makes has no interface.
 */
INLINE bool F(genuine)(const struct F(packet) *p, u32 ifindex)
{
	if (FROM_WORKLOAD)
		return ifindex == p->skb->ifindex;
	return !ifindex || !p->skb->ingress_ifindex || ifindex == p->skb->ingress_ifindex;
}

/* Which way a packet goes whose connection is known, but has to be decided anew. */
INLINE int F(direction)(struct F(packet) *p, bool reply)
{
	p->reply = reply;
	if (p->related) /* the ports are those of the packet that the error is about, reversed */
		p->service_port = reply ? p->tuple.sport : p->tuple.dport;
	return NEXT;
}

/*
 * This packet is not of the connection that its entry tells of, but opens the next one. The entry is put aside, and goes when
 * the new one is entered.
 */
INLINE void F(set_aside)(struct F(packet) *p)
{
	p->conn = 0;
	p->anew = 1;
}

/*
 * The SYN that opens the next connection of the same ports, to an address that is translated: where it goes is to be
 * chosen anew, so that nothing of the connection before it stays.
 */
INLINE bool F(succeeds)(const struct F(packet) *p, const struct F(connection) *conn)
{
	return (conn->flags & CONN_NAT) && ((conn->flags & CONN_CLOSED) || (conn->tcp_sent & TCP_FIN)) &&
	       F(genuine)(p, conn->source_ifindex);
}

#if TO_WORKLOAD
INLINE int F(deliver)(struct F(packet) *p);

/*
 * The host says that it could not send a workload's packet on. Of one whose addresses were to be exchanged it had got the
 * original (see `expired`), so that the error is about what the workload's own direction has for a key.
 */
INLINE bool F(about_original)(struct F(packet) *p)
{
	struct F(connection) *sent;
	struct F(tuple) key;

	if (p->skb->ingress_ifindex)
		return false;
	F(reverse)(&key, &p->tuple);
	sent = ON(connections, lookup)(&key);
	if (!sent || !(sent->flags & CONN_NAT))
		return false;
	p->destination_link = sent->source_ifindex;
	return p->destination_link;
}
#endif

INLINE int F(track)(struct F(packet) *p)
{
	struct F(connection) *conn = ON(connections, lookup)(&p->tuple);
	struct F(tuple) back_key;

	p->conn = conn;
	if (likely(conn && conn->revision == p->revision && F(genuine)(p, conn->source_ifindex) &&
		   !(F(opens)(p) && (conn->flags & (CONN_REPLY | CONN_NAT))))) {
		p->established = 1;
		if (likely(!p->related))
			F(touch)(p, conn);
		return NEXT;
	}
	if (conn && unlikely(conn->layout != SLOT_LAYOUT)) { /* its words were noted by others than those who have them now */
		__builtin_memset(conn->slot, 0, sizeof(conn->slot));
		conn->layout = SLOT_LAYOUT;
	}
	if (conn && F(opens)(p) && F(succeeds)(p, conn)) {
		F(set_aside)(p);
		return NEXT;
	}
	if (conn) /* a SYN from the server's side is no reply: it opens a connection the other way round */
		return F(direction)(p, (conn->flags & CONN_REPLY) && !F(opens)(p));
#if TO_WORKLOAD
	if (p->related && F(about_original)(p))
		return TAKEN(F(deliver)(p));
#endif
	if (p->related) /* from the network it may be about a connection of the host, or one that plugins pass on: see resolve */
		return FROM_NETWORK ? NEXT : DROP(REASON_UNKNOWN_ICMP);
	if (F(opens)(p))
		return NEXT;
	/* The table is bounded and forgets what was idle longest. If it still knows the other direction, this is not new. */
	F(reverse)(&back_key, &p->tuple);
	conn = ON(connections, lookup)(&back_key);
	if (!conn || (conn->flags & CONN_NAT)) /* what is translated has another key */
		return NEXT;
	p->half = 1;
	return F(direction)(p, !(conn->flags & CONN_REPLY));
}

/*
 * For stages of the phase translate: this packet's connection is over, because whom it was translated to is gone. What
 * follows is a connection of its own. False: the packet is somebody else's, and nothing happened.
 */
INLINE bool F(abandon)(struct F(packet) *p)
{
	if (!p->conn || !F(genuine)(p, p->conn->source_ifindex))
		return false;
	F(set_aside)(p);
	p->translated = p->tuple;
	p->nat = 0;
	p->service = 0;
	p->backend = 0;
	return true;
}
