/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* deliver: straight into the other workload's namespace, out of a device, or to the host's stack. */

/* One hop less to live. False: it dies here, and the host's stack must say so to the sender. */
INLINE bool F(hop)(void *data, void *end)
{
#if FAMILY == 4
	struct iphdr *ip = data + ETH_HLEN;
	u32 check;

	if ((void *)(ip + 1) > end || ip->ttl <= 1)
		return false;
	ip->ttl--;
	check = ip->check + 1; /* RFC 1624: TTL is the high byte of its word */
	ip->check = check + (check >= 0xffff);
#else
	struct ipv6hdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > end || ip->hop_limit <= 1)
		return false;
	ip->hop_limit--;
#endif
	return true;
}

INLINE int F(deliver_local)(struct F(packet) *p, const u8 *macs, u32 ifindex)
{
	void *data = (void *)(long)p->skb->data, *end = (void *)(long)p->skb->data_end;

#if TO_WORKLOAD
	if (data + ETH_HLEN > end)
		return TC_ACT_SHOT; /* the stack has counted its hop already; to a packet of the host's own it is none */
#else
	if (!F(hop)(data, end))
		return PASS;
#endif
	((u32 *)data)[0] = ((const u32 *)macs)[0];
	((u32 *)data)[1] = ((const u32 *)macs)[1];
	((u32 *)data)[2] = ((const u32 *)macs)[2];
#if TO_WORKLOAD
	return bpf_redirect(ifindex, 0); /* from the egress side of one interface only to the egress side of another */
#else
	return bpf_redirect_peer(ifindex, 0);
#endif
}

INLINE int F(deliver_device)(struct F(packet) *p, u32 ifindex)
{
	void *data = (void *)(long)p->skb->data, *end = (void *)(long)p->skb->data_end;

	if (!F(hop)(data, end))
		return PASS;
	return redirect_neigh(ifindex, 0, 0, 0);
}

#if TO_WORKLOAD && FAMILY == 4
/* To a proxy of this node, from the way out to a workload: turned round into the host's stack, which the mark leads to
 * the proxy. The MAC that it was sent from is the host's own. */
INLINE int deliver_proxy(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return TC_ACT_SHOT;
	__builtin_memcpy(eth->h_dest, eth->h_source, 6);
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}
#endif

INLINE int F(deliver)(struct F(packet) *p)
{
	u32 mark = p->conn ? p->conn->mark : p->mark;

	count(p->skb, COUNTER_FORWARDED);
	if (unlikely(mark))
		p->skb->mark = mark;
	if (p->conn && (p->established || !p->related)) { /* an error takes its own way when it was decided anew */
		struct F(connection) *c = p->conn;

		if (likely(c->next_hop == HOP_LOCAL))
			return F(deliver_local)(p, c->dmac, c->ifindex);
		if (DIRECT_ROUTING && c->next_hop == HOP_DEVICE)
			return F(deliver_device)(p, c->ifindex);
#if TO_WORKLOAD
		if (c->next_hop == HOP_PROXY)
			return deliver_proxy(p->skb);
#endif
		return PASS;
	}
#if TO_WORKLOAD
	if (unlikely(p->next_hop == HOP_PROXY))
		return deliver_proxy(p->skb);
#endif
	if (p->destination_link && likely(p->next_hop != HOP_PROXY)) {
		const struct endpoint *to = links_lookup(&p->destination_link);

		return to ? F(deliver_local)(p, to->mac, to->ifindex) : TC_ACT_SHOT;
	}
	if (DIRECT_ROUTING && p->next_hop == HOP_DEVICE)
		return F(deliver_device)(p, p->ifindex);
	return PASS;
}

/* From a verdict to what the program returns. */
INLINE int F(finish)(struct F(packet) *p, int verdict)
{
	if (verdict < 0) {
		count(p->skb, -verdict);
		F(forget)(p);
		if (p->established && p->conn)
			F(recall)(p, p->conn);
		F(event)(p, EVENT_DROP, -verdict);
		return TC_ACT_SHOT;
	}
	if (verdict == DISCARD) {
		count(p->skb, REASON_MULTICAST_HANDLED);
		return TC_ACT_SHOT;
	}
	if (verdict == TO_STACK)
		return PASS;
	return verdict - TAKEN(0);
}
