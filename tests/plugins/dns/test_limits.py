"""Many questions at a time, servers that are slow or gone: each question ends, and the proxy is there for the next one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import dns.message
import dns.rcode

from axoneme.core.datapath.abi import ConnectionFlag
from axoneme.core.datapath.proxies import Proxy
from axoneme.core.events.stream import EventStream
from axoneme.plugins.dns.config import DnsConfig
from axoneme.plugins.dns.messages import Question
from axoneme.plugins.dns.proxy import DnsProxy, Way

WAY = Way(client=("10.0.0.1", 4000), server=("10.0.0.53", 53))
QUERY = dns.message.make_query("a.io", "A")
ANSWER = dns.message.make_response(QUERY).to_wire()


def proxy(entry: dict[str, int] | None = None, *, allowed: bool = True, **settings: Any) -> DnsProxy:
    """:param entry: of the connection's answers, as the kernel has it."""
    fields = {
        "flags": int(ConnectionFlag.REPLY),
        "proxy_port": int(Proxy.DNS),
        "destination_endpoint": 7,
        "egress_l7": 5,
    }
    record = fields | (entry or {})
    table = SimpleNamespace(lookup=lambda key: record)
    context: Any = SimpleNamespace(config=DnsConfig(**settings), map=lambda name: table, events=EventStream())
    permits: Any = SimpleNamespace(allows=lambda number, name: allowed and (number, name) == (5, "a.io"))
    learner: Any = SimpleNamespace(learn=None)  # nothing here has an address
    return DnsProxy(context, permits, learner)


def rcode(wire: bytes | None) -> str:
    return "" if wire is None else dns.rcode.to_text(dns.message.from_wire(wire).rcode())


async def answered(wire: bytes, question: Question) -> bytes:
    return ANSWER


async def test_an_answer_passes_as_it_is_and_is_noted() -> None:
    of = proxy()
    assert await of.answer(QUERY.to_wire(), WAY, answered) == ANSWER
    (lookup,) = of.lookups
    assert (lookup.endpoint, lookup.name, lookup.verdict, lookup.protocol) == (7, "a.io", "forwarded", "UDP")


async def test_whoever_was_not_sent_here_gets_nothing() -> None:
    for entry in ({"flags": 0}, {"proxy_port": int(Proxy.HTTP)}):
        of = proxy(entry)
        assert await of.answer(QUERY.to_wire(), WAY, answered) is None
        assert of.counts["strangers"] == 1


async def test_what_is_denied_is_not_passed_on() -> None:
    async def never(wire: bytes, question: Question) -> bytes:
        raise AssertionError

    assert rcode(await proxy(allowed=False).answer(QUERY.to_wire(), WAY, never)) == "REFUSED"
    of = proxy(allowed=False, refusal="nxdomain")
    assert rcode(await of.answer(QUERY.to_wire(), WAY, never)) == "NXDOMAIN"


async def test_a_server_that_is_slow_or_gone() -> None:
    async def slow(wire: bytes, question: Question) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def gone(wire: bytes, question: Question) -> bytes:
        raise ConnectionRefusedError

    of = proxy(upstream_timeout=0.1)
    assert await of.answer(QUERY.to_wire(), WAY, slow) is None
    assert rcode(await of.answer(QUERY.to_wire(), WAY, gone)) == "SERVFAIL"
    assert [one.verdict for one in of.lookups] == ["timeout", "failed"]


async def test_too_many_questions_at_a_time() -> None:
    release = asyncio.Event()

    async def later(wire: bytes, question: Question) -> bytes:
        await release.wait()
        return ANSWER

    of = proxy(concurrent=2)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(of.answer(QUERY.to_wire(), WAY, later)) for _ in range(5)]
        while of.counts["busy"] < 3:  # noqa: ASYNC110 - counters signal nobody
            await asyncio.sleep(0)
        release.set()
    results = [one.result() for one in asked]
    assert [result == ANSWER for result in results] == [True, True, False, False, False]
    assert [rcode(result) for result in results[2:]] == ["SERVFAIL"] * 3
    assert await of.answer(QUERY.to_wire(), WAY, answered) == ANSWER, "and then there is room again"
