/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a connection's entry says of addresses and ports is written into the packet. Checksums are corrected by what
 * changed and never computed: a wrong one stays wrong. The transport's goes through the kernel's helper, which knows
 * whether the packet's sum is complete or left to a device (RFC 1624, RFC 768 for the zero of UDP).
 */

#undef IP_SIZE
#undef ADDRESSES_AT
#undef SUM_FLAGS
#if FAMILY == 4
#define ADDRESSES_AT 12
#define IP_SIZE sizeof(struct iphdr)
#define SUM_FLAGS BPF_F_PSEUDO_HDR
#else
#define ADDRESSES_AT 8
#define IP_SIZE sizeof(struct ipv6hdr)
#define SUM_FLAGS (BPF_F_PSEUDO_HDR | SUM_IPV6)
#endif
#define SUM_IPV6 128   /* BPF_F_IPV6, since Linux 6.16: the sum of a whole IPv6 packet does not change with addresses */
#define SUM_MANGLED_0 BPF_F_MARK_MANGLED_0

/* The transport's checksum, by what was added to the addresses (which it covers through the pseudo-header) and ports. */
INLINE int F(sum_transport)(struct F(packet) *p, u32 offset, u64 flags, u16 addresses, u16 ports)
{
	if (addresses && bpf_l4_csum_replace(p->skb, offset, 0, addresses, flags | SUM_FLAGS) &&
	    (FAMILY == 4 || bpf_l4_csum_replace(p->skb, offset, 0, addresses, flags | BPF_F_PSEUDO_HDR)))
		return DROP(REASON_ERROR_WHILE_CORRECTING_L4_CHECKSUM);
	if (ports && bpf_l4_csum_replace(p->skb, offset, 0, ports, flags))
		return DROP(REASON_ERROR_WHILE_CORRECTING_L4_CHECKSUM);
	return NEXT;
}

INLINE int F(sum_packet)(struct F(packet) *p, const struct F(connection) *c)
{
	switch (p->tuple.protocol) {
	case IPPROTO_TCP:
		return F(sum_transport)(p, p->l4 + 16, 0, c->nat_addresses, c->nat_ports);
	case IPPROTO_UDP:
		return F(sum_transport)(p, p->l4 + 6, SUM_MANGLED_0, c->nat_addresses, c->nat_ports);
	case ICMP_PROTOCOL: /* one of the two ports is there, the identifier; IPv4's has no pseudo-header */
		if (!F(is_icmp_query)(p->icmp_type))
			return DROP(REASON_UNKNOWN_ICMP);
		return F(sum_transport)(p, p->l4 + 2, 0, FAMILY == 6 ? c->nat_addresses : 0,
					F(folded)((u32)(u16)~p->tuple.sport + c->nat_sport));
	}
	return p->tuple.protocol == IPPROTO_SCTP ? NEXT : DROP(REASON_UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE);
}

INLINE void F(write_addresses)(void *data, const struct F(connection) *c)
{
#if FAMILY == 4
	struct iphdr *ip = data + ETH_HLEN;
	u32 sum = (u16)~ip->check + c->nat_addresses;

	ip->check = ~((sum & 0xffff) + (sum >> 16));
	ip->saddr = c->nat_saddr.a[0];
	ip->daddr = c->nat_daddr.a[0];
#else
	struct ipv6hdr *ip = data + ETH_HLEN;

	__builtin_memcpy(&ip->saddr, &c->nat_saddr, 16);
	__builtin_memcpy(&ip->daddr, &c->nat_daddr, 16);
#endif
}

/* Ports where they nearly always are; elsewhere (options, extension headers) by the helper, before. */
INLINE int F(write_ports)(struct F(packet) *p, const struct F(connection) *c)
{
	__be16 ports[2];
	u32 offset = p->l4, size = 4;

	ports[0] = c->nat_sport;
	ports[1] = c->nat_dport;
	if (p->tuple.protocol == ICMP_PROTOCOL) {
		offset += 4;
		size = 2;
	}
	if (size == 4 ? bpf_skb_store_bytes(p->skb, offset, ports, 4, 0) : bpf_skb_store_bytes(p->skb, offset, ports, 2, 0))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	return NEXT;
}

