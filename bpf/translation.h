/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a translation is: tuples, sums and ports, for programs of packets and of frames alike. */

/* How packets of the direction `key` go on. */
INLINE void F(onward)(struct F(tuple) *to, const struct F(tuple) *key, const struct F(connection) *conn)
{
	to->saddr = conn->nat_saddr;
	to->daddr = conn->nat_daddr;
	to->sport = conn->nat_sport;
	to->dport = conn->nat_dport;
	to->protocol = key->protocol;
	to->pad[0] = to->pad[1] = to->pad[2] = 0;
}

/* The key of the other direction. */
INLINE void F(counterpart)(struct F(tuple) *to, const struct F(tuple) *key, const struct F(connection) *conn)
{
	to->saddr = conn->nat_daddr;
	to->daddr = conn->nat_saddr;
	to->sport = conn->nat_dport;
	to->dport = conn->nat_sport;
	to->protocol = key->protocol;
	to->pad[0] = to->pad[1] = to->pad[2] = 0;
}

/* A sum of 16-bit words in one's complement, RFC 1071. */
INLINE u16 F(folded)(s64 sum)
{
	u32 low = (u32)sum;

	low = (low & 0xffff) + (low >> 16);
	low = (low & 0xffff) + (low >> 16);
	return low;
}

/* What another address adds to a sum. */
INLINE u16 F(nat_sum)(const struct F(address) *from, const struct F(address) *to)
{
	return F(folded)(bpf_csum_diff((void *)from, ADDRESS_SIZE, (void *)to, ADDRESS_SIZE, 0));
}

/* What the translation adds to the sums of addresses and of ports. */
INLINE void F(nat_sums)(const struct F(tuple) *from, const struct F(tuple) *to, u16 *addresses, u16 *ports)
{
	s64 sum = bpf_csum_diff((__be32 *)&from->saddr, 2 * ADDRESS_SIZE, (__be32 *)&to->saddr, 2 * ADDRESS_SIZE, 0);

	*addresses = F(folded)(sum);
	*ports = F(folded)((u32)(u16)~from->sport + (u16)~from->dport + to->sport + to->dport);
}

#define PORT_TRIES 8

/*
 * Ports that translation gives out: below those that services of the node may have (30000, NodePorts) and those that its own
 * connections take (32768, ip_local_port_range), so that none of these is ever mistaken for a translated one.
 */
#define NAT_FIRST_PORT 1024
#define NAT_LAST_PORT 29999

INLINE __be16 F(nat_random_port)(void)
{
	u64 span = NAT_LAST_PORT - NAT_FIRST_PORT + 1;

	return be16((u16)(NAT_FIRST_PORT + (bpf_get_prandom_u32() * span >> 32)));
}

/* The client's own port if it may be given out. */
INLINE __be16 F(nat_port)(__be16 wanted)
{
	u16 port = be16(wanted);

	return port >= NAT_FIRST_PORT && port <= NAT_LAST_PORT ? wanted : F(nat_random_port)();
}
