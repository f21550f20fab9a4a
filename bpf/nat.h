/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Address translation, as decided: it is part of the connection. A direction's entry is found by the packet as it comes
 * (`tuple`) and knows the packet as it goes on (`translated`), so that a known flow costs no further lookup. The other
 * direction's entry has the key and the translation the other way round.
 */

/* For stages of the phase translate: whom the packet is really for, and whom the receiver shall see as its sender. */
INLINE void F(nat_destination)(struct F(packet) *p, const struct F(address) *address, __be16 port)
{
	p->translated.daddr = *address;
	p->translated.dport = port;
	p->nat = 1;
}

INLINE void F(nat_source)(struct F(packet) *p, const struct F(address) *address, __be16 port)
{
	p->translated.saddr = *address;
	p->translated.sport = port;
	if (p->tuple.protocol == ICMP_PROTOCOL) /* an echo's identifier is both */
		p->translated.dport = port;
	p->nat = 1;
}

/* translate: a known connection's translation is kept; everything else goes on as it came, until a stage says otherwise. */
INLINE int F(recollect)(struct F(packet) *p)
{
	p->translated = p->tuple;
	if (p->conn) {
		F(onward)(&p->translated, &p->tuple, p->conn);
		p->nat = (p->conn->flags & CONN_NAT) / CONN_NAT;
		p->service = p->conn->service;
		p->backend = p->conn->backend;
	}
	return NEXT;
}

/* The translation, into this direction's entry. */
INLINE void F(nat_decided)(struct F(packet) *p, struct F(connection) *fresh)
{
	fresh->service = p->service;
	fresh->backend = p->backend;
	fresh->flags |= p->nat * CONN_NAT;
	fresh->nat_saddr = p->translated.saddr;
	fresh->nat_daddr = p->translated.daddr;
	fresh->nat_sport = p->translated.sport;
	fresh->nat_dport = p->translated.dport;
	if (p->nat)
		F(nat_sums)(&p->tuple, &p->translated, &fresh->nat_addresses, &fresh->nat_ports);
}

/* The same, seen from the other side. */
INLINE void F(nat_turned)(struct F(packet) *p, struct F(connection) *fresh)
{
	fresh->flags |= p->nat * CONN_NAT;
	fresh->nat_saddr = p->tuple.daddr;
	fresh->nat_daddr = p->tuple.saddr;
	fresh->nat_sport = p->tuple.dport;
	fresh->nat_dport = p->tuple.sport;
	fresh->nat_addresses = ~fresh->nat_addresses;
	fresh->nat_ports = ~fresh->nat_ports;
}

/* Whether what an entry translates to is something else than this packet's other side. */
INLINE u32 F(foreign)(const struct F(packet) *p, const struct F(connection) *back)
{
	return F(other_address)(&back->nat_saddr, &p->tuple.daddr) | F(other_address)(&back->nat_daddr, &p->tuple.saddr) |
	       (u16)(back->nat_sport ^ p->tuple.dport) | (u16)(back->nat_dport ^ p->tuple.sport);
}

/* Whether another connection's answers come under this key: two clients' ways that translation led to the same place. */
INLINE bool F(taken)(struct F(packet) *p, const struct F(tuple) *back_key)
{
	struct F(connection) *back = ON(connections, lookup)(back_key);

	if (likely(!back) || (back->flags & CONN_CLOSED))
		return false;
	return F(foreign)(p, back);
}

/*
 * A new connection whose answers could not be told from those of another one gets another source port towards the
 * server. Its client does not notice.
 */
INLINE int F(unique)(struct F(packet) *p, struct F(tuple) *back_key)
{
	for (int i = 0; i <= PORT_TRIES; i++) {
		if (likely(!F(taken)(p, back_key)))
			return NEXT;
		F(nat_source)(p, &p->translated.saddr, F(nat_random_port)());
		back_key->dport = p->translated.sport;
		back_key->sport = p->translated.dport;
	}
	return DROP(REASON_NO_MAPPING_FOR_NAT_MASQUERADE);
}
