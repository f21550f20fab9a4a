"""Workloads ask a real server through the real proxy: what they see is the server's, and what it says is in force."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import dns.exception
import dns.flags
import dns.rcode
import grpc
import pytest
from places import POLICY, Place, place, run

from axoneme.plugins.hubble.proto.flow_pb2 import Flow, FlowFilter
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest
from axoneme.plugins.hubble.proto.observer_pb2_grpc import ObserverStub

pytestmark = pytest.mark.kernel

MANY = 60


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    hosts = {f"n{i}.ok.test": [f"198.18.1.{i}", f"2001:db8:5::{i}"] for i in range(1, MANY + 1)}
    hosts |= {"one.ok.test": ["198.18.2.1"], "real.ok.test": ["198.18.2.2"], "secret.test": ["198.18.2.3"]}
    hosts |= {"crowd.ok.test": [f"198.18.3.{i}" for i in range(1, 31)], "early.test": ["198.18.2.9"]}
    text = ",".join(["x" * 200] * 12)
    options = ("--cname=alias.test,real.ok.test", f"--txt-record=big.ok.test,{text}")
    with place(tmp_path_factory.mktemp("names"), *options, hosts=hosts) as made:
        yield made


def test_udp_tcp_edns_and_both_families(there: Place) -> None:
    for family in (4, 6):
        for tcp in (False, True):
            for edns in (-1, 0):
                answer = there.ask("one.ok.test", tcp=tcp, family=family, use_edns=edns)
                assert answer.answer[0][0].address == "198.18.2.1"
                assert answer.edns == edns
    assert there.ask("nobody.ok.test").rcode() == dns.rcode.REFUSED, "what the server says, who knows no more"
    assert there.reaches("198.18.2.1")
    assert not there.reaches("198.18.2.3"), "nobody asked for it"


def test_what_is_too_long_is_asked_again_by_tcp(there: Place) -> None:
    short = there.ask("big.ok.test", "TXT", use_edns=False)
    assert short.flags & dns.flags.TC
    assert len(there.ask("big.ok.test", "TXT", tcp=True).answer[0][0].strings) == 12
    out = run(there.client.netns, f"dig @{there.names.ipv4} big.ok.test TXT +noedns +tries=1 +time=3")
    assert "retrying in TCP" in out
    assert f"SERVER: {there.names.ipv4}#53" in out, "dig sees the server that it asked"
    large = there.ask("big.ok.test", "TXT", use_edns=0, payload=4096)
    assert large.flags & dns.flags.TC or large.answer, "whatever the server makes of it"


def test_a_denied_name_is_refused_and_not_asked_for(there: Place) -> None:
    for tcp in (False, True):
        answer = there.ask("secret.test", tcp=tcp, use_edns=0)
        assert (answer.rcode(), answer.answer, answer.edns) == (dns.rcode.REFUSED, [], 0)
    assert not there.reaches("198.18.2.3")
    row = there.node.call("dns.lookups", match="secret.test")[0]
    assert (row["verdict"], row["rcode"], row["workload"]) == ("denied", "REFUSED", "default/client")
    assert "secret.test" not in there.known()


def test_flows_tell_questions_answers_and_names(there: Place) -> None:
    """Over Hubble's own API, as its clients ask."""
    assert there.addresses("alias.test", tcp=True) == ["198.18.2.2"]
    assert there.reaches("198.18.2.2")
    there.ask("secret.test")
    name = {"dns_query": [r"^alias\.test\.$"]}
    there.node.until(lambda: len(flows(there, **name)) > 1, "question and answer are told")
    question, answer = flows(there, **name)[-2:]
    assert question.Summary == "DNS Query alias.test. A"
    assert re.fullmatch(
        r'DNS Answer "198\.18\.2\.2" CNAMEs: "[a-z.,]+" TTL: \d+ \(Proxy alias\.test\. A\)', answer.Summary
    )
    assert (question.verdict, question.Type, question.event_type.type, question.l7.type) == (1, 2, 129, 1)
    assert (question.source.pod_name, question.destination.pod_name) == ("client", "names")
    assert (answer.source.pod_name, answer.destination.pod_name) == ("names", "client")
    assert (question.l4.TCP.destination_port, answer.l4.TCP.source_port) == (53, 53)
    assert (question.is_reply.value, answer.is_reply.value) == (False, True)
    assert answer.l7.latency_ns > 0
    (denied,) = flows(there, dns_query=["^secret"], verdict=["DROPPED"])[-1:]
    assert [p.name for p in denied.egress_denied_by] == ["client"]
    web = {"destination_fqdn": ["alias.*"], "destination_port": ["80"], "event_type": [{"type": 4}]}
    there.node.until(lambda: flows(there, **web), "the connection is told")
    named = flows(there, **web)[-1]
    assert (named.IP.destination, named.source.pod_name) == ("198.18.2.2", "client")
    assert {flow.event_type.type for flow in flows(there, protocol=["dns"])} == {129}


