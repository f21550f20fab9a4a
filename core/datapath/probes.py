"""Asks the running kernel what it can do, by trying it. Versions lie: distributions port features back."""

from __future__ import annotations

import errno
import platform
from collections.abc import Callable, Iterable

import numpy as np
from attrs import frozen

from axoneme.core.datapath import asm
from axoneme.core.datapath.kernel import (
    BpfError,
    Kernel,
    MapAttributes,
    Program,
    ProgramAttributes,
    VerifierRejection,
)
from axoneme.core.datapath.uapi import ENOTSUPP, AttachType, Helper, MapFlag, MapKind, ProgramType
from axoneme.core.errors import KernelError

_NO_INTERFACE = 0x7FFFFFFF
#: Answers that say "I do not know that", rather than "I cannot now" or "you may not".
_UNKNOWN = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.E2BIG, errno.ENOSYS, ENOTSUPP})
_NO_HELPER = ("invalid func", "unknown func", "cannot use helper", "helper call is not allowed")


class Inconclusive(KernelError):
    """The kernel did not say whether it has a feature: too little memory, or no permission."""


@frozen
class Feature:
    """Something that a kernel has or has not.

    :param minimum: the first mainline kernel with it, as (major, minor).
    :param probe: True or False; any other outcome raises `BpfError` and is not remembered.
    """

    name: str
    minimum: tuple[int, int]
    probe: Callable[[Kernel], bool]
    doc: str = ""

    def __str__(self) -> str:
        return f"{self.name} (Linux {self.minimum[0]}.{self.minimum[1]})"


def _map(kind: MapKind, *, key: int = 4, value: int = 4, entries: int = 1, flags: int = 0) -> MapAttributes:
    return MapAttributes(
        kind=kind, name="probe", key_size=key, value_size=value, max_entries=entries, flags=flags
    )


def _has_map(attributes: MapAttributes) -> Callable[[Kernel], bool]:
    def probe(kernel: Kernel) -> bool:
        try:
            kernel.close(kernel.map_create(attributes))
        except BpfError as error:
            return _absent(error)
        return True

    return probe


def _absent(error: BpfError) -> bool:
    """False when the error means that the feature is not there; else the error is raised again."""
    if error.errno not in _UNKNOWN:
        raise error
    return False


def _attributes(
    instructions: bytes, type_: ProgramType = ProgramType.SCHED_CLS, attach: AttachType | None = None
) -> ProgramAttributes:
    return ProgramAttributes(type=type_, name="probe", instructions=instructions, expected_attach=attach)


def _has_program(type_: ProgramType, attach: AttachType | None) -> Callable[[Kernel], bool]:
    def probe(kernel: Kernel) -> bool:
        try:
            kernel.close(kernel.program_load(_attributes(asm.returning(1), type_, attach)))
        except BpfError as error:
            return _absent(error)
        return True

    return probe


def _has_helper(helper: Helper) -> Callable[[Kernel], bool]:
    """A known helper is refused for its arguments, an unknown one for its number."""

    def probe(kernel: Kernel) -> bool:
        try:
            kernel.close(kernel.program_load(_attributes(asm.call(helper) + asm.returning(0))))
        except VerifierRejection as error:
            if not error.log:
                raise
            return not any(words in error.log for words in _NO_HELPER)
        return True

    return probe


def _has_tcx(kernel: Kernel) -> bool:
    """Where TCX is known, attaching to no interface fails for the interface."""
    with Program.load(kernel, _attributes(asm.returning(0))) as program:
        try:
            kernel.close(kernel.link_create(program.fd, _NO_INTERFACE, AttachType.TCX_INGRESS))
        except BpfError as error:
            return error.errno == errno.ENODEV or _absent(error)
    return True


def _has_batches(attributes: MapAttributes) -> Callable[[Kernel], bool]:
    def probe(kernel: Kernel) -> bool:
        fd = kernel.map_create(attributes)
        cpus = kernel.possible_cpus if attributes.kind.per_cpu else 1
        try:
            kernel.map_update_batch(fd, np.zeros(1, "V4"), np.zeros(1, f"V{8 * cpus}"))
        except BpfError as error:
            return _absent(error)
        finally:
            kernel.close(fd)
        return True

    return probe


