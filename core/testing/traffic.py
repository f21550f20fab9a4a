"""Real traffic between namespaces while something happens to the agent: not one request may fail, not one packet be lost.

    with Traffic(servers=[(server.netns, 80)], flows=mesh(client.netns, addresses, 80)) as traffic:
        node.kill9()
        node.start()
        traffic.more(50)
    traffic.check()

What runs is four kinds of flow: a new TCP connection for each request; one TCP connection with a request every few
milliseconds; numbered datagrams that are sent back; and one TCP connection on which only the server speaks.
"""

from __future__ import annotations

import enum
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import attrs
from attrs import frozen

#: Seconds that a whole conversation with the worker may take before it counts as hung.
_PATIENCE = 60.0


class Kind(enum.StrEnum):
    REQUEST = "request"
    STREAM = "stream"
    DATAGRAM = "datagram"
    PUSH = "push"


@frozen(kw_only=True)
class Flow:
    """Something that a client sends again and again.

    :param netns: the client's namespace, path or name.
    :param interval: seconds from one request or datagram to the next.
    :param timeout: seconds after which a request has failed, and for which late datagrams are awaited at the end.
    :param answered: whether answers are expected; if not, nothing may even reach a server on this port.
    """

    name: str
    kind: Kind
    netns: str
    address: str
    port: int
    interval: float = 0.01
    timeout: float = 10.0
    answered: bool = True


@frozen(kw_only=True)
class Count:
    """What became of a flow.

    :ivar lost: sent, but neither answered nor failed: for datagrams those that nobody will ever see.
    :ivar retransmits: segments that the client's TCP sent again.
    :ivar longest_gap: seconds between two answers.
    """

    sent: int
    answered: int
    failed: int
    lost: int
    retransmits: int
    longest_gap: float
    errors: tuple[str, ...]


@frozen(kw_only=True)
class Report:
    """All counts of a traffic. `received` has connections and datagrams that reached servers, by `netns:port/protocol`."""

    flows: dict[str, Count]
    received: dict[str, int]
    retransmits: int

    @property
    def answered(self) -> int:
        return sum(count.answered for count in self.flows.values())

    def __str__(self) -> str:
        rows = [
            f"{name}: {c.answered}/{c.sent} answered, {c.failed} failed, {c.lost} lost, {c.retransmits} sent again, "
            f"longest gap {c.longest_gap * 1000:.0f} ms {' | '.join(c.errors)}".rstrip()
            for name, c in self.flows.items()
        ]
        return "\n".join([*rows, f"servers sent {self.retransmits} segments again"])


class TrafficError(AssertionError):
    """Traffic that did not go as it should."""


class Traffic:
    """Traffic that runs inside `with`, in a process of its own.

    :param servers: namespace and port of echo servers, TCP and UDP, IPv4 and IPv6 each.
    :param cgroup: the cgroup of all sockets; without one, that of the caller.
    """

    def __init__(
        self, *, servers: Iterable[tuple[str, int]], flows: Iterable[Flow], cgroup: Path | None = None
    ) -> None:
        self._servers = list(servers)
        self._cgroup = cgroup
        self._flows = list(flows)
        self._process: subprocess.Popen[str] | None = None
        #: After the end: what became of it.
        self.result: Report | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "axoneme.core.testing.traffic_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            if self._cgroup is not None:
                (self._cgroup / "cgroup.procs").write_text(str(self._process.pid))
            self._order("begin", servers=self._servers, flows=[attrs.asdict(flow) for flow in self._flows])
            self.more(5)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.result = _report(self._order("end"))
        finally:
            self._kill()

    def more(self, answers: int, seconds: float = 30.0) -> None:
        """Waits until every flow that shall be answered got so many more answers.

        :raises TrafficError: when that takes longer than `seconds`.
        """
        if not self._order("wait", answers=answers, seconds=seconds)["done"]:
            raise TrafficError(f"traffic stopped:\n{self.report()}")

    def report(self) -> Report:
        """How it stands."""
        return _report(self._order("report"))

    def check(self) -> Report:
        """After the end: the report. Raises `TrafficError` if anything failed, got lost, or came through that must not."""
        assert self.result is not None, "check comes after the end"
        wrong = [flow.name for flow in self._flows if not _as_expected(flow, self.result)]
        if wrong:
            raise TrafficError(f"{', '.join(wrong)}:\n{self.result}\n{self.result.received}")
        return self.result

    def _order(self, name: str, **arguments: Any) -> Any:
        stdin, stdout = self._pipes()
        stdin.write(json.dumps({"do": name, **arguments}) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline() or '{"error": "the traffic process is gone"}')
        if "error" in answer:
            raise TrafficError(answer["error"])
        return answer

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE)
            for pipe in self._pipes():
                pipe.close()


def _report(answer: dict[str, Any]) -> Report:
    flows = {
        name: Count(**{**count, "errors": tuple(count["errors"])}) for name, count in answer["flows"].items()
    }
    return Report(flows=flows, received=answer["received"], retransmits=answer["retransmits"])


def _as_expected(flow: Flow, report: Report) -> bool:
    count = report.flows[flow.name]
    if flow.answered:
        return count.answered > 0 and count.failed == count.lost == 0
    reached = sum(n for name, n in report.received.items() if f":{flow.port}/" in name)
    return count.answered == reached == 0 < count.sent


def mesh(
    netns: str, addresses: Sequence[str], port: int, *, interval: float = 0.01, name: str = ""
) -> list[Flow]:
    """All kinds of flow from a namespace to each of these addresses."""
    return [
        Flow(
            name=f"{name}{kind.value}{6 if ':' in address else 4}:{port}",
            kind=kind,
            netns=netns,
            address=address,
            port=port,
            interval=interval,
        )
        for address in addresses
        for kind in Kind
    ]


def probes(
    netns: str, addresses: Sequence[str], port: int, *, interval: float = 0.02, name: str = ""
) -> list[Flow]:
    """Flows of which nothing may ever reach a server: short TCP requests and datagrams.

    The port must be one that no other flow uses.
    """
    return [
        attrs.evolve(flow, name=f"denied-{flow.name}", answered=False, timeout=0.25)
        for flow in mesh(netns, addresses, port, interval=interval, name=name)
        if flow.kind in (Kind.REQUEST, Kind.DATAGRAM)
    ]
