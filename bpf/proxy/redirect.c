/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* redirect: what must pass a proxy goes to this one if it is the right one. See bpf/proxy.h. */

STAGE(redirect)
{
	if (likely(!(p->owed & OWED_PROXY)) || p->proxy_port < PROXY_FIRST || p->proxy_port > PROXY_LAST)
		return NEXT;
	return F(to_proxy)(p);
}
