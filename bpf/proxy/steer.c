/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * steer: the socket of a proxied connection, in the host's socket lookup (attach point `sk_lookup`). It runs for what has no
 * connected socket: a TCP connection's first packet, and datagrams. So TIME_WAIT and established connections are the
 * stack's own business, and nobody is called for them. A proxy that is gone refuses.
 *
 * The connection is found by the key of its answers, which are what the proxy will send: so it does not matter whether the
 * packet was translated on its way.
 */

#define STEER_AF_INET 2

/* The number of the proxy that the packet was sent to, 0 for none. */
INLINE u16 LOCAL(proxy_of)(struct bpf_sk_lookup *ctx)
{
	if (ctx->family == STEER_AF_INET) {
		struct tuple4 t = {};

		t.saddr.a[0] = ctx->local_ip4;
		t.daddr.a[0] = ctx->remote_ip4;
		t.sport = be16(ctx->local_port);
		t.dport = (u16)ctx->remote_port;
		t.protocol = ctx->protocol;
		__auto_type conn = connections4_lookup(&t);
		return conn && (conn->flags & CONN_REPLY) ? conn->proxy_port : 0;
	} else {
		struct tuple6 t = {};

		t.saddr.a[0] = ctx->local_ip6[0];
		t.saddr.a[1] = ctx->local_ip6[1];
		t.saddr.a[2] = ctx->local_ip6[2];
		t.saddr.a[3] = ctx->local_ip6[3];
		t.daddr.a[0] = ctx->remote_ip6[0];
		t.daddr.a[1] = ctx->remote_ip6[1];
		t.daddr.a[2] = ctx->remote_ip6[2];
		t.daddr.a[3] = ctx->remote_ip6[3];
		t.sport = be16(ctx->local_port);
		t.dport = (u16)ctx->remote_port;
		t.protocol = ctx->protocol;
		__auto_type conn = connections6_lookup(&t);
		return conn && (conn->flags & CONN_REPLY) ? conn->proxy_port : 0;
	}
}

/*
 * From a workload, to an address that is not the host's, and yet here: only the mark of a proxied connection leads it here,
 * or a route that makes more addresses local, which its connection knows. If the connection is not known any more, it must
 * not reach whatever listens on the host.
 */
INLINE bool LOCAL(strayed)(struct bpf_sk_lookup *ctx)
{
	u32 ifindex = ctx->ingress_ifindex;
	struct ipcache_entry *entry;

	if (!links_lookup(&ifindex))
		return false;
	if (ctx->family == STEER_AF_INET) {
		struct prefix4 key = {.length = 32};
		struct tuple4 t = {};

		key.address.a[0] = ctx->local_ip4;
		entry = ipcache4_lookup(&key);
		if (entry && entry->identity == IDENTITY_HOST)
			return false;
		t.saddr.a[0] = ctx->remote_ip4;
		t.daddr = key.address;
		t.sport = (u16)ctx->remote_port;
		t.dport = be16(ctx->local_port);
		t.protocol = ctx->protocol;
		__auto_type conn = connections4_lookup(&t);
		return !conn || conn->next_hop != HOP_STACK;
	} else {
		struct prefix6 key = {.length = 128};
		struct tuple6 t = {};

		key.address.a[0] = ctx->local_ip6[0];
		key.address.a[1] = ctx->local_ip6[1];
		key.address.a[2] = ctx->local_ip6[2];
		key.address.a[3] = ctx->local_ip6[3];
		entry = ipcache6_lookup(&key);
		if (entry && entry->identity == IDENTITY_HOST)
			return false;
		t.saddr.a[0] = ctx->remote_ip6[0];
		t.saddr.a[1] = ctx->remote_ip6[1];
		t.saddr.a[2] = ctx->remote_ip6[2];
		t.saddr.a[3] = ctx->remote_ip6[3];
		t.daddr = key.address;
		t.sport = (u16)ctx->remote_port;
		t.dport = be16(ctx->local_port);
		t.protocol = ctx->protocol;
		__auto_type conn = connections6_lookup(&t);
		return !conn || conn->next_hop != HOP_STACK;
	}
}

STAGE(steer)
{
	struct proxy_key key = {};
	struct bpf_sock *sk;
	long error;

	key.proxy = LOCAL(proxy_of)(ctx);
	if (!key.proxy)
		return LOCAL(strayed)(ctx) ? TAKEN(SK_DROP) : NEXT;
	if (key.proxy < PROXY_FIRST || key.proxy > PROXY_LAST)
		return NEXT;
	key.protocol = ctx->protocol;
	key.family = ctx->family == STEER_AF_INET ? 4 : 6;
	sk = proxies_lookup(&key);
	if (!sk)
		return TAKEN(SK_DROP);
	error = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return error ? TAKEN(SK_DROP) : TAKEN(SK_PASS);
}

#undef STEER_AF_INET
