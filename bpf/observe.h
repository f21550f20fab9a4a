/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* observe: event records. One per new, closed and dropped connection, never one per packet. */

INLINE void F(event)(struct F(packet) *p, u8 type, u32 reason, const struct connection *conn)
{
	struct event *e = events_reserve(sizeof(struct event));

	if (!e) {
		count_lost();
		return;
	}
	e->time = bpf_ktime_get_ns();
	e->type = type;
	e->family = FAMILY;
	e->protocol = p->tuple.protocol;
	e->tcp_flags = p->tcp_flags;
	e->reason = reason;
	e->attach_point = ATTACH_POINT;
	e->reply = p->reply;
	e->icmp_type = p->icmp_type;
	e->auth = p->auth;
	e->next_hop = p->next_hop;
	F(wide)(e->saddr, &p->tuple.saddr);
	F(wide)(e->daddr, &p->tuple.daddr);
	e->sport = p->tuple.sport;
	e->dport = p->tuple.dport;
	e->source_identity = p->source_identity;
	e->destination_identity = p->destination_identity;
	e->source_endpoint = p->source_endpoint;
	e->destination_endpoint = p->destination_endpoint;
	e->egress_rule = p->egress_rule;
	e->ingress_rule = p->ingress_rule;
	e->ifindex = p->skb->ifindex;
	e->created = conn ? conn->created : e->time >> TICK_SHIFT;
	e->packets = conn ? conn->packets : 1;
	e->bytes = conn ? conn->bytes : p->skb->len;
	e->reply_packets = 0;
	e->reply_bytes = 0;
	e->pad = 0;
	e->pad2 = 0;
	SUBMIT(e);
}

INLINE void F(closed)(struct F(packet) *p, struct connection *conn, struct connection *back)
{
	struct event *e;

	conn->flags |= CONN_CLOSED;
	if (back)
		back->flags |= CONN_CLOSED;
	e = events_reserve(sizeof(struct event));
	if (!e) {
		count_lost();
		return;
	}
	e->time = bpf_ktime_get_ns();
	e->type = EVENT_CLOSE;
	e->family = FAMILY;
	e->protocol = p->tuple.protocol;
	e->tcp_flags = conn->tcp_sent | conn->tcp_seen;
	e->reason = 0;
	e->attach_point = ATTACH_POINT;
	e->reply = conn->flags & CONN_REPLY;
	e->icmp_type = p->icmp_type;
	e->auth = conn->auth;
	e->next_hop = conn->next_hop;
	F(wide)(e->saddr, &p->tuple.saddr);
	F(wide)(e->daddr, &p->tuple.daddr);
	e->sport = p->tuple.sport;
	e->dport = p->tuple.dport;
	e->source_identity = conn->source_identity;
	e->destination_identity = conn->destination_identity;
	e->source_endpoint = conn->source_endpoint;
	e->destination_endpoint = conn->destination_endpoint;
	e->egress_rule = conn->egress_rule;
	e->ingress_rule = conn->ingress_rule;
	e->ifindex = p->skb->ifindex;
	e->created = conn->created;
	e->packets = conn->packets;
	e->bytes = conn->bytes;
	e->reply_packets = back ? back->packets : 0;
	e->reply_bytes = back ? back->bytes : 0;
	e->pad = 0;
	e->pad2 = 0;
	SUBMIT(e);
}
