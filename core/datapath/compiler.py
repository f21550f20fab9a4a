"""The compiler: from a composed text to bytecode, through a worker process and the cache.

Compiling is a function from text to bytes. Its key covers everything that the bytes depend on: the text, the flags, the
header shim and the compiler's version.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache as memoise
from importlib import metadata

from attrs import frozen

from axoneme.core import logs
from axoneme.core.datapath.cache import Cache, CacheError
from axoneme.core.datapath.composer import Composition, shared_folder
from axoneme.core.datapath.listing import Listing, instructions_by_file
from axoneme.core.errors import CompileError, KernelError, Where

_log = logs.get(__name__)

_TIMEOUT = 120.0
_FLAGS = (
    "-I/usr/include",
    f"-I/usr/include/{platform.machine()}-linux-gnu",
    "-Wno-everything",
    "-Werror=implicit-function-declaration",  # would become a call that no loader can resolve
    "-Werror=int-conversion",
    "-Werror=incompatible-pointer-types",
    "-Werror=return-type",
)


@frozen(kw_only=True)
class Bytecode:
    """The instructions of a composition's programs by name, still with tokens for maps."""

    programs: Mapping[str, bytes]
    cached: bool


class Compiler:
    """Compiles compositions, each in a worker process of its own, at most `jobs` at a time."""

    def __init__(self, cache: Cache, *, jobs: int = 2) -> None:
        self.cache = cache
        #: The last reason for which the cache could not be written, for the health check.
        self.cache_problem: CacheError | None = None
        #: Called with each composition that is not in the cache, before it is compiled.
        self.on_compile: Callable[[Composition], None] | None = None
        self._jobs = jobs
        self._costs: dict[str, dict[str, int]] = {}

    async def compile(self, compositions: Sequence[Composition]) -> list[Bytecode]:
        """The bytecode of each, in the same order.

        :raises CompileError: with plugin file and line, for the first that the compiler refused.
        """
        gate = asyncio.Semaphore(self._jobs)

        async def one(composition: Composition) -> Bytecode:
            async with gate:
                return await self._compile(composition)

        results = await asyncio.gather(*(one(c) for c in compositions), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Bytecode)]

    async def _compile(self, composition: Composition) -> Bytecode:
        key = content_key(composition)
        if (known := self.cache.get(key)) is not None:
            return Bytecode(programs=known, cached=True)
        if self.on_compile is not None:
            self.on_compile(composition)
        answer, _ = await _run_worker(composition, annotate=False)
        programs = {name: base64.b64decode(code) for name, code in answer.items()}
        self._store(key, programs)
        return Bytecode(programs=programs, cached=False)

    def _store(self, key: str, programs: Mapping[str, bytes]) -> None:
        try:
            self.cache.put(key, programs)
            self.cache_problem = None
        except CacheError as error:
            self.cache_problem = error
            _log.warning("compile cache not written", error=str(error))

    def known_cost(self, composition: Composition) -> int | None:
        """How many instructions this kernel's verifier walked when it was loaded before, if that was noted."""
        return self.cache.cost(content_key(composition))

    def note_cost(self, composition: Composition, verified: int) -> None:
        self.cache.note_cost(content_key(composition), verified)

    async def locate(self, composition: Composition, program: str, instruction: int) -> Where | None:
        """The place in the source of one instruction, for the verifier's complaints. None if it cannot be told.

        The text is compiled once more with annotations, which only failures pay for. They come without `#line` marks,
        since those would hide the lines of the composed text.
        """
        line = (await self._listing(composition)).line(program, instruction)
        return composition.origin(line) if line else None

    async def cost(self, composition: Composition) -> dict[str, int]:
        """Instructions by the source file that they came from, all programs of the composition together."""
        if composition.digest not in self._costs:
            listing = await self._listing(composition)
            self._costs = {composition.digest: instructions_by_file(listing, composition), **self._costs}
        return self._costs[composition.digest]

    async def _listing(self, composition: Composition) -> Listing:
        plain = re.sub(r"(?m)^#line .*$", "", composition.text)
        _, printed = await _run_worker(composition, annotate=True, text=plain)
        return Listing(printed, plain)


@memoise
def _environment_digest() -> str:
    """Of everything besides the text that the bytecode depends on."""
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for path in sorted((shared_folder() / "shim").rglob("*.h")):
        digest.update(path.name.encode() + path.read_bytes())
    try:
        digest.update(metadata.version("bcc").encode())
    except metadata.PackageNotFoundError:
        digest.update(b"bcc unknown")
    digest.update(platform.machine().encode())
    return digest.hexdigest()


def content_key(composition: Composition) -> str:
    """The cache key: 40 hexadecimal digits."""
    return hashlib.sha256(f"{_environment_digest()} {composition.text}".encode()).hexdigest()[:40]


async def _run_worker(
    composition: Composition, *, annotate: bool, text: str | None = None
) -> tuple[dict[str, str], str]:
    """The worker's answer and what the compiler printed."""
    job = {
        "text": composition.text if text is None else text,
        "programs": composition.programs,
        "cflags": _FLAGS,
        "shim": str(shared_folder() / "shim"),
        "annotate": annotate,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "axoneme.core.datapath.compile_worker",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_TIMEOUT):
            out, err = await process.communicate(json.dumps(job).encode())
    except BaseException:
        process.kill()
        await process.wait()
        raise
    diagnostics = err.decode(errors="replace")
    if process.returncode:
        raise _failure(composition, diagnostics, process.returncode)
    return json.loads(out), diagnostics


_DIAGNOSTIC = re.compile(
    r"(?m)^(?P<file>[^:\n]+):(?P<line>\d+):(?P<column>\d+): (?:fatal )?error: (?P<message>.*)$"
)


def _failure(composition: Composition, diagnostics: str, status: int) -> Exception:
    """The first thing that the compiler refused, at the place where its author can mend it."""
    if status == 3:
        return KernelError(
            "BCC is not installed", hint="apt-get install --no-install-recommends python3-bpfcc"
        )
    found = _DIAGNOSTIC.search(diagnostics)
    if not found:
        last = diagnostics.strip().splitlines()[-1:] or [f"the worker ended with status {status}"]
        return CompileError(f"{composition.point.name} does not compile: {last[0]}")
    where = Where(found["file"], int(found["line"]), int(found["column"]))
    return CompileError(
        f"{composition.point.name} does not compile: {found['message']}",
        where=where,
        hint="correct it, or disable the plugin",
    )
