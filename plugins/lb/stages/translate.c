/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * translate: services at the packet, for what the hooks of sockets did not translate. On a connection's first packet only:
 * the connection's entry remembers it.
 */

/* Whether the backend that a connection has is there still; those that are terminating are. */
INLINE bool LOCAL(lives)(const struct F(packet) *p)
{
	u32 number = p->backend;
	struct F(lb_backend) *backend = ON(lb_backends, lookup)(&number);

	return backend && (backend->flags & BACKEND_USED) && backend->port == p->translated.dport &&
	       F(same_address)(&backend->address, &p->translated.daddr);
}

/* Whether this packet, of a connection that was translated before, needs another backend. */
INLINE bool LOCAL(bereft)(struct F(packet) *p)
{
	if (!p->nat || !p->backend || p->reply || p->related || p->half || LOCAL(lives)(p))
		return false;
	/* A TCP connection cannot be moved, unless it was not answered yet. */
	return p->tuple.protocol != IPPROTO_TCP || F(opens)(p);
}

/* NEXT: this client may. */
INLINE int LOCAL(admit)(struct F(packet) *p, const struct lb_service *service)
{
	struct F(lb_source) source = {};

	source.length = 32 + FULL_PREFIX;
	source.service = service->number;
	source.address = p->tuple.saddr;
	return ON(lb_sources, lookup)(&source) ? NEXT : DROP(REASON_DENIED_BY_LB_SRC_RANGE_CHECK);
}

/* Whether the client is a workload that reaches the address itself. */
INLINE bool LOCAL(skips)(const struct F(packet) *p, const struct lb_service *service)
{
	struct lb_skip key = {};

	key.endpoint = p->source_endpoint;
	key.service = service->number;
	return lb_skips_lookup(&key);
}

/* Who asks, so that a refusal can say so. False: it is not who it says, which the core has an answer for. */
INLINE bool LOCAL(identify)(struct F(packet) *p)
{
	struct endpoint *client = ON(endpoints, lookup)(&p->tuple.saddr);

	if (!client)
		return !FROM_WORKLOAD;
	if (!F(genuine)(p, client->ifindex))
		return false;
	p->source_endpoint = client->id;
	p->source_identity = client->identity;
	return true;
}

/* The backend that XDP has chosen for this packet already, 0: none. */
INLINE u32 LOCAL(told)(const struct F(packet) *p)
{
#if FROM_NETWORK
	struct lb_choice *choice = (void *)(long)p->skb->data_meta;

	if ((void *)(choice + 1) <= (void *)(long)p->skb->data && choice->magic == LB_CHOICE)
		return choice->backend;
#endif
	return 0;
}

INLINE void LOCAL(loopback)(struct F(packet) *p)
{
	struct F(address) address;

#if FAMILY == 4
	address.a[0] = be32(LOOPBACK4);
#else
	address.a[0] = be32(LOOPBACK6_0);
	address.a[1] = be32(LOOPBACK6_1);
	address.a[2] = be32(LOOPBACK6_2);
	address.a[3] = be32(LOOPBACK6_3);
#endif
	F(nat_source)(p, &address, p->tuple.sport);
}

#if FROM_NETWORK
/*
 * Direct server return: the packet goes on as it is to the node on which the backend is. That node knows the service as well and
 * chooses the same backend; it answers the client itself. Errors about its answers come here, too, and go the same way, so that
 * it learns of narrower paths. NEXT: there is no way there, or none for so large a packet; `resolve` finds none either, and drops it.
 */
