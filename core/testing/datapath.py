"""Runs the real programs on made packets: compose, compile, load, `BPF_PROG_TEST_RUN`. No interface carries anything.

    with DatapathBench() as bench:
        bench.workload(1, "a", ipv4="10.0.0.1", identity=256)
        bench.workload(2, "b", ipv4="10.0.0.2", identity=257)
        outcome = bench.run("from_workload", frame, sender="a")
        assert outcome.action == Action.REDIRECT

The bench has a network namespace of its own, because the kernel wants the interface that a packet came in by to exist.
Programs come from the compile cache of the user who runs the tests, so that only the first run compiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import enum
import ipaddress
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from attrs import frozen

from axoneme.core.datapath import abi
from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.cache import Cache
from axoneme.core.datapath.compiler import Compiler
from axoneme.core.datapath.composer import Composition, Constants, compose
from axoneme.core.datapath.loader import LoadedProgram, load
from axoneme.core.datapath.maps import Map, MapSpec
from axoneme.core.datapath.reasons import REASONS
from axoneme.core.datapath.ring import RingReader
from axoneme.core.datapath.slots import allocate
from axoneme.core.datapath.stages import place
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.datapath.tables import maps_of_translation
from axoneme.core.datapath.testrun import Outcome as TestOutcome
from axoneme.core.datapath.testrun import run_skb
from axoneme.core.records import DropReason, Stage

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


class Action(enum.IntEnum):
    """What a classifier returned (`linux/pkt_cls.h`)."""

    PASS = -1
    OK = 0
    SHOT = 2
    REDIRECT = 7


@frozen(kw_only=True)
class Outcome:
    """What became of a packet.

    :ivar frame: its bytes afterwards.
    :ivar events: the records that the program wrote.
    :ivar mark: the packet's mark afterwards.
    """

    action: Action
    frame: bytes
    events: np.ndarray[Any, Any]
    mark: int = 0

    @property
    def reason(self) -> str | None:
        """The name of the drop reason in the events, if there is one."""
        names = {reason.number: reason.name for reason in REASONS}
        drops = [int(event["reason"]) for event in self.events if event["type"] == abi.EventType.DROP]
        return names.get(drops[-1], str(drops[-1])) if drops else None


class _NamespaceThread:
    """A thread in a network namespace of its own; the namespace goes with it."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._serve, name="datapath-bench", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.unshare(_CLONE_NEWNET) and OSError(ctypes.get_errno(), "unshare")
        while (item := self._work.get()) is not None:
            function, answer = item
            try:
                if failed:
                    raise failed
                answer.put((function(), None))
            except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
                answer.put((None, error))

    def __call__(self, function: Callable[[], T]) -> T:
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._work.put((function, answer))
        result, error = answer.get()
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        self._work.put(None)
        self._thread.join()


