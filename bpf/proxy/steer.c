/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * steer: the socket of a proxied connection, in the host's socket lookup (attach point `sk_lookup`). It runs for what has no
 * connected socket: a TCP connection's first packet, and datagrams. So TIME_WAIT and established connections are the
 * stack's own business, and nobody is called for them. A proxy that is gone refuses.
 */

INLINE struct connection *LOCAL(proxied)(struct bpf_sk_lookup *ctx)
{
	if (ctx->family == 2) { /* AF_INET */
		struct tuple4 t = {};

		t.saddr.a[0] = ctx->remote_ip4;
		t.daddr.a[0] = ctx->local_ip4;
		t.sport = (u16)ctx->remote_port;
		t.dport = be16(ctx->local_port);
		t.protocol = ctx->protocol;
		return connections4_lookup(&t);
	} else {
		struct tuple6 t = {};

		t.saddr.a[0] = ctx->remote_ip6[0];
		t.saddr.a[1] = ctx->remote_ip6[1];
		t.saddr.a[2] = ctx->remote_ip6[2];
		t.saddr.a[3] = ctx->remote_ip6[3];
		t.daddr.a[0] = ctx->local_ip6[0];
		t.daddr.a[1] = ctx->local_ip6[1];
		t.daddr.a[2] = ctx->local_ip6[2];
		t.daddr.a[3] = ctx->local_ip6[3];
		t.sport = (u16)ctx->remote_port;
		t.dport = be16(ctx->local_port);
		t.protocol = ctx->protocol;
		return connections6_lookup(&t);
	}
}

STAGE(steer)
{
	struct connection *conn = LOCAL(proxied)(ctx);
	struct proxy_key key = {};
	struct bpf_sock *sk;
	long error;

	if (!conn || conn->next_hop != HOP_PROXY || conn->proxy_port < PROXY_FIRST || conn->proxy_port > PROXY_LAST)
		return NEXT;
	key.proxy = conn->proxy_port;
	key.protocol = ctx->protocol;
	key.family = ctx->family == 2 ? 4 : 6;
	sk = proxies_lookup(&key);
	if (!sk)
		return TAKEN(SK_DROP);
	error = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	return error ? TAKEN(SK_DROP) : TAKEN(SK_PASS);
}
