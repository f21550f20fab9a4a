/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whoever leaves by a device of the node under an address that has no way back here leaves under the device's own. That
 * is a workload that calls the world, and a client outside that asked for a service whose backend is elsewhere. It is a part
 * of the connection's translation like a service's: what follows, both ways, finds it in the entry.
 */
STAGE(masquerade)
{
	struct F(address) *own;
	struct F(prefix) key;

	if (p->next_hop != HOP_DEVICE || (p->half | p->related | p->reply))
		return NEXT;
	if (p->conn) /* what a known connection has, it keeps */
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
	if (!own)
		return FROM_NETWORK ? DROP(REASON_NO_MAPPING_FOR_NAT_MASQUERADE) : NEXT;
	F(nat_source)(p, own, F(nat_port)(p->tuple.sport));
	return NEXT;
}
