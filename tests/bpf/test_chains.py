"""Attach points that are plain chains of stages: they load, and those that can be run give what a stage says."""

from __future__ import annotations

import asyncio

import pytest

from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.layout import u32
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.datapath.testrun import run_skb, run_xdp
from axoneme.core.records import Phase, Stage
from axoneme.core.testing.datapath import DatapathBench
from axoneme.core.testing.packets import ARP, UDP, Ethernet, IPv4, IPv6, build

pytestmark = pytest.mark.kernel

FRAME = build(Ethernet(), IPv4(), UDP(), b"data")
SWITCH = MapSpec("switch", MapKind.ARRAY, u32, u32, 1)
CHAINS = [name for name, point in ATTACH_POINTS.items() if not point.packets]


def chain(point: str, *bodies: str) -> DatapathBench:
    stages = [
        (
            "test",
            Stage(name=f"stage{number}", source=f"STAGE(stage{number})\n{{\n{body}\n}}\n", attach=(point,),
                  phase=Phase.TRANSLATE, maps=("switch",)),
        )
        for number, body in enumerate(bodies)
    ]  # fmt: skip
    return DatapathBench(stages, [SWITCH])


@pytest.mark.parametrize("point", CHAINS)
def test_empty_chains_load(point: str) -> None:
    with chain(point) as bench:
        assert bench.program(point).main.info.type is ATTACH_POINTS[point].program


#: A body that reads the context and a map, per kind of context.
BODIES = {
    "xdp_md": "\tvoid *data = (void *)(long)ctx->data;\n\n\treturn data + 14 > (void *)(long)ctx->data_end ? TAKEN(1) : NEXT;",
    "bpf_sock_addr": "\tif (ctx->user_port == be16(80))\n\t\tctx->user_port = be16(8080);\n\treturn NEXT;",
    "bpf_sk_lookup": "\treturn ctx->local_port == 53 ? TAKEN(0) : NEXT;",
    "__sk_buff": "\treturn ctx->len > 1500 ? TAKEN(0) : NEXT;",
}


@pytest.mark.parametrize("point", CHAINS)
def test_stages_load_everywhere(point: str) -> None:
    switch = "\tu32 zero = 0;\n\tu32 *on = switch_lookup(&zero);\n\n\treturn on && *on ? TAKEN(1) : NEXT;"
    body = BODIES[ATTACH_POINTS[point].context]
    if "recvmsg" in point or "getpeername" in point:  # these may only answer 1
        body, switch = "\treturn NEXT;", switch
    with chain(point, body, switch) as bench:
        bench.program(point)


def test_xdp_answers_what_a_stage_says() -> None:
    switch = "\tu32 zero = 0;\n\tu32 *on = switch_lookup(&zero);\n\n\treturn on && *on ? TAKEN(*on) : NEXT;"
    with chain("xdp_network", switch, "\treturn TAKEN(XDP_DROP);") as bench:
        program = bench.program("xdp_network").main
        assert run_xdp(program, FRAME).verdict == 1, "the second stage"
        bench.map("switch").update(0, 3)
        assert run_xdp(program, FRAME).verdict == 3, "the first"


def test_xdp_stages_exist_per_family() -> None:
    body = "\tstruct F(tuple) there = {}, back;\n\n\tthere.sport = 1;\n\tF(reverse)(&back, &there);\n\treturn back.dport ? TAKEN(FAMILY) : NEXT;"
    with chain("xdp_network", body) as bench:
        program = bench.program("xdp_network").main
        assert run_xdp(program, FRAME).verdict == 4
        assert run_xdp(program, build(Ethernet(), IPv6(), UDP(), b"data")).verdict == 6
        assert run_xdp(program, build(Ethernet(), ARP())).verdict == 2, "neither: as if there were no chain"


def test_a_chain_without_an_opinion_lets_pass() -> None:
    with chain("xdp_network", "\treturn NEXT;") as bench:
        assert run_xdp(bench.program("xdp_network").main, FRAME).verdict == 2
    with chain("cgroup_egress", "\treturn NEXT;") as bench:
        assert run_skb(bench.program("cgroup_egress").main, FRAME).verdict == 1


def test_compositions_of_chains_are_the_same_every_time() -> None:
    with chain("sock_connect4", BODIES["bpf_sock_addr"]) as bench:
        assert bench.compose("sock_connect4") == bench.compose("sock_connect4")
        asyncio.run(bench.compiler.compile([bench.compose("sock_connect4")]))
