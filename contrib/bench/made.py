"""The bench's datapath: two enforced workloads, tables of a believable size, and the programs around the real ones."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from axoneme.core.datapath import abi, asm
from axoneme.core.datapath.attach import AttachPoint
from axoneme.core.datapath.composer import Constants, compose
from axoneme.core.datapath.kernel import Program, ProgramAttributes
from axoneme.core.datapath.layout import u32, u64
from axoneme.core.datapath.loader import load
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.datapath.stages import place
from axoneme.core.datapath.testrun import run_skb
from axoneme.core.datapath.uapi import AttachType, ProgramType
from axoneme.core.records import DropReason, Phase, Runs, Stage
from axoneme.core.settings import Settings
from axoneme.core.testing.datapath import DatapathBench
from axoneme.core.testing.packets import TCP, Ethernet, IPv4, build
from axoneme.plugins.policy import maps as policy_maps
from axoneme.plugins.policy.blocks import EVERYTHING
from axoneme.plugins.policy.model import Auth
from axoneme.plugins.policy.tables import Action, Flag, SubjectEntry, VerdictValue

#: As many live connections as `datapath.established.local.65k` rotates through.
CONNECTIONS = 65_000

#: Test-runs repeat on one packet, and each delivery takes one from its TTL. At 1 the program would hand it to the stack.
CHUNK = 250

CLIENT, SERVER, STRANGER, WORLD = "10.244.0.1", "10.244.0.2", "10.244.0.3", "192.0.2.1"
#: Who may be talked to: the world and others, but not the stranger.
_IDENTITIES = (2, 256, 257, *range(259, 512))
_POLICIES = (1001, 1002, 1003)

#: Source ports follow each other at this distance, modulo CONNECTIONS: no common factor, and no locality.
_STRIDE = 40503

#: The next of CONNECTIONS source ports.
_TURN = f"""
INLINE u32 LOCAL(turn)(void)
{{
	u32 mine = COUNTER;
	u64 *turn = bench_turns_lookup(&mine);

	return turn ? 1 + (u32)((*turn)++ * {_STRIDE} % {CONNECTIONS}) : 0;
}}
"""
_ROTATE = _TURN + "STAGE(rotate)\n{\n\tp->tuple.sport = be16(LOCAL(turn)());\n\treturn NEXT;\n}\n"
_ROTATE_ONLY = _TURN + "STAGE(rotate)\n{\n\tctx->mark = be16(LOCAL(turn)());\n\treturn NEXT;\n}\n"

#: How often each of the two programs took a turn.
_TURNS = MapSpec("bench_turns", MapKind.PERCPU_ARRAY, u32, u64, 2)

#: A classifier without any of the shared packet path.
_BARE = AttachPoint(
    name="bare", program=ProgramType.SCHED_CLS, attach=AttachType.TCX_INGRESS, context="__sk_buff", default=0
)


def _decide() -> tuple[str, Stage]:
    import axoneme.plugins.policy

    source = Path(axoneme.plugins.policy.__path__[0], "stages", "decide.c")
    names = ("policy_subjects", "policy_peers", "policy_verdicts")
    return "policy", Stage(
        name="decide", source=source, attach=("from_workload",), phase=Phase.DECIDE, maps=names,
        defines={"AUTH_DISABLED": int(Auth.DISABLED)},
    )  # fmt: skip


def _rotating(source: str, attach: str, counter: int) -> tuple[str, Stage]:
    return "bench", Stage(
        name="rotate", source=source, attach=(attach,), phase=Phase.CLASSIFY, runs=Runs.EVERY,
        maps=("bench_turns",), defines={"COUNTER": counter},
    )  # fmt: skip


class MadeDatapath(DatapathBench):
    """The shared C with the policy plugin's stage, maps of the default sizes, and three workloads under policy.

    :param rotating: a stage after `classify` gives each packet the next of `CONNECTIONS` source ports. It changes the
        parsed tuple only, so one frame stands for all connections.
    :param stages: further ones, with their `maps`.
    """

    def __init__(
        self,
        *,
        rotating: bool = False,
        direct_routing: bool = False,
        stages: Iterable[tuple[str, Stage]] = (),
        maps: Iterable[MapSpec] = (),
        reasons: Iterable[DropReason] = (),
    ) -> None:
        settings = Settings().datapath
        rotation = [_rotating(_ROTATE, "from_workload", 0)] if rotating else []
        super().__init__(
            [_decide(), *rotation, *stages],
            [*policy_maps.specs(16384, 65536), _TURNS, *maps],
            reasons=reasons,
            constants=Constants(direct_routing=direct_routing),
            connections=settings.conntrack_entries,
            events=settings.event_buffer,
        )
        self._rotating = rotating

    def prepare(self) -> None:
        """Fills the tables and loads the programs."""
        for number, address in enumerate((CLIENT, SERVER, STRANGER), 1):
            self.workload(number, f"w{number}", identity=255 + number, ipv4=address)
        self._enforce()
        self.client = self.link("w1")
        self.real = self.program("from_workload").main
        self.empty = self._rotate_only() if self._rotating else self._empty()

    def _enforce(self) -> None:
        """Both directions of every workload are enforced; client and server allow port 80 of each other, no more."""
        tables = policy_maps.PolicyMaps(
            *(self.map(name) for name in ("policy_subjects", "policy_peers", "policy_verdicts"))
        )
        deny = VerdictValue(Action.DENY, 0, 0, 0, 0)
        allow = VerdictValue(Action.ALLOW, 0, 0, 7, 0)
        flags = Flag.COMPUTED | Flag.EGRESS_ENFORCED | Flag.INGRESS_ENFORCED
        classes = {
            policy: {identity: 5000 + policy * 8 + identity % 8 for identity in _IDENTITIES}
            for policy in _POLICIES
        }
        ports = {(6, 16, port): allow for port in (80, 443, 8080, 9090)}
        tables.add_verdicts({each: {EVERYTHING: deny} for each in _POLICIES})
        used = {each for rows in classes.values() for each in rows.values()}
        tables.add_verdicts({each: {EVERYTHING: deny, **ports} for each in used})
        tables.set_peers(classes)
        tables.set_subjects({n: SubjectEntry(p, p, flags) for n, p in enumerate(_POLICIES, 1)})

    def _empty(self) -> Program:
        attributes = ProgramAttributes(
            type=ProgramType.SCHED_CLS, name="empty", instructions=asm.returning(0)
        )
        return Program.load(self.kernel, attributes)

    def _rotate_only(self) -> Program:
        """What the rotation itself costs: an empty program with nothing else in it."""
        stages = place([_rotating(_ROTATE_ONLY, "bare", 1)])
        composition = compose(_BARE, stages, self.specs, constants=self.constants, reasons=self.reasons)

        async def loaded() -> Program:
            bytecode = (await self.compiler.compile([composition]))[0]
            return (await load(self.kernel, composition, bytecode, self._maps, self.compiler)).main

        return asyncio.run(loaded())

    def mean(
        self, program: Program, frame: bytes, runs: int, *, chunk: int, before: Callable[[], object]
    ) -> float:
        """Nanoseconds per run, the kernel's loop included. `before` is called before each chunk, outside the time."""

        def work() -> float:
            total = 0
            for _ in range(runs // chunk):
                before()
                total += run_skb(program, frame, repeat=chunk, ifindex=self.client).duration
            return total * chunk / runs

        return self.inside(work)

    def net(
        self, frame: bytes, *, runs: int, chunk: int = CHUNK, before: Callable[[], object] = lambda: None
    ) -> float:
        """One round: nanoseconds per run net of the empty program, both in turns so that both see the same machine."""
        slices = 10
        real = empty = 0.0
        for _ in range(slices):
            real += self.mean(self.real, frame, runs // slices, chunk=chunk, before=before)
            empty += self.mean(self.empty, frame, runs // slices, chunk=chunk, before=lambda: None)
        return (real - empty) / slices

    def forget(self, turn: int, count: int) -> None:
        """Deletes both entries of the connections that the program with the rotation opened in these turns."""
        ports = 1 + np.arange(turn, turn + count, dtype=np.uint64) * _STRIDE % CONNECTIONS
        keys = abi.TUPLE[4].array(2 * count)
        there, back = keys[:count], keys[count:]
        client, server = (int(ipaddress.IPv4Address(address)) for address in (CLIENT, SERVER))
        there["saddr"]["a"] = back["daddr"]["a"] = client
        there["daddr"]["a"] = back["saddr"]["a"] = server
        there["sport"] = back["dport"] = ports
        there["dport"] = back["sport"] = 80
        keys["protocol"] = 6
        if (deleted := self.map("connections4").delete_batch(keys)) != len(keys):
            raise RuntimeError(f"{count} first packets made {deleted} entries")

    def lost_events(self) -> int:
        return int(self.map("counters").lookup(0)["packets"].sum())

    @contextlib.contextmanager
    def reader(self) -> Iterator[None]:
        """Somebody drains the ring meanwhile, on another CPU if there is one."""
        ring = self.map("events")
        command = [
            sys.executable,
            str(Path(__file__).with_name("reader.py")),
            str(ring.fd),
            str(ring.spec.max_entries),
        ]
        process = subprocess.Popen(command, pass_fds=[ring.fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.communicate()


@contextlib.contextmanager
def made(*, rotating: bool = False, direct_routing: bool = False) -> Iterator[MadeDatapath]:
    """Pinned to one CPU: the programs' per-CPU data stays where it is, and the reader has another one."""
    allowed = os.sched_getaffinity(0)
    with MadeDatapath(rotating=rotating, direct_routing=direct_routing) as bench:
        bench.prepare()
        bench.inside(lambda: os.sched_setaffinity(0, {min(allowed)}))
        yield bench


def tcp(flags: int, destination: str = SERVER, port: int = 80) -> bytes:
    return build(
        Ethernet("06:00:00:00:00:01", "02:00:00:00:00:01"),
        IPv4(CLIENT, destination, ttl=255),
        TCP(40000, port, flags=flags),
        b"x" * 64,
    )


def each_connection(bench: MadeDatapath, frame: bytes, count: int = CONNECTIONS) -> Iterable[int]:
    """Sends the frame once over each of the first `count` connections."""
    return [bench.inside(lambda: run_skb(bench.real, frame, repeat=CHUNK, ifindex=bench.client)).verdict
            for _ in range(count // CHUNK)]  # fmt: skip
