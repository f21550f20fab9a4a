/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services at the socket, once per family: there and back. What the application called is written into the call's address,
 * which is the kernel's own copy, and what it is to be told again is remembered by socket and backend.
 */

INLINE bool F(lb_is_excepted)(struct bpf_sock_addr *ctx, const struct lb_service *service)
{
	struct lb_skip key = {};

	key.endpoint = lb_endpoint(ctx);
	key.service = service->number;
	return key.endpoint && lb_skips_lookup(&key);
}

INLINE u32 F(lb_choose)(struct bpf_sock_addr *ctx, const struct lb_service *service)
{
	u32 random = bpf_get_prandom_u32(); /* there is no connection yet that could be hashed */
	struct lb_client client = {};
	u64 cookie;

	if (!service->affinity)
		return F(lb_pick)(service, random);
	cookie = lb_netns_cookie(ctx);
	client.client[0] = cookie;
	client.client[1] = cookie >> 32;
	client.service = service->number;
	client.kind = KIND_SOCKET;
	return F(lb_pick_for)(service, &client, random);
}

/* Where a socket's note about a backend is. Cookies are consecutive, so that connections have places of their own in turn. */
INLINE struct F(lb_socket) *F(lb_place)(u64 cookie, const struct F(address) *address, __be16 port, bool connected)
{
	u32 place = cookie;

	if (!connected) /* one socket, any number of peers; the last bytes of neighbours' addresses have to tell in the product's upper half */
		place += (be32(address->a[FAMILY == 6 ? 3 : 0]) ^ be16(port)) * 0x9e3779b1u >> 16;
	place &= SOCKET_PLACES - 1;
	return ON(lb_sockets, lookup)(&place);
}

/* To the compiler only: the order that others see is the machine's, strict on x86-64 and not on arm64. */
#define IN_ORDER() asm volatile("" ::: "memory")

/*
 * What all parts of a note add up to: a reader knows by it, on every machine, whether they belong together. Two sockets may have
 * one place, and nobody locks it.
 */
INLINE u32 F(lb_check)(u64 cookie, const struct F(address) *address, __be16 port, const struct F(address) *peer, __be16 peer_port)
{
	u64 sum = cookie * 0x9e3779b97f4a7c15ull + ((u32)port << 16 | peer_port);

#pragma unroll
	for (int i = 0; i < sizeof(*peer) / 4; i++)
		sum = sum * 0x9e3779b97f4a7c15ull + ((u64)address->a[i] << 32 | peer->a[i]);
	return sum * 0x9e3779b97f4a7c15ull >> 32;
}

/* Whom the socket's owner thinks that it talks to. The cookie goes first and comes last, for the agent, who reads many. */
INLINE void F(lb_remember)(u64 cookie, const struct F(lb_backend) *backend, const struct F(lb_frontend) *frontend,
			   u32 service, u32 number, bool connected)
{
	struct F(lb_socket) *note = F(lb_place)(cookie, &backend->address, backend->port, connected);

	if (!note)
		return;
	note->cookie = 0;
	IN_ORDER();
	note->address = backend->address;
	note->port = backend->port;
	note->peer_address = frontend->address;
	note->peer_port = frontend->port;
	note->service = service;
	note->backend = number;
	note->check = F(lb_check)(cookie, &backend->address, backend->port, &frontend->address, frontend->port);
	IN_ORDER();
	note->cookie = cookie;
}

#if FORWARD && CONNECTS
/* What is needed to connect a UDP socket again when its backend is gone: of all sockets, however many came later. */
INLINE void F(lb_note_peer)(struct bpf_sock_addr *ctx, const struct F(lb_backend) *backend, const struct F(lb_frontend) *frontend)
{
	struct lb_peer peer = {}, *note;

#if FAMILY == 4
	peer.address[2] = peer.peer_address[2] = be32(0xffff);
	peer.address[3] = backend->address.a[0];
	peer.peer_address[3] = frontend->address.a[0];
#else
	__builtin_memcpy(peer.address, &backend->address, 16);
	__builtin_memcpy(peer.peer_address, &frontend->address, 16);
#endif
	peer.port = backend->port;
	peer.peer_port = frontend->port;
	note = lb_peers_get(ctx->sk, &peer, BPF_SK_STORAGE_GET_F_CREATE);
	if (note)
		*note = peer; /* it was connected before */
}
#else
#define lb_note_peer4(ctx, backend, frontend)
#define lb_note_peer6(ctx, backend, frontend)
#endif

#if FORWARD && !CONNECTS
/* Whether this is what the socket is connected to. It hears its peer alone, so nobody else may be chosen; then it is exchanged. */
INLINE bool F(lb_to_peer)(struct bpf_sock_addr *ctx, struct F(address) *address, __be16 *port)
{
	struct lb_peer *peer = lb_peers_get(ctx->sk, 0, 0);

	if (!peer || peer->peer_port != *port)
		return false;
#if FAMILY == 4
	if (peer->peer_address[2] != be32(0xffff) || peer->peer_address[3] != address->a[0])
		return false;
	address->a[0] = peer->address[3];
#else
	for (int i = 0; i < 4; i++)
		if (peer->peer_address[i] != address->a[i])
			return false;
	__builtin_memcpy(address, peer->address, 16);
#endif
	*port = peer->port;
	return true;
}
#else
#define lb_to_peer4(ctx, address, port) false
#define lb_to_peer6(ctx, address, port) false
#endif

