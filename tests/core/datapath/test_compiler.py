"""From text to bytecode: through the cache, through the worker, and what people are told when it fails."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from axoneme.core.datapath import compiler as module
from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.cache import Cache
from axoneme.core.datapath.compiler import Compiler, content_key
from axoneme.core.datapath.composer import Composition, Constants, compose
from axoneme.core.datapath.layout import u32
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.datapath.reasons import REASONS
from axoneme.core.datapath.relocate import tokens
from axoneme.core.datapath.stages import place
from axoneme.core.errors import CompileError, KernelError
from axoneme.core.records import Phase, Stage

SWITCH = MapSpec("switch", MapKind.ARRAY, u32, u32, 1)
GOOD = """STAGE(check)
{
	u32 zero = 0;
	u32 *on = switch_lookup(&zero);

	return on && *on ? TAKEN(0) : NEXT;
}
"""


def composition(text: str = GOOD, point: str = "sock_connect4", source: Path | None = None) -> Composition:
    stage = Stage(
        name="check", source=source or text, attach=(point,), phase=Phase.TRANSLATE, maps=("switch",)
    )
    return compose(
        ATTACH_POINTS[point],
        place([("sample", stage)]),
        {"switch": SWITCH},
        constants=Constants(),
        reasons=REASONS,
    )


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    return Compiler(Cache(tmp_path / "programs"))


@pytest.fixture
def unspawned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a process fails."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)


async def test_text_becomes_bytecode_with_tokens(compiler: Compiler) -> None:
    wanted = composition()
    (bytecode,) = await compiler.compile([wanted])
    assert set(bytecode.programs) == {"sock_connect4"}
    assert tokens(bytecode.programs["sock_connect4"]) == set(wanted.tokens) == {1}
    assert not bytecode.cached


async def test_bytecode_is_a_function_of_the_text(compiler: Compiler, tmp_path: Path) -> None:
    other = Compiler(Cache(tmp_path / "elsewhere"))
    (one,), (same,) = await compiler.compile([composition()]), await other.compile([composition()])
    assert one.programs == same.programs


async def test_a_warm_cache_needs_no_compiler(compiler: Compiler, request: pytest.FixtureRequest) -> None:
    compiled: list[str] = []
    compiler.on_compile = lambda each: compiled.append(each.point.name)
    (cold,) = await compiler.compile([composition()])
    request.getfixturevalue("unspawned")
    warm, again = await Compiler(compiler.cache).compile([composition(), composition()])
    assert warm.cached
    assert again.cached
    assert warm.programs == cold.programs
    assert compiled == ["sock_connect4"]


async def test_answers_come_in_the_order_of_the_questions(compiler: Compiler) -> None:
    points = ["sock_connect4", "sk_lookup", "sock_connect6"]
    compiled = await compiler.compile([composition(point=point) for point in points])
    assert [next(iter(each.programs)) for each in compiled] == points


async def test_a_damaged_entry_is_compiled_again(compiler: Compiler) -> None:
    (cold,) = await compiler.compile([composition()])
    path = compiler.cache.folder / f"{content_key(composition())}.bpf"
    path.write_bytes(path.read_bytes()[:-1])
    (again,) = await compiler.compile([composition()])
    assert not again.cached
    assert again.programs == cold.programs


async def test_a_cache_that_cannot_be_written_is_a_problem_and_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    compiler = Compiler(Cache(tmp_path / "file" / "programs"))
    (bytecode,) = await compiler.compile([composition()])
    assert bytecode.programs
    assert compiler.cache_problem is not None
    assert "Not a directory" in str(compiler.cache_problem)
    compiler.cache = Cache(tmp_path / "programs")
    await compiler.compile([composition()])
    assert compiler.cache_problem is None


def test_the_key_covers_text_and_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    key = content_key(composition())
    assert key == content_key(composition())
    assert key != content_key(attrs.evolve(composition(), text=composition().text + " "))
    monkeypatch.setattr(module, "_environment_digest", lambda: "another bcc")
    assert key != content_key(composition())


# Errors.

BROKEN = {
    "an unknown name": (
        "\treturn nothing_of_that_name;",
        "use of undeclared identifier 'nothing_of_that_name'",
    ),
    "an unknown function": ("\treturn missing_lookup(0);", "missing_lookup"),
    "a wrong key": ("\tu64 key = 0;\n\n\treturn !switch_lookup(&key);", "incompatible pointer types"),
    "no return": ("\t(void)ctx;", "non-void function"),
    "bad syntax": ("\treturn NEXT", "expected ';'"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_does_not_compile_is_told_at_its_place(
    compiler: Compiler, tmp_path: Path, what: str
) -> None:
    body, said = BROKEN[what]
    source = tmp_path / "stages" / "check.c"
    source.parent.mkdir()
    source.write_text(f"/* line 1 */\nSTAGE(check)\n{{\n{body}\n}}\n")
    with pytest.raises(CompileError) as told:
        await compiler.compile([composition(source=source)])
    assert said in told.value.message
    assert told.value.message.startswith("sock_connect4 does not compile: ")
    assert told.value.where is not None
    assert told.value.where.file == "sample/stages/check.c"
    assert told.value.where.line in (4 + body.count("\n"), 5 + body.count("\n"))
    assert not list(compiler.cache.folder.glob("*")), "nothing is remembered of it"


async def test_one_that_fails_does_not_stop_the_others(compiler: Compiler) -> None:
    good, bad = composition(point="sk_lookup"), composition("STAGE(check)\n{\n\tbroken\n}\n")
    with pytest.raises(CompileError):
        await compiler.compile([bad, good])
    assert compiler.cache.get(content_key(good)) is not None


async def test_a_missing_header_is_told(compiler: Compiler) -> None:
    with pytest.raises(CompileError, match=r"no_such_header\.h"):
        await compiler.compile([composition("#include <no_such_header.h>\n" + GOOD)])


@pytest.fixture
def without_bcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker finds a module that fails to import in the place of bcc."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "bcc.py").write_text("raise ImportError('No module named bcc')\n")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path / "fake"), os.environ.get("PYTHONPATH", "")])
    )


@pytest.mark.usefixtures("without_bcc")
async def test_without_bcc_it_says_what_to_install(compiler: Compiler) -> None:
    with pytest.raises(KernelError, match="BCC is not installed") as told:
        await compiler.compile([composition()])
    assert told.value.hint is not None
    assert "python3-bpfcc" in told.value.hint


async def test_a_worker_that_dies_is_told(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CompileError, match="the worker ended with status 1"):
        await compiler.compile([composition()])


async def test_a_worker_that_hangs_is_ended(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hanging = tmp_path / "python"
    hanging.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    monkeypatch.setattr(module, "_TIMEOUT", 0.5)
    with pytest.raises(TimeoutError):
        await compiler.compile([composition()])
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_compiler_itself_is_never_mapped_here(compiler: Compiler) -> None:
    asyncio.run(compiler.compile([composition()]))
    assert "libbcc" not in Path("/proc/self/maps").read_text()
