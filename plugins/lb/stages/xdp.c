/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services from outside, before there is an skb: packets for backends that are no workloads of this node, and their
 * answers. Only what nearly all of them are: TCP and UDP without IP options or fragments, and no packet that changes a
 * connection's state but the first. All others, and what concerns a workload, pass to the classifier of the same device,
 * which knows the same connections and does everything.
 */
#undef HEADER
#undef TRANSPORT
#if FAMILY == 4
#define HEADER struct iphdr
#else
#define HEADER struct ipv6hdr
#endif
#define TRANSPORT (ETH_HLEN + sizeof(HEADER))

/* The route and the neighbour are asked for again about every second: both may change. */
#define LB_ROUTE_SHIFT 6

struct LOCAL(frame) {
	struct F(tuple) tuple;
	u8 tcp_flags;
};

INLINE bool LOCAL(parse)(struct xdp_md *ctx, struct LOCAL(frame) *f)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	HEADER *ip = data + ETH_HLEN;
	__be16 *ports = data + TRANSPORT;

	if ((void *)(ports + 4) > end)
		return false;
#if FAMILY == 4
	if (ip->version != 4 || ip->ihl != 5 || (ip->frag_off & be16(0x3fff)) || ip->ttl <= 1)
		return false;
	f->tuple.protocol = ip->protocol;
	f->tuple.saddr.a[0] = ip->saddr;
	f->tuple.daddr.a[0] = ip->daddr;
#else
	if (ip->version != 6 || ip->hop_limit <= 1)
		return false;
	f->tuple.protocol = ip->nexthdr;
	__builtin_memcpy(&f->tuple.saddr, &ip->saddr, ADDRESS_SIZE);
	__builtin_memcpy(&f->tuple.daddr, &ip->daddr, ADDRESS_SIZE);
#endif
	f->tuple.sport = ports[0];
	f->tuple.dport = ports[1];
	if (f->tuple.protocol == IPPROTO_UDP)
		return true;
	if (f->tuple.protocol != IPPROTO_TCP || data + TRANSPORT + sizeof(struct tcphdr) > end)
		return false;
	f->tcp_flags = ((u8 *)ports)[13];
	return true;
}

/* One's complement, RFC 1624 equation 3: `added` is what the header's other words grew by. */
INLINE u16 LOCAL(sum)(u16 check, u32 added)
{
	u32 sum = (u16)~check + added;

	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/* Where its packets go. False: nowhere yet, the stack has to find the neighbour. */
INLINE bool LOCAL(route)(struct xdp_md *ctx, const struct F(address) *from, const struct F(address) *to,
			 struct F(connection) *c)
{
	struct bpf_fib_lookup fib = {};

	fib.ifindex = ctx->ingress_ifindex;
#if FAMILY == 4
	fib.family = 2; /* AF_INET */
	fib.ipv4_src = from->a[0];
	fib.ipv4_dst = to->a[0];
#else
	fib.family = 10; /* AF_INET6 */
	__builtin_memcpy(fib.ipv6_src, from, 16);
	__builtin_memcpy(fib.ipv6_dst, to, 16);
#endif
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return false;
	c->next_hop = HOP_DEVICE;
	c->ifindex = fib.ifindex;
	__builtin_memcpy(c->dmac, fib.dmac, 6);
	__builtin_memcpy(c->smac, fib.smac, 6);
	return true;
}

/* Addresses, ports, hop limit, checksums and MAC addresses in one go, then out. */
INLINE int LOCAL(send)(struct xdp_md *ctx, const struct LOCAL(frame) *f, const struct F(connection) *c)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	HEADER *ip = data + ETH_HLEN;
	__be16 *ports = data + TRANSPORT;
	u16 *check = data + TRANSPORT + (f->tuple.protocol == IPPROTO_TCP ? 16 : 6);

	if ((void *)(ports + 4) > end || (void *)(check + 1) > end)
		return XDP_ABORTED; /* not after the parser; the verifier does not remember */
	((u32 *)data)[0] = ((const u32 *)c->dmac)[0];
	((u32 *)data)[1] = ((const u32 *)c->dmac)[1];
	((u32 *)data)[2] = ((const u32 *)c->dmac)[2];
#if FAMILY == 4
	ip->saddr = c->nat_saddr.a[0];
	ip->daddr = c->nat_daddr.a[0];
	ip->ttl--;
	ip->check = LOCAL(sum)(ip->check, c->nat_addresses + be16(0xfeff)); /* TTL is the high byte of its word */
#else
	__builtin_memcpy(&ip->saddr, &c->nat_saddr, ADDRESS_SIZE);
	__builtin_memcpy(&ip->daddr, &c->nat_daddr, ADDRESS_SIZE);
	ip->hop_limit--;
#endif
	ports[0] = c->nat_sport;
	ports[1] = c->nat_dport;
	if (f->tuple.protocol == IPPROTO_TCP) {
		*check = LOCAL(sum)(*check, c->nat_addresses + c->nat_ports);
	} else if (*check) { /* UDP over IPv4 may have none (RFC 768), and then keeps none */
		u16 sum = LOCAL(sum)(*check, c->nat_addresses + c->nat_ports);

		*check = sum ? sum : 0xffff;
	}
	return c->ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(c->ifindex, 0);
}

