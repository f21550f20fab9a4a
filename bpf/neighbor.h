/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ARP (RFC 826) and neighbour discovery (RFC 4861). A workload has one neighbour, its gateway, at a link-local address
 * that every workload shares; the program itself answers for it. Towards the workload the host's stack may ask too.
 */

struct arp_packet {
	__be16 hardware;
	__be16 protocol;
	u8 hardware_size;
	u8 protocol_size;
	__be16 operation;
	u8 sender_mac[6];
	u8 sender[4];
	u8 target_mac[6];
	u8 target[4];
} __attribute__((packed));

INLINE int arp(struct __sk_buff *skb)
{
#if FROM_WORKLOAD
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct arp_packet *a = data + ETH_HLEN;
	struct address4 sender;
	struct endpoint *workload;
	u32 target;

	if ((void *)(a + 1) > end) {
		bpf_skb_pull_data(skb, ETH_HLEN + sizeof(*a));
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		eth = data;
		a = data + ETH_HLEN;
		if ((void *)(a + 1) > end)
			goto invalid;
	}
	__builtin_memcpy(&sender, a->sender, 4);
	__builtin_memcpy(&target, a->target, 4);
	workload = endpoints4_lookup(&sender);
	if (!workload || workload->ifindex != skb->ifindex)
		goto invalid;
	if (a->hardware != be16(1) || a->protocol != be16(ETH_P_IP) || a->hardware_size != 6 || a->protocol_size != 4)
		goto invalid;
	if (a->operation == be16(2))
		return PASS; /* the answer to a question of the host's stack */
	if (a->operation != be16(1) || target != be32(GATEWAY4))
		goto invalid;
	a->operation = be16(2);
	__builtin_memcpy(a->target_mac, a->sender_mac, 6);
	__builtin_memcpy(a->target, &sender, 4);
	__builtin_memcpy(a->sender_mac, workload->node_mac, 6);
	__builtin_memcpy(a->sender, &target, 4);
	__builtin_memcpy(eth->h_dest, eth->h_source, 6);
	__builtin_memcpy(eth->h_source, workload->node_mac, 6);
	return bpf_redirect(skb->ifindex, 0);
invalid:
	count(skb, REASON_INVALID_NEIGHBOR);
	return TC_ACT_SHOT;
#else
	return PASS;
#endif
}

#define NEIGHBOR_SOLICITATION 135
#define NEIGHBOR_ADVERTISEMENT 136
#define NEIGHBOR_REDIRECT 137

struct advertisement {
	u8 type;
	u8 code;
	__be16 check;
	__be32 flags;
	u32 target[4];
	u8 option;
	u8 option_size;
	u8 mac[6];
};

struct solicitation {
	u8 type;
	u8 code;
	__be16 check;
	__be32 reserved;
	u32 target[4];
};

