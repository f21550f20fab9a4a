"""The composer: the stages of the enabled plugins and the shared C become one text per attach point.

Pure and deterministic: the same stages give the same text, whatever order they came in, so that the digest of a text
says whether a program has to be built anew. A plugin that is off leaves no trace in it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path

from attrs import field, frozen

from axoneme.core.datapath import abi
from axoneme.core.datapath.attach import AttachPoint
from axoneme.core.datapath.layout import Type, c_definitions, u32
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.datapath.packet_program import Step, packet_programs
from axoneme.core.datapath.reasons import AUDITED, FORGOTTEN, FORWARDED, LOST_EVENTS
from axoneme.core.datapath.slots import Slots
from axoneme.core.datapath.tables import CRC32C_ZEROS
from axoneme.core.errors import PluginError, Where
from axoneme.core.records import DropReason, Phase, Runs, Stage

#: The shared C in the order in which it is put together. Files of the first group are included once, those of the
#: second once per family, after the family's own names are defined. Chains over frames have the first of these.
COMMON = ("abi.h", "report.h", "neighbor.h")
FRAMES = ("family.h", "identity.h", "translation.h", "admission.h")
PER_FAMILY = (
    *FRAMES, "packet.h", "classify.h", "nat.h", "observe.h", "track.h", "resolve.h", "commit.h", "sctp.h", "rewrite.h",
    "deliver.h", "proxy.h",
)  # fmt: skip

#: A call of an accessor, `NAME_lookup(`, and the form for maps that exist once per family, `ON(NAME, lookup)(`.
_WORD = re.compile(r"\b[a-z][a-z0-9_]*_[a-z_]+(?=\()")
_PER_FAMILY_MAP = re.compile(r"\bON\((\w+)")


@frozen(kw_only=True)
class PlacedStage:
    """A stage with its owner and its text, in the place that it got."""

    plugin: str
    stage: Stage
    file: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.plugin}.{self.stage.name}"

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything that the stage puts into the program."""
        content = f"{self.name}\0{self.stage.runs}\0{sorted(self.stage.defines.items())}\0{self.text}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@frozen
class CompositionStep:
    """One step of a program, as it is shown to people."""

    phase: Phase
    plugin: str
    name: str
    runs: str
    file: str
    digest: str


#: Phases in the order in which they run; what translates first packets only does so when they are known to be such.
_MOMENTS = {phase: number * 2 for number, phase in enumerate(Phase)}


def _moment(step: CompositionStep) -> int:
    if step.phase is Phase.TRANSLATE and step.runs == str(Runs.FIRST):
        return _MOMENTS[Phase.TRACK] + 1
    return _MOMENTS[step.phase]


#: The core's own steps: phase, name, when it runs.
_OWN_STEPS = (
    (Phase.CLASSIFY, "classify", Runs.EVERY),
    (Phase.TRACK, "track", Runs.EVERY),
    (Phase.DECIDE, "resolve", Runs.FIRST),
    (Phase.DELIVER, "commit", Runs.FIRST),
    (Phase.DELIVER, "rewrite", Runs.EVERY),
    (Phase.DELIVER, "deliver", Runs.EVERY),
    (Phase.OBSERVE, "observe", Runs.FIRST),
)


def _own_step(phase: Phase, name: str, runs: Runs) -> CompositionStep:
    text = (shared_folder() / f"{name}.h").read_bytes()
    return CompositionStep(
        phase, "core", name, str(runs), f"bpf/{name}.h", hashlib.sha256(text).hexdigest()[:16]
    )


@frozen(kw_only=True)
class Composition:
    """One attach point's program, before it is compiled.

    :param text: the C text, with `#line` marks that name each part's own file.
    :param programs: the functions in it; the first is what is attached, the others are reached by tail calls.
    :param tokens: what the numbers in its map references stand for.
    :param stages: the stages in the order in which they run.
    """

    point: AttachPoint
    text: str
    programs: tuple[str, ...]
    tokens: Mapping[int, MapSpec]
    stages: tuple[PlacedStage, ...]
    strategy: str = "single"

    @property
    def jumps(self) -> MapSpec | None:
        """The map of its tail calls, if it was cut."""
        return next((spec for spec in self.tokens.values() if spec.kind is MapKind.PROG_ARRAY), None)

    @property
    def order(self) -> list[CompositionStep]:
        """Everything that runs, in its order: the core's own steps and the plugins' stages."""
        stages = [
            CompositionStep(
                each.stage.phase, each.plugin, each.stage.name, str(each.stage.runs), each.file, each.digest
            )
            for each in self.stages
        ]
        if not self.point.packets:
            return stages
        own = [
            _own_step(*step)
            for step in _OWN_STEPS
            if self.point.name != "to_network" or step[0] is Phase.CLASSIFY
        ]
        before = {step.name for step in own if step.name != "observe"}
        return sorted(
            (
                step
                for phase in Phase
                for step in (
                    *(o for o in own if o.phase is phase and o.name in before),
                    *(s for s in stages if s.phase is phase),
                    *(o for o in own if o.phase is phase and o.name not in before),
                )
            ),
            key=_moment,
        )

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    def origin(self, line: int) -> Where:
        """From a line of the text (from 1 on) to the file and line that it came from."""
        file, number = "composed", 0
        for text in self.text.split("\n")[:line]:
            if mark := _LINE.match(text):
                file, number = mark[2], int(mark[1]) - 1
            else:
                number += 1
        return Where(file, number)


