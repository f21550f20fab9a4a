/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* commit: what was decided becomes the connection's two entries. Later packets need nothing else. */

INLINE void F(macs)(struct F(connection) *c, u32 link)
{
	const struct endpoint *to = link ? links_lookup(&link) : 0;

	if (!to)
		return;
	__builtin_memcpy(c->dmac, to->mac, 6);
	__builtin_memcpy(c->smac, to->node_mac, 6);
}

/* The decision again, for an entry that has a history: only what was decided changes, and the revision last. */
INLINE void F(renew)(struct F(packet) *p, struct F(connection) *c, const struct F(connection) *fresh)
{
	c->source_ifindex = fresh->source_ifindex;
	c->next_hop = fresh->next_hop;
	c->ifindex = fresh->ifindex;
	__builtin_memcpy(c->dmac, fresh->dmac, 12);
	c->proxy_port = fresh->proxy_port;
	c->auth = fresh->auth;
	c->mark = fresh->mark;
	if (c->layout != fresh->layout)
		__builtin_memset(c->slot, 0, sizeof(c->slot));
	c->layout = fresh->layout;
	c->egress_l7 = fresh->egress_l7;
	c->ingress_l7 = fresh->ingress_l7;
	c->source_identity = fresh->source_identity;
	c->destination_identity = fresh->destination_identity;
	c->egress_rule = fresh->egress_rule;
	c->ingress_rule = fresh->ingress_rule;
	c->source_endpoint = fresh->source_endpoint;
	c->destination_endpoint = fresh->destination_endpoint;
	asm volatile("" ::: "memory");
	c->revision = fresh->revision;
}

/* What was decided about this direction. */
INLINE void F(decided)(struct F(packet) *p, struct F(connection) *fresh)
{
	fresh->revision = p->revision;
	fresh->created = fresh->last_seen = ticks();
	fresh->proxy_port = p->proxy_port;
	fresh->auth = p->auth;
	fresh->mark = p->mark;
	fresh->egress_l7 = p->egress_l7;
	fresh->ingress_l7 = p->ingress_l7;
	fresh->egress_rule = p->egress_rule;
	fresh->ingress_rule = p->ingress_rule;
	fresh->flags = p->reply ? CONN_REPLY : 0;
	fresh->layout = SLOT_LAYOUT;
	F(nat_decided)(p, fresh);
	fresh->source_ifindex = p->source_link;
	fresh->next_hop = p->next_hop;
	fresh->ifindex = p->ifindex;
	F(macs)(fresh, p->destination_link);
	fresh->source_identity = p->source_identity;
	fresh->destination_identity = p->destination_identity;
	fresh->source_endpoint = p->source_endpoint;
	fresh->destination_endpoint = p->destination_endpoint;
}

/* The other side of a proxied connection: the client's packets go to the proxy, and the server's come from it alone. */
INLINE void F(turn_proxied)(struct F(packet) *p, struct F(connection) *fresh)
{
	if (p->reply) {
		fresh->next_hop = HOP_PROXY;
		fresh->ifindex = 0;
		fresh->mark = MARK_TO_PROXY;
	} else {
		fresh->source_ifindex = 0; /* so that what the server itself sends by its interface is none of it */
		fresh->mark = 0;
	}
}

/* The same seen from the other side, which has sent nothing yet. */
INLINE void F(turn)(struct F(packet) *p, struct F(connection) *fresh)
{
	fresh->flags = p->reply ? 0 : CONN_REPLY;
	F(nat_turned)(p, fresh);
	fresh->source_ifindex = p->destination_link;
	fresh->next_hop = p->source_link ? HOP_LOCAL : HOP_STACK;
	fresh->ifindex = p->source_link;
	F(macs)(fresh, p->source_link);
	if (DIRECT_ROUTING && !p->source_link)
		fresh->revision--; /* the way out is not known here: the first packet that takes it finds it */
	fresh->source_identity = p->destination_identity;
	fresh->destination_identity = p->source_identity;
	fresh->source_endpoint = p->destination_endpoint;
	fresh->destination_endpoint = p->source_endpoint;
	if (unlikely(fresh->proxy_port))
		F(turn_proxied)(p, fresh);
	fresh->tcp_seen = fresh->tcp_sent;
	fresh->tcp_sent = 0;
	fresh->packets = 0;
	fresh->bytes = 0;
}

/* `entries` grows by one if there was none of this key. */
INLINE int F(enter)(struct F(tuple) *key, struct F(connection) *fresh, u64 *entries)
{
	if (likely(!ON(connections, update)(key, fresh, BPF_NOEXIST)))
		(*entries)++;
	else if (ON(connections, update)(key, fresh, BPF_ANY))
		return DROP(REASON_CT_MAP_INSERTION_FAILED);
	return NEXT;
}

