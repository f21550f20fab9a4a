"""The figures of services from outside: mean time of the XDP program's run, net of a program that only makes the frame.

The program sends on what it translates, so a frame is good for one run. A stage in front of it writes the client's packet
into the frame anew each time, with another source port where that is wanted; subtracted is a program of that stage alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from figures import Figure
from services import CLIENT, NODE, SERVICES, VIP, fill

from axoneme.core.datapath.composer import Constants
from axoneme.core.datapath.endpoint_maps import words
from axoneme.core.datapath.layout import u32
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.datapath.testrun import run_xdp
from axoneme.core.records import Phase, Runs, Stage
from axoneme.core.testing.datapath import DatapathBench
from axoneme.core.testing.packets import ACK, SYN, TCP, Ethernet, IPv4, build
from axoneme.plugins import lb
from axoneme.plugins.lb import edge
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.maps import specs

RUNS, CHUNK = 50_000, 10_000

_TURN = MapSpec("turn", MapKind.ARRAY, u32, u32, 1)
_FRAME = """
STAGE(frame)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	__be16 *ports = (void *)(ip + 1);
	u32 zero = 0, *turn = turn_lookup(&zero);

	if (!turn || (void *)(ports + 10) > end)
		return TAKEN(XDP_ABORTED);
	ip->saddr = be32(BENCH_CLIENT) + ((*turn >> 14) << 24);
	ip->daddr = be32(BENCH_VIP);
	ip->ttl = 64;
	ports[0] = __builtin_bswap16(2000 + (*turn & 16383));
	ports[1] = be16(80);
	*turn += BENCH_STEP;
	return %s;
}
"""


@contextmanager
def _made(step: int, *, whole: bool = True, services: int = 1) -> Iterator[DatapathBench]:
    """A node with one device; with `whole` the production stages behind the frame's."""
    config = LbConfig()
    defines = {"BENCH_CLIENT": words(CLIENT)[0], "BENCH_VIP": words(VIP)[0], "BENCH_STEP": step}
    body = _FRAME % ("NEXT" if whole else "TAKEN(XDP_TX)")
    frame = Stage(
        name="frame", source=body, attach=("xdp_network",), phase=Phase.CLASSIFY, runs=Runs.EVERY,
        maps=("turn",), defines=defines,
    )  # fmt: skip
    stages = [("bench", frame), *(("lb", stage) for stage in edge.stages(config) if whole)]
    with DatapathBench(
        stages,
        [_TURN, *specs(config.sizes)],
        constants=Constants(direct_routing=True),
        reasons=lb.axoneme_drop_reasons(),
        connections=524_288,
    ) as bench:
        device = bench.link("uplink")
        bench.inside(lambda: _connect(device))
        bench.map("lb_addresses4").update(device, {"a": words(NODE)})
        fill(bench, services)
        yield bench


def _connect(device: int) -> None:
    from pyroute2 import IPRoute

    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # of the bench's own namespace
    with IPRoute() as route:
        route.addr("add", index=device, address=str(NODE), prefixlen=24)
        route.neigh("add", dst="198.51.100.1", lladdr="02:00:00:00:01:01", ifindex=device, state=0x80)
        route.route("add", dst="default", gateway="198.51.100.1")


def _mean(bench: DatapathBench, flags: int, before: Callable[[], None] = lambda: None) -> float:
    frame = build(Ethernet(), IPv4(str(CLIENT), str(VIP)), TCP(40000, 80, flags=flags), b"payload")
    program, device = bench.program("xdp_network").main, bench.link("uplink")

    def chunk() -> int:
        done = run_xdp(program, frame, repeat=CHUNK, ingress_ifindex=device)
        if done.verdict != 3:  # XDP_TX
            raise RuntimeError(f"the bench's frame ended as {done.verdict}, not sent on")
        return done.duration

    total = 0
    for _ in range(RUNS // CHUNK):
        before()
        total += bench.inside(chunk)
    return total / (RUNS // CHUNK)


def _rounds(
    rounds: int, step: int, flags: int, services: int, opened: Callable[[DatapathBench], None]
) -> list[float]:
    with _made(step, services=services) as bench, _made(step, whole=False) as empty:
        opened(bench)

        def before() -> None:
            if step:  # what the last chunk opened, outside of the time
                bench.map("connections4").clear()
                bench.ring.read()

        def one() -> float:
            return _mean(bench, flags, before) - _mean(empty, flags)

        one()  # warms caches
        return [one() for _ in range(rounds)]


def established(services: int) -> Callable[[int], Sequence[float]]:
    """One live connection from outside to a backend elsewhere, its packets one after the other."""

    def open_one(bench: DatapathBench) -> None:
        frame = build(Ethernet(), IPv4(str(CLIENT), str(VIP)), TCP(2000, 80, flags=SYN))
        program, device = bench.program("xdp_network").main, bench.link("uplink")
        bench.inside(lambda: run_xdp(program, frame, ingress_ifindex=device))

    return lambda rounds: _rounds(rounds, 0, ACK, services, open_one)


def first(services: int) -> Callable[[int], Sequence[float]]:
    """Each frame opens a connection: Maglev, route, port, two entries, an event."""
    return lambda rounds: _rounds(rounds, 1, SYN, services, lambda bench: None)


def figures() -> list[Figure]:
    def figure(name: str, limit: float, what: str, measure: Callable[[int], Sequence[float]]) -> Figure:
        return Figure(name=f"lb.xdp.{name}", unit="ns", limit=limit, what=what, measure=measure)

    many = f"the same, {SERVICES:,} services"
    return [
        figure("established", 250, "XDP, SNAT, established", established(1)),
        figure("established.20k", 312, many, established(SERVICES)),
        figure("first", 1500, "XDP, first SYN, Maglev", first(1)),
        figure("first.20k", 1875, many, first(SERVICES)),
    ]
