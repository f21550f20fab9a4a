"""What becomes of a question: allowed or not, passed on to the server that was asked, learnt from, answered."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

from attrs import field, frozen

from axoneme.core.datapath.abi import ConnectionFlag
from axoneme.core.datapath.endpoint_maps import words
from axoneme.core.datapath.proxies import Proxy
from axoneme.core.histogram import Histogram
from axoneme.core.plugin import PluginContext
from axoneme.plugins.dns.config import DnsConfig
from axoneme.plugins.dns.datagrams import Place
from axoneme.plugins.dns.learner import Learner
from axoneme.plugins.dns.messages import (
    Answer,
    BadMessageError,
    Question,
    read_answer,
    read_question,
    reply,
)
from axoneme.plugins.dns.permits import Permits
from axoneme.plugins.dns.told import told

#: So many lookups are remembered for people.
REMEMBERED = 1000

Forward = Callable[[bytes, Question], Awaitable[bytes]]


@frozen(kw_only=True)
class Lookup:
    """A question and what became of it.

    :param verdict: forwarded, denied, failed (the server could not be asked), timeout, or busy (too many at a time).
    :param seconds: from the question to its answer.
    """

    time: float
    endpoint: int
    name: str
    type: str
    server: str
    protocol: str
    verdict: str
    rcode: str = ""
    addresses: tuple[str, ...] = ()
    ttl: int = 0
    cnames: tuple[str, ...] = ()
    seconds: float = 0.0


@frozen(kw_only=True)
class Way:
    """Which way a question came: the connection that the kernel sent to the proxy."""

    client: Place
    server: Place
    protocol: int = field(default=int(socket.IPPROTO_UDP))


class DnsProxy:
    """Answers one question at a time of each caller; callers are many."""

    def __init__(self, context: PluginContext, permits: Permits, learner: Learner) -> None:
        self._context, self._permits, self._learner = context, permits, learner
        self._config: DnsConfig = context.config
        self.lookups: deque[Lookup] = deque(maxlen=REMEMBERED)
        #: By what became of them: received, forwarded, denied, parse_errors, failed, timeout, busy, strangers.
        self.counts: Counter[str] = Counter()
        #: By (error, protocol, scope), as Cilium's metric has it.
        self.seconds = Histogram()
        self._busy = 0

    async def answer(self, wire: bytes, way: Way, forward: Forward) -> bytes | None:
        """What to say to the client; None for nothing.

        :param forward: asks the server.
        """
        self.counts["received"] += 1
        connection = self._connection(way)
        if connection is None:  # somebody of the host's own, whom no policy sent here
            self.counts["strangers"] += 1
            return None
        try:
            question = read_question(wire)
        except BadMessageError:
            self.counts["parse_errors"] += 1
            return reply(wire, "FORMERR")
        if not self._permits.allows(int(connection["egress_l7"]), question.name):
            self._note(way, connection, question, "denied", Answer(self._config.refusal.upper()))
            return reply(wire, self._config.refusal.upper())
        if self._busy >= self._config.concurrent:
            self._note(way, connection, question, "busy", Answer("SERVFAIL"))
            return reply(wire, "SERVFAIL")
        self._busy += 1
        try:
            return await self._pass_on(wire, way, connection, question, forward)
        finally:
            self._busy -= 1

    def _connection(self, way: Way) -> Any:
        """The entry of the answers' direction: it is found whatever the questions were translated from."""
        client, server = ip_address(way.client[0]), ip_address(way.server[0])
        key = {
            "saddr": {"a": words(server)},
            "daddr": {"a": words(client)},
            "sport": way.server[1],
            "dport": way.client[1],
            "protocol": way.protocol,
            "pad": (0, 0, 0),
        }
        found = self._context.map(f"connections{client.version}").lookup(key)
        if found is None or not found["flags"] & ConnectionFlag.REPLY or found["proxy_port"] != Proxy.DNS:
            return None
        return found

    async def _pass_on(
        self, wire: bytes, way: Way, connection: Any, question: Question, forward: Forward
    ) -> bytes | None:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._config.upstream_timeout):
                answer = await forward(wire, question)
        except TimeoutError:
            self._took("timeout", started)
            self._note(way, connection, question, "timeout", Answer(""), started)
            return None  # as without us: the client asks again
        except (OSError, EOFError):
            self._took("proxyErr", started)
            self._note(way, connection, question, "failed", Answer("SERVFAIL"), started)
            return reply(wire, "SERVFAIL")
        upstream = time.monotonic() - started
        learnt = read_answer(answer)
        if learnt.addresses:
            await self._learner.learn(question.name, learnt.addresses, learnt.ttl, _client(connection))
        self._took("allowed", started, upstream)
        self._note(way, connection, question, "forwarded", learnt, started)
        return answer

    def _took(self, error: str, started: float, upstream: float | None = None) -> None:
        total = time.monotonic() - started
        self.seconds.observe(total, error, "dns", "totalTime")
        self.seconds.observe(total if upstream is None else upstream, error, "dns", "upstreamTime")

    def _note(
        self,
        way: Way,
        connection: Any,
        question: Question,
        verdict: str,
        answer: Answer,
        started: float = 0.0,
    ) -> None:
        self.counts[verdict] += 1
        seconds = time.monotonic() - started if started else 0.0
        if (requests := self._context.events.requests).heard:
            requests.tell(*told(connection, way, question, verdict, answer, seconds))
        self.lookups.append(
            Lookup(
                time=time.time(),
                endpoint=_client(connection),
                name=question.name,
                type=question.type,
                server=way.server[0],
                protocol="UDP" if way.protocol == socket.IPPROTO_UDP else "TCP",
                verdict=verdict,
                rcode=answer.rcode,
                addresses=tuple(map(str, answer.addresses)),
                ttl=answer.ttl,
                cnames=answer.cnames,
                seconds=seconds,
            )
        )


def _client(connection: Any) -> int:
    """The endpoint that asks, of the entry of the answers' direction."""
    return int(connection["destination_endpoint"])
