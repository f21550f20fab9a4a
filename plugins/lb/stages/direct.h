/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Direct server return, for frames and for packets: which backend a connection has. Behind choose_packet.h. `lb_ways`
 * remembers it, so that the connection keeps its backend when the table changes.
 */

/* Whether a row is still who the connection was given to; its number may be another one's by now. */
INLINE bool F(lb_is_way)(const struct F(lb_way) *way, const struct F(lb_backend) *backend)
{
	u32 other = ((backend->flags & BACKEND_USED) ^ BACKEND_USED) | (u16)(backend->port ^ way->port) |
		    F(other_address)(&backend->address, &way->address);

	asm volatile("" : "+r"(other)); /* or else the verifier walks what follows for each of these */
	return !other;
}

/* The number of whom a connection was given to, or is given to now. `opens`: the packet is its first one for sure. */
INLINE u32 F(lb_choose_direct)(const struct F(tuple) *t, bool opens, const struct lb_service *service)
{
	struct F(lb_way) *known = ON(lb_ways, lookup)(t), way = {};
	struct F(lb_backend) *backend;
	u32 number;

	if (known && !opens) {
		number = known->number;
		backend = ON(lb_backends, lookup)(&number);
		if (backend && F(lb_is_way)(known, backend))
			return number;
	}
	number = F(lb_choose_alike)(t, service);
	backend = ON(lb_backends, lookup)(&number);
	if (backend && (backend->flags & BACKEND_USED) && !ON(endpoints, lookup)(&backend->address)) {
		way.address = backend->address;
		way.port = backend->port;
		way.number = number;
		ON(lb_ways, update)(t, &way, BPF_ANY);
	}
	asm volatile("" : "+r"(number)); /* to the verifier, one number from here on */
	return number;
}