def _has_statistics(kernel: Kernel) -> bool:
    try:
        kernel.close(kernel.enable_statistics())
    except BpfError as error:
        return _absent(error)
    return True


def _has_verified_count(kernel: Kernel) -> bool:
    with Program.load(kernel, _attributes(asm.returning(0))) as program:
        return program.info.verified > 0


def _helper(name: str, minimum: tuple[int, int], helper: Helper) -> Feature:
    return Feature(name, minimum, _has_helper(helper))


RING_BUFFER = Feature("ring buffer", (5, 8), _has_map(_map(MapKind.RINGBUF, key=0, value=0, entries=4096)))
LPM_TRIE = Feature(
    "longest-prefix map", (4, 11), _has_map(_map(MapKind.LPM_TRIE, key=8, flags=MapFlag.NO_PREALLOC))
)
BATCHES = Feature("map batches", (5, 6), _has_batches(_map(MapKind.HASH, value=8)))
PER_CPU_BATCHES = Feature("per-CPU array batches", (5, 13), _has_batches(_map(MapKind.PERCPU_ARRAY, value=8)))
TCX = Feature("TCX links", (6, 6), _has_tcx, "else clsact filters are used")
SK_LOOKUP = Feature(
    "socket lookup programs", (5, 9), _has_program(ProgramType.SK_LOOKUP, AttachType.SK_LOOKUP)
)
GETPEERNAME = Feature(
    "getpeername hooks",
    (5, 8),
    _has_program(ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_GETPEERNAME),
)
REDIRECT_PEER = _helper("bpf_redirect_peer", (5, 10), Helper.REDIRECT_PEER)
REDIRECT_NEIGH = _helper("bpf_redirect_neigh", (5, 10), Helper.REDIRECT_NEIGH)
SKC_LOOKUP_TCP = _helper("bpf_skc_lookup_tcp", (5, 2), Helper.SKC_LOOKUP_TCP)
SK_ASSIGN = _helper("bpf_sk_assign", (5, 7), Helper.SK_ASSIGN)
COARSE_CLOCK = _helper("bpf_ktime_get_coarse_ns", (5, 11), Helper.KTIME_GET_COARSE_NS)
LOOP = _helper("bpf_loop", (5, 17), Helper.LOOP)
STATISTICS = Feature("program statistics", (5, 8), _has_statistics)
VERIFIED_COUNT = Feature("count of verified instructions", (5, 16), _has_verified_count)

FEATURES = (
    RING_BUFFER,
    LPM_TRIE,
    BATCHES,
    PER_CPU_BATCHES,
    TCX,
    SK_LOOKUP,
    GETPEERNAME,
    REDIRECT_PEER,
    REDIRECT_NEIGH,
    SKC_LOOKUP_TCP,
    SK_ASSIGN,
    COARSE_CLOCK,
    LOOP,
    STATISTICS,
    VERIFIED_COUNT,
)

#: Without these there is no mesh.
REQUIRED = (RING_BUFFER, LPM_TRIE, BATCHES, REDIRECT_PEER, REDIRECT_NEIGH)


class Probes:
    """The answers of one kernel. Only conclusive ones are remembered."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._known: dict[str, bool] = {}

    def has(self, feature: Feature) -> bool:
        """Whether the kernel has it.

        :raises Inconclusive: when it does not say; the next call asks again.
        """
        if (known := self._known.get(feature.name)) is not None:
            return known
        try:
            answer = feature.probe(self._kernel)
        except BpfError as error:
            raise Inconclusive(
                f"cannot find out about {feature.name}: {error.message}", hint=error.hint
            ) from error
        self._known[feature.name] = answer
        return answer

    def require(self, features: Iterable[Feature] = REQUIRED) -> None:
        """Raises `KernelError` that names all that is missing, and the first kernel that has it."""
        if missing := [feature for feature in features if not self.has(feature)]:
            raise KernelError(
                f"this kernel ({platform.release()}) lacks {', '.join(map(str, missing))}",
                hint="Linux 5.10 or later is needed",
            )

    def report(self) -> dict[str, bool | None]:
        """All features by name; None where the kernel does not say."""
        return {feature.name: self._try(feature) for feature in FEATURES}

    def _try(self, feature: Feature) -> bool | None:
        try:
            return self.has(feature)
        except Inconclusive:
            return None