_LINE = re.compile(r'#line (\d+) "([^"]*)"')


@frozen(kw_only=True)
class Constants:
    """Numbers that the shared C needs from the configuration."""

    world4: int = 2
    world6: int = 2
    direct_routing: bool = False
    coarse_clock: bool = True
    gateway4: int = field(default=0)
    gateway6: tuple[int, int, int, int] = (0, 0, 0, 0)

    def defines(self) -> dict[str, int]:
        gateway6 = {f"GATEWAY6_{index}": word for index, word in enumerate(self.gateway6)}
        return {
            "WORLD_IDENTITY4": self.world4,
            "WORLD_IDENTITY6": self.world6,
            "IDENTITY_HOST": 1,
            "DIRECT_ROUTING": int(self.direct_routing),
            "COARSE_CLOCK": int(self.coarse_clock),
            "GATEWAY4": self.gateway4,
            **gateway6,
        }


def shared_folder() -> Path:
    """The folder of the shared C; a real path, in a wheel as in an editable install."""
    return Path(str(resources.files("axoneme.bpf")))


def compose(
    point: AttachPoint,
    stages: Sequence[PlacedStage],
    maps: Mapping[str, MapSpec],
    *,
    constants: Constants,
    reasons: Iterable[DropReason],
    cuts: frozenset[str] = frozenset(),
    slots: Slots = Slots(),  # noqa: B008 - frozen
) -> Composition:
    """The program of one attach point.

    :param stages: those for this attach point, in their order (`axoneme.core.datapath.stages.place`).
    :param maps: every declared map by name; only those that the text mentions are referenced.
    :param cuts: step labels after which the program is cut into tail calls; only for packet attach points.
    :param slots: whose words of a connection's entry are which (`axoneme.core.datapath.slots.allocate`).
    :raises PluginError: when a stage names a map that nobody declared, or a phase that the attach point lacks.
    """
    _check(point, stages, maps)
    used = dict(maps)
    if point.packets:
        body, programs = _packet_body(point, stages, cuts)
    else:
        body, programs = _chain_body(point, stages)
    if cuts:
        body, jumps = _own_jumps(point, body)
        used |= {jumps.name: jumps}
    tokens = _tokens(body, used)
    text = "\n".join(
        [
            '#line 1 "<constants>"',
            *_defines(
                point.defines
                | constants.defines()
                | _numbers(reasons)
                | slots.defines
                | {"SCTP_PORTS": int(CRC32C_ZEROS.name in maps)}
            ),
            *_part("abi.h"),
            '#line 1 "<maps>"',
            c_definitions(
                [layout for spec in tokens.values() for layout in (spec.key, spec.value)] + _always(point)
            ),
            *(spec.c_accessors(token) for token, spec in tokens.items()),
            *body,
            "",
        ]
    )
    return Composition(
        point=point, text=text, programs=programs, tokens=tokens, stages=tuple(stages),
        strategy="tailcalls" if cuts else "single",
    )  # fmt: skip


def _always(point: AttachPoint) -> list[Type | None]:
    """Structs that the shared C needs, whether or not a map has them."""
    return [abi.EVENT, *((*abi.TUPLE.values(), *abi.CONNECTION.values()) if point.frames else ())]


def _own_jumps(point: AttachPoint, body: list[str]) -> tuple[list[str], MapSpec]:
    """A map of tail calls that belongs to this text alone: two programs that are swapped must not share one."""
    generic = f"jumps_{point.name}"
    own = f"{generic}_{hashlib.sha256(''.join(body).encode()).hexdigest()[:8]}"
    spec = MapSpec(own, MapKind.PROG_ARRAY, u32, u32, 16, doc=f"tail calls of {point.name}")
    return [part.replace(f"{generic}_tail_call", f"{own}_tail_call") for part in body], spec


def _check(point: AttachPoint, stages: Sequence[PlacedStage], maps: Mapping[str, MapSpec]) -> None:
    for placed in stages:
        for name in placed.stage.maps:
            if name not in maps:
                raise PluginError(f"stage {placed.name} uses the map {name!r}, which nobody declares")
        if placed.stage.phase not in point.phases:
            raise PluginError(f"stage {placed.name}: {point.name} has no phase {placed.stage.phase}")
        first = placed.stage.runs is not Runs.EVERY
        if first and placed.stage.phase is Phase.TRANSLATE and point.name == "to_network":
            raise PluginError(
                f"stage {placed.name}: to_network knows no first packet, it can only run for every one"
            )
        if point.packets and first and placed.stage.phase is Phase.CLASSIFY:
            raise PluginError(
                f"stage {placed.name}: before the connection is known, a stage can only run for every packet"
            )