INLINE __be16 fold(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

struct pseudo_header {
	u32 saddr[4];
	u32 daddr[4];
	__be32 length;
	__be32 next;
};

/* What an answer needs; too much for the stack of a program that has so much else. */
struct neighbor_work {
	struct ipv6hdr ip;
	struct pseudo_header pseudo;
	struct advertisement na;
	struct solicitation ns;
	struct ethhdr eth;
};
_Static_assert(sizeof(struct neighbor_work) <= sizeof(struct connection6), "the draft is also the room for this");

/*
 * A neighbour solicitation for the gateway becomes an advertisement, in place. RFC 4861 7.1.1: the hop limit of 255
 * shows that nobody forwarded it.
 */
INLINE int solicited(struct __sk_buff *skb)
{
	u32 zero = 0, ifindex = skb->ifindex;
	struct neighbor_work *w = (void *)drafts6_lookup(&zero);
	struct endpoint *workload;
	s64 sum;

	if (!w)
		return DROP(REASON_INVALID_PACKET_DROPPED);
	__builtin_memset(w, 0, sizeof(*w));
	w->pseudo.saddr[0] = be32(GATEWAY6_0); /* one by one: a constant array would become read-only data, which has no loader */
	w->pseudo.saddr[1] = be32(GATEWAY6_1);
	w->pseudo.saddr[2] = be32(GATEWAY6_2);
	w->pseudo.saddr[3] = be32(GATEWAY6_3);
	if (bpf_skb_load_bytes(skb, 0, &w->eth, sizeof(w->eth)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &w->ip, sizeof(w->ip)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(w->ip), &w->ns, sizeof(w->ns)))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	workload = links_lookup(&ifindex);
	if (!workload || w->ip.hop_limit != 255 || w->ns.code)
		return DROP(REASON_INVALID_NEIGHBOR);
	if (!(w->ip.saddr.in6_u.u6_addr32[0] | w->ip.saddr.in6_u.u6_addr32[1] | w->ip.saddr.in6_u.u6_addr32[2] |
	      w->ip.saddr.in6_u.u6_addr32[3]))
		return DISCARD; /* duplicate address detection: addresses are given out once */
	if (w->ns.target[0] != w->pseudo.saddr[0] || w->ns.target[1] != w->pseudo.saddr[1] ||
	    w->ns.target[2] != w->pseudo.saddr[2] || w->ns.target[3] != w->pseudo.saddr[3])
		return DISCARD;
	w->na.type = NEIGHBOR_ADVERTISEMENT;
	w->na.flags = be32(0xe0000000); /* router, solicited, override */
	__builtin_memcpy(w->na.target, w->pseudo.saddr, 16);
	w->na.option = 2; /* target link-layer address */
	w->na.option_size = 1;
	__builtin_memcpy(w->na.mac, workload->node_mac, 6);
	__builtin_memcpy(w->pseudo.daddr, &w->ip.saddr, 16);
	w->pseudo.length = be32(sizeof(w->na));
	w->pseudo.next = be32(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(0, 0, (__be32 *)&w->pseudo, sizeof(w->pseudo), 0);
	sum = bpf_csum_diff(0, 0, (__be32 *)&w->na, sizeof(w->na), sum);
	w->na.check = fold(sum);
	__builtin_memcpy(&w->ip.daddr, &w->ip.saddr, 16);
	__builtin_memcpy(&w->ip.saddr, w->pseudo.saddr, 16);
	w->ip.payload_len = be16(sizeof(w->na));
	__builtin_memcpy(w->eth.h_dest, w->eth.h_source, 6);
	__builtin_memcpy(w->eth.h_source, workload->node_mac, 6);
	if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(w->ip) + sizeof(w->na), 0) ||
	    bpf_skb_store_bytes(skb, 0, &w->eth, sizeof(w->eth), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, &w->ip, sizeof(w->ip), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + sizeof(w->ip), &w->na, sizeof(w->na), 0))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	return TAKEN(bpf_redirect(ifindex, 0));
}

/* The answer to a question of the host's stack: a workload may speak for its own address only. */
INLINE int advertised(struct __sk_buff *skb)
{
	struct endpoint *workload;
	struct address6 target;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct ipv6hdr) + 8, &target, sizeof(target)))
		return DROP(REASON_INVALID_PACKET_DROPPED);
	workload = endpoints6_lookup(&target);
	return workload && workload->ifindex == skb->ifindex ? TO_STACK : DROP(REASON_INVALID_NEIGHBOR);
}

/* ICMPv6 types that are the link's own business and no connection's. */
INLINE int link_message(struct __sk_buff *skb, u8 type)
{
	if (!FROM_WORKLOAD)
		return TO_STACK;
	if (type == NEIGHBOR_SOLICITATION)
		return solicited(skb);
	if (type == NEIGHBOR_ADVERTISEMENT)
		return advertised(skb);
	if (type == NEIGHBOR_REDIRECT)
		return DROP(REASON_FORBIDDEN_ICMPV6_MESSAGE); /* a workload has no business redirecting */
	return DISCARD;
}
