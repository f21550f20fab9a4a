/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services at the socket. Family independent part. */

#define SOCKET_DATAGRAM 2    /* SOCK_DGRAM */
#define SOCKET_ESTABLISHED 1 /* BPF_TCP_ESTABLISHED, of UDP as well: connected */
#define NO_ROUTE 113         /* EHOSTUNREACH */
#define REFUSED 111          /* ECONNREFUSED */

/* What the hook did with an address. */
#define UNTOUCHED 0
#define EXCHANGED 1

static u64 (*lb_netns_cookie)(void *ctx) = (void *)122;
static int (*lb_set_retval)(int value) = (void *)187;

/* The call fails, and its caller learns why where the kernel can say so (since 5.18; before, EPERM). */
INLINE int lb_reject(int error)
{
#if HAS_RETVAL
	lb_set_retval(-error);
#endif
	return TAKEN(0);
}

/* Whether the call's socket has a peer, whoever else the call may name. */
INLINE bool lb_connected(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk && sk->state == SOCKET_ESTABLISHED;
}

/* The workload whose socket this is, 0: none of this node's. */
INLINE u32 lb_endpoint(struct bpf_sock_addr *ctx)
{
	u64 cookie = lb_netns_cookie(ctx);
	u32 *endpoint = lb_namespaces_lookup(&cookie);

	return endpoint ? *endpoint : 0;
}