class DatapathBench:
    """The maps of a datapath, its programs, and made-up workloads.

    :param stages: `(plugin, stage)` pairs to compose in; their maps are in `maps`.
    :param cuts: after which steps packet programs are cut into tail calls.
    """

    def __init__(
        self,
        stages: Iterable[tuple[str, Stage]] = (),
        maps: Iterable[MapSpec] = (),
        *,
        constants: Constants | None = None,
        reasons: Iterable[DropReason] = (),
        connections: int = 4096,
        events: int = 1 << 20,
        cuts: Iterable[str] = (),
        cache: Path | None = None,
    ) -> None:
        self.kernel = SyscallKernel()
        self.constants = constants or Constants(gateway4=_word("169.254.1.1")[0], gateway6=_words6("fe80::1"))
        pairs = list(stages)
        self.stages = place(pairs)
        self.slots = allocate(pairs)
        self.reasons = (*REASONS, *reasons)
        self.cuts = frozenset(cuts)
        sizes = {"connections": connections, "endpoints": 1024, "ipcache": 65536, "events": events}
        specs = [*abi.core_maps(**sizes, cpus=self.kernel.possible_cpus), *maps]
        specs += maps_of_translation(stage for _, stage in pairs)
        self.specs: Mapping[str, MapSpec] = {spec.name: spec for spec in specs}
        self.compiler = Compiler(Cache(cache or program_cache()))
        self._resources = contextlib.ExitStack()
        self._maps: dict[str, Map] = {}
        self._programs: dict[str, LoadedProgram] = {}
        self._links: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.inside = _NamespaceThread()
        self._resources.callback(self.inside.close)
        for name, spec in self.specs.items():
            self._maps[name] = self._resources.enter_context(Map.create(self.kernel, spec))
        self.ring = RingReader(self.map("events"), abi.EVENT)
        self._resources.callback(self.ring.close)
        self.revision = 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for loaded in self._programs.values():
            loaded.close()
        self._resources.close()

    def map(self, name: str) -> Map:
        return self._maps[name]

    @property
    def revision(self) -> int:
        return int(self.map("runtime").lookup(0)["revision"])

    @revision.setter
    def revision(self, value: int) -> None:
        self.map("runtime").update(0, {"revision": value})

    def compose(self, point: str) -> Composition:
        here = [placed for placed in self.stages if point in placed.stage.attach]
        return compose(
            ATTACH_POINTS[point],
            here,
            self.specs,
            constants=self.constants,
            reasons=self.reasons,
            cuts=self.cuts,
            slots=self.slots,
        )

    def program(self, point: str) -> LoadedProgram:
        """The attach point's program, composed and loaded on first use."""
        if point not in self._programs:
            self._programs[point] = asyncio.run(self._load(self.compose(point)))
        return self._programs[point]

    async def _load(self, composition: Composition) -> LoadedProgram:
        for spec in composition.tokens.values():
            if spec.name not in self._maps:  # of its own tail calls
                self._maps[spec.name] = self._resources.enter_context(Map.create(self.kernel, spec))
        bytecode = (await self.compiler.compile([composition]))[0]
        return await load(self.kernel, composition, bytecode, self._maps, self.compiler)

    def link(self, name: str) -> int:
        """The index of a made interface of that name."""
        if name not in self._links:
            self._links[name] = self.inside(lambda: _make_link(name))
        return self._links[name]

    def workload(
        self, number: int, name: str, *, identity: int, ipv4: str | None = None, ipv6: str | None = None
    ) -> dict[str, Any]:
        """Enters a workload of this node; returns the endpoint's values."""
        row = {
            "ifindex": self.link(name), "identity": identity, "id": number,
            "mac": bytes([2, 0, 0, 0, 0, number]), "node_mac": bytes([6, 0, 0, 0, 0, number]),
        }  # fmt: skip
        if ipv4:
            self.map("endpoints4").update({"a": _word(ipv4)}, row)
        if ipv6:
            self.map("endpoints6").update({"a": _words6(ipv6)}, row)
        self.map("links").update(row["ifindex"], row)
        return row

    def ipcache(self, prefix: str, identity: int) -> None:
        network = ipaddress.ip_network(prefix)
        words = (
            _words6(str(network.network_address))
            if network.version == 6
            else _word(str(network.network_address))
        )
        key = {"length": network.prefixlen, "address": {"a": words}}
        self.map(f"ipcache{network.version}").update(key, {"identity": identity})

    def run(
        self, point: str, frame: bytes, *, sender: str | int = 1, repeat: int = 1, **context: Any
    ) -> Outcome:
        """One packet through one program.

        :param sender: a workload's name, or an interface index: where the program is attached.
        :param context: further fields of `struct __sk_buff`, such as `mark` and `ingress_ifindex`, where it came in.
        """
        self.ring.read()
        done = self._run(point, frame, sender, repeat, **context)
        return Outcome(
            action=Action(done.verdict),
            frame=done.packet,
            events=self.ring.read(),
            mark=int(done.context["mark"]),
        )

    def time(self, point: str, frame: bytes, *, sender: str | int = 1, repeat: int = 1_000_000) -> int:
        """The mean time of a run in ns."""
        return self._run(point, frame, sender, repeat).duration

    def _run(self, point: str, frame: bytes, sender: str | int, repeat: int, **context: Any) -> TestOutcome:
        ifindex = self.link(sender) if isinstance(sender, str) else sender
        program = self.program(point).main
        return self.inside(lambda: run_skb(program, frame, repeat=repeat, ifindex=ifindex, **context))


def _make_link(name: str) -> int:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        route.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}-peer"})
        index = socket.if_nametoindex(name)
        route.link("set", index=index, state="up")
        route.link("set", index=socket.if_nametoindex(f"{name}-peer"), state="up")
    return index


def _word(address: str) -> list[int]:
    return [int(ipaddress.IPv4Address(address))]


def _words6(address: str) -> tuple[int, int, int, int]:
    number = int(ipaddress.IPv6Address(address))
    a, b, c, d = ((number >> shift) & 0xFFFFFFFF for shift in (96, 64, 32, 0))
    return a, b, c, d


def program_cache() -> Path:
    """Where compiled programs of tests and benchmarks are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "axoneme", "programs")
