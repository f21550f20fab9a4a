"""What Hubble saw of it all: what `axoneme hubble observe` says, as anybody would ask it."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

#: How a line ends: what became of the flow, and what kind of packet that was.
_LINE: Final = re.compile(r".* (?P<verdict>[A-Z]+) \((?P<summary>[^()]*)\)$")
_PATIENCE: Final = 20.0

COMMAND: Final = ("hubble", "observe", "--all", "-n", "production")


@frozen(kw_only=True)
class Observed:
    """Flows of the article's namespace.

    :param verdicts: how many, by what became of them.
    :param samples: lines of the command, some of each kind.
    :param problem: why there are none.
    """

    verdicts: Mapping[str, int]
    samples: tuple[str, ...] = ()
    problem: str = ""


async def observe(config: Path) -> Observed:
    """Asks the agent that has this configuration, in a process of its own."""
    program = (sys.executable, "-m", "axoneme.core.cli", "--config", str(config))
    process = await asyncio.create_subprocess_exec(
        *program, *COMMAND, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            out, err = await process.communicate()
    except TimeoutError:
        return Observed(verdicts={}, problem=f"no answer within {_PATIENCE:g} s")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        return Observed(verdicts={}, problem=err.decode(errors="replace").strip().splitlines()[0])
    return read(out.decode(errors="replace").splitlines())


def read(lines: Iterable[str]) -> Observed:
    """Counts flows, and picks the newest of each verdict of a policy."""
    verdicts: Counter[str] = Counter()
    samples: dict[str, str] = {}
    for line in lines:
        if (found := _LINE.fullmatch(line)) is not None:
            verdicts[found["verdict"]] += 1
            if "policy-verdict" in line:
                samples[found["verdict"]] = line
    return Observed(verdicts=dict(sorted(verdicts.items())), samples=tuple(samples.values()))
