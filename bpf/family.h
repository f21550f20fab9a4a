/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses, per family. */
#undef ADDRESS_SIZE
#undef ICMP_PROTOCOL
#undef ICMP_REQUEST
#undef FULL_PREFIX
#undef REASON_UNKNOWN_ICMP
#if FAMILY == 4
#define ADDRESS_SIZE 4
#define ICMP_PROTOCOL IPPROTO_ICMP
#define ICMP_REQUEST ICMP_ECHO
#define FULL_PREFIX 32
#define REASON_UNKNOWN_ICMP REASON_UNKNOWN_ICMPV4_CODE
#else
#define ADDRESS_SIZE 16
#define ICMP_PROTOCOL IPPROTO_ICMPV6
#define ICMP_REQUEST ICMPV6_ECHO_REQUEST
#define FULL_PREFIX 128
#define REASON_UNKNOWN_ICMP REASON_UNKNOWN_ICMPV6_CODE
#endif

/* Not 0: another one. */
INLINE u32 F(other_address)(const struct F(address) *a, const struct F(address) *b)
{
#if FAMILY == 4
	return a->a[0] ^ b->a[0];
#else
	return (a->a[0] ^ b->a[0]) | (a->a[1] ^ b->a[1]) | (a->a[2] ^ b->a[2]) | (a->a[3] ^ b->a[3]);
#endif
}

INLINE bool F(same_address)(const struct F(address) *a, const struct F(address) *b)
{
	return !F(other_address)(a, b);
}

INLINE void F(reverse)(struct F(tuple) *to, const struct F(tuple) *from)
{
	to->saddr = from->daddr;
	to->daddr = from->saddr;
	to->sport = from->dport;
	to->dport = from->sport;
	to->protocol = from->protocol;
	to->pad[0] = to->pad[1] = to->pad[2] = 0;
}

INLINE void F(wide)(u32 *to, const struct F(address) *from)
{
#if FAMILY == 4
	to[0] = to[1] = 0;
	to[2] = be32(0xffff);
	to[3] = from->a[0]; /* IPv4-mapped, RFC 4291 2.5.5.2: readers need one representation only */
#else
	to[0] = from->a[0];
	to[1] = from->a[1];
	to[2] = from->a[2];
	to[3] = from->a[3];
#endif
}

#undef MULTICAST
#if FAMILY == 4
#define MULTICAST(address) (((address)->a[0] & be32(0xf0000000)) == be32(0xe0000000) || (address)->a[0] == 0xffffffff)
#else
#define MULTICAST(address) (((address)->a[0] & be32(0xff000000)) == be32(0xff000000))
#endif
