/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The redirect to a proxy of this node. A decision asks for it by OWED_PROXY and the proxy's number in `proxy_port`; a
 * plugin whose proxy that is calls `to_proxy` in the phase `redirect`. The packet goes to the host's stack under a mark that
 * its routing takes for local, and there the stage `steer` (bpf/proxy/steer.c) finds the proxy's socket by the connection's
 * entry. So the proxy sees both addresses as they are, and an established flow costs what any other costs.
 */

/* The obligation is met if the proxy has a socket for this protocol and family; what is still owed drops the packet. */
INLINE int F(to_proxy)(struct F(packet) *p)
{
	struct proxy_key key = {};
	struct bpf_sock *sk;

	key.proxy = p->proxy_port;
	key.protocol = p->tuple.protocol;
	key.family = FAMILY;
	sk = proxies_lookup(&key);
	if (!sk)
		return NEXT;
	bpf_sk_release(sk);
	if (!p->reply) {
		p->mark = MARK_TO_PROXY;
		p->next_hop = HOP_PROXY;
		p->ifindex = 0;
		/* It does not leave: the proxy sees its client, whatever a translation would have made of it. */
		p->translated.saddr = p->tuple.saddr;
		p->translated.sport = p->tuple.sport;
	} else if (FROM_WORKLOAD && p->source) {
		p->resolved = 0; /* the server itself, whose answers are the proxy's to give: the connection goes on */
		return DROP(REASON_POLICY_DENIED);
	}
	p->owed &= ~OWED_PROXY;
	return NEXT;
}