/*
 * An ICMP error carries the beginning of a packet that went the other way: what is inside must be as its sender knows it,
 * with all its checksums. Rare, so by the helpers.
 */
/* The carried packet; returns what that adds to the sum of its words. */
INLINE int F(rewrite_carried)(struct F(packet) *p, struct F(connection) *c, u32 *added)
{
	u32 ip = p->l4 + 8, transport = ip + IP_SIZE, sum_at;
	u32 sum_addresses = c->nat_addresses, sum_ports = c->nat_ports;
	__be16 ports[2] = {c->nat_dport, c->nat_sport};
	u16 sum = 0;

	*added = 0;
#if FAMILY == 4
	u8 size = 0;

	if (bpf_skb_load_bytes(p->skb, ip, &size, 1) || bpf_skb_load_bytes(p->skb, ip + 10, &sum, 2))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	transport = ip + (size & 15) * 4;
	sum = ~F(folded)((u32)(u16)~sum + sum_addresses); /* the header adds up to the same as before */
	if (bpf_skb_store_bytes(p->skb, ip + 10, &sum, 2, 0))
		return DROP(REASON_INVALID_PACKET_DROPPED);
#else
	u8 next = 0;

	if (bpf_skb_load_bytes(p->skb, ip + 6, &next, 1))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	transport += next == IPPROTO_FRAGMENT ? 8 : 0; /* the first one: see classify */
	*added = sum_addresses;
#endif
	if (bpf_skb_store_bytes(p->skb, ip + ADDRESSES_AT, &c->nat_daddr, ADDRESS_SIZE, 0) ||
	    bpf_skb_store_bytes(p->skb, ip + ADDRESSES_AT + ADDRESS_SIZE, &c->nat_saddr, ADDRESS_SIZE, 0))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	if (p->tuple.protocol == ICMP_PROTOCOL) { /* of the ports there is one, the echo's identifier */
		sum_ports = F(folded)((u32)(u16)~p->tuple.sport + c->nat_sport);
		sum_addresses = FAMILY == 6 ? sum_addresses : 0;
		sum_at = transport + 2;
		if (bpf_skb_store_bytes(p->skb, transport + 4, &ports[1], 2, 0))
			return DROP(REASON_INVALID_PACKET_DROPPED);
	} else {
		sum_at = transport + (p->tuple.protocol == IPPROTO_UDP ? 6 : 16);
		if (bpf_skb_store_bytes(p->skb, transport, ports, 4, 0))
			return DROP(REASON_INVALID_PACKET_DROPPED);
	}
	*added += sum_ports;
	/* Its own checksum, as far as the error carries it: UDP's and ICMP's always, TCP's and SCTP's seldom. */
	if (p->tuple.protocol == IPPROTO_SCTP) {
		*added += F(sum_carried_sctp)(p, c, ip, transport);
		return NEXT;
	}
	if (bpf_skb_load_bytes(p->skb, sum_at, &sum, 2) ||
	    (p->tuple.protocol == IPPROTO_UDP && !sum))
		return NEXT;
	*added += (u16)~sum;
	sum = ~F(folded)((u32)(u16)~sum + sum_addresses + sum_ports);
	if (!sum && p->tuple.protocol == IPPROTO_UDP)
		sum = 0xffff;
	*added += sum;
	return bpf_skb_store_bytes(p->skb, sum_at, &sum, 2, 0) ? DROP(REASON_INVALID_PACKET_DROPPED) : NEXT;
}

