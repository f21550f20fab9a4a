/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Admission to the connection table. The agent grants room for so many entries; programs add up what they enter and refuse
 * new connections when it is used up, so that none that live ever give way. Nothing is counted down here: the agent looks
 * how many are left, and grants anew. Whatever the agent writes is only read here, and the other way round.
 */

/*
 * Whether there is room for the two entries of a new connection. A grant has an end, and without one nothing is refused: with the agent gone,
 * nobody tidies up, and what was idle longest gives way. The agent writes the allowance before its end, so here its end
 * is read first.
 */
INLINE bool F(admitted)(struct admission *a, const struct grant *grant)
{
	u64 until = *(volatile const u64 *)&grant->until;

	return likely(a->entered + 1 < *(volatile const u64 *)&grant->allowance) || until < coarse_ns();
}

/* The sums of this family, and what the agent granted it; false: never. */
INLINE bool F(admission)(struct admission **a, struct grant **grant)
{
	u32 family = FAMILY == 6;

	*a = admissions_lookup(&family);
	*grant = grants_lookup(&family);
	return *a && *grant;
}

/* So many entries were made; to be called once they are in the table, so that whoever counts there sees at least those. */
INLINE void F(entered)(struct admission *a, u64 entries)
{
	__sync_fetch_and_add(&a->entered, entries);
}
