"""The node's edge: the stages between workloads or services and what is beyond the node's devices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from axoneme.core.records import Phase, Runs, Stage
from axoneme.plugins.lb.programs import numbers, text

if TYPE_CHECKING:
    from axoneme.plugins.lb.config import LbConfig

_STAGES = Path(__file__).parent / "stages"


def stages(config: LbConfig) -> Iterable[Stage]:
    """The edge's stages. They are what automatic devices are for (`Stage.devices`); without devices they run nowhere."""
    if config.xdp:
        yield _xdp(config)
    yield _masquerade(config)


def _xdp(config: LbConfig) -> Stage:
    return Stage(
        name="edge",
        source=text("choose.h", "choose_packet.h", "direct.h", "xdp.c"),
        attach=("xdp_network",),
        phase=Phase.TRANSLATE,
        runs=Runs.EVERY,
        defines=numbers() | {"HASH_SEED": config.hash_seed},
        devices=True,
    )


def _masquerade(config: LbConfig) -> Stage:
    return Stage(
        name="masquerade",
        source=_STAGES / "masquerade.c",
        attach=("from_workload", "from_network"),
        phase=Phase.REDIRECT,
        runs=Runs.FIRST,
        maps=("lb_addresses4", "lb_addresses6", "lb_native4", "lb_native6"),
        defines={"MASQUERADE": int(config.masquerade)},
        devices=True,
    )
