"""The core's own part of the configuration: every key, with its default and what it means."""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from axoneme.core.structure import setting

#: What an agent may still do after it dropped what it does not need: bpf(2) and its verifier's full reach, links and
#: routes, entering workloads' namespaces; raw sockets for neighbours; ports below 1024, signals and socket hand-over
#: for what plugins run on its behalf.
CAPABILITIES = (
    "bpf",
    "perfmon",
    "net_admin",
    "sys_admin",
    "net_raw",
    "net_bind_service",
    "sys_ptrace",
    "kill",
)


class LogFormat(enum.StrEnum):
    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@frozen(kw_only=True)
class LogSettings:
    level: LogLevel = setting(LogLevel.INFO, help="the least important events that are logged")
    format: LogFormat = setting(LogFormat.TEXT, help="lines for people, or one JSON object a line")


class Privileges(enum.StrEnum):
    DROP = "drop"
    KEEP = "keep"


@frozen(kw_only=True)
class AgentSettings:
    name: str = setting(
        "axoneme", help="tells several agents of one node apart", pattern=r"[a-z][a-z0-9-]{0,30}"
    )
    state_dir: Path = setting(Path("/var/lib/axoneme"), help="what outlives the agent")
    run_dir: Path = setting(Path("/run/axoneme"), help="the local API's socket")
    cache_dir: Path = setting(
        Path("/var/cache/axoneme"), help="compiled programs; may be deleted at any time"
    )
    bpffs: Path = setting(Path("/sys/fs/bpf/axoneme"), help="the folder of the pins, on a bpf file system")
    resources: Path = setting(Path("/etc/axoneme/resources"), help="the watched folder of resource files")
    socket_group: str = setting("", help="the group that may use the local API besides root")
    ready_timeout: float = setting(30.0, help="seconds that a start waits for services", minimum=0)
    watch_config: bool = setting(True, help="reload when the configuration file changes")
    privileges: Privileges = setting(
        Privileges.DROP, help="whether `axoneme agent` drops the capabilities it does not need"
    )
    capabilities: tuple[str, ...] = setting(CAPABILITIES, help="the capabilities that are kept")
    log: LogSettings = setting(LogSettings(), help="the agent's log on standard error")


@frozen(kw_only=True)
class NodeSettings:
    name: str = setting("", help="this node's name; empty: the host name")
    addresses: tuple[str, ...] = setting((), help="this node's addresses; empty: those of its devices")

    def node_name(self) -> str:
        return self.name or socket.gethostname()


@frozen(kw_only=True)
class PoolSettings:
    ipv4: ipaddress.IPv4Network | None = setting(
        ipaddress.IPv4Network("10.244.0.0/16"),
        help="the addresses that workloads of this node get; null: none",
    )
    ipv6: ipaddress.IPv6Network | None = setting(
        ipaddress.IPv6Network("fd00:244::/64"),
        help="the IPv6 addresses that workloads of this node get; null: none",
    )


class AttachMode(enum.StrEnum):
    AUTO = "auto"
    TCX = "tcx"
    CLSACT = "clsact"


class Strategy(enum.StrEnum):
    AUTO = "auto"
    SINGLE = "single"
    TAILCALLS = "tailcalls"


@frozen(kw_only=True)
class TimeoutSettings:
    """How long the connection table remembers, in seconds."""

    tcp_syn: int = setting(60, help="a connection that was not answered yet", minimum=1)
    tcp: int = setting(8000, help="an established connection without packets", minimum=1)
    tcp_fin: int = setting(10, help="a closed connection", minimum=1)
    any: int = setting(60, help="everything that is not TCP", minimum=1)
    gc_interval: float = setting(
        10.0, help="between two looks through the whole table; sooner when room runs short", minimum=0.1
    )


#: Among `datapath.devices`: those by which the node reaches the world.
AUTOMATIC = "auto"
_DEVICE = re.compile(r"[^\s/:]{1,64}")


def _devices(instance: DatapathSettings, attribute: Any, value: tuple[str, ...]) -> None:
    for entry in value:
        if not _DEVICE.fullmatch(entry):
            raise ValueError(f"{entry!r} is not the name of a network device, nor a pattern of names")
        if entry.endswith("+"):
            raise ValueError(f"{entry!r} is a pattern of another language: write {entry[:-1] + '*'!r}")
        if entry == "none":
            raise ValueError("no devices are written as an empty list: []")


@frozen(kw_only=True)
class DatapathSettings:
    attach_mode: AttachMode = setting(
        AttachMode.AUTO, help="TCX links, or clsact filters on kernels before 6.6"
    )
    strategy: Strategy = setting(Strategy.AUTO, help="one program per attach point, or cut into tail calls")
    max_verified_instructions: int = setting(
        500_000,
        help="when one program would cost the verifier more, it is cut",
        minimum=1000,
        maximum=1_000_000,
    )
    conntrack_entries: int = setting(
        262_144,
        help="entries per family, two per connection; when full, new ones are refused",
        minimum=1024,
        maximum=16_777_216,
    )
    event_buffer: int = setting(
        1 << 22, help="bytes of the event ring, a power of two", minimum=4096, maximum=1 << 30
    )
    devices: tuple[str, ...] = attrs.field(
        default=(AUTOMATIC,),
        validator=_devices,
        metadata={
            "help": "network devices towards other nodes and the world: names, patterns (eth*), and auto for those by "
            "which this node reaches the world; empty: none"
        },
    )
    cgroup: Path | None = setting(
        None, help="the cgroup whose sockets the socket programs see; null: all that the machine has"
    )
    sample_interval: float = setting(
        30.0,
        help="seconds between two reports about a connection that goes on, while somebody listens; 0: none",
        minimum=0,
    )
    stats: bool = setting(False, help="let the kernel count the programs' runs and time, which costs some")
    timeouts: TimeoutSettings = setting(TimeoutSettings(), help="how long connections are remembered")


@frozen(kw_only=True)
class StoreSettings:
    """What the agent remembers of connections and drops, on the disk, for questions about the past."""

    enabled: bool = setting(True, help="keep connections and drops on the disk, under agent.state_dir")
    mebibytes: int = setting(256, help="how much room they may take; the oldest give way", minimum=1)
    days: float = setting(7.0, help="how long they are kept", minimum=0.001)


@frozen(kw_only=True)
class EventSettings:
    store: StoreSettings = setting(StoreSettings(), help="connections and drops on the disk")


@frozen(kw_only=True)
class PluginSettings:
    """Which plugins run. `sections` holds what stands under the plugins' own names, as it was written."""

    enabled: tuple[str, ...] = setting((), help="the plugins that run, by name")
    required: tuple[str, ...] = setting((), help="plugins without which the agent does not start")
    sections: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Settings:
    agent: AgentSettings = setting(AgentSettings(), help="the agent itself")
    node: NodeSettings = setting(NodeSettings(), help="the machine it runs on")
    pools: PoolSettings = setting(PoolSettings(), help="the workloads' addresses")
    datapath: DatapathSettings = setting(DatapathSettings(), help="the programs in the kernel")
    events: EventSettings = setting(EventSettings(), help="what becomes of the programs' reports")
    plugins: PluginSettings = setting(PluginSettings(), help="what this agent does, plugin by plugin")
