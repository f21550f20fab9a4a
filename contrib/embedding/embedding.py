"""Axoneme inside a program of one's own: an agent, and a plugin that lives in this file.

    sudo .venv/bin/python contrib/embedding/embedding.py

It connects two workloads, lets one talk to the other, and shows what the plugin's stage in the kernel refused. All that it
makes is gone when it ends.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from axoneme.core import cleanup
from axoneme.core.agent import Agent
from axoneme.core.config import Config, from_values
from axoneme.core.datapath.abi import EventType
from axoneme.core.errors import AxonemeError
from axoneme.core.hooks import hookimpl
from axoneme.core.plugin import PluginContext
from axoneme.core.records import DropReason, Phase, PluginInfo, Stage
from axoneme.core.testing.namespaces import Namespaces, reachable

#: A stage may be the C text itself. `REFUSED_PORT` is one of its defines; the reason's name is known as `REASON_…`.
REFUSE = """
STAGE(refuse)
{
	if (p->service_port == be16(REFUSED_PORT))
		return DROP(REASON_PORT_REFUSED);
	return NEXT;
}
"""


class RefusePort:
    """A plugin is any object (or module) with hook implementations. To hand it to an agent is to enable it."""

    reason = DropReason(number=400, name="PORT_REFUSED", text="this port is not spoken to")

    def __init__(self, port: int) -> None:
        self.port = port

    @hookimpl
    def axoneme_info(self) -> PluginInfo:
        return PluginInfo(name="refuse-port", summary=f"nobody speaks to port {self.port}")

    @hookimpl
    def axoneme_drop_reasons(self) -> Iterable[DropReason]:
        return [self.reason]

    @hookimpl
    def axoneme_stages(self, context: PluginContext) -> Iterable[Stage]:
        points, defines = ("from_workload", "to_workload"), {"REFUSED_PORT": self.port}
        return [Stage(name="refuse", source=REFUSE, attach=points, phase=Phase.DECIDE, defines=defines)]


async def run(config: Config) -> None:
    async with Agent(config, plugins=[RefusePort(23)]) as agent:
        client = await agent.workloads.add("client")
        server = await agent.workloads.add("server", labels={"app": "server"})
        with agent.events.listen([EventType.DROP]) as drops, Namespaces() as network:
            for port in (8080, 23):
                network.serve_tcp(server.netns, port)
                answered = await asyncio.to_thread(reachable, client.netns, str(server.ipv4), port)
                print(f"client to server, port {port}: {'answered' if answered else 'no answer'}", flush=True)
            batch = await anext(drops.batches())
            assert set(batch["reason"]) == {RefusePort.reason.number}
            print(f"the kernel says: {RefusePort.reason.text}")


def configuration(folder: Path) -> Config:
    """What would be in the configuration file. Everything of this agent is its own, so that it disturbs no other one."""
    names = ("state_dir", "run_dir", "cache_dir", "resources")
    agent = {"name": "embedding", "bpffs": "/sys/fs/bpf/axoneme-embedding"}
    agent |= {name: str(folder / name) for name in names}
    pools = {"ipv4": "10.245.0.0/24", "ipv6": "fd00:245::/120"}
    return from_values({"agent": agent, "pools": pools, "datapath": {"devices": []}})


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="axoneme-") as folder:
        config = configuration(Path(folder))
        (Path(folder) / "resources").mkdir()
        try:
            asyncio.run(run(config))
        finally:
            # An agent that ends leaves workloads, maps and programs as they are, for the next one to take over.
            for _ in cleanup.run(config):
                pass


if __name__ == "__main__":
    try:
        main()
    except AxonemeError as error:
        sys.exit(f"error: {error}")