def _numbers(reasons: Iterable[DropReason]) -> dict[str, int]:
    numbers = {f"REASON_{reason.name}": reason.number for reason in reasons}
    numbers |= {f"EVENT_{kind.name}": int(kind) for kind in abi.EventType}
    counters = {
        "LOST_EVENTS": LOST_EVENTS,
        "FORWARDED": FORWARDED,
        "FORGOTTEN": FORGOTTEN,
        "AUDITED": AUDITED,
    }
    return numbers | {f"COUNTER_{name}": number for name, number in counters.items()}


def _defines(values: Mapping[str, int]) -> list[str]:
    return [f"#define {name} {value}" for name, value in values.items()]


def _part(name: str) -> list[str]:
    return [f'#line 1 "bpf/{name}"', (shared_folder() / name).read_text()]


def _packet_body(
    point: AttachPoint, stages: Sequence[PlacedStage], cuts: frozenset[str]
) -> tuple[list[str], tuple[str, ...]]:
    lines: list[str] = []
    for name in COMMON[1:]:
        lines += _part(name)
    programs = packet_programs(point, [Step.of_stage(s.plugin, s.stage) for s in stages], cuts)
    for family in point.families:
        lines += ["#undef FAMILY", f"#define FAMILY {family}"]
        for name in PER_FAMILY:
            lines += _part(name)
        for placed in stages:
            lines += _stage_text(placed)
        lines += ['#line 1 "<generated>"', programs.family_text(family)]
    lines += ['#line 1 "<generated>"', programs.entry_text()]
    return lines, programs.names


def _stage_text(placed: PlacedStage) -> list[str]:
    names = [f"#define {name} {value}" for name, value in sorted(placed.stage.defines.items())]
    undo = [f"#undef {name}" for name in sorted(placed.stage.defines)]
    return [
        f"#define PLUGIN {c_name(placed.plugin)}", *names,
        f'#line 1 "{placed.file}"', placed.text,
        '#line 1 "<generated>"', *undo, "#undef PLUGIN",
    ]  # fmt: skip


def _chain_body(point: AttachPoint, stages: Sequence[PlacedStage]) -> tuple[list[str], tuple[str, ...]]:
    if point.frames:
        return _frame_body(point, stages), (point.name,)
    lines = _macros(point, "GLUE(PLUGIN, _##name)")
    for placed in stages:
        lines += _stage_text(placed)
    lines += ['#line 1 "<generated>"', _chain(f"int {point.name}", point, stages, "")]
    return lines, (point.name,)


def _frame_body(point: AttachPoint, stages: Sequence[PlacedStage]) -> list[str]:
    """The chain once per family, and the function that enters the one of the frame's family."""
    lines = _macros(point, "F(GLUE(PLUGIN, _##name))")
    for family in point.families:
        lines += ["#undef FAMILY", f"#define FAMILY {family}"]
        for name in FRAMES:
            lines += _part(name)
        for placed in stages:
            lines += _stage_text(placed)
        head = f"INLINE int run{family}"
        lines += ['#line 1 "<generated>"', _chain(head, point, stages, str(family))]
    entry = _FRAME_ENTRY % {"name": point.name, "context": point.context, "default": point.default}
    return [*lines, entry]


def _macros(point: AttachPoint, name: str) -> list[str]:
    return [
        "#undef STAGE",
        "#undef LOCAL",
        f"#define STAGE(name) INLINE int {name}(struct {point.context} *ctx)",
        f"#define LOCAL(name) {name}",
    ]


def _chain(head: str, point: AttachPoint, stages: Sequence[PlacedStage], suffix: str) -> str:
    calls = [
        f"\tverdict = {c_name(s.plugin)}_{s.stage.name}{suffix}(ctx);\n\tif (verdict)\n\t\treturn verdict - TAKEN(0);"
        for s in stages
    ]
    start = f"{head}(struct {point.context} *ctx)\n{{\n\tint verdict;\n"
    return "\n".join([start, *calls, f"\treturn {point.default};\n}}"])


_FRAME_ENTRY = """
int %(name)s(struct %(context)s *ctx)
{
	struct ethhdr *frame = (void *)(long)ctx->data;

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return %(default)d;
	switch (frame->h_proto) {
	case be16(ETH_P_IP):
		return run4(ctx);
	case be16(ETH_P_IPV6):
		return run6(ctx);
	}
	return %(default)d;
}
"""


def c_name(plugin: str) -> str:
    """A plugin's name as a C identifier."""
    return plugin.replace("-", "_")


def _tokens(body: Iterable[str], maps: Mapping[str, MapSpec]) -> dict[int, MapSpec]:
    """Numbers for the maps that the text mentions, in name order, from 1 on."""
    text = "\n".join(body)
    words = {word.rsplit("_", count)[0] for word in _WORD.findall(text) for count in (1, 2)}
    words |= {f"{stem}{family}" for stem in _PER_FAMILY_MAP.findall(text) for family in (4, 6)}
    return dict(enumerate((maps[name] for name in sorted(maps) if name in words), 1))
