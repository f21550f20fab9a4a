/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* redirect: what must pass a proxy goes to this one if it is the right one. See bpf/proxy.h. */

STAGE(redirect)
{
	if (likely(!(p->owed & OWED_PROXY)) || p->proxy_port < PROXY_FIRST || p->proxy_port > PROXY_LAST)
		return NEXT;
#if TO_WORKLOAD
	if (!p->reply && (p->skb->mark & MARK_MASK) == MARK_FROM_PROXY) {
		/* A proxy's own way to the server, past the rules that it has enforced. Only the host can mark packets: a
		 * packet that leaves a workload's namespace loses its mark. */
		p->owed &= ~OWED_PROXY;
		p->proxy_port = 0;
		return NEXT;
	}
#endif
	return F(to_proxy)(p);
}
