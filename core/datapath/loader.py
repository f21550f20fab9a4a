"""The loader: bytecode and open maps become programs in the kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import Protocol

from attrs import frozen

from axoneme.core.datapath.compiler import Bytecode
from axoneme.core.datapath.composer import Composition
from axoneme.core.datapath.kernel import Kernel, Program, ProgramAttributes, ProgramInfo, VerifierRejection
from axoneme.core.datapath.maps import Map, MapKind
from axoneme.core.datapath.relocate import relocate
from axoneme.core.datapath.uapi import OBJ_NAME_LEN, ProgramType
from axoneme.core.datapath.verifier import parse
from axoneme.core.errors import VerifierError, Where


class Locator(Protocol):
    """What tells where in the sources an instruction came from: the compiler."""

    async def locate(self, composition: Composition, program: str, instruction: int) -> Where | None: ...


@frozen(eq=False)
class LoadedProgram:
    """A composition in the kernel: the program to attach, and those that it reaches by tail calls."""

    composition: Composition
    programs: tuple[Program, ...]

    @property
    def main(self) -> Program:
        return self.programs[0]

    @property
    def fd(self) -> int:
        return self.main.fd

    @cached_property
    def infos(self) -> tuple[ProgramInfo, ...]:
        """As the kernel told after loading."""
        return tuple(program.info for program in self.programs)

    @property
    def verified(self) -> int:
        """Instructions that the verifier walked, of the largest program. The kernel's limit is per program."""
        return max(info.verified for info in self.infos)

    def close(self) -> None:
        for program in self.programs:
            program.close()


async def load(
    kernel: Kernel, composition: Composition, bytecode: Bytecode, maps: Mapping[str, Map], locator: Locator
) -> LoadedProgram:
    """Loads all programs of a composition and links its tail calls.

    :param maps: open maps by name; all that the composition refers to.
    :raises VerifierError: one line that names plugin, file and line; nothing stays loaded.
    """
    fds = {token: maps[spec.name].fd for token, spec in composition.tokens.items()}
    programs: list[Program] = []
    with ExitStack() as undo:
        for name in composition.programs:
            program = await _load_one(
                kernel, composition, name, relocate(bytecode.programs[name], fds), locator
            )
            undo.callback(program.close)
            programs.append(program)
        _link_tail_calls(composition, programs, maps)
        undo.pop_all()
    return LoadedProgram(composition, tuple(programs))


def _link_tail_calls(composition: Composition, programs: list[Program], maps: Mapping[str, Map]) -> None:
    jumps = [spec for spec in composition.tokens.values() if spec.kind is MapKind.PROG_ARRAY]
    for spec in jumps:
        for index, program in enumerate(programs[1:]):
            maps[spec.name].update(index, program.fd)


async def _load_one(
    kernel: Kernel, composition: Composition, name: str, instructions: bytes, locator: Locator
) -> Program:
    # Classifiers are attached by TCX or as filters: without an expected type, the same program serves both.
    classifier = composition.point.program is ProgramType.SCHED_CLS
    attributes = ProgramAttributes(
        type=composition.point.program,
        name=name[: OBJ_NAME_LEN - 1],
        instructions=instructions,
        expected_attach=None if classifier else composition.point.attach,
    )
    try:
        return await asyncio.to_thread(Program.load, kernel, attributes)
    except VerifierRejection as rejection:
        raise await _explained(rejection, composition, name, locator) from rejection


async def _explained(
    rejection: VerifierRejection, composition: Composition, name: str, locator: Locator
) -> VerifierError:
    said = parse(rejection.log)
    where = None
    if said.instruction is not None:
        where = await locator.locate(composition, name, said.instruction)
    return VerifierError(
        f"the verifier rejects {name}: {said.summary()}",
        log=rejection.log,
        where=where,
        hint="the full log is in the error's `log`",
    )
