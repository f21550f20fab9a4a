/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * classify: Ethernet, IP and transport headers into the tuple. The common shape (no options, no extension headers, no
 * fragments, headers in the linear part) is read directly; everything else goes through bpf_skb_load_bytes.
 */

#define HEADERS 64 /* what is asked to be linear when it is not: the longest run that the direct path reads */

struct F(transport) {
	__be16 sport;
	__be16 dport;
	__be32 sequence;
	__be32 acknowledgement;
	u8 offset;
	u8 flags;
};

/* The ports of a fragment that has none: those that the first fragment had. */
INLINE int F(fragment)(struct F(packet) *p, __be32 id, bool first)
{
	struct F(fragment_key) key = {};
	struct fragment_ports *known, ports;
	struct endpoint *source;

	if (p->related) /* the tuple is that of the packet which it is about; no stack sends an error in fragments */
		return DROP(REASON_UNKNOWN_ICMP);
	if (FROM_WORKLOAD) { /* or else a forged first fragment could give its ports to somebody's later ones */
		source = ON(endpoints, lookup)(&p->tuple.saddr);
		if (!source || source->ifindex != p->skb->ifindex)
			return DROP(REASON_INVALID_SOURCE_IP);
	}
	key.saddr = p->tuple.saddr;
	key.daddr = p->tuple.daddr;
	key.id = id;
	key.protocol = p->tuple.protocol;
	p->fragment = !first;
	p->fragmented = 1;
	if (first) {
		ports.sport = p->tuple.sport;
		ports.dport = p->tuple.dport;
		ON(fragments, update)(&key, &ports, BPF_ANY);
		return NEXT;
	}
	known = ON(fragments, lookup)(&key);
	if (!known)
		return DROP(REASON_FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND);
	p->tuple.sport = known->sport;
	p->tuple.dport = known->dport;
	p->service_port = p->tuple.protocol == ICMP_PROTOCOL ? be16(ICMP_REQUEST) : known->dport;
	return NEXT;
}

/* Whether an ICMP message has an identifier; where others have something else. */
INLINE bool F(is_icmp_query)(u8 type)
{
#if FAMILY == 4
	return type < 64 && ICMP_QUERIES4 >> type & 1;
#else
	return type >= 128 && type < 192 && ICMP_QUERIES6 >> (type - 128) & 1;
#endif
}

/* An ICMP error speaks about a packet that went the other way: the tuple becomes that packet's, reversed. */
INLINE int F(icmp_error)(struct F(packet) *p)
{
	struct F(tuple) outer = p->tuple;
	__be16 ports[2], echo[3]; /* type and code, checksum, identifier */
#if FAMILY == 4
	struct iphdr inner;
	u32 size;

	if (bpf_skb_load_bytes(p->skb, p->l4 + 8, &inner, sizeof(inner)))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	if (inner.version != 4 || inner.ihl < 5 || (inner.frag_off & be16(0x1fff)))
		return DROP(REASON_UNKNOWN_ICMP);
	size = inner.ihl * 4;
	p->tuple.protocol = inner.protocol;
	p->tuple.saddr.a[0] = inner.daddr;
	p->tuple.daddr.a[0] = inner.saddr;
#else
	struct ipv6hdr inner;
	u32 size = sizeof(inner);
	__be16 fragment[2]; /* the first half of the header: next header, offset */

	if (bpf_skb_load_bytes(p->skb, p->l4 + 8, &inner, sizeof(inner)))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	if (inner.version != 6)
		return DROP(REASON_UNKNOWN_ICMP);
	p->tuple.protocol = inner.nexthdr;
	if (inner.nexthdr == IPPROTO_FRAGMENT) {
		if (bpf_skb_load_bytes(p->skb, p->l4 + 8 + size, fragment, 4))
			return DROP(REASON_INVALID_PACKET_DROPPED);
		if (fragment[1] & be16(0xfff8))
			return DROP(REASON_UNKNOWN_ICMP);
		p->tuple.protocol = fragment[0] & 0xff;
		size += 8;
	}
	__builtin_memcpy(&p->tuple.saddr, &inner.daddr, ADDRESS_SIZE);
	__builtin_memcpy(&p->tuple.daddr, &inner.saddr, ADDRESS_SIZE);
#endif
	/* The error must come back to the one who sent the packet that it speaks about. */
	if (!F(same_address)(&p->tuple.daddr, &outer.daddr))
		return DROP(REASON_UNKNOWN_ICMP);
	if (FROM_WORKLOAD && !F(same_address)(&p->tuple.saddr, &outer.saddr))
		return DROP(REASON_UNKNOWN_ICMP);
	if (p->tuple.protocol == ICMP_PROTOCOL) {
		if (bpf_skb_load_bytes(p->skb, p->l4 + 8 + size, echo, sizeof(echo)))
			return DROP(REASON_INVALID_PACKET_DROPPED);
		if (!F(is_icmp_query)(echo[0] & 0xff))
			return DROP(REASON_UNKNOWN_ICMP);
		p->tuple.sport = p->tuple.dport = echo[2];
	} else {
		if (bpf_skb_load_bytes(p->skb, p->l4 + 8 + size, ports, 4))
			return DROP(REASON_INVALID_PACKET_DROPPED);
		p->tuple.sport = ports[1];
		p->tuple.dport = ports[0];
	}
	p->related = 1;
	return NEXT;
}