def flows(there: Place, **chosen: Any) -> list[Flow]:
    socket = there.node.socket.with_name("hubble.sock")
    request = GetFlowsRequest(whitelist=[FlowFilter(**chosen)])
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        return [answer.flow for answer in ObserverStub(channel).GetFlows(request, timeout=10)]


def test_an_alias_leads_to_the_addresses_of_its_end(there: Place) -> None:
    assert there.addresses("alias.test") == ["198.18.2.2"]
    assert there.known()["alias.test"] == ["198.18.2.2"]
    assert there.reaches("198.18.2.2")


def test_the_first_connection_is_never_too_early(there: Place) -> None:
    """At once after the answer, for many names; for each of many addresses of one name, too."""
    for index in range(1, MANY + 1):
        name = f"n{index}.ok.test"
        for kind, family in (("A", 4), ("AAAA", 6)):
            (address,) = there.addresses(name, kind, family=family, tcp=bool(index % 2))
            there.connect(address, timeout=0.8).close()  # a lost SYN is sent again after a second
    crowd = there.addresses("crowd.ok.test", tcp=True)
    assert len(crowd) == 30
    for address in crowd:
        there.connect(address, timeout=0.8).close()
    assert there.node.metric("cilium_proxy_datapath_update_timeout_total") == 0
    identities = {
        row.get("identity")
        for row in there.node.call("ipcache.list")
        if str(row["prefix"]).startswith("198.18.3.")
    }
    assert len(identities) == 1, "addresses that nothing tells apart share an identity"


def test_a_policy_finds_names_that_were_asked_for_before_it(there: Place) -> None:
    everything = POLICY.replace(
        '{matchPattern: "*.ok.test"}, {matchName: alias.test}]}', '{matchPattern: "*"}]}'
    )
    there.node.resource("policy.yaml", everything)
    there.node.until(lambda: there.ask("early.test").answer, "all names are allowed")
    assert not there.reaches("198.18.2.9")
    there.node.resource("policy.yaml", re.sub("matchName: alias.test", "matchName: early.test", everything))
    there.node.until(lambda: there.reaches("198.18.2.9"), "the name is selected")
    there.node.resource("policy.yaml", POLICY)
    there.node.until(lambda: not there.reaches("198.18.2.9"), "the name is not selected any more")


def test_a_name_opens_no_way_to_workloads_or_the_host(there: Place) -> None:
    """Whoever has a name in his hand may let it point anywhere; it is the world that toFQDNs opens."""
    host = there.node.call("ipcache.list")
    own = next(row["prefix"] for row in host if row["identity"] == 1 and "." in row["prefix"]).removesuffix(
        "/32"
    )
    there.owned.serve_tcp(there.names.netns, 80)
    there.owned.serve_tcp(there.node.netns, 80)
    there.server.set(
        {**there.server.hosts, "evil.ok.test": [there.names.ipv4, own, "127.0.0.1", "198.18.2.8"]}
    )
    found = there.addresses("evil.ok.test")
    assert {there.names.ipv4, own, "198.18.2.8"} <= set(found)
    there.connect("198.18.2.8", timeout=0.8).close()
    assert not there.reaches(there.names.ipv4)
    assert not there.reaches(own)
    assert there.node.metric("proxy_datapath_update_timeout_total") == 0, (
        "what is not the world's is not waited for"
    )


def test_what_is_no_question(there: Place) -> None:
    from axoneme.core.testing.namespaces import ask

    for noise in (b"", b"x", b"\0" * 12, b"\xff" * 600):
        try:
            said = ask(there.client.netns, there.names.ipv4, 53, noise, udp=True, timeout=0.2)
        except OSError:
            continue
        assert said[3] & 15 == dns.rcode.FORMERR
    assert there.addresses("one.ok.test") == ["198.18.2.1"], "and the next question is answered"


def test_the_host_itself_is_no_client(there: Place) -> None:
    """Whoever finds the proxy's port on the loopback gets nothing from it."""
    import socket

    from axoneme.core.testing.namespaces import ask

    rows = run(there.node.netns, "ss -Hlun").split()
    ports = [int(row.rpartition(":")[2]) for row in rows if row.startswith("127.0.0.1:")]
    assert ports
    for port in ports:
        with pytest.raises((TimeoutError, socket.timeout)):
            ask(there.node.netns, "127.0.0.1", port, b"\0" * 12, udp=True, timeout=0.2)


def test_a_server_that_is_gone(there: Place) -> None:
    there.server.stop()
    assert there.ask("one.ok.test").rcode() == dns.rcode.SERVFAIL
    there.server.start("--cname=alias.test,real.ok.test")
    assert there.addresses("one.ok.test") == ["198.18.2.1"]
    assert there.node.problems() == []