/*
 * The answers' entry of a new connection. Between the look whether its key is free (`unique`) and now, another CPU may have
 * given the same port towards the same server to somebody else, whose answers this one must not take: then the packet is
 * lost, and its sender, who repeats it, gets another port.
 */
INLINE int F(enter_answers)(struct F(packet) *p, struct F(tuple) *key, struct F(connection) *fresh, u64 *entries)
{
	if (likely(!ON(connections, update)(key, fresh, BPF_NOEXIST))) {
		(*entries)++;
		return NEXT;
	}
	if (!F(taken)(p, key) && !ON(connections, update)(key, fresh, BPF_ANY))
		return NEXT;
	if (!ON(connections, delete)(&p->tuple))
		count(p->skb, COUNTER_FORGOTTEN);
	return DROP(REASON_CT_MAP_INSERTION_FAILED);
}

/* One entry of a connection that is known by its other one: it is never refused. */
INLINE int F(enter_known)(struct F(tuple) *key, struct F(connection) *fresh)
{
	struct admission *a;
	struct grant *grant;
	u64 entries = 0;

	if (!F(admission)(&a, &grant) || F(enter)(key, fresh, &entries))
		return DROP(REASON_CT_MAP_INSERTION_FAILED);
	F(entered)(a, entries);
	return NEXT;
}

/* Both entries of a new connection. One that takes the place of a former one needs no room. */
INLINE int F(enter_both)(struct F(packet) *p, struct F(connection) *fresh, struct F(tuple) *back_key)
{
	struct admission *a;
	struct grant *grant;
	u64 entries = 0;
	int verdict;

	if (!F(admission)(&a, &grant))
		return DROP(REASON_CT_MAP_INSERTION_FAILED);
	if (unlikely(!F(admitted)(a, grant) && !p->anew)) {
		__sync_fetch_and_add(&a->refused, 1);
		return DROP(REASON_CT_MAP_INSERTION_FAILED);
	}
	verdict = F(enter)(&p->tuple, fresh, &entries);
	if (likely(!verdict)) {
		F(turn)(p, fresh);
		verdict = F(enter_answers)(p, back_key, fresh, &entries);
	}
	F(entered)(a, entries);
	return verdict;
}

/*
 * A connection that has a history: its state and its counters stay, or are taken over from the other direction. But an answer
 * from behind a translation says nothing about the questions: whom they are translated to may be gone, or they may be of a
 * connection to somebody else by now. The next one is decided itself.
 */
INLINE int F(commit_known)(struct F(packet) *p, struct F(connection) *fresh, struct F(tuple) *back_key)
{
	struct F(connection) *back = ON(connections, lookup)(back_key);
	u32 translated_answer = p->reply & p->nat;

	asm volatile("" : "+r"(translated_answer)); /* or else the verifier knows both from here on, and walks each case */

	if (p->conn) {
		F(renew)(p, p->conn, fresh);
	} else {
		if (back) {
			fresh->created = back->created;
			fresh->tcp_seen = back->tcp_sent;
			fresh->flags |= back->flags & CONN_CLOSED;
		}
		if (F(enter_known)(&p->tuple, fresh))
			return DROP(REASON_CT_MAP_INSERTION_FAILED);
		p->conn = ON(connections, lookup)(&p->tuple);
		if (!p->conn)
			return DROP(REASON_CT_MAP_INSERTION_FAILED);
	}
	F(touch)(p, p->conn);
	fresh->created = p->conn->created;
	fresh->tcp_sent = p->conn->tcp_sent;
	if (unlikely(p->audited)) { /* a rehearsal is about the connections that live as well */
		count(p->skb, COUNTER_AUDITED);
		F(event)(p, EVENT_UPDATE, 0);
	}
	F(turn)(p, fresh);
	if (back) {
		if (!translated_answer)
			F(renew)(p, back, fresh);
		return NEXT;
	}
	if (translated_answer) {
		if (p->conn->flags & CONN_CLOSED)
			return NEXT;
		fresh->revision--;
	}
	return F(enter_known)(back_key, fresh);
}

INLINE int F(commit_new)(struct F(packet) *p, struct F(connection) *fresh, struct F(tuple) *back_key)
{
	fresh->tcp_sent = p->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST);
	fresh->packets = 1;
	fresh->bytes = p->skb->len;
	if (F(enter_both)(p, fresh, back_key))
		return DROP(REASON_CT_MAP_INSERTION_FAILED);
	if (unlikely(p->audited))
		count(p->skb, COUNTER_AUDITED);
	F(event)(p, EVENT_NEW, 0);
	if (p->nat) { /* what is to be written into the packet is in the entry */
		p->conn = ON(connections, lookup)(&p->tuple);
		if (!p->conn)
			return DROP(REASON_CT_MAP_INSERTION_FAILED);
	}
	return NEXT;
}

