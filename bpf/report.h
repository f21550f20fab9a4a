/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counters and event records. Family independent part. */

INLINE void count(struct __sk_buff *skb, u32 reason)
{
	u32 index = reason * 2 + DIRECTION;
	struct counter *c;

	c = counters_lookup(&index);
	if (c) {
		c->packets++; /* per CPU, and no preemption by another program of this CPU's softirq: plain adds */
		c->bytes += skb->len;
	}
}

INLINE void count_lost(void)
{
	u32 index = COUNTER_LOST_EVENTS * 2;
	struct counter *c = counters_lookup(&index);

	if (c)
		c->packets++;
}

/* Never with a wake-up: the agent reads on a timer. One forced wake-up costs as much as a hundred records. */
#define SUBMIT(record) events_submit(record, BPF_RB_NO_WAKEUP)
