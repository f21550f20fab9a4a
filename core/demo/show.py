"""`axoneme demo` from its first to its last line: who may, who has to wait, what is left, and the exit code."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

from attrs import frozen

from axoneme.core import logs
from axoneme.core.cli.output import Format, emit
from axoneme.core.demo import advice, display, machine, report
from axoneme.core.demo.interruption import Interrupted, Interruption
from axoneme.core.demo.machine import Machine
from axoneme.core.demo.page import Page
from axoneme.core.demo.place import Place, check_privileges
from axoneme.core.demo.running import Demo, Result
from axoneme.core.net import namespaces

OK: Final = 0
DIFFERS: Final = 1
#: As shells have it: ended by signal n.
SIGNALLED: Final = 128


@frozen(kw_only=True)
class Options:
    """How a demo is to be shown.

    :param keep: leave it running until somebody ends it.
    :param sets: overrides of the configuration, `a.b=c`.
    """

    keep: bool = False
    output: str = Format.TABLE
    sets: tuple[str, ...] = ()
    no_plugins: bool = False
    verbose: bool = False

    @property
    def for_people(self) -> bool:
        return self.output == Format.TABLE

    def say(self, text: str) -> None:
        """For people: on standard output, unless that is for programs."""
        display.say(text, err=not self.for_people)


def show(place: Place, options: Options) -> int:
    """Runs a demo in its place and cleans up after it; returns the exit code.

    :raises AxonemeError: why there is no demo.
    :raises ExceptionGroup: with what could not be removed.
    """
    check_privileges()
    logs.setup("debug" if options.verbose else "warning")
    with Interruption() as interruption, place.held():
        try:
            for line in _left(place):
                options.say(f"left by an earlier demo, now removed: {line}")
            with machine.made(place.name) as made, _cleaned(place, options, interruption):
                return _shown(place, options, interruption, made)
        except Interrupted:
            assert interruption.received is not None
            return SIGNALLED + interruption.received


def _left(place: Place) -> list[str]:
    """Removes what an earlier demo left that was killed: from its node, where its devices are, if that is still there."""
    node, _ = machine.names(place.name)
    with contextlib.ExitStack() as steps:
        steps.callback(machine.remove, place.name)
        if node in namespaces.names():
            steps.enter_context(namespaces.inside(node))
        return place.clean()


@contextlib.contextmanager
def _cleaned(place: Place, options: Options, interruption: Interruption) -> Iterator[None]:
    try:
        yield
    finally:
        if interruption.received is not None:
            options.say("\ncleaning up")
        place.clean()


def _shown(place: Place, options: Options, interruption: Interruption, made: Machine) -> int:
    screen = display.for_people() if options.for_people else _silent()
    with Page(made.home) as page:
        config = place.configure(options.sets, cgroup=made.cgroup, page=page.port)
        demo = Demo(config, screen, made, no_plugins=options.no_plugins)

        async def run() -> None:
            async with page.open():
                await demo.run(conclude)

        def conclude(result: Result) -> bool:
            _conclude(place, options, result)
            return options.keep

        try:
            interruption.run(run())
        except Interrupted:
            # Whoever keeps it ends it in no other way.
            if not options.keep or demo.result is None:
                raise
        finally:
            screen.close()
    return OK if demo.result is not None and demo.result.ok else DIFFERS


def _conclude(place: Place, options: Options, result: Result) -> None:
    if not options.for_people:
        emit(report.report(result), options.output)
        sys.stdout.flush()
    if options.keep:
        for line in ("", *advice.next_steps(place, result, advice.program(sys.argv[0]))):
            options.say(line)


def _silent() -> display.Lines:
    """What whoever started it for a program gets to see: the steps, on standard error."""
    return display.Lines(lambda line: display.say(line, err=True), table=False)