INLINE bool F(is_icmp_error)(u8 type)
{
#if FAMILY == 4
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
#else
	return type && type < 128;
#endif
}

/* Ports out of the first bytes of the transport header; `flags` is byte 13 of it (TCP). */
INLINE int F(ports)(struct F(packet) *p, __be16 sport, __be16 dport, __be16 icmp_id, u8 flags)
{
	u8 type;

	if (p->tuple.protocol != ICMP_PROTOCOL) {
		p->tuple.sport = sport;
		p->tuple.dport = dport;
		p->service_port = dport;
		p->tcp_flags = p->tuple.protocol == IPPROTO_TCP ? flags : 0;
		return NEXT;
	}
	type = sport & 0xff; /* the first byte on the wire, on the little-endian machines that we run on */
	p->icmp_type = type;
	p->icmp_code = sport >> 8;
	p->service_port = be16(type);
	if (F(is_icmp_error)(type))
		return F(icmp_error)(p);
#if FAMILY == 6
	if ((type >= 130 && type <= 137) || type == 143)
		return link_message(p->skb, type);
#endif
	/* An echo's identifier is its connection, for both directions. */
	p->tuple.sport = p->tuple.dport = icmp_id;
	return NEXT;
}

/* The transport header at a variable offset, or beyond the linear part. */
INLINE int F(transport_slow)(struct F(packet) *p)
{
	struct F(transport) t = {};

	switch (p->tuple.protocol) {
	case IPPROTO_TCP:
		if (bpf_skb_load_bytes(p->skb, p->l4, &t, sizeof(t)))
			return DROP(REASON_INVALID_PACKET_DROPPED);
		break;
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
	case ICMP_PROTOCOL:
		if (bpf_skb_load_bytes(p->skb, p->l4, &t, 8))
			return DROP(REASON_INVALID_PACKET_DROPPED);
		break;
	default:
		return MULTICAST(&p->tuple.daddr) ? DISCARD : DROP(REASON_UNKNOWN_L4_PROTOCOL);
	}
	return F(ports)(p, t.sport, t.dport, t.sequence & 0xffff, t.flags);
}

/* What is not of the common shape joins it again: the rest of the program is not walked for each of its ways. */
INLINE int F(unusual)(struct F(packet) *p, int verdict)
{
	if (verdict)
		return verdict;
	return F(blur)(p) ? NEXT : DROP(REASON_INVALID_PACKET_DROPPED);
}

/*
 * Source-routed packets (RFC 791 3.1; RFC 8200 4.4): the destination in the header is but the next stop, while ports and
 * checksum are for the last one. Nothing that is decided by them would be right, so they are refused, as RFC 7126 4.3 and 4.4
 * and RFC 5095 advise. On the node's devices, where this is not the only one to decide, they are left to the host's stack.
 */
#if FAMILY == 4
#define OPTIONS_END 0
#define OPTIONS_NOP 1
#define OPTIONS_LSRR 131
#define OPTIONS_SSRR 137

INLINE int F(options)(struct F(packet) *p)
{
	u32 at = ETH_HLEN + sizeof(struct iphdr);
	u8 option[2];

	for (int i = 0; i < 40 && at < p->l4; i++) {
		if (bpf_skb_load_bytes(p->skb, at, option, 2))
			return DROP(REASON_INVALID_PACKET_DROPPED);
		if (option[0] == OPTIONS_END)
			return NEXT;
		if (option[0] == OPTIONS_LSRR || option[0] == OPTIONS_SSRR)
			return DROP(REASON_SOURCE_ROUTED);
		if (option[0] != OPTIONS_NOP && option[1] < 2)
			return DROP(REASON_INVALID_PACKET_DROPPED);
		at += option[0] == OPTIONS_NOP ? 1 : option[1];
	}
	return NEXT;
}

INLINE int F(in_fragments)(struct F(packet) *p, __be32 id, bool later)
{
	int verdict;

	if (later)
		return F(fragment)(p, id, false);
	verdict = F(transport_slow)(p);
	return verdict ? verdict : F(fragment)(p, id, true);
}

/* Options, fragments, and what is neither TCP nor UDP. */
INLINE int F(seldom)(struct F(packet) *p, __be32 id, __be16 fragment)
{
	int verdict = p->l4 > ETH_HLEN + sizeof(struct iphdr) ? F(options)(p) : NEXT;

	if (verdict)
		return verdict;
	return fragment & be16(0x3fff) ? F(in_fragments)(p, id, fragment & be16(0x1fff)) : F(transport_slow)(p);
}

