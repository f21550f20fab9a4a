/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who talks to whom: workloads of this node by address, everybody else by the ipcache. */

/* How the packet leaves the node, for what is not a workload of it. */
INLINE void F(route)(struct F(packet) *p)
{
	p->next_hop = HOP_STACK;
	p->ifindex = 0;
#if DIRECT_ROUTING
	if ((FROM_WORKLOAD || FROM_NETWORK) && p->destination_identity != IDENTITY_HOST) {
		struct bpf_fib_lookup *fib;
		u32 *device, zero = 0;
		long answer;

		fib = (void *)ON(drafts, lookup)(&zero); /* it has room, and the stack has not */
		if (!fib)
			return;
		__builtin_memset(fib, 0, sizeof(*fib));
		fib->ifindex = p->skb->ifindex;
#if FAMILY == 4
		fib->family = 2; /* AF_INET */
		fib->ipv4_src = p->translated.saddr.a[0];
		fib->ipv4_dst = p->translated.daddr.a[0];
#else
		fib->family = 10; /* AF_INET6 */
		__builtin_memcpy(fib->ipv6_src, &p->translated.saddr, 16);
		__builtin_memcpy(fib->ipv6_dst, &p->translated.daddr, 16);
#endif
		answer = bpf_fib_lookup(p->skb, fib, sizeof(*fib), 0);
		if (answer != BPF_FIB_LKUP_RET_SUCCESS && answer != BPF_FIB_LKUP_RET_NO_NEIGH &&
		    answer != BPF_FIB_LKUP_RET_FRAG_NEEDED)
			return;
		/* Only out of the devices that were given to us; anything else is the stack's business. */
		device = devices_lookup(&fib->ifindex);
		if (device) { /* too large for it: the stack tells the sender, or who translates it knows the device */
			p->next_hop = answer == BPF_FIB_LKUP_RET_FRAG_NEEDED ? HOP_STACK : HOP_DEVICE;
			p->ifindex = fib->ifindex;
		}
	}
#endif
}

INLINE int F(resolve)(struct F(packet) *p)
{
	p->source = ON(endpoints, lookup)(&p->tuple.saddr);
	p->destination = ON(endpoints, lookup)(&p->translated.daddr);
	if (FROM_NETWORK && ((!p->destination && !p->nat) || (p->related && !p->conn)))
		return TO_STACK; /* for somebody who is not ours, and not by a service of ours; an error about nothing known */
	if (p->source ? !F(genuine)(p, p->source->ifindex) : FROM_WORKLOAD)
		return DROP(REASON_INVALID_SOURCE_IP);
	if (TO_WORKLOAD && !p->destination) /* an address of the pool that no workload has */
		return MULTICAST(&p->translated.daddr) ? DISCARD : DROP(REASON_STALE_OR_UNROUTABLE_IP);
	if (p->source) {
		p->source_identity = p->source->identity;
		p->source_endpoint = p->source->id;
		p->source_link = p->source->ifindex;
	} else {
		p->source_identity = F(identity_of)(&p->tuple.saddr);
		if (FROM_NETWORK && p->source_identity == IDENTITY_HOST) /* the host is here, and not out there */
			return DROP(REASON_INVALID_SOURCE_IP);
	}
	if (p->destination) {
		p->destination_identity = p->destination->identity;
		p->destination_endpoint = p->destination->id;
		p->next_hop = HOP_LOCAL;
		p->ifindex = p->destination->ifindex;
		p->destination_link = p->ifindex;
	} else {
		if (MULTICAST(&p->translated.daddr))
			return DISCARD;
		p->destination_identity = F(identity_of)(&p->translated.daddr);
		F(route)(p);
		if (FROM_NETWORK && p->next_hop != HOP_DEVICE)
			return DROP(REASON_FIB_LOOKUP_FAILED); /* the stack would send it on with its sender's address */
	}
	p->client_identity = p->reply ? p->destination_identity : p->source_identity;
	p->server_identity = p->reply ? p->source_identity : p->destination_identity;
	p->client_endpoint = p->reply ? p->destination_endpoint : p->source_endpoint;
	p->server_endpoint = p->reply ? p->source_endpoint : p->destination_endpoint;
	if (p->nat && !p->reply && p->tuple.protocol != ICMP_PROTOCOL)
		p->service_port = p->translated.dport;
	if (p->reply)
		p->service_port = p->tuple.protocol == ICMP_PROTOCOL ? be16(ICMP_REQUEST) : p->tuple.sport;
	p->resolved = 1;
	return NEXT;
}
