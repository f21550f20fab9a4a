/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a service to one of its backends: the same for packets and for sockets, once per family. A service's slots are
 * numbers of backends, and what its algorithm needs beyond them is in the slots' order and repetition.
 */

#define KIND_SOCKET 0 /* of `lb_client`: a network namespace; else the address family */

INLINE u32 F(lb_below)(u32 random, u32 limit)
{
	return (u64)random * limit >> 32;
}

INLINE u32 F(lb_slot)(const struct lb_service *service, u32 at)
{
	u32 index = service->first + at, *slot = lb_slots_lookup(&index);

	return slot ? *slot : 0;
}

INLINE u32 F(lb_load)(u32 backend)
{
	u32 *load = lb_loads_lookup(&backend);

	return load ? *load : 0;
}

/* The less busy one of two: nearly as good as the least busy one of all, and no herd runs to it (Mitzenmacher 2001). */
INLINE u32 F(lb_least)(const struct lb_service *service)
{
	u32 one = F(lb_slot)(service, F(lb_below)(bpf_get_prandom_u32(), service->count));
	u32 other = F(lb_slot)(service, F(lb_below)(bpf_get_prandom_u32(), service->count));
	u32 chosen = F(lb_load)(other) < F(lb_load)(one) ? other : one, *load = lb_loads_lookup(&chosen);

	if (load)
		__sync_fetch_and_add(load, 1); /* the agent counts again what is there, and takes away what ended */
	return chosen;
}

/* The services' turns are taken without a lock: two CPUs in the same moment may take the same one. */
INLINE u32 F(lb_turn)(const struct lb_service *service)
{
	u32 number = service->number, *turns = lb_turns_lookup(&number), turn;

	if (!turns)
		return 0;
	turn = *turns;
	*turns = turn + 1;
	return turn % service->count;
}

/* The number of a backend, 0: none. `hash` is the connection's, or random. */
INLINE u32 F(lb_pick)(const struct lb_service *service, u32 hash)
{
	if (service->algorithm == ALGORITHM_LEAST_CONNECTIONS)
		return F(lb_least)(service);
	if (service->algorithm == ALGORITHM_ROUND_ROBIN)
		return F(lb_slot)(service, F(lb_turn)(service));
	return F(lb_slot)(service, F(lb_below)(hash, service->count));
}

/* The backend that a client had, if that is not too long ago and it is still one of the service's; 0: none. */
INLINE u32 F(lb_kept)(const struct lb_service *service, const struct lb_client *client)
{
	struct lb_affinity_value *kept = lb_affinity_lookup(client);
	struct lb_member member = {};
	u32 now = ticks();

	if (!kept || now - kept->used > (u32)((u64)service->affinity * 1000000000 >> TICK_SHIFT))
		return 0;
	member.service = service->number;
	member.backend = kept->backend;
	if (!lb_members_lookup(&member))
		return 0;
	kept->used = now;
	return kept->backend;
}

INLINE u32 F(lb_pick_for)(const struct lb_service *service, const struct lb_client *client, u32 hash)
{
	struct lb_affinity_value keep = {};
	u32 number = F(lb_kept)(service, client);

	if (number)
		return number;
	keep.backend = F(lb_pick)(service, hash);
	keep.used = ticks();
	lb_affinity_update(client, &keep, BPF_ANY);
	return keep.backend;
}
