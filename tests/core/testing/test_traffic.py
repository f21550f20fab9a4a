"""Traffic notices what it is there to notice: a lost packet, a failed request, and one that got through."""

from __future__ import annotations

import pytest
from pyroute2 import IPRoute

from axoneme.core.testing.namespaces import Namespaces, within
from axoneme.core.testing.traffic import Flow, Kind, Traffic, TrafficError, mesh, probes

pytestmark = pytest.mark.kernel


@pytest.fixture
def place(namespaces: Namespaces) -> str:
    """A namespace in which client and server talk over the loopback."""
    return namespaces.make()


def set_loopback(place: str, state: str) -> None:
    def change() -> None:
        with IPRoute() as route:
            route.link("set", index=1, state=state)

    within(place, change)


def test_all_goes_well(place: str) -> None:
    with Traffic(servers=[(place, 80)], flows=mesh(place, ["127.0.0.1", "::1"], 80)) as traffic:
        traffic.more(20)
    report = traffic.check()
    assert len(report.flows) == 8
    assert all(count.answered == count.sent >= 20 for count in report.flows.values())
    assert report.received[f"{place}:80/udp"] == sum(
        count.sent for name, count in report.flows.items() if name.startswith("datagram")
    )


def test_a_short_interruption_is_seen_as_lost_or_failed(place: str) -> None:
    flows = mesh(place, ["127.0.0.1"], 80)
    with Traffic(servers=[(place, 80)], flows=flows) as traffic:
        traffic.more(20)
        set_loopback(place, "down")
        while traffic.report().flows["datagram4:80"].lost < 5:
            pass
        set_loopback(place, "up")
        traffic.more(20)
    with pytest.raises(TrafficError, match="datagram4:80"):
        traffic.check()


def test_a_server_that_is_not_there_fails_requests(place: str) -> None:
    flow = Flow(name="nobody", kind=Kind.REQUEST, netns=place, address="127.0.0.1", port=99)
    with Traffic(servers=[], flows=[flow]) as traffic:
        pass
    with pytest.raises(TrafficError, match=r"nobody.*\n.*0/.*ConnectionRefusedError"):
        traffic.check()


def test_traffic_that_stops_is_not_waited_for_without_end(place: str) -> None:
    flow = Flow(name="lost", kind=Kind.DATAGRAM, netns=place, address="127.0.0.1", port=80, timeout=0.2)
    with Traffic(servers=[(place, 80)], flows=[flow]) as traffic:
        set_loopback(place, "down")
        with pytest.raises(TrafficError, match="traffic stopped"):
            traffic.more(10_000, seconds=0.3)


@pytest.mark.parametrize("listening", [True, False])
def test_a_probe_must_not_get_through(place: str, listening: bool) -> None:
    servers = [(place, 80), *([(place, 81)] if listening else [])]
    flows = [*mesh(place, ["127.0.0.1"], 80), *probes(place, ["127.0.0.1", "::1"], 81)]
    with Traffic(servers=servers, flows=flows) as traffic:
        traffic.more(10)
    if not listening:
        traffic.check()
        return
    with pytest.raises(TrafficError, match="denied-request4:81, denied-datagram4:81, denied-request6:81"):
        traffic.check()
