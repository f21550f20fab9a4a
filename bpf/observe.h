/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* observe: event records. One per new, closed and dropped connection, never one per packet. */

/* What a connection's entry knows better than the packet that is here now. */
#define OF(field) (conn ? conn->field : p->field)

/* What would have happened: as the drop would have been told. */
INLINE void F(tell_audit)(struct event *e)
{
	u32 index = 0;
	struct audit *would = audits_lookup(&index);

	if (!would)
		return;
	e->flags = EVENT_FLAG_AUDITED;
	e->reason = would->reason;
	if (would->egress) {
		e->egress_rule = would->rule;
		e->ingress_rule = 0; /* nobody would have been asked */
	} else {
		e->ingress_rule = would->rule;
	}
}

/* `conn` and `back` are the two entries of a connection that ends, or NULL. */
INLINE void F(report)(struct F(packet) *p, u8 type, u32 reason, const struct F(connection) *conn,
		      const struct F(connection) *back)
{
	struct event *e = events_reserve(sizeof(struct event));

	if (!e) {
		count_lost();
		return;
	}
	/* Drops may come in floods, and are cheap rather than precise: their clock is a jiffy coarse. Their order is the
	 * ring's. */
	e->time = type == EVENT_DROP ? coarse_ns() : bpf_ktime_get_ns();
	e->type = type;
	e->family = FAMILY;
	e->protocol = p->tuple.protocol;
	e->tcp_flags = p->tuple.protocol == ICMP_PROTOCOL ? p->icmp_code :
		       conn ? conn->tcp_sent | conn->tcp_seen : p->tcp_flags;
	e->reason = reason;
	e->attach_point = ATTACH_POINT;
	e->reply = conn ? conn->flags & CONN_REPLY : p->reply;
	e->icmp_type = p->icmp_type;
	e->auth = OF(auth);
	e->next_hop = OF(next_hop);
	e->flags = 0;
	e->ifindex = p->skb->ifindex;
	/* Each end by its own address, whatever the other one thinks that it is. */
	F(wide)(e->saddr, &p->tuple.saddr);
	e->sport = p->tuple.sport;
	if (conn) {
		F(wide)(e->daddr, &conn->nat_daddr);
		e->dport = conn->nat_dport;
	} else if (p->nat) {
		F(wide)(e->daddr, &p->translated.daddr);
		e->dport = p->translated.dport;
	} else {
		F(wide)(e->daddr, &p->tuple.daddr);
		e->dport = p->tuple.dport;
	}
	e->source_endpoint = OF(source_endpoint);
	e->destination_endpoint = OF(destination_endpoint);
	e->source_identity = OF(source_identity);
	e->destination_identity = OF(destination_identity);
	e->egress_rule = OF(egress_rule);
	e->ingress_rule = OF(ingress_rule);
	if (unlikely(p->audited) && type != EVENT_DROP && !conn)
		F(tell_audit)(e);
	e->created = conn ? conn->created : e->time >> TICK_SHIFT;
	e->service = OF(service);
	e->packets = conn ? conn->packets : 1;
	e->bytes = conn ? conn->bytes : p->skb->len;
	e->reply_packets = back ? back->packets : 0;
	e->reply_bytes = back ? back->bytes : 0;
	SUBMIT(e);
}
#undef OF

INLINE void F(event)(struct F(packet) *p, u8 type, u32 reason)
{
	F(report)(p, type, reason, 0, 0);
}

/* Both entries are marked, so that neither direction reports the end again. */
INLINE void F(closed)(struct F(packet) *p, struct F(connection) *conn, struct F(connection) *back)
{
	conn->flags |= CONN_CLOSED;
	if (back)
		back->flags |= CONN_CLOSED;
	F(report)(p, EVENT_CLOSE, 0, conn, back);
}