/* Whether the entry says what holds now. An answer's says so although its way is not known yet: see `opposite`. */
INLINE bool LOCAL(current)(const struct F(connection) *c, u32 revision)
{
	return c->revision + !c->ifindex == revision;
}

/* A packet of a connection that goes in by one of the node's devices and out by one. */
INLINE int LOCAL(pass_on)(struct xdp_md *ctx, const struct LOCAL(frame) *f, struct F(connection) *c)
{
	u32 now = ticks(), zero = 0;
	struct runtime *runtime = runtime_lookup(&zero);

	if (!runtime || !LOCAL(current)(c, runtime->revision))
		return NEXT; /* to be decided anew: its backend may be gone */
	if (unlikely((c->last_seen ^ now) >> LB_ROUTE_SHIFT || !((u32 *)c->dmac)[0])) {
		if (!LOCAL(route)(ctx, &c->nat_saddr, &c->nat_daddr, c))
			return NEXT;
		c->revision = runtime->revision;
	}
	c->last_seen = now;
	__sync_fetch_and_add(&c->packets, 1);
	__sync_fetch_and_add(&c->bytes, ctx->data_end - ctx->data);
	return TAKEN(LOCAL(send)(ctx, f, c));
}

/* The service that a first packet asks for, if it can be served here. */
INLINE bool LOCAL(service)(const struct F(tuple) *t, struct lb_service *row)
{
	struct F(lb_frontend) frontend = {};
	struct F(lb_source) source = {};
	struct lb_service *service;

	frontend.address = t->daddr;
	frontend.port = t->dport;
	frontend.protocol = t->protocol;
	frontend.scope = SCOPE_EXTERNAL;
	service = ON(lb_services, lookup)(&frontend);
	if (!service)
		return false;
	*row = *service; /* at once: a row that is replaced may hold another service a moment later */
	if (!row->count)
		return false;
	if (row->flags & SERVICE_SOURCE_RANGES) {
		source.length = 32 + FULL_PREFIX;
		source.service = row->number;
		source.address = t->saddr;
		if (!ON(lb_sources, lookup)(&source))
			return false;
	}
	return true;
}

/* What was chosen here must hold for the classifier too, or else a least busy or a next one would be chosen twice. */
INLINE int LOCAL(tell)(struct xdp_md *ctx, u32 backend)
{
	struct lb_choice *choice;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*choice)))
		return NEXT; /* not every driver has room for it */
	choice = (void *)(long)ctx->data_meta;
	if ((void *)(choice + 1) > (void *)(long)ctx->data)
		return NEXT;
	choice->magic = LB_CHOICE;
	choice->backend = backend;
	return NEXT;
}

/* From the entry of a direction to that of the other one. */
INLINE void LOCAL(opposite)(const struct F(tuple) *key, struct F(connection) *c)
{
	u32 identity = c->source_identity;

	c->flags ^= CONN_REPLY;
	c->revision--; /* the way back is not known here: the first packet that takes it finds it */
	c->ifindex = 0;
	__builtin_memset(c->dmac, 0, 12);
	c->nat_saddr = key->daddr;
	c->nat_daddr = key->saddr;
	c->nat_sport = key->dport;
	c->nat_dport = key->sport;
	c->nat_addresses = ~c->nat_addresses;
	c->nat_ports = ~c->nat_ports;
	c->source_identity = c->destination_identity;
	c->destination_identity = identity;
	c->tcp_seen = c->tcp_sent;
	c->tcp_sent = 0;
	c->packets = 0;
	c->bytes = 0;
}

