/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * count: packets and bytes of each workload of this node, in both directions.
 *
 * It runs in the last phase, `observe`, for every packet: there, whatever was going to be dropped is gone, and both ends
 * are known on either path. `from_workload` sees what workloads send. What they send to each other on the same node is
 * delivered from there at once and passes no other program, so it is counted into the receiver there as well. What comes
 * from elsewhere passes `to_workload`, or `from_network` where the agent has devices of its own, and is only received.
 */

/* The workload's counts on this CPU. NULL when the map is full: the packet is not counted, but goes its way. */
INLINE struct packet_counts *LOCAL(of)(u32 workload)
{
	struct packet_counts *counts = packet_counts_lookup(&workload);
	struct packet_counts none = {};

	if (likely(counts))
		return counts;
	/* Another CPU may enter it in the same moment: NOEXIST lets the first one win, and both find what it entered. */
	packet_counts_update(&workload, &none, BPF_NOEXIST);
	return packet_counts_lookup(&workload);
}

STAGE(count)
{
	u32 source = p->source_endpoint, destination = p->destination_endpoint;
	struct packet_counts *counts;

	if (p->conn) { /* the packet of a known connection: its entry knows, the packet's own fields were not filled in */
		source = p->conn->source_endpoint;
		destination = p->conn->destination_endpoint;
	}
	if (FROM_WORKLOAD && source && (counts = LOCAL(of)(source))) {
		counts->out_packets++; /* per CPU: nobody else writes here, so this needs no atomic operation */
		counts->out_bytes += p->skb->len;
	}
	if (destination && (counts = LOCAL(of)(destination))) {
		counts->in_packets++;
		counts->in_bytes += p->skb->len;
	}
	return NEXT;
}
