"""What proxies tell, as flows; and names beside addresses."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from flow_world import World, record, several

from axoneme.core.events.requests import Dns, Http, Outcome, Request
from axoneme.core.workloads.names import DNS_NAMES, DnsName
from axoneme.plugins.hubble.proto.flow_pb2 import Flow, FlowFilter
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest

TIME = 1_700_000_000_000_000_001


def request(what: Any, **fields: Any) -> Request:
    given: dict[str, Any] = {
        "time": TIME, "source": IPv4Address("10.0.0.1"), "source_port": 4000, "destination": IPv4Address("10.0.0.2"),
        "destination_port": 80, "protocol": 6, "outcome": Outcome.FORWARDED, "source_endpoint": 1,
        "source_identity": 300, "destination_endpoint": 2, "destination_identity": 301,
    }  # fmt: skip
    return Request(what=what, **given | fields)


async def told(world: World, *requests: Request) -> list[Flow]:
    """Through the service, as a plugin tells them."""
    ready = asyncio.Event()
    running = asyncio.ensure_future(world.observer.run(ready.set))
    await ready.wait()
    await asyncio.sleep(0)
    world.events.requests.tell(*requests)
    answers = world.observer.get_flows(GetFlowsRequest(follow=True, number=100))
    flows = [answer.flow for answer in await several(answers, len(requests))]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return flows


async def test_http() -> None:
    world = World()
    get = Http(method="GET", url="http://api/items?id=1", protocol="HTTP/1.1", headers=(("X-A", "b"),))
    answer = Http(method="GET", url="http://api/items?id=1", protocol="HTTP/1.1", status=404)
    back = {
        "source": IPv4Address("10.0.0.2"), "source_port": 80, "destination": IPv4Address("10.0.0.1"),
        "destination_port": 4000, "source_endpoint": 2, "source_identity": 301, "destination_endpoint": 1,
        "destination_identity": 300,
    }  # fmt: skip
    flows = await told(
        world,
        request(get, ingress=True, trace_id="4bf92f3577b34da6a3ce929d0e0e4736", ingress_rule=7),
        request(answer, ingress=True, answer=True, latency=2_500_000, **back),
        request(get, ingress=True, outcome=Outcome.DENIED, ingress_rule=8, egress_rule=9),
        request(get, outcome=Outcome.ERROR),
    )
    asked, answered, denied, failed = flows
    assert asked.Summary == "HTTP/1.1 GET http://api/items?id=1"
    assert answered.Summary == "HTTP/1.1 404 2ms (GET http://api/items?id=1)"
    assert [flow.verdict for flow in flows] == [1, 1, 2, 3]
    assert [flow.traffic_direction for flow in flows] == [1, 1, 1, 2]
    assert (asked.source.pod_name, answered.source.pod_name) == ("web", "api")
    assert (asked.l7.http.headers[0].key, asked.l7.type, answered.l7.type) == ("X-A", 1, 2)
    assert (asked.l7.latency_ns, answered.l7.latency_ns) == (0, 2_500_000)
    assert (asked.is_reply.value, answered.is_reply.value) == (False, True)
    assert asked.time.ToNanoseconds() == TIME
    assert [p.name for p in asked.ingress_allowed_by] == ["allow-web"]
    assert [p.name for p in denied.ingress_denied_by] == ["closed"]
    assert [p.name for p in denied.egress_allowed_by] == ["careful"]
    for fields, expected in (
        ({"http_status_code": ["4+"]}, [answered]),
        ({"http_path": ["^/items$"], "verdict": ["DROPPED"]}, [denied]),
        ({"trace_id": ["4bf92f3577b34da6a3ce929d0e0e4736"]}, [asked]),
        ({"http_header": [{"key": "X-A", "value": "b"}], "verdict": ["ERROR"]}, [failed]),
        ({"event_type": [{"type": 129}], "reply": [True]}, [answered]),
    ):
        assert await world.flows(whitelist=[FlowFilter(**fields)]) == expected


async def test_dns() -> None:
    world = World()
    what = Dns(query="a.com.", types=("A", "AAAA"))
    found = Dns(
        query="a.com.",
        types=("A",),
        addresses=("1.2.3.4", "::1"),
        ttl=30,
        cnames=("b.com.",),
        answer_types=("CNAME", "A"),
    )
    nothing = Dns(query="a.com.", types=("A",), rcode=3, ttl=5)
    flows = await told(
        world,
        request(what, protocol=17, destination_port=53),
        request(found, answer=True),
        request(nothing, answer=True),
        request(Dns(query="a.com.", types=("A",), rcode=99), answer=True),
    )
    assert [flow.Summary for flow in flows] == [
        "DNS Query a.com. A,AAAA",
        'DNS Answer "1.2.3.4,::1" CNAMEs: "b.com." TTL: 30 (Proxy a.com. A)',
        "DNS Answer RCode: Non-Existent Domain TTL: 5 (Proxy a.com. A)",
        "DNS Answer RCode: Unknown (99) TTL: 0 (Proxy a.com. A)",
    ]
    assert (flows[0].l4.UDP.destination_port, flows[0].l7.dns.observation_source) == (53, "proxy")
    assert (list(flows[1].l7.dns.ips), list(flows[1].l7.dns.rrtypes)) == (["1.2.3.4", "::1"], ["CNAME", "A"])


async def test_names_beside_addresses() -> None:
    world = World(policy_verdicts=False)
    names = world.state.writer(DNS_NAMES.name, DnsName)
    world.observer.take(record())
    names.upsert(
        DnsName(name="b.test", address=IPv4Address("10.0.0.2")), DnsName(name="a.test", address=IPv4Address("10.0.0.2")),
        DnsName(name="six.test", address=IPv6Address("2001:db8::2")),
    )  # fmt: skip
    world.observer.take(record())
    six = (0x20010DB8, 0, 0, 2)
    world.observer.take(record(family=6, saddr=six))
    names.delete(("a.test", IPv4Address("10.0.0.2")))
    world.observer.take(record())
    found = [(list(flow.source_names), list(flow.destination_names)) for flow in await world.flows()]
    assert found == [
        ([], []),
        ([], ["a.test", "b.test"]),
        (["six.test"], ["a.test", "b.test"]),
        ([], ["b.test"]),
    ]
    chosen = await world.flows(whitelist=[FlowFilter(destination_fqdn=["a.*"], source_fqdn=["*.test"])])
    assert len(chosen) == 1
