"""`axoneme demo` from its first to its last line: who may, who has to wait, what is left, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from axoneme.core import logs
from axoneme.core.cli.output import Format, emit
from axoneme.core.demo import display
from axoneme.core.demo.interruption import Interrupted, Interruption
from axoneme.core.demo.place import Place, check_privileges

OK: Final = 0
DIFFERS: Final = 1
#: As shells have it: ended by signal n.
SIGNALLED: Final = 128


def show(
    place: Place,
    *,
    keep: bool = False,
    output: str = Format.TABLE,
    sets: Sequence[str] = (),
    no_plugins: bool = False,
    verbose: bool = False,
) -> int:
    """Runs a demo in its place and cleans up after it; returns the exit code.

    :raises AxonemeError: why there is no demo, or what could not be removed.
    """
    check_privileges()
    logs.setup("debug" if verbose else "warning")
    with Interruption() as interruption, place.held():
        try:
            return _shown(place, interruption, keep=keep, output=output, sets=sets, no_plugins=no_plugins)
        except Interrupted:
            assert interruption.received is not None
            return SIGNALLED + interruption.received
        finally:
            if interruption.received is not None:
                _say(output, "\ncleaning up")
            place.clean()


def _shown(
    place: Place,
    interruption: Interruption,
    *,
    keep: bool,
    output: str,
    sets: Sequence[str],
    no_plugins: bool,
) -> int:
    from axoneme.core.demo.running import Demo

    for line in place.clean():
        _say(output, f"of an earlier demo, removed: {line}")
    screen = display.for_people() if output == Format.TABLE else display.Lines(_to_stderr, table=False)
    demo = Demo(place.configure(sets), screen, no_plugins=no_plugins)
    interruption.check()

    def stay() -> None:
        assert demo.result is not None
        if output != Format.TABLE:
            emit(display.report(demo.result), output)
            sys.stdout.flush()
        for line in ("", *display.next_steps(place, demo.result, display.program(sys.argv[0]))):
            _say(output, line)

    try:
        interruption.run(demo.run(stay if keep else None))
    except Interrupted:
        if not keep or demo.result is None:
            raise
    finally:
        screen.close()
    assert demo.result is not None
    if not keep and output != Format.TABLE:
        emit(display.report(demo.result), output)
    return OK if demo.result.ok else DIFFERS


def _say(output: str, text: str) -> None:
    """For people: on standard output, unless that is for programs."""
    click.echo(text, err=output != Format.TABLE)


def _to_stderr(line: str) -> None:
    click.echo(line, err=True)
