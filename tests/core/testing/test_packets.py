"""The packets that tests are made of have to be right themselves: against known frames, and as laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.testing import packets as p
from axoneme.core.testing.checksums import crc32c

ports = st.integers(0, 0xFFFF)
payloads = st.binary(max_size=60)
ipv4 = st.builds(
    p.IPv4,
    src=st.ip_addresses(v=4).map(str),
    dst=st.ip_addresses(v=4).map(str),
    ttl=st.integers(0, 255),
    tos=st.integers(0, 255),
    id=ports,
    dont_fragment=st.booleans(),
    options=st.integers(0, 10).map(lambda n: bytes([1]) * n * 4),
)
ipv6 = st.builds(
    p.IPv6,
    src=st.ip_addresses(v=6).map(str),
    dst=st.ip_addresses(v=6).map(str),
    hop_limit=st.integers(0, 255),
    flow_label=st.integers(0, 0xFFFFF),
)
transport = st.one_of(
    st.builds(p.TCP, ports, ports, seq=st.integers(0, 2**32 - 1), flags=st.integers(0, 255)),
    st.builds(p.UDP, ports, ports),
    st.builds(p.SCTP, ports, ports, tag=st.integers(0, 2**32 - 1)),
)
extensions = st.lists(
    st.builds(p.Extension, st.sampled_from((p.HOP_BY_HOP, p.ROUTING, p.DESTINATION)), st.binary(max_size=20)),
    max_size=3,
)


def test_a_known_ipv4_header() -> None:
    packet = bytes.fromhex("4500003c1c4640004006b1e6ac100a63ac100a0c")
    ip = p.IPv4("172.16.10.99", "172.16.10.12", id=0x1C46, dont_fragment=True, protocol=6, length=0x3C)
    assert p.build(ip) == packet


@pytest.mark.parametrize(("data", "crc"), [(b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA)])
def test_crc32c_check_values(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc  # RFC 3720, B.4, and the catalogue's check value


def test_a_known_udp_checksum_over_ipv6() -> None:
    frame = p.build(p.IPv6("::1", "::1"), p.UDP(1, 2), b"\x01")
    total = 1 + 1 + 9 + 17 + 1 + 2 + 9 + 0x0100  # the pseudo header, the header, the padded byte
    assert p.parse(frame, p.IPv6)[p.UDP].checksum == 0xFFFF - total


@given(ipv4, transport, payloads)
def test_ipv4_survives_a_round_trip(ip: p.IPv4, inner: p.Layer, payload: bytes) -> None:
    _check(p.build(p.Ethernet(), ip, inner, payload), type(inner), payload)


@given(ipv6, extensions, transport, payloads)
def test_ipv6_survives_a_round_trip(ip: p.IPv6, more: list[p.Layer], inner: p.Layer, payload: bytes) -> None:
    _check(p.build(p.Ethernet(), ip, *more, inner, payload), type(inner), payload)


def _check(frame: bytes, kind: type[p.Layer], payload: bytes) -> None:
    packet = p.parse(frame)
    assert kind in packet
    assert packet.payload == payload
    assert p.build(*packet.all) == frame
    assert p.intact(frame)


@given(ipv4, transport, payloads, st.data())
def test_a_flipped_bit_is_noticed(ip: p.IPv4, inner: p.Layer, payload: bytes, data: st.DataObject) -> None:
    frame = bytearray(p.build(p.Ethernet(), ip, inner, payload))
    at = data.draw(
        st.integers(14 + 12, 14 + 19)
    )  # an address: in the header's and in the pseudo header's sum
    frame[at] ^= 1 << data.draw(st.integers(0, 7))
    assert not p.intact(bytes(frame))


@given(st.binary(max_size=200))
def test_anything_can_be_parsed(data: bytes) -> None:
    for first in (p.Ethernet, p.IPv4, p.IPv6, p.TCP):
        packet = p.parse(data, first)
        assert p.build(*packet.all) + packet.trailer == data


@pytest.mark.parametrize("ip", [p.IPv4(), p.IPv6()])
def test_fragments_add_up_to_the_packet(ip: p.Layer) -> None:
    frame = p.build(p.Ethernet(), ip, p.UDP(1, 2), bytes(range(200)))
    parts = [p.parse(part) for part in p.fragments(frame, 64, identifier=7)]
    assert b"".join(part.payload for part in parts) == frame[14 + len(p.build(ip)) :]
    last: type[p.Fragment] | type[p.IPv4] = p.Fragment if isinstance(ip, p.IPv6) else p.IPv4
    places = [(part[last].id, part[last].offset, part[last].more) for part in parts]
    assert places == [(7, 0, True), (7, 64, True), (7, 128, True), (7, 192, False)]
    assert all(p.intact(p.build(*part.all)) for part in parts)


def test_trailing_bytes_of_a_short_frame_are_not_payload() -> None:
    frame = p.build(p.Ethernet(), p.IPv4(), p.UDP(), b"x") + bytes(17)
    assert p.parse(frame).payload == b"x"
    assert p.parse(frame).trailer == bytes(17)
    assert p.intact(frame)


def test_arp_and_vlan() -> None:
    frame = p.build(p.Ethernet(p.BROADCAST), p.Vlan(5), p.ARP(1, sender="10.0.0.1", target="10.0.0.2"))
    packet = p.parse(frame)
    assert packet[p.ARP].target == "10.0.0.2"
    assert packet[p.Vlan].id == 5
    assert p.build(*packet.all) == frame


def test_neighbour_discovery() -> None:
    ask = p.parse(p.solicitation("fe80::1", "fe80::2", "02:00:00:00:00:02"))
    assert ask[p.IPv6].dst == "ff02::1:ff00:1"
    assert ask[p.Ethernet].dst == "33:33:ff:00:00:01"
    answer = p.parse(p.advertisement("fe80::1", "02:00:00:00:00:01", "fe80::2", "02:00:00:00:00:02"))
    assert answer[p.ICMPv6].type == p.ICMPV6_ADVERTISEMENT
    assert answer.payload[-6:] == p.mac("02:00:00:00:00:01")


def test_an_icmp_error_quotes_a_packet() -> None:
    quoted = p.build(p.IPv4(), p.UDP(5, 6), b"lost")[:28]
    frame = p.build(p.Ethernet(), p.IPv4(), p.ICMP(p.ICMP_UNREACHABLE, 3), quoted)
    packet = p.parse(frame)
    assert p.parse(packet.payload, p.IPv4)[p.UDP].dport == 6
    assert p.intact(frame)


def test_what_is_given_stays() -> None:
    frame = p.build(p.Ethernet(), p.IPv4(length=9000, checksum=1), p.TCP(checksum=0))
    assert p.parse(frame)[p.IPv4].length == 9000
    assert not p.intact(frame)


def test_a_missing_layer_is_named() -> None:
    with pytest.raises(KeyError, match="no TCP"):
        p.parse(p.build(p.Ethernet(), p.IPv4(), p.UDP()))[p.TCP]
