"""The chapter about stages in PLUGINS.md quotes what is really there, and messages that really come."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from axoneme.core.datapath.layout import u32, u64
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.errors import AxonemeError
from axoneme.core.records import Phase, Runs, Stage
from axoneme.core.testing.datapath import DatapathBench

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "contrib" / "plugin-template"

#: The C of the messages that the chapter quotes.
TYPO = "STAGE(bad)\n{\n\treturn p->sorce_endpoint;\n}\n"
UNCHECKED = (
    "STAGE(bad)\n{\n\tu32 key = 0;\n\tu64 *value = seen_lookup(&key);\n\n\t++*value;\n\treturn NEXT;\n}\n"
)


@pytest.fixture(scope="module")
def chapter() -> str:
    text = (ROOT / "PLUGINS.md").read_text()
    return re.split(r"^## ", text.partition("## A stage in C, line by line\n")[2], flags=re.MULTILINE)[0]


def blocks(chapter: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", chapter, re.DOTALL | re.MULTILINE)


def test_the_stage_is_quoted_whole_and_in_order(chapter: str) -> None:
    text = (TEMPLATE / "src" / "axoneme_packet_counter" / "stages" / "count.c").read_text()
    _, _, below_the_comment = text.partition(" */\n\n")
    assert "".join(blocks(chapter, "c")).splitlines() == below_the_comment.splitlines()


def test_python_and_toml_are_quoted_from_the_template(chapter: str) -> None:
    files = [file.read_text() for file in TEMPLATE.rglob("*.py")] + [
        (TEMPLATE / "pyproject.toml").read_text()
    ]
    there = {line.strip() for file in files for line in file.splitlines()}
    quoted = [
        line for name in ("python", "toml") for block in blocks(chapter, name) for line in block.splitlines()
    ]
    assert quoted
    assert [
        line for line in quoted if line.strip().rstrip(",") not in there | {one.rstrip(",") for one in there}
    ] == []


@pytest.mark.kernel
@pytest.mark.parametrize(("text", "line"), [(TYPO, 0), (UNCHECKED, 1)], ids=["compiler", "verifier"])
def test_its_messages_are_those_that_come(chapter: str, text: str, line: int) -> None:
    (messages,) = blocks(chapter, "text")
    stage = Stage(name="bad", source=text, attach=("from_workload",), phase=Phase.OBSERVE, runs=Runs.EVERY)
    maps = [MapSpec("seen", MapKind.HASH, u32, u64, 16)]
    with DatapathBench([("mine", stage)], maps) as bench, pytest.raises(AxonemeError) as caught:
        bench.program("from_workload")
    # Which instruction it is depends on the compiler and on what else is in the program.
    said, quoted = (
        re.sub(r"at instruction .*", "", one) for one in (str(caught.value), messages.splitlines()[line])
    )
    assert said.startswith(quoted)


def test_every_verdict_macro_and_phase_is_explained(chapter: str) -> None:
    abi = (ROOT / "bpf" / "abi.h").read_text()
    verdicts = re.findall(r"^ \*   ([A-Z_]+)", abi, re.MULTILINE)
    assert {"DROP", "DISCARD", "TO_STACK", "TAKEN"} <= set(verdicts)
    owed = re.findall(r"#define (OWED_\w+)", abi)
    names = [*verdicts, "NEXT", *owed, "STAGE", "LOCAL", "ON(", "F(", "INLINE", "slot", *Phase]
    assert [name for name in names if name not in chapter] == []
