"""The process in which rehearsals run: inputs on standard input, the answer as JSON on standard output.

A process of its own, because two more engines take memory and time that the agent must not give.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from axoneme.core.api.wire import NotFoundError, RequestError, encode, error_to_json
from axoneme.core.errors import AxonemeError
from axoneme.plugins.policy.rehearsal.inputs import Inputs
from axoneme.plugins.policy.rehearsal.objects import Objects, objects_of


def main() -> None:
    # Written by the agent, our parent, into a pipe that nobody else has.
    job = pickle.load(sys.stdin.buffer)  # noqa: S301
    try:
        answer = {"answer": run(**job)}
    except AxonemeError as error:
        answer = {"error": error_to_json(error)}
    sys.stdout.buffer.write(encode(answer))


def run(kind: str, inputs: Inputs, **arguments: Any) -> dict[str, Any]:
    """The answer of one rehearsal. Raises `AxonemeError`."""
    jobs: dict[str, Callable[..., dict[str, Any]]] = {"diff": _diff, "replay": _replay, "learn": _learn}
    return jobs[kind](inputs, **arguments)


def _changed(
    inputs: Inputs, files: list[tuple[str, str]], delete: list[str], only: bool
) -> tuple[Inputs, Objects]:
    objects = objects_of(files)
    if not objects.objects and not delete and not only:
        raise RequestError(
            "there is no policy in these files", hint="give a CiliumNetworkPolicy, or --delete NAME"
        )
    return inputs.changed(objects.objects, [_key(inputs, name) for name in delete], only=only), objects


def _key(inputs: Inputs, name: str) -> str:
    """The key of a policy by KIND/NAMESPACE/NAME, NAMESPACE/NAME or NAME."""
    found = [
        key
        for key in inputs.policies
        if name in (key, key.partition("/")[2].strip("/"), key.rpartition("/")[2])
    ]
    if len(found) > 1:
        raise RequestError(
            f"several policies are named {name}: {', '.join(sorted(found))}", hint="say one of them"
        )
    if not found:
        raise NotFoundError(f"there is no policy {name!r}", hint="see `axoneme resource list`")
    return found[0]


def _diff(inputs: Inputs, files: list[tuple[str, str]], delete: list[str], only: bool) -> dict[str, Any]:
    from axoneme.plugins.policy.rehearsal.diff import diff

    after, objects = _changed(inputs, files, delete, only)
    return diff(inputs, after) | {"skipped": list(objects.skipped)}


def _replay(
    inputs: Inputs,
    files: list[tuple[str, str]],
    delete: list[str],
    only: bool,
    folder: str,
    since: float,
    until: float,
) -> dict[str, Any]:
    from axoneme.plugins.policy.rehearsal.replay import replay

    after, objects = _changed(inputs, files, delete, only)
    return replay(inputs, after, Path(folder), _ago(since), _ago(until)) | {"skipped": list(objects.skipped)}


def _learn(
    inputs: Inputs, selector: str, folder: str, since: float, until: float, **options: Any
) -> dict[str, Any]:
    from axoneme.plugins.policy.model import Direction
    from axoneme.plugins.policy.rehearsal.learn import NOISE, Options, learn

    directions = tuple(Direction(one) for one in options.pop("directions")) or tuple(Direction)
    noise = (*NOISE, *options.pop("ignore"))
    chosen = Options(directions=directions, noise=noise, **options)
    return learn(inputs, Path(folder), selector, _ago(since), _ago(until), chosen)


def _ago(seconds: float) -> int | None:
    """Seconds ago; 0 is no limit."""
    return time.time_ns() - int(seconds * 1e9) if seconds else None


if __name__ == "__main__":
    main()
