/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whoever leaves by a device of the node under an address that has no way back here leaves under the device's own. That
 * is a workload that calls the world, and a client outside that asked for a service whose backend is elsewhere. It is a part
 * of the connection's translation like a service's: what follows, both ways, finds it in the entry.
 */

/*
 * Whether a known connection, which is decided anew, keeps what it has. It does not if its answers would not come back: it
 * left by another device before, or under an address that is no longer this one's; or nobody was there when it began to give
 * it an address. What has a state at its ends (TCP, SCTP) and left under its own stays as it is: somebody else's translation
 * may carry it.
 */
INLINE bool LOCAL(keeps)(const struct F(packet) *p, const struct F(address) *own)
{
	if (F(same_address)(&p->translated.saddr, own))
		return true;
	if (!F(same_address)(&p->translated.saddr, &p->tuple.saddr))
		return false;
	return !FROM_WORKLOAD || (p->tuple.protocol != IPPROTO_UDP && p->tuple.protocol != ICMP_PROTOCOL);
}

STAGE(masquerade)
{
	struct F(address) *own;
	struct F(prefix) key;

	if (p->next_hop == HOP_LOCAL || !p->ifindex || (p->half | p->related | p->reply))
		return NEXT;
	if (FROM_WORKLOAD) {
		if (!MASQUERADE)
			return NEXT;
		key.length = FULL_PREFIX;
		key.address = p->translated.daddr;
		if (ON(lb_native, lookup)(&key))
			return NEXT;
	}
	own = ON(lb_addresses, lookup)(&p->ifindex);
	if (p->conn && (!own || LOCAL(keeps)(p, own)))
		return NEXT;
	if (!own)
		return FROM_NETWORK ? DROP(REASON_NO_MAPPING_FOR_NAT_MASQUERADE) : NEXT;
	if (p->tuple.protocol == ICMP_PROTOCOL && !p->fragment && !F(is_icmp_query)(p->icmp_type))
		return DROP(REASON_UNKNOWN_ICMP); /* where others have their identifier it has something else */
	if (p->conn)
		F(set_aside)(p);
	p->next_hop = HOP_DEVICE; /* also where this packet is too large for it: those that follow must not get past us */
	F(nat_source)(p, own, F(nat_port)(p->tuple.sport));
	return NEXT;
}
