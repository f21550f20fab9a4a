"""A whole agent without a kernel: for plugin authors' tests, and our own.

    async def test_my_plugin():
        async with AgentKit(plugins=[my_plugin]) as kit:
            endpoint = await kit.agent.workloads.add("web", labels={"app": "web"})
            kit.resource("policy.yaml", "kind: ...")
            assert kit.agent.datapath.map("my_map").lookup(endpoint.id)

Real: configuration, plugins, generations, tables, resources, services, the composer, the API on a socket. Made up: the
kernel (`FakeKernel`), the compiler (every program only says "next"), and the network (numbers instead of interfaces).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import attrs

from axoneme.core import config as configuration
from axoneme.core.agent import Agent
from axoneme.core.api.client import Client
from axoneme.core.context import Runtime
from axoneme.core.datapath import asm
from axoneme.core.datapath.compiler import Bytecode
from axoneme.core.datapath.composer import Composition, Constants
from axoneme.core.datapath.datapath import Datapath
from axoneme.core.errors import CompileError, Where
from axoneme.core.net.devices import DEVICES, Device
from axoneme.core.net.model import Link
from axoneme.core.platform import LinkCallback
from axoneme.core.records import Service
from axoneme.core.settings import Settings
from axoneme.core.supervisor import Clock
from axoneme.core.testing.fake_kernel import FakeKernel
from axoneme.core.workloads.connector import Connector
from axoneme.core.workloads.network import Seen
from axoneme.core.workloads.records import Record
from axoneme.core.workloads.workloads import WorkloadOptions, Workloads

if TYPE_CHECKING:
    from collections.abc import Callable

    from axoneme.core.datapath.compiler import Compiler
    from axoneme.core.datapath.kernel import Kernel
    from axoneme.core.state.table import State

#: What every program consists of: `return 0`.
NEXT = asm.returning(0)


class FakeCompiler:
    """Makes an empty program of every text.

    :param refuse: texts that are refused if they occur in the composed C, with the place that is to blame.
    """

    def __init__(self) -> None:
        self.refuse: dict[str, Where] = {}
        self.compiled: list[str] = []

    def known_cost(self, composition: Composition) -> int | None:
        return None

    def note_cost(self, composition: Composition, verified: int) -> None:
        """The verifier in memory walks nothing."""

    async def compile(self, compositions: Sequence[Composition]) -> list[Bytecode]:
        return [self._one(composition) for composition in compositions]

    async def locate(self, composition: Composition, program: str, instruction: int) -> Where | None:
        return None

    async def cost(self, composition: Composition) -> Mapping[str, int]:
        return {}

    def _one(self, composition: Composition) -> Bytecode:
        for text, where in self.refuse.items():
            if text in composition.text:
                raise CompileError("the compiler refuses it", where=where)
        self.compiled.append(composition.point.name)
        return Bytecode(programs=dict.fromkeys(composition.programs, NEXT), cached=False)


class FakeConnector(Connector):
    """Interfaces that are only numbers."""

    def __init__(self, agent: str) -> None:
        super().__init__(WorkloadOptions(folder=Path(), agent=agent, mtu=1500))
        self.links: dict[int, Link] = {}
        self._last = 100

    async def is_free(self, ifname: str) -> bool:
        return all(link.name != ifname for link in self.links.values())

    async def make_namespace(self, record: Record) -> None:
        return

    async def delete_namespace(self, record: Record) -> None:
        return

    async def connect(self, record: Record, check: Callable[[tuple[int, int]], None]) -> Record:
        self._last += 1
        identity = (0, self._last)
        check(identity)
        self.links[self._last] = Link(
            ifindex=self._last, name=record.ifname, mac=record.node_mac, kind="veth"
        )
        return attrs.evolve(record, ifindex=self._last, peer=2, netns_device=0, netns_inode=self._last)

    async def activate(self, record: Record) -> None:
        self.links[record.ifindex] = attrs.evolve(self.links[record.ifindex], up=True)

    async def hub(self) -> int:
        return 2

    async def prune_routes(self, records: Iterable[Record], seen: Seen) -> list[str]:
        return []

    async def disconnect(self, record: Record, ifindex: int) -> None:
        self.links.pop(ifindex, None)

    async def delete_link(self, ifindex: int) -> None:
        self.links.pop(ifindex, None)

    async def own_link(self, record: Record) -> Link | None:
        return self.links.get(record.ifindex)

    async def look(self) -> Seen:
        return Seen({link.name: link for link in self.links.values()}, frozenset())

    async def repair(self, record: Record, link: Link, seen: Seen) -> list[str]:
        return []


class FakePlatform:
    """What the agent of a test stands on. It outlives the agent, as a kernel does."""

    def __init__(self) -> None:
        self.fake_kernel = FakeKernel()
        self.compiler = FakeCompiler()
        self.connector = FakeConnector("test")
        #: The node's devices, to be set before the agent starts.
        self.devices: tuple[Device, ...] = ()

    def prepare(self, settings: Settings) -> None:
        return

    def kernel(self) -> Kernel:
        return self.fake_kernel

    def datapath(self, kernel: Kernel, settings: Settings) -> Datapath:
        datapath = Datapath(
            kernel,
            root=settings.agent.bpffs,
            cache=settings.agent.cache_dir,
            settings=settings.datapath,
            constants=Constants(),
        )
        datapath.compiler = cast("Compiler", self.compiler)
        return datapath

    def workloads(
        self, state: State, settings: Settings, *, on_link: LinkCallback, on_unlink: LinkCallback
    ) -> Workloads:
        options = WorkloadOptions(
            folder=settings.agent.state_dir, ipv4=settings.pools.ipv4, ipv6=settings.pools.ipv6
        )
        workloads = Workloads(state, options, on_link=on_link, on_unlink=on_unlink)
        workloads._connector = self.connector
        return workloads

    def services(self, runtime: Runtime, settings: Settings) -> list[Service]:
        async def devices(ready: Callable[[], None]) -> None:
            table = runtime.state.writer(DEVICES.name, Device)
            runtime.datapath.use_devices([each for each in self.devices if each.used])
            table.upsert(*self.devices)
            table.mark_initialized()
            ready()

        return [Service(name="devices", run=devices)]

    def forget(self) -> None:
        return


class AgentKit:
    """An agent with folders of its own, started by `async with`.

    :param plugins: as for `Agent`.
    :param values: the configuration beyond the folders, as a mapping like the file's content.
    :param folder: where its folders go; a temporary one, removed afterwards, if it is not given.
    """

    def __init__(
        self,
        plugins: Sequence[Any] = (),
        values: Mapping[str, Any] | None = None,
        *,
        folder: Path | None = None,
        platform: FakePlatform | None = None,
        clock: Clock | None = None,
        **more: Any,
    ) -> None:
        self._temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="axoneme-")) if folder is None else folder
        self.platform = platform or FakePlatform()
        (self.folder / "resources").mkdir(parents=True, exist_ok=True)
        self.values = self._with_folders(values or {})
        self.agent = Agent(
            configuration.from_values(self.values), plugins, platform=self.platform, clock=clock, **more
        )

    def _with_folders(self, values: Mapping[str, Any]) -> dict[str, Any]:
        names = {"state_dir": "state", "run_dir": "run", "cache_dir": "cache", "bpffs": "bpf"}
        folders = {key: str(self.folder / name) for key, name in names.items()}
        own = folders | {"resources": str(self.folder / "resources"), "ready_timeout": 5}
        return {**values, "agent": own | dict(values.get("agent", {}))}

    def resource(self, name: str, text: str) -> Path:
        """Writes a file into the watched folder."""
        path = self.folder / "resources" / name
        path.write_text(text)
        return path

    def configure(self, values: Mapping[str, Any]) -> None:
        """What the configuration will be at the next reload."""
        again = configuration.from_values(self._with_folders(values))
        self.agent.config = attrs.evolve(self.agent.config, sources=lambda: attrs.evolve(again, sources=None))

    def client(self) -> Client:
        """A client of its API. It is synchronous: call it in a thread."""
        return Client(self.agent.socket)

    async def __aenter__(self) -> Self:
        try:
            await self.agent.start()
        except BaseException:
            self._remove()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.agent.stop()
        finally:
            self._remove()

    def _remove(self) -> None:
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