#if SOCKET_EVENTS
/* One of many: whoever watches wants to know that, not every time. The event is of what the call goes to. */
INLINE void F(lb_tell)(struct bpf_sock_addr *ctx, const struct F(lb_backend) *backend, u32 service)
{
	struct event *e;

	if (bpf_get_prandom_u32() & (SOCKET_EVENTS - 1))
		return;
	e = events_reserve(sizeof(struct event));
	if (!e)
		return;
	__builtin_memset(e, 0, sizeof(*e));
	e->time = bpf_ktime_get_ns();
	e->type = EVENT_TRANSLATE;
	e->family = FAMILY;
	e->protocol = ctx->protocol;
#if FAMILY == 4
	e->saddr[2] = e->daddr[2] = be32(0xffff);
	e->daddr[3] = backend->address.a[0];
#else
	__builtin_memcpy(e->daddr, &backend->address, 16);
#endif
	e->dport = backend->port;
	e->source_endpoint = lb_endpoint(ctx);
	e->created = e->time >> TICK_SHIFT;
	e->service = service;
	events_submit(e, BPF_RB_NO_WAKEUP);
}
#else
#define lb_tell4(ctx, backend, service)
#define lb_tell6(ctx, backend, service)
#endif

/* From a service's address to one of its backends'. Returns UNTOUCHED, EXCHANGED, or the verdict of a call that fails. */
INLINE int F(lb_forward)(struct bpf_sock_addr *ctx, struct F(address) *address, __be16 *port, bool connects)
{
	struct F(lb_frontend) frontend = {};
	struct F(lb_backend) *backend;
	struct lb_service *service, row;
	u32 number;

	frontend.address = *address;
	frontend.port = *port;
	frontend.protocol = ctx->protocol;
	frontend.scope = SCOPE_INTERNAL;
	service = ON(lb_services, lookup)(&frontend);
	if (!service) {
		frontend.port = 0;
		frontend.protocol = 0;
		service = ON(lb_services, lookup)(&frontend);
		return service && (service->flags & SERVICE_NO_SERVICE) ? lb_reject(REFUSED) : UNTOUCHED;
	}
	row = *service; /* at once: a row that is replaced may hold another service a moment later */
	service = &row;
	/* Datagrams of a connected socket pass no hook again, unless their call names an address, as IPv6 sockets that speak IPv4
	 * always do to the kernel. Those of workloads pass `translate`, which moves them when their backend goes; of others, the
	 * agent connects the socket again. */
	if (ctx->type == SOCKET_DATAGRAM && (connects || lb_connected(ctx))) {
		if (lb_endpoint(ctx))
			return UNTOUCHED;
		if (!connects && F(lb_to_peer)(ctx, address, port))
			return EXCHANGED;
	}
	if ((service->flags & SERVICE_SKIP_BACKENDS) && F(lb_is_excepted)(ctx, service))
		return UNTOUCHED;
	if (!service->count)
		return lb_reject(NO_ROUTE);
	number = F(lb_choose)(ctx, service);
	backend = ON(lb_backends, lookup)(&number);
	if (!backend || !(backend->flags & BACKEND_USED))
		return lb_reject(NO_ROUTE);
	F(lb_remember)(bpf_get_socket_cookie(ctx), backend, &frontend, service->number, number, connects);
	if (connects && ctx->type == SOCKET_DATAGRAM)
		F(lb_note_peer)(ctx, backend, &frontend);
	F(lb_tell)(ctx, backend, service->number);
	*address = backend->address;
	*port = backend->port;
	return EXCHANGED;
}

/* The note, if it is about this socket and this backend. */
INLINE int F(lb_recall)(u64 cookie, struct F(address) *address, __be16 *port, bool connected)
{
	struct F(lb_socket) *note = F(lb_place)(cookie, address, *port, connected);
	struct F(address) peer;
	__be16 peer_port;
	u32 other = 0;

	if (!note || note->cookie != cookie || note->port != *port)
		return UNTOUCHED;
#pragma unroll
	for (int i = 0; i < sizeof(peer) / 4; i++)
		other |= note->address.a[i] ^ address->a[i];
	if (other)
		return UNTOUCHED;
	peer = note->peer_address;
	peer_port = note->peer_port;
	IN_ORDER();
	if (note->check != F(lb_check)(cookie, address, *port, &peer, peer_port))
		return UNTOUCHED;
	*address = peer;
	*port = peer_port;
	return EXCHANGED;
}

/* From a backend's address to that of the service that the socket asked. */
INLINE int F(lb_back)(struct bpf_sock_addr *ctx, struct F(address) *address, __be16 *port, bool connected)
{
	u64 cookie = bpf_get_socket_cookie(ctx);
	int done = F(lb_recall)(cookie, address, port, connected);

	/* A datagram may have come to a socket that is connected. */
	return done == UNTOUCHED && !connected ? F(lb_recall)(cookie, address, port, true) : done;
}
