"""Another configuration that is refused leaves the decisions as they were: what it allowed is allowed no longer."""

from __future__ import annotations

import socket

import pytest

from axoneme.core.errors import PluginError
from axoneme.core.testing.agent import AgentKit

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}]
"""


def decisions(kit: AgentKit) -> dict[str, list[tuple[bytes, bytes]]]:
    found = {}
    for name in ("policy_subjects", "policy_peers", "policy_verdicts"):
        keys, values = kit.agent.datapath.map(name).items()
        found[name] = sorted(
            (key.tobytes(), value.tobytes()) for key, value in zip(keys, values, strict=True)
        )
    return found


async def test_a_refused_configuration_allows_nothing() -> None:
    values = {"plugins": {"enabled": ["policy"]}}
    async with AgentKit(values=values) as kit:
        kit.resource("policy.yaml", POLICY)
        await kit.agent.source.applied()  # type: ignore[union-attr]
        web = await kit.agent.workloads.add("web", labels={"app": "web"})
        await kit.agent.workloads.add("client", labels={"app": "client"})
        before = decisions(kit)
        assert before["policy_verdicts"]
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            listen = f"127.0.0.1:{other.getsockname()[1]}"
            plugins = {
                "enabled": ["policy", "prometheus"],
                "policy": {"audit": True},
                "prometheus": {"listen": listen},
            }
            kit.configure({"plugins": plugins})
            with pytest.raises(PluginError, match="the running configuration stays"):
                await kit.agent.reload()
        assert decisions(kit) == before
        await kit.agent.workloads.remove("client")
        assert kit.agent.ready
        assert kit.agent.datapath.map("policy_subjects").lookup(web.id) is not None
