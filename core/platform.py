"""What an agent stands on: a kernel and a network. Real ones here; tests bring their own."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from axoneme.core import privileges
from axoneme.core.errors import KernelError
from axoneme.core.records import Service
from axoneme.core.settings import AgentSettings, Settings

if TYPE_CHECKING:
    from axoneme.core.context import Runtime
    from axoneme.core.datapath.datapath import Datapath
    from axoneme.core.datapath.kernel import Kernel
    from axoneme.core.state.table import State
    from axoneme.core.workloads.workloads import Workloads

LinkCallback = Callable[[int], Awaitable[None]]

#: Without these nothing can be loaded or attached.
NEEDED = ("bpf", "net_admin", "sys_admin")


class Platform(Protocol):
    """How an agent gets its parts."""

    def prepare(self, settings: Settings) -> None:
        """Checks permissions and readies the host. Raises `KernelError` that says what is missing."""
        ...

    def kernel(self) -> Kernel: ...

    def datapath(self, kernel: Kernel, settings: Settings) -> Datapath: ...

    def workloads(
        self, state: State, settings: Settings, *, on_link: LinkCallback, on_unlink: LinkCallback
    ) -> Workloads: ...

    def services(self, runtime: Runtime, settings: Settings) -> list[Service]:
        """What has to run as long as the agent does, for the network's sake."""
        ...

    def forget(self) -> None:
        """Takes away what an agent made of the host's own; for when no agent follows."""
        ...


class Host:
    """This machine."""

    def prepare(self, settings: Settings) -> None:
        if lacking := privileges.missing(NEEDED):
            raise KernelError(
                f"the agent needs {', '.join(lacking)}",
                hint="run it as root (sudo), or with these capabilities",
            )
        from axoneme.core.net.host import prepare_host

        prepare_host()

    def kernel(self) -> Kernel:
        from axoneme.core.datapath.syscall import SyscallKernel

        return SyscallKernel()

    def datapath(self, kernel: Kernel, settings: Settings) -> Datapath:
        from axoneme.core.datapath.composer import Constants
        from axoneme.core.datapath.datapath import Datapath
        from axoneme.core.workloads.wiring import GATEWAYS

        gateway6 = GATEWAYS[6].packed
        words = tuple(int.from_bytes(gateway6[i : i + 4], "big") for i in range(0, 16, 4))
        constants = Constants(
            world4=9, world6=10, gateway4=int(GATEWAYS[4]), gateway6=(words[0], words[1], words[2], words[3])
        )
        return Datapath(
            kernel,
            root=settings.agent.bpffs,
            cache=settings.agent.cache_dir,
            settings=settings.datapath,
            constants=constants,
        )

    def workloads(
        self, state: State, settings: Settings, *, on_link: LinkCallback, on_unlink: LinkCallback
    ) -> Workloads:
        from axoneme.core.workloads.workloads import WorkloadOptions, Workloads

        options = WorkloadOptions(
            folder=settings.agent.state_dir,
            agent=settings.agent.name,
            ipv4=settings.pools.ipv4,
            ipv6=settings.pools.ipv6,
            # An identity for each family's world: a policy that opens 0.0.0.0/0 must not open ::/0.
            dual_stack_world=True,
            link_prefix=link_prefix(settings.agent.name),
            namespace_prefix=namespace_prefix(settings.agent.name),
        )
        return Workloads(state, options, on_link=on_link, on_unlink=on_unlink)

    def services(self, runtime: Runtime, settings: Settings) -> list[Service]:
        from axoneme.core.net.devicewatch import DeviceWatch
        from axoneme.core.workloads.hostaddresses import HostAddresses

        addresses = HostAddresses(runtime.state, runtime.workloads.ipcache, settings.node.addresses)
        datapath = runtime.datapath
        devices = DeviceWatch(
            runtime.state, settings.datapath.devices, datapath.use_devices, lambda: datapath.uplinks.refused
        )
        return [
            Service(name="host-addresses", run=addresses.run),
            Service(name="devices", run=devices.run),
        ]

    def forget(self) -> None:
        from axoneme.core.datapath.proxies import MARK_MASK, MARK_TO_PROXY
        from axoneme.core.net import proxyroute

        proxyroute.remove(MARK_TO_PROXY, MARK_MASK)


def link_prefix(agent: str) -> str:
    """How the names of an agent's interfaces begin: `axo` for the usual one, else its own, since names are short."""
    if agent == AgentSettings().name:
        return "axo"
    return f"axo{hashlib.blake2b(agent.encode(), digest_size=2).hexdigest()}-"


def namespace_prefix(agent: str) -> str:
    """How the names of the namespaces begin that an agent makes."""
    return "axo-" if agent == AgentSettings().name else f"axo-{agent}-"
