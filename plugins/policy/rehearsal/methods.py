"""What the agent answers about policies that do not hold yet: `policy.diff`, `policy.replay`, `policy.learn`."""

from __future__ import annotations

import asyncio
import json
import pickle
import sys
from collections.abc import Iterable
from typing import Any, Final

from axoneme.core.api.wire import RequestError, error_from_json
from axoneme.core.errors import AxonemeError
from axoneme.core.plugin import PluginContext
from axoneme.core.records import ApiMethod
from axoneme.plugins.policy.rehearsal.live import inputs_of
from axoneme.plugins.policy.rehearsal.objects import unpacked

#: Seconds that a rehearsal may take.
TIMEOUT: Final = 120.0
#: A week, which is what the store keeps by default.
_LONGEST: Final = 366 * 86400.0


def methods(context: PluginContext) -> Iterable[ApiMethod]:
    ask = _Rehearsals(context)
    return [
        ApiMethod(
            name="policy.diff", call=ask.diff, summary="what policies would change for those who are here now"
        ),
        ApiMethod(
            name="policy.replay",
            call=ask.replay,
            summary="what policies would have made of recorded connections",
        ),
        ApiMethod(
            name="policy.learn",
            call=ask.learn,
            summary="policies that allow what was recorded, and nothing else",
        ),
    ]


class _Rehearsals:
    """Answers one question at a time: each takes a process of its own, and the memory of two engines."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._one_at_a_time = asyncio.Lock()

    async def diff(
        self, files: list[list[str]] | str, delete: list[str] | None = None, only: bool = False
    ) -> dict[str, Any]:
        """:param files: [name, content] each, or all of them as `objects.packed` makes it of them.
        :param delete: policies that would be deleted.
        :param only: nothing but these policies would hold.
        """
        return await self._run("diff", **_policies(files, delete, only))

    async def replay(
        self,
        files: list[list[str]] | str,
        delete: list[str] | None = None,
        only: bool = False,
        since: float = 0,
        until: float = 0,
    ) -> dict[str, Any]:
        """:param since: seconds ago, as `until`; 0 for no limit."""
        return await self._run("replay", **_policies(files, delete, only), **self._recorded(since, until))

    async def learn(
        self,
        selector: str,
        since: float = 0,
        until: float = 0,
        directions: list[str] | None = None,
        ignore: list[str] | None = None,
        ipv4_prefix: int = 32,
        ipv6_prefix: int = 128,
        most_prefixes: int = 32,
        names: bool = True,
        audit: bool = False,
    ) -> dict[str, Any]:
        """See `learn.Options`.

        :param selector: `app=web,tier=front`.
        :param ignore: keys of labels that are not to be selected by, beside the usual ones.
        """
        chosen = _texts(directions)
        if not set(chosen) <= {"egress", "ingress"}:
            raise RequestError(f"{', '.join(chosen)} are no directions", hint="ingress, egress")
        return await self._run(
            "learn",
            **self._recorded(since, until),
            selector=str(selector),
            directions=chosen,
            ignore=_texts(ignore),
            ipv4_prefix=_between(ipv4_prefix, 0, 32),
            ipv6_prefix=_between(ipv6_prefix, 0, 128),
            most_prefixes=_between(most_prefixes, 0, 1000),
            names=bool(names),
            audit=bool(audit),
        )

    def _recorded(self, since: float, until: float) -> dict[str, Any]:
        folder = self._context.settings.agent.state_dir / "events"
        return {"folder": str(folder), "since": _seconds(since), "until": _seconds(until)}

    async def _run(self, kind: str, **arguments: Any) -> dict[str, Any]:
        async with self._one_at_a_time:
            return await rehearsed({"kind": kind, "inputs": inputs_of(self._context), **arguments})


def _policies(files: Any, delete: Any, only: Any) -> dict[str, Any]:
    return {"files": _files(files), "delete": _texts(delete), "only": bool(only)}


async def rehearsed(job: dict[str, Any]) -> dict[str, Any]:
    """The worker's answer. Raises `AxonemeError`: the worker's own, or that it took too long."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "axoneme.plugins.policy.rehearsal.worker",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate(await asyncio.to_thread(pickle.dumps, job))
    except TimeoutError:
        raise AxonemeError(
            f"the rehearsal took more than {TIMEOUT:.0f} seconds",
            hint="ask about fewer policies, or a shorter time",
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = err.decode(errors="replace").strip().splitlines()[-1:] or [f"status {process.returncode}"]
        raise AxonemeError(f"the rehearsal failed: {last[0]}")
    answer = json.loads(out)
    if "error" in answer:
        raise error_from_json(answer["error"])
    found: dict[str, Any] = answer["answer"]
    return found


def _files(files: Any) -> list[tuple[str, str]]:
    """A list of [name, content], or that as `packed` makes it."""
    if isinstance(files, str):
        return unpacked(files)
    if not isinstance(files, list) or not all(
        isinstance(one, list) and len(one) == 2 and all(isinstance(part, str) for part in one)
        for one in files
    ):
        raise RequestError("files must be a list of [name, content]")
    return [(name, content) for name, content in files]


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | None) or not all(isinstance(one, str) for one in value or ()):
        raise RequestError(f"{value!r} is no list of words")
    return list(value or ())


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LONGEST:
        raise RequestError(f"{value!r} is no number of seconds")
    return float(value)


def _between(value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RequestError(f"{value!r} does not lie in {least} to {most}")
    return value
