"""The generated part of a packet program: the steps in their order, in one function or cut into tail calls.

The shape, per family:

    classify, track
    established?  → the stages that run for every packet → rewrite, deliver, observe
    translate → resolve → decide → authenticate → redirect → encrypt → commit → rewrite, deliver, observe

Stages of `translate` that run for every packet come before `track`, the others after it.

A cut may follow any of the steps from `track` on. The established path never crosses one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import field, frozen

from axoneme.core.datapath.attach import AttachPoint
from axoneme.core.records import Phase, Runs, Stage

#: Where the first-packet path may be cut, in order.
CUTS = ("track", "translate", "resolve", "decide", "authenticate", "redirect", "encrypt")

_BEFORE_TRACK = (Phase.CLASSIFY, Phase.TRANSLATE)
_DECISIONS = (Phase.DECIDE, Phase.AUTHENTICATE, Phase.REDIRECT, Phase.ENCRYPT)


@frozen(kw_only=True)
class Step:
    """A call of one stage."""

    function: str
    phase: Phase
    runs: Runs

    @classmethod
    def of_stage(cls, plugin: str, stage: Stage) -> Step:
        return cls(function=f"{plugin.replace('-', '_')}_{stage.name}", phase=stage.phase, runs=stage.runs)


@frozen(kw_only=True)
class PacketPrograms:
    """The text of an attach point's functions.

    :param segments: per program the C statements of its body; the first is inlined into the attached program.
    """

    point: AttachPoint
    segments: tuple[tuple[str, ...], ...] = field()

    @property
    def names(self) -> tuple[str, ...]:
        """The attached program first, then the tail-called ones in the order of their index."""
        tails = [self._tail(index, family) for index in range(1, len(self.segments)) for family in (4, 6)]
        return (self.point.name, *tails)

    def _tail(self, index: int, family: int) -> str:
        return f"{self.point.name}_{index}_{family}"

    def family_text(self, family: int) -> str:
        texts = [
            _function(
                f"static inline __attribute__((always_inline)) int run{family}", self.segments[0], family
            )
        ]
        for index, segment in enumerate(self.segments[1:], 1):
            texts.append(_function(f"int {self._tail(index, family)}", segment, family, tail=True))
        if len(self.segments) > 1:
            texts.insert(0, _RESTORE % {"family": family, "jumps": f"jumps_{self.point.name}"})
        return "\n".join(texts)

    def entry_text(self) -> str:
        refuse = "\tcount(skb, REASON_UNSUPPORTED_L2_PROTOCOL);\n\treturn TC_ACT_SHOT;"
        if not self.point.name.endswith("_network"):
            return _ENTRY % {"name": self.point.name, "first": "", "other": refuse}
        return _ENTRY % {"name": self.point.name, "first": _VLAN, "other": "\treturn PASS;"}


def packet_programs(point: AttachPoint, steps: Sequence[Step], cuts: frozenset[str]) -> PacketPrograms:
    """The functions of a packet attach point whose stages are `steps`, cut after the steps named in `cuts`."""
    statements: list[str] = [*_START, *_classify(point)]
    statements += _calls(steps, _BEFORE_TRACK, Runs.EVERY)
    if point.name == "to_network":
        # Nothing is tracked here: what leaves the node was decided where it came from.
        every = _calls(steps, tuple(phase for phase in Phase if phase not in _BEFORE_TRACK))
        return PacketPrograms(point=point, segments=((*statements, *every, "return PASS;"),))
    statements += ["STEP(track)", *_established(steps)]
    segments: list[tuple[str, ...]] = []
    for label, lines in _first_packet(steps):
        if label in cuts:
            index = len(segments) * 2
            segments.append((*statements, *lines, f"return F(jump)(p, {index} + (FAMILY == 6));"))
            statements = []
        else:
            statements += lines
    segments.append(tuple(statements))
    return PacketPrograms(point=point, segments=tuple(segments))


def _classify(point: AttachPoint) -> list[str]:
    """On the node's own devices, a packet that is not understood is the host's business, not ours to drop."""
    if point.name.endswith("_network"):
        return ["if (F(classify)(p))", "\treturn PASS;"]
    return ["STEP(classify)"]


def _established(steps: Sequence[Step]) -> list[str]:
    every = _calls(steps, (Phase.TRACK, *_DECISIONS, Phase.DELIVER, Phase.OBSERVE), Runs.EVERY)
    lines = [*every, "STEP(rewrite)", "return F(deliver)(p);"]
    return ["if (likely(p->established)) {", *(f"\t{line}" for line in lines), "}"]


def _first_packet(steps: Sequence[Step]) -> Iterable[tuple[str, list[str]]]:
    """The steps of a packet that has to be decided, each with the label after which the program may be cut."""
    yield "track", [*_calls(steps, (Phase.TRACK,)), *_BLUR]
    yield "translate", ["STEP(recollect)", *_calls(steps, (Phase.TRANSLATE,), Runs.FIRST), *_BLUR]
    yield "resolve", ["STEP(resolve)"]
    for phase in _DECISIONS:
        yield str(phase), _calls(steps, (phase,))
    yield "commit", [_BLUR[0].replace("blur", "let_go"), _BLUR[1], "STEP(commit)", *_BLUR]
    yield (
        "deliver",
        [*_calls(steps, (Phase.DELIVER, Phase.OBSERVE)), "STEP(rewrite)", "return F(deliver)(p);"],
    )


def _calls(steps: Sequence[Step], phases: Iterable[Phase], runs: Runs | None = None) -> list[str]:
    """Calls of the stages of these phases, phase by phase; with `runs`, only of those that run then."""
    return [
        f"STEP({step.function})"
        for phase in phases
        for step in steps
        if step.phase is phase and runs in (None, step.runs)
    ]


def _function(head: str, lines: Sequence[str], family: int, *, tail: bool = False) -> str:
    context = f"struct packet{family}"
    start = f"{head}(struct __sk_buff *skb)\n{{\n\t{context} packet = {{}};\n\t{context} *p = &packet;\n\tint verdict;\n"
    restore = f"\n\tif (!restore{family}(skb, p))\n\t\treturn TC_ACT_SHOT;\n" if tail else ""
    end = (
        f"\nfinish:\n\treturn finish{family}(p, verdict);\n}}\n"
        if any("STEP(" in line for line in lines)
        else "\n}\n"
    )
    return start + restore + "\n".join(f"\t{line}" for line in lines) + end


#: See `blur` in bpf/packet.h.
_BLUR = ("if (!F(blur)(p))", "\treturn TC_ACT_SHOT;")

_START = (
    "u32 zero = 0;",
    "struct runtime *runtime = runtime_lookup(&zero);",
    "",
    "if (!runtime)",
    "\treturn TC_ACT_SHOT;",
    "p->skb = skb;",
    "p->revision = runtime->revision;",
)

_RESTORE = """
INLINE int jump%(family)d(struct packet%(family)d *p, u32 index)
{
	struct __sk_buff *skb = p->skb;
	u32 zero = 0;
	struct scratch *s = scratch_lookup(&zero);

	if (!s)
		return TC_ACT_SHOT;
	p->skb = 0;
	p->conn = 0;
	p->source = 0;
	p->destination = 0;
	__builtin_memcpy(s, p, sizeof(*p));
	%(jumps)s_tail_call(skb, index);
	count(skb, REASON_MISSED_TAIL_CALL);
	return TC_ACT_SHOT;
}

INLINE bool restore%(family)d(struct __sk_buff *skb, struct packet%(family)d *p)
{
	u32 zero = 0;
	struct scratch *s = scratch_lookup(&zero);

	if (!s)
		return false;
	__builtin_memcpy(p, s, sizeof(*p));
	p->skb = skb;
	p->conn = p->anew ? 0 : connections%(family)d_lookup(&p->tuple);
	p->source = endpoints%(family)d_lookup(&p->tuple.saddr);
	p->destination = endpoints%(family)d_lookup(&p->translated.daddr);
	return true;
}
"""

#: A frame of a VLAN belongs to the VLAN's own device, behind this one. The number 0 is no VLAN, but only a priority.
_VLAN = """\
	if (skb->vlan_present && (skb->vlan_tci & 0xfff))
		return PASS;
"""

_ENTRY = """
int %(name)s(struct __sk_buff *skb)
{
%(first)s	switch (skb->protocol) {
	case be16(ETH_P_IP):
		return run4(skb);
	case be16(ETH_P_IPV6):
		return run6(skb);
	case be16(ETH_P_ARP):
		return arp(skb);
	}
%(other)s
}
"""
