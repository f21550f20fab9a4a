/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Direct server return, for frames and for packets: which backend a connection has. Behind choose_packet.h. `lb_ways`
 * remembers it, so that the connection keeps its backend when the table changes.
 */

/* The number of whom a connection was given to, or is given to now. `opens`: the packet is its first one for sure. */
INLINE u32 F(lb_choose_direct)(const struct F(tuple) *t, bool opens, const struct lb_service *service)
{
	u32 *known = ON(lb_ways, lookup)(t), number;
	struct F(lb_backend) *backend;

	if (known && !opens) {
		number = *known;
		backend = ON(lb_backends, lookup)(&number);
		if (backend && (backend->flags & BACKEND_USED))
			return number;
	}
	number = F(lb_choose_alike)(t, service);
	backend = ON(lb_backends, lookup)(&number);
	if (backend && (backend->flags & BACKEND_USED) && !ON(endpoints, lookup)(&backend->address))
		ON(lb_ways, update)(t, &number, BPF_ANY);
	return number;
}
