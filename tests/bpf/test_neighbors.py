"""ARP and neighbour discovery: the program answers for the gateway, and a workload speaks for itself only."""

from __future__ import annotations

import pytest
from packet_world import World, discarded, dropped, ipv4_only, ipv6_only, mac_of, node_mac_of

from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import (
    ARP,
    BROADCAST,
    Ethernet,
    ICMPv6,
    IPv6,
    advertisement,
    build,
    intact,
    parse,
    solicitation,
)

pytestmark = pytest.mark.kernel


def request(target: str = "169.254.1.1", sender: str = "10.0.0.1", **arp: object) -> bytes:
    question = ARP(1, mac_of(1), sender, target=target, **arp)  # type: ignore[arg-type]
    return build(Ethernet(BROADCAST, mac_of(1)), question)


@ipv4_only
def test_the_gateway_answers(world: World) -> None:
    outcome = world.send(request(), sender="a")
    assert outcome.action is Action.REDIRECT
    ethernet, answer = parse(outcome.frame).layers
    assert ethernet == Ethernet(mac_of(1), node_mac_of(1), 0x0806)
    assert answer == ARP(2, node_mac_of(1), "169.254.1.1", mac_of(1), "10.0.0.1")


@ipv4_only
@pytest.mark.parametrize("sender", ["10.0.0.2", "10.0.0.99", "0.0.0.0", "169.254.1.1"])
@pytest.mark.parametrize("operation", [1, 2])
def test_a_forged_sender_gets_nothing(world: World, sender: str, operation: int) -> None:
    """Neither asking nor answering; 0.0.0.0 is a probe for duplicates (RFC 5227), and addresses are given out once."""
    before = world.counted("INVALID_NEIGHBOR")
    frame = build(Ethernet(BROADCAST, mac_of(1)), ARP(operation, mac_of(1), sender, target="169.254.1.1"))
    assert discarded(world.send(frame, sender="a"))
    assert world.counted("INVALID_NEIGHBOR") == before + 1


@ipv4_only
@pytest.mark.parametrize("target", ["10.0.0.2", "10.0.0.1", "192.168.0.1"])
def test_other_targets_get_nothing(world: World, target: str) -> None:
    assert discarded(world.send(request(target), sender="a"))


@ipv4_only
def test_an_answer_to_the_host_passes(world: World) -> None:
    frame = build(Ethernet(node_mac_of(1), mac_of(1)), ARP(2, mac_of(1), "10.0.0.1", target="192.168.0.1"))
    outcome = world.send(frame, sender="a")
    assert (outcome.action, outcome.frame) == (Action.PASS, frame)


@ipv4_only
def test_other_hardware_and_short_frames_are_dropped(world: World) -> None:
    frame = request()
    for at, value in ((15, 6), (17, 1), (18, 8), (19, 16), (21, 3)):
        changed = bytearray(frame)
        changed[at] = value
        assert discarded(world.send(bytes(changed), sender="a"))
    for length in range(15, len(frame)):
        assert discarded(world.send(frame[:length], sender="a"))


@pytest.mark.parametrize("point", ["to_workload", "from_network", "to_network"])
@ipv4_only
def test_elsewhere_arp_is_the_hosts_business(world: World, point: str) -> None:
    assert world.bench.run(point, request(), sender=world.bench.link("hub")).action is Action.PASS


# IPv6.

GATEWAY = "fe80::1"


@ipv6_only
@pytest.mark.parametrize("source", ["fd00::1", "fe80::aa"])
def test_the_gateway_advertises(world: World, source: str) -> None:
    outcome = world.send(solicitation(GATEWAY, source, mac_of(1)), sender="a")
    assert outcome.action is Action.REDIRECT
    expected = advertisement(GATEWAY, node_mac_of(1), source, mac_of(1), flags=0xE0)
    assert outcome.frame == expected
    assert intact(outcome.frame)


@ipv6_only
def test_a_solicitation_without_its_option_is_answered(world: World) -> None:
    frame = build(
        Ethernet("33:33:ff:00:00:01", mac_of(1)),
        IPv6("fd00::1", "ff02::1:ff00:1", hop_limit=255),
        ICMPv6(135),
        bytes.fromhex("fe80") + bytes(13) + b"\x01",
    )
    outcome = world.send(frame, sender="a")
    assert outcome.frame == advertisement(GATEWAY, node_mac_of(1), "fd00::1", mac_of(1), flags=0xE0)


@ipv6_only
def test_a_probe_for_duplicates_is_noise(world: World) -> None:
    assert discarded(world.send(solicitation("fd00::1", "::", mac_of(1)), sender="a"))
    assert discarded(world.send(solicitation(GATEWAY, "::", mac_of(1)), sender="a"))


@ipv6_only
@pytest.mark.parametrize("target", ["fd00::2", "fe80::2", "fd99::1"])
def test_other_solicitations_are_noise(world: World, target: str) -> None:
    assert discarded(world.send(solicitation(target, "fd00::1", mac_of(1)), sender="a"))


@ipv6_only
@pytest.mark.parametrize("hops", [0, 1, 64, 254])
def test_a_forwarded_solicitation_is_refused(world: World, hops: int) -> None:
    frame = bytearray(solicitation(GATEWAY, "fd00::1", mac_of(1)))
    frame[21] = hops
    assert dropped(world.send(bytes(frame), sender="a"), "INVALID_NEIGHBOR")


@ipv6_only
def test_a_workload_advertises_its_own_address(world: World) -> None:
    own = advertisement("fd00::1", mac_of(1), "fd99::1", node_mac_of(1))
    assert world.send(own, sender="a").action is Action.PASS
    for target in ("fd00::2", "fd99::1", GATEWAY):
        forged = advertisement(target, mac_of(1), "fd99::1", node_mac_of(1))
        assert dropped(world.send(forged, sender="a"), "INVALID_NEIGHBOR")


def message(kind: int, source: str = "fd00::1", destination: str = "ff02::2") -> bytes:
    ip = IPv6(source, destination, hop_limit=255)
    return build(Ethernet("33:33:00:00:00:02", mac_of(1)), ip, ICMPv6(kind), bytes(32))


@ipv6_only
def test_a_workload_redirects_nobody(world: World) -> None:
    assert dropped(world.send(message(137), sender="a"), "FORBIDDEN_ICMPV6_MESSAGE")


@ipv6_only
@pytest.mark.parametrize("kind", [130, 131, 132, 133, 134, 143])
def test_talk_of_routers_and_groups_is_noise(world: World, kind: int) -> None:
    assert discarded(world.send(message(kind), sender="a"))


@ipv6_only
@pytest.mark.parametrize("kind", [130, 131, 132, 133, 134, 135, 136, 137, 143])
@pytest.mark.parametrize("point", ["from_network", "to_network", "to_workload"])
def test_elsewhere_it_is_the_hosts_business(world: World, kind: int, point: str) -> None:
    outcome = world.bench.run(point, message(kind, "fe80::9"), sender=world.bench.link("hub"))
    assert outcome.action is Action.PASS


@ipv6_only
def test_short_messages_are_invalid(world: World) -> None:
    for frame in (
        solicitation(GATEWAY, "fd00::1", mac_of(1)),
        advertisement("fd00::1", mac_of(1), "fd99::1", mac_of(9)),
    ):
        for length in range(14 + 40, 14 + 40 + 24):
            assert dropped(world.send(frame[:length], sender="a"), "INVALID_PACKET_DROPPED")
