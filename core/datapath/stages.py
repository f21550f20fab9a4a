"""From the stages that plugins registered to the order in which they run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from axoneme.core.datapath.composer import PlacedStage
from axoneme.core.errors import PluginError
from axoneme.core.order import Constraints, arrange
from axoneme.core.records import Phase, Stage


def place(stages: Iterable[tuple[str, Stage]]) -> list[PlacedStage]:
    """All stages with their text, phase by phase, within a phase as `before` and `after` say, then by name.

    :param stages: pairs of the plugin's name and its stage.
    :raises PluginError: when a source cannot be read.
    :raises OrderError: when the constraints of a phase contradict each other.
    """
    placed = [_read(plugin, stage) for plugin, stage in stages]
    return [
        each
        for phase in Phase
        for each in arrange((p for p in placed if p.stage.phase is phase), _constraints, what="stage")
    ]


def _constraints(placed: PlacedStage) -> Constraints:
    return Constraints(name=placed.name, before=placed.stage.before, after=placed.stage.after)


def _read(plugin: str, stage: Stage) -> PlacedStage:
    if isinstance(stage.source, str):
        return PlacedStage(plugin=plugin, stage=stage, file=f"{plugin}/{stage.name}", text=stage.source)
    try:
        text = stage.source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(
            f"plugin {plugin}: stage {stage.name}: {stage.source} cannot be read: {error}"
        ) from error
    return PlacedStage(plugin=plugin, stage=stage, file=_shown(plugin, stage.source), text=text)


def _shown(plugin: str, source: Path) -> str:
    """How messages name the file: below the plugin's folder, whatever machine it was installed on.

    Not the absolute path: the composed text, and so its digest, must be the same on every machine.
    """
    parts = source.parts
    return "/".join((plugin, *parts[-2:])) if len(parts) > 1 else f"{plugin}/{source.name}"