INLINE int F(rewrite_error)(struct F(packet) *p, struct F(connection) *c)
{
	const u32 source = ETH_HLEN + ADDRESSES_AT, destination = source + ADDRESS_SIZE;
	struct F(address) address;
	u16 addresses;
	u32 added;
	int verdict = F(rewrite_carried)(p, c, &added);

	if (verdict)
		return verdict;
	if (bpf_skb_load_bytes(p->skb, source, &address, sizeof(address)))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	/* The envelope: from the one who was asked, if it was him that answered, or from a router on the way. */
	addresses = F(nat_sum)(&p->tuple.daddr, &c->nat_daddr);
	if (F(same_address)(&address, &p->tuple.saddr)) {
		addresses = F(folded)((u32)addresses + F(nat_sum)(&address, &c->nat_saddr));
		if (bpf_skb_store_bytes(p->skb, source, &c->nat_saddr, ADDRESS_SIZE, 0))
			return DROP(REASON_INVALID_PACKET_DROPPED);
	}
	if (bpf_skb_store_bytes(p->skb, destination, &c->nat_daddr, ADDRESS_SIZE, 0))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	if (FAMILY == 4 && bpf_l3_csum_replace(p->skb, ETH_HLEN + 10, 0, addresses, 0))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	return F(sum_transport)(p, p->l4 + 2, 0, FAMILY == 6 ? addresses : 0, F(folded)(added));
}

/* Whether a packet that goes on from here has no hop left to live. To the host's own egress, the stack has counted it. */
INLINE bool F(expires)(struct F(packet) *p, const struct F(connection) *c)
{
	void *data = (void *)(long)p->skb->data, *end = (void *)(long)p->skb->data_end;

	if (TO_WORKLOAD || data + ETH_HLEN + IP_SIZE > end)
		return false;
#if FAMILY == 4
	if (likely(((struct iphdr *)(data + ETH_HLEN))->ttl > 1))
		return false;
#else
	if (likely(((struct ipv6hdr *)(data + ETH_HLEN))->hop_limit > 1))
		return false;
#endif
	return !p->related && c->next_hop != HOP_PROXY &&
	       !(c->next_hop == HOP_STACK && c->destination_identity == IDENTITY_HOST); /* it has arrived */
}

/*
 * The stack tells the sender, and quotes what it gets; so that is what the sender sent. But what was sent to an address of the
 * node's own, the stack would take for itself, and answer as if nobody were there.
 */
INLINE int F(expired)(struct F(packet) *p)
{
	return F(identity_of)(&p->tuple.daddr) == IDENTITY_HOST ? DROP(REASON_TTL_EXCEEDED) : TO_STACK;
}

INLINE int F(rewrite_all)(struct F(packet) *p, struct F(connection) *c)
{
	bool usual = p->l4 == ETH_HLEN + IP_SIZE && p->tuple.protocol != ICMP_PROTOCOL;
	void *data, *end;
	int verdict;

	if (unlikely(F(expires)(p, c)))
		return F(expired)(p);
	if (unlikely(p->related))
		return F(rewrite_error)(p, c);
	if (unlikely(p->tuple.protocol == IPPROTO_SCTP)) {
		verdict = F(sum_sctp)(p, c);
		if (verdict)
			return verdict;
	}
	if (likely(!p->fragment)) {
		verdict = F(sum_packet)(p, c);
		if (verdict)
			return verdict;
		if (unlikely(!usual)) {
			verdict = F(write_ports)(p, c);
			if (verdict)
				return verdict;
		}
	}
	data = (void *)(long)p->skb->data;
	end = (void *)(long)p->skb->data_end;
	if (data + ETH_HLEN + IP_SIZE > end)
		return DROP(REASON_INVALID_PACKET_DROPPED);
	F(write_addresses)(data, c);
	if (likely(!p->fragment && usual)) {
		if (data + ETH_HLEN + IP_SIZE + 4 > end) /* the last of fragments may be shorter */
			return DROP(REASON_INVALID_PACKET_DROPPED);
		*(__be32 *)(data + ETH_HLEN + IP_SIZE) = c->nat_sport | (u32)c->nat_dport << 16;
	}
	return NEXT;
}

INLINE int F(rewrite)(struct F(packet) *p)
{
	struct F(connection) *c = p->conn;
	int verdict;

	if (likely(!c || !(c->flags & CONN_NAT)))
		return NEXT;
	verdict = F(rewrite_all)(p, c);
	if (unlikely(verdict < 0))
		p->resolved = 0; /* it was broken, or its time was up: no verdict about its connection, which somebody else may have (see `forget`) */
	return verdict;
}