INLINE int LOCAL(hand_on)(struct F(packet) *p, const struct F(address) *to)
{
	void *data = (void *)(long)p->skb->data, *end = (void *)(long)p->skb->data_end;
	struct bpf_redir_neigh neighbor = {};
	struct bpf_fib_lookup *fib;
	u32 zero = 0;
	long answer;

	fib = (void *)ON(drafts, lookup)(&zero);
	if (!fib)
		return NEXT;
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = p->skb->ifindex;
#if FAMILY == 4
	fib->family = 2; /* AF_INET */
	fib->ipv4_src = p->tuple.saddr.a[0];
	fib->ipv4_dst = to->a[0];
#else
	fib->family = 10; /* AF_INET6 */
	__builtin_memcpy(fib->ipv6_src, &p->tuple.saddr, 16);
	__builtin_memcpy(fib->ipv6_dst, to, 16);
#endif
	answer = bpf_fib_lookup(p->skb, fib, sizeof(*fib), 0);
	if ((answer != BPF_FIB_LKUP_RET_SUCCESS && answer != BPF_FIB_LKUP_RET_NO_NEIGH) || !devices_lookup(&fib->ifindex))
		return NEXT;
	if (!F(hop)(data, end))
		return TO_STACK;
	if (p->anew && !ON(connections, delete)(&p->tuple)) /* what this replaces went by this node's own address */
		count(p->skb, COUNTER_FORGOTTEN);
	count(p->skb, COUNTER_FORWARDED);
	neighbor.nh_family = fib->family; /* of the gateway, if there is one */
	__builtin_memcpy(neighbor.ipv6_nh, fib->ipv6_dst, 16);
	return TAKEN(redirect_neigh(fib->ifindex, &neighbor, sizeof(neighbor), 0));
}
#endif

STAGE(translate)
{
	union { /* one after the other: the stack is short */
		struct F(lb_frontend) frontend;
		struct lb_service row;
	} asked = {};
	struct lb_service *service;
	struct F(lb_backend) *backend;
	u32 number;

	if (p->conn || p->half) {
		if (likely(!LOCAL(bereft)(p)) || !F(abandon)(p))
			return NEXT;
	}
	asked.frontend.address = p->tuple.daddr;
	asked.frontend.port = p->tuple.dport;
	asked.frontend.protocol = p->tuple.protocol;
	asked.frontend.scope = FROM_NETWORK ? SCOPE_EXTERNAL : SCOPE_INTERNAL;
	service = ON(lb_services, lookup)(&asked.frontend);
	if (unlikely(p->related) && !(service && (service->flags & SERVICE_DSR)))
		return NEXT;
	if (!service) {
		asked.frontend.port = 0;
		asked.frontend.protocol = 0;
		service = ON(lb_services, lookup)(&asked.frontend);
		if (!service || !(service->flags & SERVICE_NO_SERVICE) || !LOCAL(identify)(p))
			return NEXT;
		return DROP(REASON_SERVICE_BACKEND_NOT_FOUND);
	}
	asked.row = *service; /* at once: a row that is replaced may hold another service a moment later */
	service = &asked.row;
	if (!LOCAL(identify)(p))
		return NEXT;
	p->service = service->number;
	if (service->flags & (SERVICE_SOURCE_RANGES | SERVICE_SKIP_BACKENDS)) {
		if ((service->flags & SERVICE_SKIP_BACKENDS) && LOCAL(skips)(p, service)) {
			p->service = 0;
			return NEXT;
		}
		if ((service->flags & SERVICE_SOURCE_RANGES) && LOCAL(admit)(p, service))
			return DROP(REASON_DENIED_BY_LB_SRC_RANGE_CHECK);
	}
	if (!service->count)
		return DROP(REASON_SERVICE_BACKEND_NOT_FOUND);
	number = LOCAL(told)(p);
	if (FROM_NETWORK && (service->flags & SERVICE_DSR))
		number = F(lb_choose_direct)(&p->tuple, F(opens)(p), service);
	else if (!number)
		number = F(lb_choose)(&p->tuple, service);
	backend = ON(lb_backends, lookup)(&number);
	if (!backend || !(backend->flags & BACKEND_USED))
		return DROP(REASON_SERVICE_BACKEND_NOT_FOUND);
#if FROM_NETWORK
	if (service->flags & SERVICE_DSR) {
		int verdict = NEXT;

		if (!ON(endpoints, lookup)(&backend->address) && F(identity_of)(&p->tuple.saddr) != IDENTITY_HOST)
			verdict = LOCAL(hand_on)(p, &backend->address);
		if (verdict || p->related)
			return verdict;
	}
#endif
	p->backend = number;
	F(nat_destination)(p, &backend->address, backend->port);
	if (F(same_address)(&backend->address, &p->tuple.saddr))
		LOCAL(loopback)(p); /* to itself, but from elsewhere: nobody accepts what seems to come from his own address */
	return NEXT;
}
