"""The datapath: the programs that run, what they are attached to, and how one set of them gives way to the next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from axoneme.core import logs
from axoneme.core.datapath import abi, reasons, tables
from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.build import Blueprint, Build, Builder, pin_name
from axoneme.core.datapath.cache import Cache
from axoneme.core.datapath.compiler import Compiler
from axoneme.core.datapath.composer import Constants
from axoneme.core.datapath.kernel import Kernel, Program
from axoneme.core.datapath.links import Links, Target, classifier
from axoneme.core.datapath.loader import LoadedProgram
from axoneme.core.datapath.maps import Map, MapSpec
from axoneme.core.datapath.pins import Pins
from axoneme.core.datapath.placement import Attached, node_targets
from axoneme.core.datapath.probes import COARSE_CLOCK, TCX, Probes
from axoneme.core.datapath.uplinks import DEVICE_POINTS, Uplinks
from axoneme.core.errors import KernelError, PluginError
from axoneme.core.net.devices import Device
from axoneme.core.records import DropReason, Stage
from axoneme.core.settings import AUTOMATIC, AttachMode, DatapathSettings

_log = logs.get(__name__)

#: Sizes that nobody has asked to configure.
ENDPOINTS = 65536
IPCACHE = 512_000

#: In this order programs are swapped: whoever reads what another writes goes first.
_SWAP_ORDER = ("to_workload", "to_network", "from_workload", "from_network")

_WORKLOAD_POINTS = ("to_workload", "from_workload")


class Datapath:
    """All that one agent has in the kernel.

    :param root: the agent's folder in a bpf file system.
    :param constants: numbers for the shared C; `coarse_clock` and `direct_routing` are filled in here.
    """

    def __init__(
        self, kernel: Kernel, *, root: Path, cache: Path, settings: DatapathSettings, constants: Constants
    ) -> None:
        self.kernel = kernel
        self.settings = settings
        self.pins = Pins(kernel, root)
        self.links = Links(self.pins)
        self.uplinks = Uplinks(self.links, self._tcx)
        self.probes = Probes(kernel)
        self.compiler = Compiler(Cache(cache))
        self._constants = constants
        self._attached: dict[str, Attached] = {}
        self._on_node: list[str] = []
        self._build: Build | None = None
        self._statistics: int | None = None
        self.on_revision: list[Callable[[int], None]] = []

    # Life.

    def open(self) -> None:
        """Checks the kernel and prepares the pins. Raises `KernelError` that says what is missing."""
        self.probes.require()
        self.pins.prepare()
        if self.settings.stats:
            self._statistics = self.kernel.enable_statistics()

    def close(self) -> None:
        """Lets go of everything; what is pinned and attached goes on without us."""
        if self._build:
            self._build.close()
            self._build = None
        if self._statistics is not None:
            self.kernel.close(self._statistics)
            self._statistics = None

    def remove(self) -> None:
        """Detaches and unpins all that agents with this folder ever made."""
        self.links.prune(())
        self.pins.remove()

    # Building and swapping.

    def core_maps(self) -> list[MapSpec]:
        return abi.core_maps(
            connections=self.settings.conntrack_entries,
            endpoints=ENDPOINTS,
            ipcache=IPCACHE,
            events=self.settings.event_buffer,
            cpus=self.kernel.possible_cpus,
        )

    def blueprint(
        self,
        stages: Iterable[tuple[str, Stage]],
        maps: Iterable[MapSpec],
        drop_reasons: Iterable[DropReason] = (),
    ) -> Blueprint:
        """What the plugins brought, with the core's own part."""
        stages = tuple(stages)
        constants = attrs.evolve(
            self._constants,
            coarse_clock=self.probes.has(COARSE_CLOCK),
            direct_routing=self._wants_devices(stage for _, stage in stages),
        )
        return Blueprint(
            stages=stages,
            maps=(*self.core_maps(), *tables.maps_of_translation(stage for _, stage in stages), *maps),
            reasons=(*reasons.REASONS, *drop_reasons),
            constants=constants,
        )

    def _wants_devices(self, stages: Iterable[Stage]) -> bool:
        """Whether there are programs for devices at all. Automatic ones are used only if somebody has something to do there.

        It does not matter whether there is a device yet: when one comes, everything is ready and nothing is compiled.
        """
        if any(entry != AUTOMATIC for entry in self.settings.devices):
            return True
        return bool(self.settings.devices) and any(stage.devices for stage in stages)

    async def build(self, blueprint: Blueprint) -> Build:
        """Maps and programs for `blueprint`; what runs goes on untouched. See `Builder.build` for the errors."""
        points = [*_WORKLOAD_POINTS, *(["from_network"] if blueprint.constants.direct_routing else [])]
        builder = Builder(self.pins, self.compiler, self.settings, points=points)
        return await builder.build(blueprint, self._build)

    def activate(self, build: Build) -> bool:
        """Makes `build` what runs, everywhere, and forgets its predecessor. Returns whether any program changed.

        Each attachment is replaced in one step. If one cannot be, those before it get their old program back.

        :raises KernelError: when a program cannot be attached; the old build still runs.
        """
        old, changed = self._build, []
        self._place_on_node(build)
        self.pins.catch_up(build.maps.values())
        try:
            for attached in self._in_swap_order():
                if self._attach(attached, build):
                    changed.append(attached)
        except KernelError:
            self._restore(changed, old)
            raise
        self._build = build
        self.pins.catch_up(build.maps.values())
        at_devices = self._place_at_devices(build)
        self._settle(build)
        if old is not None:
            old.close(keep=build)
        if changed or at_devices:
            self.raise_revision()
        return bool(changed) or at_devices

    def _place_on_node(self, build: Build) -> None:
        """Where the configuration wants the programs of this build, besides workloads and hub."""
        points = [point for point in build.programs if point not in (*_WORKLOAD_POINTS, *DEVICE_POINTS)]
        targets = node_targets(points, self.settings)
        for name in self._on_node:
            self._attached.pop(name, None)
        self._on_node = [each.name for each in targets]
        self._attached |= {each.name: each for each in targets}

    def use_devices(self, devices: Collection[Device]) -> None:
        """From now on these are the node's devices: programs are attached there, and detached elsewhere.

        Before the first build is activated nothing happens yet. What is refused is in `uplinks.refused`.
        """
        self.uplinks.use(devices)
        if self._build is not None and self._place_at_devices(self._build):
            self.raise_revision()

    def _place_at_devices(self, build: Build) -> bool:
        """Returns whether anything changed. Where packets may leave is known before any comes in."""
        if self.uplinks.devices is None:
            return False
        routed = self.uplinks.devices if build.blueprint.constants.direct_routing else ()
        indexes = np.array(sorted(device.ifindex for device in routed), np.uint32)
        changed = bool(build.maps["devices"].reconcile(indexes, indexes).total)
        return self.uplinks.place(build.programs) or changed

    def _in_swap_order(self) -> list[Attached]:
        rank = {point: index for index, point in enumerate(_SWAP_ORDER)}
        return sorted(self._attached.values(), key=lambda a: (rank.get(a.point, len(rank)), a.name))

    def _attach(self, attached: Attached, build: Build) -> bool:
        loaded = build.programs.get(attached.point)
        if loaded is None:
            return self.links.detach(attached.name)
        done = self.links.attach(attached.name, attached.target, loaded.main)
        return done.created or done.replaced

    def _restore(self, changed: list[Attached], old: Build | None) -> None:
        for attached in reversed(changed):
            try:
                if old is None:
                    self.links.detach(attached.name)
                else:
                    self._attach(attached, old)
            except KernelError as error:
                _log.error("program not restored", attachment=attached.name, error=str(error))

    def _settle(self, build: Build) -> None:
        """Pins what runs, and removes what earlier builds or earlier agents left."""
        wanted = set()
        for loaded in build.programs.values():
            for name, program in zip(loaded.composition.programs, loaded.programs, strict=True):
                pin = pin_name(loaded.composition, name)
                wanted.add(pin)
                self._pin(pin, program)
        kept = {name for name, each in self._attached.items() if each.point in build.programs}
        self.links.prune(kept | set(self.uplinks.kept()))
        for pin in self.pins.names("programs"):
            if pin not in wanted:
                self.pins.drop(self.pins.path("programs", pin))
        self.pins.prune_maps(each.spec for each in build.maps.values())

    def _pin(self, name: str, program: Program) -> None:
        pinned = self.pins.open_program(name)
        if pinned is not None:
            with pinned:
                if pinned.info.id == program.info.id:
                    return
        self.pins.pin_program(name, program)

    # What programs are attached to.

    def attach_workload(self, endpoint: int, ifindex: int) -> None:
        """Attaches to the host side of a workload's interface, now or when the first build is activated.

        :raises KernelError: when the kernel refuses.
        """
        self._attach_classifier(f"from_workload-{endpoint}", "from_workload", ifindex)

    def detach_workload(self, endpoint: int) -> None:
        self.detach_from(f"from_workload-{endpoint}")

    def attach_host(self, ifindex: int) -> None:
        """Attaches to the device through which the host reaches the workloads."""
        self._attach_classifier("to_workload-host", "to_workload", ifindex)

    def _attach_classifier(self, name: str, point: str, ifindex: int) -> None:
        target = classifier(ifindex, ATTACH_POINTS[point].attach, tcx=self._tcx())
        self.attach_to(name, point, target)

    def attach_to(self, name: str, point: str, target: Target) -> None:
        """Attaches an attach point's program to any target, and keeps it current from then on."""
        attached = Attached(name=name, point=point, target=target)
        if self._build is not None:
            self._attach(attached, self._build)
        self._attached[name] = attached

    def detach_from(self, name: str) -> None:
        """Detaches. Not being attached is fine."""
        self._attached.pop(name, None)
        self.links.detach(name)

    def _tcx(self) -> bool:
        if self.settings.attach_mode is AttachMode.AUTO:
            return self.probes.has(TCX)
        return self.settings.attach_mode is AttachMode.TCX

    # Reading and writing while it runs.

    @property
    def active(self) -> Build | None:
        return self._build

    def map(self, name: str) -> Map:
        """An open map of the build that runs. Raises `PluginError` when there is none of that name."""
        found = self._build.maps.get(name) if self._build else None
        if found is None:
            raise PluginError(f"there is no map {name!r}")
        return found

    def raise_revision(self, build: Build | None = None) -> int:
        """Makes every cached verdict stale; returns the new revision."""
        chosen = build or self._build
        if chosen is None:
            return 0
        runtime = chosen.maps["runtime"]
        # Zero is what an entry that was never decided would have.
        revision = (int(runtime.lookup(0)["revision"]) % 0xFFFFFFFF) + 1
        runtime.update(0, {"revision": revision})
        for listener in self.on_revision:
            listener(revision)
        return revision

    def program(self, point: str) -> LoadedProgram | None:
        return self._build.programs.get(point) if self._build else None

    def attachments(self) -> list[Attached]:
        return [*self._in_swap_order(), *self.uplinks.placed.values()]

    def counters(self) -> list[dict[str, Any]]:
        """Packets and bytes by reason and direction, summed over the CPUs; only those that ever counted."""
        known = self._build.blueprint.reasons if self._build else ()
        names = reasons.SLOTS | {reason.number: reason.name for reason in known}
        keys, values = self.map("counters").items()
        totals = {field: values[field].sum(axis=1) for field in ("packets", "bytes")}
        return [
            {
                "number": int(key) // 2,
                "reason": names.get(int(key) // 2, ""),
                "direction": "egress" if int(key) % 2 else "ingress",
                "packets": int(totals["packets"][row]),
                "bytes": int(totals["bytes"][row]),
            }
            for row, key in enumerate(keys)
            if totals["packets"][row]
        ]
