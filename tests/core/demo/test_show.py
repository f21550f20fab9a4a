"""A demo from the first to the last line, with one that is played."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axoneme.core.demo import show as module
from axoneme.core.demo.article import flows
from axoneme.core.demo.machine import Machine
from axoneme.core.demo.place import Place
from axoneme.core.demo.running import Result
from axoneme.core.demo.show import Options, show
from axoneme.core.demo.verdicts import Verdict
from axoneme.core.errors import AxonemeError
from axoneme.core.net.namespaces import open_namespace

REQUESTS = len(list(flows()))
#: Nothing is made: the page listens where the test is.
PLAYED_MACHINE = Machine(outside="", cgroup=None, home=open_namespace("/proc/self/ns/net"))


class Played:
    """A demo that shows nothing real.

    :ivar fate: what becomes of it before there is a result.
    """

    fate: Callable[[], None] = staticmethod(lambda: None)
    seen = "allowed"

    def __init__(self, config: Any, screen: Any, machine: Any, *, no_plugins: bool) -> None:
        self.result: Result | None = None
        self.screen = screen
        assert config.settings.agent.name == "demo"

    async def run(self, conclude: Callable[[Result], bool]) -> None:
        self.screen.step("agent", "is starting")
        self.fate()
        await asyncio.sleep(0)
        verdicts = tuple(Verdict(flow=flow, expected="allowed", seen=self.seen) for flow in flows())
        self.result = Result(endpoints={}, active=(), waiting={}, verdicts=verdicts, seconds=0.1)
        self.screen.result(self.result)
        if conclude(self.result):
            await asyncio.Event().wait()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(module, "check_privileges", lambda: None)
    monkeypatch.setattr(module, "Demo", Played)
    monkeypatch.setattr(module.machine, "made", lambda name: contextlib.nullcontext(PLAYED_MACHINE))
    monkeypatch.setattr(module.machine, "remove", lambda name: None)
    monkeypatch.setattr(module.logs, "setup", lambda level: None)
    monkeypatch.setattr(module.advice, "next_steps", lambda place, result, program: ["look at it"])
    (tmp_path / "bpf").mkdir()
    return Place(root=tmp_path, bpffs_root=tmp_path / "bpf")


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_all_as_expected(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(place, Options()) == 0
    assert f"{REQUESTS} allowed" in capsys.readouterr().out
    assert not place.folder.exists()


def test_something_differs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Played, "seen", "dropped")
    assert show(place, Options()) == 1


def test_standard_output_is_for_the_program_that_asked(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(place, Options(output="json")) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["counts"]["requests"] == REQUESTS
    assert "is starting" in said.err


def test_an_interrupted_one_ends_as_shells_have_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Played, "fate", staticmethod(interrupt))
    assert show(place, Options()) == 128 + signal.SIGTERM
    assert "cleaning up" in capsys.readouterr().out
    assert not place.folder.exists()


def test_a_kept_one_ends_with_what_it_showed(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(*arguments: object) -> list[str]:
        interrupt()
        return ["look at it"]

    monkeypatch.setattr(module.advice, "next_steps", look)
    assert show(place, Options(keep=True)) == 0
    assert "look at it" in capsys.readouterr().out
    monkeypatch.setattr(Played, "seen", "dropped")
    assert show(place, Options(keep=True)) == 1
    assert not place.folder.exists()


def test_a_failed_one_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AxonemeError("the kernel refuses")

    monkeypatch.setattr(Played, "fate", staticmethod(fail))
    with pytest.raises(AxonemeError, match="the kernel refuses"):
        show(place, Options())
    assert not place.folder.exists()
