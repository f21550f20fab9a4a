"""Builds a datapath: from what plugins registered to programs in the kernel that nothing runs yet.

Nothing here touches what runs. A build that fails leaves no trace; one that succeeds is activated, or discarded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from attrs import field, frozen

from axoneme.core import logs
from axoneme.core.datapath.attach import ATTACH_POINTS, AttachPoint
from axoneme.core.datapath.compiler import Bytecode, Compiler
from axoneme.core.datapath.composer import Composition, Constants, PlacedStage, compose
from axoneme.core.datapath.kernel import Program
from axoneme.core.datapath.loader import LoadedProgram, load
from axoneme.core.datapath.maps import Map, MapSpec
from axoneme.core.datapath.packet_program import CUTS
from axoneme.core.datapath.pins import Pins
from axoneme.core.datapath.slots import allocate
from axoneme.core.datapath.stages import place
from axoneme.core.datapath.uplinks import DEVICE_POINTS
from axoneme.core.errors import PluginError, VerifierError
from axoneme.core.records import DropReason, Stage
from axoneme.core.settings import DatapathSettings, Strategy

_log = logs.get(__name__)

#: Where a program that is too large is cut: before decisions, so that the established path stays in one piece.
_CUTS = frozenset({"track", "authenticate", "encrypt"})
assert set(CUTS) >= _CUTS

#: The cost of a program that the verifier refuses to walk to its end (its own limit is a million).
_ENDLESS = 1_000_000

_TOO_LARGE = ("too large", "too many instructions", "sequence of", "combined stack size")


@frozen(kw_only=True)
class Blueprint:
    """Everything that decides which programs there are.

    :param stages: pairs of plugin name and stage.
    :param maps: all declared maps, the core's included.
    """

    stages: tuple[tuple[str, Stage], ...]
    maps: tuple[MapSpec, ...]
    reasons: tuple[DropReason, ...]
    constants: Constants

    @property
    def maps_by_name(self) -> dict[str, MapSpec]:
        return {spec.name: spec for spec in self.maps}


@frozen(kw_only=True, eq=False)
class Build:
    """Open maps and loaded programs.

    :ivar programs: by attach point; points that nothing uses have none.
    """

    blueprint: Blueprint
    maps: Mapping[str, Map]
    programs: Mapping[str, LoadedProgram]
    placed: tuple[PlacedStage, ...] = field(default=())

    @property
    def digests(self) -> dict[str, str]:
        return {point: loaded.composition.digest for point, loaded in self.programs.items()}

    def close(self, *, keep: Build | None = None) -> None:
        """Gives all descriptors back, except of what `keep` also holds. What is pinned stays."""
        kept = {id(each) for each in (*keep.maps.values(), *keep.programs.values())} if keep else set()
        owned: list[LoadedProgram | Map] = [*self.programs.values(), *self.maps.values()]
        for each in owned:
            if id(each) not in kept:
                each.close()


class Builder:
    """Makes builds.

    :param points: names of the attach points that are always wanted; others only with a stage.
    """

    def __init__(
        self, pins: Pins, compiler: Compiler, settings: DatapathSettings, *, points: Iterable[str]
    ) -> None:
        self._pins = pins
        self._kernel = pins.kernel
        self._compiler = compiler
        self._settings = settings
        self._points = tuple(points)

    async def build(self, blueprint: Blueprint, current: Build | None = None) -> Build:
        """Opens the maps and loads the programs of `blueprint`; takes over from `current` what stays the same.

        :raises PluginError: stages that do not fit together.
        :raises CompileError: naming plugin file and line.
        :raises VerifierError: naming plugin file and line.
        """
        placed = tuple(place(blueprint.stages))
        points = self._wanted(placed, devices=blueprint.constants.direct_routing)
        with ExitStack() as undo:
            maps = self._open_maps(blueprint.maps_by_name, current, undo)
            programs = await self._programs(blueprint, points, placed, maps, current, undo)
            undo.pop_all()
        return Build(blueprint=blueprint, maps=maps, programs=programs, placed=placed)

    def _wanted(self, placed: Iterable[PlacedStage], *, devices: bool) -> list[AttachPoint]:
        with_stages = {name for each in placed for name in each.stage.attach}
        for name in with_stages:
            if name not in ATTACH_POINTS:
                raise PluginError(
                    f"there is no attach point {name!r}", hint=f"there are {', '.join(ATTACH_POINTS)}"
                )
        wanted = {*self._points, *(with_stages if devices else with_stages - DEVICE_POINTS)}
        return [point for name, point in ATTACH_POINTS.items() if name in wanted]

    def _open_maps(
        self, specs: Mapping[str, MapSpec], current: Build | None, undo: ExitStack
    ) -> dict[str, Map]:
        maps: dict[str, Map] = {}
        for name, spec in specs.items():
            known = current.maps.get(name) if current else None
            if known is not None and known.spec == spec:
                maps[name] = known
                continue
            maps[name] = self._pins.open_map(spec)
            undo.callback(maps[name].close)
        return maps

    async def _programs(
        self,
        blueprint: Blueprint,
        points: Iterable[AttachPoint],
        placed: tuple[PlacedStage, ...],
        maps: dict[str, Map],
        current: Build | None,
        undo: ExitStack,
    ) -> dict[str, LoadedProgram]:
        programs: dict[str, LoadedProgram] = {}
        missing: list[Composition] = []
        for point in points:
            composition = self._compose_fitting(blueprint, point, placed)
            known = self._known(composition, maps, current, undo)
            if known is None:
                missing.append(composition)
            else:
                programs[point.name] = known
        compiled = zip(missing, await self._compiler.compile(missing), strict=True)
        # Side by side: the verifier takes longer than all else in a start, and each program needs but one CPU.
        loaded = await asyncio.gather(
            *(self._load_fitting(blueprint, placed, each, code, maps, undo) for each, code in compiled),
            return_exceptions=True,
        )
        for composition, result in zip(missing, loaded, strict=True):
            if isinstance(result, BaseException):
                raise result
            programs[composition.point.name] = result
        return {point.name: programs[point.name] for point in points}

    def _compose_fitting(
        self, blueprint: Blueprint, point: AttachPoint, placed: Iterable[PlacedStage]
    ) -> Composition:
        """As one program, unless that is not wanted, or was too large for this kernel's verifier before."""
        if not _may_be_cut(point) or self._settings.strategy is Strategy.SINGLE:
            return self._compose(blueprint, point, placed, frozenset())
        if self._settings.strategy is Strategy.AUTO:
            single = self._compose(blueprint, point, placed, frozenset())
            cost = self._compiler.known_cost(single)
            if cost is None or cost <= self._settings.max_verified_instructions:
                return single
        return self._compose(blueprint, point, placed, _CUTS)

    def _compose(
        self, blueprint: Blueprint, point: AttachPoint, placed: Iterable[PlacedStage], cuts: frozenset[str]
    ) -> Composition:
        here = [each for each in placed if point.name in each.stage.attach]
        return compose(
            point,
            here,
            blueprint.maps_by_name,
            constants=blueprint.constants,
            reasons=blueprint.reasons,
            cuts=cuts,
            slots=allocate(blueprint.stages),
        )

    def _known(
        self, composition: Composition, maps: dict[str, Map], current: Build | None, undo: ExitStack
    ) -> LoadedProgram | None:
        """The same program if it runs already, in this process's hands or pinned by an earlier one."""
        running = current.programs.get(composition.point.name) if current else None
        self._open_own_maps(composition, maps, undo)
        if (
            running
            and running.composition.digest == composition.digest
            and self._uses(running.main, composition, maps)
        ):
            return running
        return self._pinned(composition, maps, undo)

    def _open_own_maps(self, composition: Composition, maps: dict[str, Map], undo: ExitStack) -> None:
        """The maps that the composer itself brought: the context and the jumps of tail calls."""
        for spec in composition.tokens.values():
            if spec.name not in maps:
                maps[spec.name] = self._pins.open_map(spec)
                undo.callback(maps[spec.name].close)

    def _pinned(
        self, composition: Composition, maps: Mapping[str, Map], undo: ExitStack
    ) -> LoadedProgram | None:
        programs: list[Program] = []
        for name in composition.programs:
            program = self._pins.open_program(pin_name(composition, name))
            if program is None or not self._uses(program, composition, maps):
                for each in (*programs, *([program] if program else [])):
                    each.close()
                return None
            programs.append(program)
        loaded = LoadedProgram(composition, tuple(programs))
        undo.callback(loaded.close)
        return loaded

    def _uses(self, program: Program, composition: Composition, maps: Mapping[str, Map]) -> bool:
        """Whether the program refers to these very maps, not to predecessors of another layout."""
        ours = {maps[spec.name].id for spec in composition.tokens.values()}
        return set(program.info.map_ids) <= ours

    async def _load_fitting(
        self,
        blueprint: Blueprint,
        placed: tuple[PlacedStage, ...],
        composition: Composition,
        bytecode: Bytecode,
        maps: dict[str, Map],
        undo: ExitStack,
    ) -> LoadedProgram:
        """Loads; when one program is too much for the verifier, or for the budget, loads it cut into tail calls."""
        budget = self._settings.max_verified_instructions
        may_cut = (
            self._settings.strategy is Strategy.AUTO
            and not composition.jumps
            and _may_be_cut(composition.point)
        )
        try:
            loaded = await load(self._kernel, composition, bytecode, maps, self._compiler)
        except VerifierError as error:
            if not may_cut or not any(words in error.message for words in _TOO_LARGE):
                raise
            _log.warning("program too large, cutting it", point=composition.point.name, reason=error.message)
            self._compiler.note_cost(composition, _ENDLESS)
        else:
            if not may_cut or loaded.verified <= budget:
                undo.callback(loaded.close)
                return loaded
            _log.info(
                "program over budget, cutting it", point=composition.point.name, verified=loaded.verified
            )
            self._compiler.note_cost(composition, loaded.verified)
            loaded.close()
        cut = self._compose(blueprint, composition.point, placed, _CUTS)
        self._open_own_maps(cut, maps, undo)
        loaded = await load(self._kernel, cut, (await self._compiler.compile([cut]))[0], maps, self._compiler)
        undo.callback(loaded.close)
        return loaded


def _may_be_cut(point: AttachPoint) -> bool:
    return point.packets and point.name != "to_network"


def pin_name(composition: Composition, program: str) -> str:
    """The name of a program's pin: with the content's digest, so that an equal program is found again."""
    return f"{program}@{composition.digest[:16]}"
