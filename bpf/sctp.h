/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SCTP's checksum, where ports are exchanged. It is a CRC32c over the whole packet and over nothing else (RFC 9260 6.8), so
 * other addresses leave it alone, and what other ports do to it follows from them and the packet's length: the payload is not
 * read, and a wrong sum stays wrong. core/datapath/crc32c.py has the mathematics.
 *
 * A sum of 0 is none yet, or none at all: a device computes it (CHECKSUM_PARTIAL, also of packets that are to be segmented, each
 * of which gets its own), or both ends have agreed to do without (RFC 9653). It stays 0. That one packet in 2^32 whose sum is
 * 0 by chance is lost.
 */

#define SCTP_HEADER 12

/* Not 0: which bits of the two ports the translation changes, as they lie in memory. */
INLINE u32 F(sctp_ports)(const struct F(tuple) *from, __be16 sport, __be16 dport)
{
	return (u32)(u16)(from->sport ^ sport) | (u32)(u16)(from->dport ^ dport) << 16;
}

/* How long an SCTP packet is from its header on, 0: it does not say, or it is one of several fragments. */
INLINE u32 F(sctp_length)(struct F(packet) *p, u32 ip, u32 transport)
{
	u32 length, before = transport - ip;
#if FAMILY == 4
	__be16 words[3]; /* total length, identification, fragment */

	if (bpf_skb_load_bytes(p->skb, ip + 2, words, sizeof(words)) || (words[2] & be16(0x3fff)))
		return 0;
	length = be16(words[0]);
#else
	__be16 word;

	if (bpf_skb_load_bytes(p->skb, ip + 4, &word, sizeof(word)))
		return 0;
	length = be16(word) + sizeof(struct ipv6hdr);
#endif
	return length >= before + SCTP_HEADER ? length - before : 0;
}

/* What a difference in a packet's first four bytes does to its sum. */
INLINE u32 F(sctp_difference)(u32 bits, u32 length)
{
#if SCTP_PORTS
	u32 zero = 0;
	struct crc32c_zeros *tables = crc32c_zeros_lookup(&zero);

	if (!tables)
		return 0;
#pragma unroll
	for (u32 digit = 0; digit < 4; digit++) {
		u32 at = digit * 2048 + (length >> 4 * digit & 15) * 128, next = 0;

#pragma unroll
		for (u32 nibble = 0; nibble < 8; nibble++)
			next ^= tables->words[at + nibble * 16 + (bits >> 4 * nibble & 15)];
		bits = next;
	}
#endif
	return bits;
}

/* The packet's sum, before its ports are written. */
INLINE int F(sum_sctp)(struct F(packet) *p, const struct F(connection) *c)
{
	u32 ports = F(sctp_ports)(&p->tuple, c->nat_sport, c->nat_dport), length, sum;

	if (!ports)
		return NEXT;
	/* Of a message in fragments the first one has the sum, and does not know how long the message is. */
	if (!SCTP_PORTS || p->fragmented)
		return DROP(REASON_UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE);
	length = F(sctp_length)(p, ETH_HLEN, p->l4);
	if (!length || bpf_skb_load_bytes(p->skb, p->l4 + 8, &sum, sizeof(sum)))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	if (!sum)
		return NEXT;
	sum ^= F(sctp_difference)(ports, length);
	return bpf_skb_store_bytes(p->skb, p->l4 + 8, &sum, sizeof(sum), 0) ? DROP(REASON_INVALID_PACKET_DROPPED) : NEXT;
}

/*
 * The sum of a packet that an ICMP error carries, if the error carries that much of it: mended like a whole one's, because the
 * packet still says how long it was. Returns what that adds to the sum of the error's words.
 */
INLINE u32 F(sum_carried_sctp)(struct F(packet) *p, const struct F(connection) *c, u32 ip, u32 transport)
{
	u32 ports = F(sctp_ports)(&p->tuple, c->nat_sport, c->nat_dport), length, sum, mended;

	ports = ports << 16 | ports >> 16; /* it went the other way */
	length = F(sctp_length)(p, ip, transport);
	if (!SCTP_PORTS || !ports || !length || bpf_skb_load_bytes(p->skb, transport + 8, &sum, sizeof(sum)) || !sum)
		return 0;
	mended = sum ^ F(sctp_difference)(ports, length);
	if (bpf_skb_store_bytes(p->skb, transport + 8, &mended, sizeof(mended), 0))
		return 0;
	return F(folded)((u32)(u16)~sum + (u16)~(sum >> 16) + (u16)mended + (u16)(mended >> 16));
}
