"""From an assembly of plugins to a loaded build; a plugin whose code cannot be loaded fails, and the others go on without it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from axoneme.core.contributions import CORE
from axoneme.core.errors import AxonemeError
from axoneme.core.lifecycle import Assembly, blamed

if TYPE_CHECKING:
    from axoneme.core.contributions import Contributions
    from axoneme.core.datapath.build import Blueprint, Build
    from axoneme.core.datapath.datapath import Datapath


async def build(
    datapath: Datapath, assembly: Assembly, tolerated: Collection[str] | None = None
) -> tuple[Assembly, Build]:
    """Compiles and loads. Returns the assembly without the plugins that failed by it.

    :param tolerated: only these may fail that way; None for all.
    :raises AxonemeError: when another one is to blame, or nobody.
    """
    while True:
        try:
            return assembly, await datapath.build(_blueprint(datapath, assembly.contributions))
        except AxonemeError as error:
            named = blamed(error, assembly.manager.enabled)
            names = [named] if named is not None else await _suspects(datapath, assembly)
            if not names or (tolerated is not None and not set(names) <= set(tolerated)):
                raise
            for name in names:
                assembly.manager.fail(name, error)
            assembly = assembly.without_failed()


def _blueprint(datapath: Datapath, given: Contributions) -> Blueprint:
    return datapath.blueprint(
        [(p.plugin, p.record) for p in given.stages],
        [p.record for p in given.maps if p.plugin != CORE],
        [p.record for p in given.drop_reasons if p.plugin != CORE],
    )


async def _suspects(datapath: Datapath, assembly: Assembly) -> list[str]:
    """The plugins without which the programs can be built, when no error says whose fault it is.

    A stage may use up the stack that all share, and then the error is about somebody else's line. Required plugins are
    not suspected: without them the agent would not start anyway.
    """
    enabled, manager = assembly.manager.enabled, assembly.manager
    with_stages = {provided.plugin for provided in assembly.contributions.stages}
    optional = [name for name in enabled if name in with_stages and not manager.is_required(name)]
    for suspects in (*([name] for name in optional), optional):
        rest = assembly.contributions.only(name for name in enabled if name not in suspects)
        try:
            made = await datapath.build(_blueprint(datapath, rest))
        except AxonemeError:
            continue
        made.close(keep=datapath.active)
        return suspects
    return []