/*
 * Enters the answers' direction under a port of the node that nobody has, and completes the asking one's translation by it.
 * False: there is no such port.
 */
INLINE bool LOCAL(enter_reply)(const struct F(tuple) *forward, struct F(connection) *c, struct F(connection) *reply,
			       u64 *entries)
{
	struct F(tuple) key = {};

	key.saddr = c->nat_daddr;
	key.daddr = c->nat_saddr;
	key.sport = c->nat_dport;
	key.protocol = forward->protocol;
	c->nat_sport = F(nat_port)(forward->sport);
	for (int i = 0; i < PORT_TRIES; i++) {
		struct F(connection) *taken;

		key.dport = c->nat_sport;
		c->nat_ports = F(folded)((u32)(u16)~forward->sport + (u16)~forward->dport + c->nat_sport + c->nat_dport);
		reply->nat_ports = ~c->nat_ports;
		if (!ON(connections, update)(&key, reply, BPF_NOEXIST)) {
			(*entries)++;
			return true;
		}
		taken = ON(connections, lookup)(&key);
		if (taken && (taken->flags & CONN_CLOSED) && !ON(connections, update)(&key, reply, BPF_ANY))
			return true;
		c->nat_sport = F(nat_random_port)();
	}
	return false;
}

/* A record as bpf/observe.h makes it; here there is no skb. */
INLINE void LOCAL(report)(struct xdp_md *ctx, const struct LOCAL(frame) *f, const struct F(connection) *c)
{
	struct event *e = events_reserve(sizeof(struct event));

	if (!e)
		return;
	__builtin_memset(e, 0, sizeof(*e));
	e->time = bpf_ktime_get_ns();
	e->type = EVENT_NEW;
	e->family = FAMILY;
	e->protocol = f->tuple.protocol;
	e->tcp_flags = f->tcp_flags;
	e->attach_point = ATTACH_POINT;
	e->next_hop = HOP_DEVICE;
	e->ifindex = ctx->ingress_ifindex;
	F(wide)(e->saddr, &f->tuple.saddr);
	F(wide)(e->daddr, &c->nat_daddr);
	e->sport = f->tuple.sport;
	e->dport = c->nat_dport;
	e->source_identity = c->source_identity;
	e->destination_identity = c->destination_identity;
	e->created = c->created;
	e->service = c->service;
	e->packets = 1;
	e->bytes = c->bytes;
	events_submit(e, BPF_RB_NO_WAKEUP);
}

/* The entry of the asking direction, but for its translation's source port. */
INLINE void LOCAL(draft)(struct F(connection) *c, const struct LOCAL(frame) *f, const struct F(lb_backend) *backend,
			 const struct F(address) *own, u32 length)
{
	u32 zero = 0;
	struct runtime *runtime = runtime_lookup(&zero);

	c->revision = runtime ? runtime->revision : 0;
	c->created = c->last_seen = ticks();
	c->flags = CONN_NAT;
	c->layout = SLOT_LAYOUT;
	c->nat_saddr = *own;
	c->nat_daddr = backend->address;
	c->nat_dport = backend->port;
	c->nat_addresses = F(folded)(bpf_csum_diff((__be32 *)&f->tuple.saddr, 2 * ADDRESS_SIZE, (__be32 *)&c->nat_saddr,
						   2 * ADDRESS_SIZE, 0));
	c->source_identity = F(identity_of)(&f->tuple.saddr);
	c->destination_identity = F(identity_of)(&backend->address);
	c->tcp_sent = f->tcp_flags;
	c->packets = 1;
	c->bytes = length;
}

/* Both entries. False: there is no port, which the classifier finds out as well and reports. */
INLINE bool LOCAL(enter)(const struct F(tuple) *forward, struct F(connection) *c, struct admission *a)
{
	u32 zero = 0;
	struct F(connection) *reply = ON(lb_replies, lookup)(&zero);
	u64 entries = 0;
	bool done;

	if (!reply)
		return false;
	*reply = *c;
	LOCAL(opposite)(forward, reply);
	done = LOCAL(enter_reply)(forward, c, reply, &entries) && !ON(connections, update)(forward, c, BPF_ANY);
	F(entered)(a, entries + done);
	return done;
}