INLINE int F(classify)(struct F(packet) *p)
{
	void *data = (void *)(long)p->skb->data, *end = (void *)(long)p->skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	struct F(transport) *t = data + ETH_HLEN + sizeof(*ip);

	if (unlikely((void *)(t + 1) > end)) {
		/* Short packets (UDP, ICMP) end before a TCP header would; others are not linear. */
		bpf_skb_pull_data(p->skb, p->skb->len < HEADERS ? p->skb->len : HEADERS);
		data = (void *)(long)p->skb->data;
		end = (void *)(long)p->skb->data_end;
		ip = data + ETH_HLEN;
		t = data + ETH_HLEN + sizeof(*ip);
		if ((void *)(ip + 1) > end)
			return DROP(REASON_INVALID_PACKET_DROPPED);
	}
	if (unlikely(ip->version != 4 || ip->ihl < 5))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	p->tuple.saddr.a[0] = ip->saddr;
	p->tuple.daddr.a[0] = ip->daddr;
	p->tuple.protocol = ip->protocol;
	p->l4 = ETH_HLEN + ip->ihl * 4;
	if (likely(ip->ihl == 5 && !(ip->frag_off & be16(0x3fff)) && (void *)(t + 1) <= end &&
		   (ip->protocol == IPPROTO_TCP || ip->protocol == IPPROTO_UDP)))
		return F(ports)(p, t->sport, t->dport, 0, t->flags);
	return F(unusual)(p, F(seldom)(p, ip->id, ip->frag_off));
}
#else
#define EXTENSION_HEADERS 6 /* more is not seen outside of attacks; each costs the verifier a round */

struct F(extension) {
	u8 next;
	u8 length;
	__be16 offset; /* fragment header */
	__be32 id;
};

INLINE bool F(is_extension)(u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS || next == IPPROTO_AH ||
	       next == IPPROTO_FRAGMENT;
}

/* Walks the extension headers (RFC 8200 4): leaves the transport's protocol and offset in the packet. */
INLINE int F(extensions)(struct F(packet) *p, u8 next)
{
	struct F(extension) ext = {};
	__be32 id = 0;
	u8 fragment = 0;
	int verdict;

#pragma unroll
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		if (!F(is_extension)(next))
			break;
		if (bpf_skb_load_bytes(p->skb, p->l4, &ext, sizeof(ext)))
			return DROP(REASON_INVALID_PACKET_DROPPED);
		if (next == IPPROTO_ROUTING && (ext.offset & be16(0xff))) /* segments left: it is going on from there */
			return DROP(REASON_SOURCE_ROUTED);
		if (next == IPPROTO_FRAGMENT) {
			fragment = (ext.offset & be16(0xfff8)) ? 2 : (ext.offset & be16(1)) ? 1 : 0;
			id = ext.id;
			p->l4 += 8;
		} else if (next == IPPROTO_AH) {
			p->l4 += (ext.length + 2) * 4;
		} else {
			p->l4 += (ext.length + 1) * 8;
		}
		next = ext.next;
		if (fragment == 2)
			break;
	}
	p->tuple.protocol = next;
	if (fragment != 2 && F(is_extension)(next))
		return DROP(REASON_INVALID_IPV6_EXTENSION_HEADER);
	if (fragment == 2)
		return F(fragment)(p, id, false);
	verdict = F(transport_slow)(p);
	return verdict || !fragment ? verdict : F(fragment)(p, id, true);
}

INLINE int F(classify)(struct F(packet) *p)
{
	void *data = (void *)(long)p->skb->data, *end = (void *)(long)p->skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	struct F(transport) *t = data + ETH_HLEN + sizeof(*ip);

	if (unlikely((void *)(t + 1) > end)) {
		bpf_skb_pull_data(p->skb, p->skb->len < HEADERS + 20 ? p->skb->len : HEADERS + 20);
		data = (void *)(long)p->skb->data;
		end = (void *)(long)p->skb->data_end;
		ip = data + ETH_HLEN;
		t = data + ETH_HLEN + sizeof(*ip);
		if ((void *)(ip + 1) > end)
			return DROP(REASON_INVALID_PACKET_DROPPED);
	}
	if (unlikely(ip->version != 6))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	__builtin_memcpy(&p->tuple.saddr, &ip->saddr, ADDRESS_SIZE);
	__builtin_memcpy(&p->tuple.daddr, &ip->daddr, ADDRESS_SIZE);
	p->tuple.protocol = ip->nexthdr;
	p->l4 = ETH_HLEN + sizeof(*ip);
	if (likely((void *)(t + 1) <= end && (ip->nexthdr == IPPROTO_TCP || ip->nexthdr == IPPROTO_UDP)))
		return F(ports)(p, t->sport, t->dport, 0, t->flags);
	return F(unusual)(p, F(extensions)(p, ip->nexthdr));
}
#endif
