"""Names whose addresses change, and agents that end: what is known stays known as long as it should, and not longer."""

from __future__ import annotations

import socket
from pathlib import Path

import dns.exception
import pytest
from places import Place, place, run

from axoneme.core.testing.namespaces import within

pytestmark = pytest.mark.kernel

OLD, NEW = "198.18.4.1", "198.18.4.2"


def known(there: Place, name: str) -> list[str]:
    return sorted(there.known().get(name, []))


def test_an_address_goes_when_its_time_is_over_and_nobody_uses_it(tmp_path: Path) -> None:
    with place(tmp_path, hosts={"turn.ok.test": [OLD]}, min_ttl=1, grace=0) as there:
        assert there.addresses("turn.ok.test") == [OLD]
        held = there.connect(OLD)
        there.server.set({"turn.ok.test": [NEW]})
        assert there.addresses("turn.ok.test") == [NEW]
        there.connect(NEW).close()
        there.node.until(lambda: known(there, "turn.ok.test") == [OLD], "the new one, unused, is over first")
        assert not there.reaches(NEW)
        held.sendall(b"still here")
        assert held.recv(64) == b"still here", "what is in use is not cut off"
        held.close()
        there.node.until(lambda: known(there, "turn.ok.test") == [], "it is over, and not in use any more")
        there.node.until(lambda: not there.reaches(OLD), "it is closed")
        assert there.node.metric("cilium_fqdn_gc_deletions_total") == 2
        for address in (NEW, OLD, NEW, OLD):  # a name that turns round, and clients that follow at once
            there.server.set({"turn.ok.test": [address]})
            assert there.addresses("turn.ok.test") == [address]
            there.connect(address, timeout=0.8).close()


def test_an_agent_that_is_killed_forgets_nothing(tmp_path: Path) -> None:
    hosts = {f"n{i}.ok.test": [f"198.18.5.{i}", f"2001:db8:5::{i}"] for i in range(1, 21)}
    with place(tmp_path, hosts=hosts | {"late.ok.test": ["198.18.6.1"]}) as there:
        node = there.node
        for name, (four, six) in hosts.items():
            assert there.addresses(name) == [four]
            assert there.addresses(name, "AAAA") == [six]
        before = there.known()
        held = there.connect("198.18.5.1")
        node.kill9()
        held.sendall(b"one")
        assert held.recv(64) == b"one"
        assert all(there.reaches(address) for found in hosts.values() for address in found), "known is known"
        with pytest.raises((dns.exception.Timeout, OSError)):
            there.ask("late.ok.test", timeout=0.4)
        with pytest.raises((dns.exception.Timeout, OSError)):
            there.ask("late.ok.test", tcp=True, timeout=0.4)
        node.start()
        assert there.known() == before
        held.sendall(b"two")
        assert held.recv(64) == b"two"
        assert all(there.reaches(address) for found in hosts.values() for address in found)
        assert there.addresses("late.ok.test") == ["198.18.6.1"]
        there.connect("198.18.6.1", timeout=0.8).close()
        identities = [
            row["identity"] for row in node.call("ipcache.list") if str(row["prefix"]).startswith("198.18.")
        ]
        node.stop()
        assert there.reaches("198.18.5.1"), "an agent that was stopped leaves what is in force, too"
        (there.node.folder / "state" / "dns-names.jsonl").write_text('{"name": "half')
        node.start()
        assert there.known() == {}
        assert len(set(identities)) == 1
        there.node.until(lambda: not there.reaches("198.18.5.1"), "what nobody knows is closed")
        assert there.addresses("n1.ok.test") == ["198.18.5.1"]
        there.connect("198.18.5.1", timeout=0.8).close()


def test_another_configuration_takes_over_from_the_former(tmp_path: Path) -> None:
    """Another configuration is another service, which begins when the former one has ended."""
    with place(tmp_path, hosts={"a.ok.test": ["198.18.7.1"], "no.test": ["198.18.7.2"]}) as there:
        node = there.node
        assert there.ask("no.test").rcode().name == "REFUSED"
        values = {**node.values, "agent": {}}
        values["plugins"] = {"enabled": ["policy", "dns"], "dns": {"refusal": "nxdomain"}}
        node.configure(values)
        node.reload()
        assert there.addresses("a.ok.test") == ["198.18.7.1"]
        assert there.ask("no.test").rcode().name == "NXDOMAIN"
        assert there.ask("no.test", tcp=True).rcode().name == "NXDOMAIN"
        values["plugins"] = {"enabled": ["policy"]}
        node.configure(values)
        node.reload()
        assert there.reaches("198.18.7.1"), "what was resolved goes on"
        with pytest.raises((dns.exception.Timeout, OSError)):
            there.ask("a.ok.test", timeout=0.4)
        values["plugins"] = {"enabled": ["policy", "dns"]}
        node.configure(values)
        node.reload()
        assert there.addresses("a.ok.test") == ["198.18.7.1"], "switched on while workloads run"
        assert there.known() == {"a.ok.test": ["198.18.7.1"]}


def test_a_refused_reload_leaves_the_proxy_s_place_to_who_had_it(tmp_path: Path) -> None:
    with place(tmp_path, hosts={"a.ok.test": ["198.18.7.1"]}) as there:
        node = there.node
        values = {**node.values, "agent": {}}
        values["plugins"] = {"enabled": ["policy", "dns", "prometheus"], "dns": {"refusal": "nxdomain"}}
        node.configure(values)
        with within(node.netns, lambda: socket.create_server(("127.0.0.1", 9962))):
            node.reload()  # metrics cannot be served there: the former configuration stays
        assert there.ask("no.test").rcode().name == "REFUSED"
        assert there.ask("no.test", tcp=True).rcode().name == "REFUSED"
        assert there.addresses("a.ok.test") == ["198.18.7.1"]


def test_routing_that_somebody_took_away_comes_back(tmp_path: Path) -> None:
    with place(tmp_path, hosts={"a.ok.test": ["198.18.8.1"]}) as there:
        run(there.node.netns, "ip rule del pref 9")
        run(there.node.netns, "ip route flush table 2004")
        there.node.until(lambda: "2004" in run(there.node.netns, "ip rule"), "the rule")
        assert there.addresses("a.ok.test") == ["198.18.8.1"]