/* Who cannot be outside: a workload of this node, or the node itself. The classifier drops what claims so. */
INLINE bool LOCAL(forged)(const struct F(tuple) *t)
{
	return ON(endpoints, lookup)(&t->saddr) || F(identity_of)(&t->saddr) == IDENTITY_HOST;
}

INLINE int LOCAL(open)(struct xdp_md *ctx, const struct LOCAL(frame) *f, const struct lb_service *service)
{
	struct F(lb_backend) *backend;
	struct F(connection) *c;
	struct F(address) *own;
	struct admission *a;
	struct grant *grant;
	u32 number, zero = 0;

	if (!F(admission)(&a, &grant) || unlikely(!F(admitted)(a, grant)))
		return NEXT; /* the classifier finds the table full as well, and says so */
	number = F(lb_choose)(&f->tuple, service);
	backend = ON(lb_backends, lookup)(&number);
	if (!backend || !(backend->flags & BACKEND_USED))
		return NEXT;
	c = ON(drafts, lookup)(&zero);
	if (!c)
		return NEXT;
	__builtin_memset(c, 0, sizeof(*c));
	c->service = service->number;
	c->backend = number;
	if (ON(endpoints, lookup)(&backend->address) || !LOCAL(route)(ctx, &f->tuple.saddr, &backend->address, c))
		return LOCAL(tell)(ctx, number);
	own = ON(lb_addresses, lookup)(&c->ifindex);
	if (!own)
		return LOCAL(tell)(ctx, number);
	LOCAL(draft)(c, f, backend, own, ctx->data_end - ctx->data);
	if (!LOCAL(enter)(&f->tuple, c, a))
		return LOCAL(tell)(ctx, number);
	LOCAL(report)(ctx, f, c);
	return TAKEN(LOCAL(send)(ctx, f, c));
}

/*
 * Direct server return: the frame goes on as it is, but for its MAC addresses, to the node on which the backend is. That node
 * knows the service as well and chooses the same backend; it answers the client itself.
 */
INLINE int LOCAL(direct)(struct xdp_md *ctx, const struct LOCAL(frame) *f, const struct lb_service *service)
{
	bool opens = (f->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	struct F(lb_backend) *backend;
	struct F(connection) *c;
	u32 number, zero = 0;

	number = F(lb_choose_direct)(&f->tuple, opens, service);
	backend = ON(lb_backends, lookup)(&number);
	if (!backend || !(backend->flags & BACKEND_USED) || ON(endpoints, lookup)(&backend->address))
		return NEXT; /* served here */
	c = ON(drafts, lookup)(&zero);
	if (!c || !LOCAL(route)(ctx, &f->tuple.saddr, &backend->address, c))
		return NEXT; /* the classifier asks for the neighbour */
	c->nat_saddr = f->tuple.saddr;
	c->nat_daddr = f->tuple.daddr;
	c->nat_sport = f->tuple.sport;
	c->nat_dport = f->tuple.dport;
	c->nat_addresses = c->nat_ports = 0;
	return TAKEN(LOCAL(send)(ctx, f, c));
}

STAGE(edge)
{
	struct LOCAL(frame) f = {};
	struct F(connection) *c;
	struct lb_service service;

	if (!LOCAL(parse)(ctx, &f))
		return NEXT;
	c = ON(connections, lookup)(&f.tuple);
	if (likely(c)) {
		if (!(c->flags & CONN_NAT) || c->next_hop != HOP_DEVICE || c->source_ifindex ||
		    (f.tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST)))
			return NEXT;
		return LOCAL(pass_on)(ctx, &f, c);
	}
	if (!LOCAL(service)(&f.tuple, &service) || LOCAL(forged)(&f.tuple))
		return NEXT;
	if (service.flags & SERVICE_DSR)
		return LOCAL(direct)(ctx, &f, &service);
	if (f.tuple.protocol == IPPROTO_TCP && (f.tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) != TCP_SYN)
		return NEXT;
	return LOCAL(open)(ctx, &f, &service);
}
