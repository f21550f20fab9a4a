/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who is behind an address: the longest prefix in the ipcache. */

INLINE u32 F(identity_of)(const struct F(address) *address)
{
	struct F(prefix) key;
	struct ipcache_entry *entry;

	key.length = FULL_PREFIX;
	key.address = *address;
	entry = ON(ipcache, lookup)(&key);
	return entry ? entry->identity : F(WORLD_IDENTITY);
}

_Static_assert(sizeof(struct bpf_fib_lookup) <= sizeof(struct F(connection)), "the draft is also the route's question");