/* Both entries go. */
INLINE void F(delete)(struct F(packet) *p, struct F(tuple) *back_key)
{
	if (!ON(connections, delete)(&p->tuple))
		count(p->skb, COUNTER_FORGOTTEN);
	if (!ON(connections, delete)(back_key))
		count(p->skb, COUNTER_FORGOTTEN);
	p->conn = 0;
}

/* Nothing of the connection before this one, of the same ports, stays but what others have by now. */
INLINE void F(end_former)(struct F(packet) *p)
{
	struct F(connection) *former = ON(connections, lookup)(&p->tuple), *back;
	struct F(tuple) back_key;
	u32 other = 1;

	if (!former)
		return;
	F(counterpart)(&back_key, &p->tuple, former);
	back = ON(connections, lookup)(&back_key);
	if (back)
		other = F(foreign)(p, back);
	asm volatile("" : "+r"(other));
	if (other)
		back = 0;
	if (!(former->flags & CONN_CLOSED))
		F(closed)(p, former, back);
	if (!ON(connections, delete)(&p->tuple))
		count(p->skb, COUNTER_FORGOTTEN);
	p->conn = 0;
	if (!back)
		return;
	if (p->tuple.protocol != IPPROTO_TCP && (back->flags & CONN_NAT))
		back->flags |= CONN_CLOSED; /* an answer that is under way, from whom the old one led to, still finds its way */
	else if (!ON(connections, delete)(&back_key))
		count(p->skb, COUNTER_FORGOTTEN);
}

/*
 * The TCP connection before this one, of the same ports, led to the same place: then its entries tell of this one from now on, as
 * they do without a translation. A client that makes many connections comes to the same ports again after some thousands.
 */
INLINE bool F(follows)(struct F(packet) *p, const struct F(tuple) *back_key)
{
	struct F(connection) *former, *back;
	u32 other;

	if (p->tuple.protocol != IPPROTO_TCP)
		return false;
	former = ON(connections, lookup)(&p->tuple);
	if (!former)
		return false;
	back = ON(connections, lookup)(back_key);
	if (!back)
		return false;
	other = F(foreign)(p, back) | ((former->flags & (CONN_NAT | CONN_REPLY)) ^ CONN_NAT) | p->reply |
		F(other_address)(&former->nat_saddr, &p->translated.saddr) |
		F(other_address)(&former->nat_daddr, &p->translated.daddr) |
		(u16)(former->nat_sport ^ p->translated.sport) | (u16)(former->nat_dport ^ p->translated.dport);
	asm volatile("" : "+r"(other));
	if (other)
		return false;
	former->service = p->service;
	former->backend = p->backend;
	p->conn = former;
	return true;
}

INLINE int F(commit)(struct F(packet) *p)
{
	struct F(connection) *fresh;
	struct F(tuple) back_key;
	u32 zero = 0;

	if (unlikely(p->owed))
		return DROP(p->owed & OWED_AUTH ? REASON_AUTH_REQUIRED :
			    p->owed & OWED_PROXY ? REASON_PROXY_ABSENT : REASON_UNENCRYPTED_TRAFFIC);
	if (unlikely(p->related)) { /* an error changes nothing in its connection */
		if (!p->nat)
			p->conn = 0;
		return NEXT;
	}
	if (unlikely(p->conn && (p->conn->flags & CONN_REPLY) != p->reply))
		F(set_aside)(p); /* it was opened from the other side; now the ports are turned round, so that one is over */
	F(reverse)(&back_key, &p->translated);
	if (unlikely(p->anew) && !F(follows)(p, &back_key))
		F(end_former)(p);
	if (!p->conn && !p->half) {
		int verdict = F(unique)(p, &back_key);

		if (verdict)
			return verdict;
	}
	fresh = ON(drafts, lookup)(&zero); /* too large for the stack */
	if (!fresh)
		return DROP(REASON_CT_MAP_INSERTION_FAILED);
	__builtin_memset(fresh, 0, sizeof(*fresh));
	F(decided)(p, fresh);
	if (p->conn || p->half)
		return F(commit_known)(p, fresh, &back_key);
	return F(commit_new)(p, fresh, &back_key);
}

/* A verdict against a flow that was let through before: its entries must not live on. */
INLINE void F(forget)(struct F(packet) *p)
{
	struct F(tuple) back_key;

	if (!p->conn || !p->resolved)
		return; /* whoever forges a packet must not close the connection of another */
	F(counterpart)(&back_key, &p->tuple, p->conn);
	F(delete)(p, &back_key);
}
