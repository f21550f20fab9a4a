"""`axoneme demo` from its first to its last line: who may, who has to wait, what is left, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from axoneme.core import logs
from axoneme.core.cli.output import Format, emit
from axoneme.core.demo import display
from axoneme.core.demo.interruption import Interrupted, Interruption
from axoneme.core.demo.place import Place, check_privileges
from axoneme.core.demo.running import Demo, Result

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
    before = _sysctls()
    with Interruption() as interruption, place.held():
        try:
            return _shown(place, options, interruption)
        except Interrupted:
            assert interruption.received is not None
            return SIGNALLED + interruption.received
        finally:
            if interruption.received is not None:
                options.say("\ncleaning up")
            place.clean()
            for line in _changed(before):
                options.say(line)


def _shown(place: Place, options: Options, interruption: Interruption) -> int:
    for line in place.clean():
        options.say(f"left by an earlier demo, now removed: {line}")
    screen = display.for_people() if options.for_people else _silent()
    demo = Demo(place.configure(options.sets), screen, no_plugins=options.no_plugins)

    def conclude(result: Result) -> bool:
        _conclude(place, options, result)
        return options.keep

    try:
        interruption.run(demo.run(conclude))
    except Interrupted:
        # Whoever keeps it ends it in no other way.
        if not options.keep or demo.result is None:
            raise
    finally:
        screen.close()
    return OK if demo.result is not None and demo.result.ok else DIFFERS


def _conclude(place: Place, options: Options, result: Result) -> None:
    if not options.for_people:
        emit(display.report(result), options.output)
        sys.stdout.flush()
    if options.keep:
        for line in ("", *display.next_steps(place, result, display.program(sys.argv[0]))):
            options.say(line)


def _sysctls() -> dict[str, str | None]:
    from axoneme.core.net import host, sysctl

    return {name: sysctl.read(name) for name in host.SYSCTLS}


def _changed(before: Mapping[str, str | None]) -> list[str]:
    """What is left as the agent set it, since others may rely on it by now."""
    return [
        f"left as it is now: {name.replace('/', '.')} = {value} (it was {before[name]})"
        for name, value in _sysctls().items()
        if value != before[name]
    ]


def _silent() -> display.Lines:
    """What whoever started it for a program gets to see: the steps, on standard error."""
    return display.Lines(lambda line: display.say(line, err=True), table=False)
