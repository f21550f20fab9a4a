/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The choice for a packet, by whichever program meets a connection's first one. Behind choose.h. */

#ifndef LB_CHOICE
#define LB_CHOICE 0x6c62a12e
/* In front of a frame: what XDP chose for the connection that it opens. No frame can bring that along. */
struct lb_choice {
	u32 magic;
	u32 backend;
};
#endif

INLINE u32 F(lb_hash)(const struct F(tuple) *t)
{
	u32 h = HASH_SEED;

#define MIX(word) \
	do { \
		u32 k_ = (word) * 0xcc9e2d51u; \
		k_ = (k_ << 15) | (k_ >> 17); \
		h ^= k_ * 0x1b873593u; \
		h = (h << 13) | (h >> 19); \
		h = h * 5 + 0xe6546b64u; \
	} while (0)
	/* MurmurHash3 of the words of both ends. Every node gets the same, so that it may be any that a packet comes to. */
	MIX(t->saddr.a[0]);
	MIX(t->daddr.a[0]);
#if FAMILY == 6
	MIX(t->saddr.a[1]);
	MIX(t->saddr.a[2]);
	MIX(t->saddr.a[3]);
	MIX(t->daddr.a[1]);
	MIX(t->daddr.a[2]);
	MIX(t->daddr.a[3]);
#endif
	MIX((u32)t->sport << 16 | t->dport);
	MIX(t->protocol);
#undef MIX
	h = (h ^ (h >> 16)) * 0x85ebca6bu;
	h = (h ^ (h >> 13)) * 0xc2b2ae35u;
	return h ^ (h >> 16);
}

/*
 * Where backends answer clients themselves, the node that a client asked and the backend's own must choose the same, each by
 * itself. So it is always by hash, and where a client is to keep its backend, by the client's address alone.
 */
INLINE u32 F(lb_choose_alike)(const struct F(tuple) *t, const struct lb_service *service)
{
	struct F(tuple) client = *t;

	if (service->affinity) {
		client.sport = 0;
		client.protocol = 0;
	}
	return F(lb_slot)(service, F(lb_below)(F(lb_hash)(&client), service->count));
}

/* For a packet: by its tuple where the algorithm is Maglev's, and again the same for the same client where that is wanted. */
INLINE u32 F(lb_choose)(const struct F(tuple) *t, const struct lb_service *service)
{
	u32 hash = service->algorithm == ALGORITHM_MAGLEV ? F(lb_hash)(t) : bpf_get_prandom_u32();
	struct lb_client client = {};

	if (service->flags & SERVICE_DSR)
		return F(lb_choose_alike)(t, service);
	if (!service->affinity)
		return F(lb_pick)(service, hash);
	__builtin_memcpy(client.client, &t->saddr, ADDRESS_SIZE);
	client.service = service->number;
	client.kind = FAMILY;
	return F(lb_pick_for)(service, &client, hash);
}
