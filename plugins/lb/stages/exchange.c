/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * connect, sendmsg, recvmsg and getpeername: the address of the call, exchanged. One text for all of them; an IPv6 socket may hold an IPv4 address (IPv4-mapped, RFC 4291 2.5.5.2).
 */

#define LB_GLUE_(a, b) a##b
#define LB_GLUE(a, b) LB_GLUE_(a, b)
#if FORWARD
#define LB_EXCHANGE(family, address, port) LB_GLUE(lb_forward, family)(ctx, address, port, CONNECTS)
#else
#define LB_EXCHANGE(family, address, port) LB_GLUE(lb_back, family)(ctx, address, port, CONNECTS)
#endif

INLINE int lb_exchange4(struct bpf_sock_addr *ctx, u32 word, u32 *to)
{
	__be16 port = ctx->user_port;
	struct address4 address = {};
	int done;

	address.a[0] = word;
	done = LB_EXCHANGE(4, &address, &port);
	*to = address.a[0];
	if (done == EXCHANGED)
		ctx->user_port = port;
	return done;
}

STAGE(exchange)
{
	int done;
	u32 to = 0;

#if SOCKET_FAMILY == 4
	done = lb_exchange4(ctx, ctx->user_ip4, &to);
	if (done == EXCHANGED)
		ctx->user_ip4 = to;
#else
	struct address6 address = {};
	__be16 port = ctx->user_port;

	address.a[0] = ctx->user_ip6[0];
	address.a[1] = ctx->user_ip6[1];
	address.a[2] = ctx->user_ip6[2];
	address.a[3] = ctx->user_ip6[3];
	if (!(address.a[0] | address.a[1]) && address.a[2] == be32(0xffff)) {
		done = lb_exchange4(ctx, address.a[3], &to);
		if (done == EXCHANGED)
			ctx->user_ip6[3] = to;
	} else {
		done = LB_EXCHANGE(6, &address, &port);
		if (done == EXCHANGED) {
			ctx->user_ip6[0] = address.a[0];
			ctx->user_ip6[1] = address.a[1];
			ctx->user_ip6[2] = address.a[2];
			ctx->user_ip6[3] = address.a[3];
			ctx->user_port = port;
		}
	}
#endif
	return done == UNTOUCHED || done == EXCHANGED ? NEXT : done;
}
