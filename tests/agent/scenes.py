"""A host with an agent, a client and a server on it, and the traffic between them that nothing may disturb."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen

from axoneme.core.testing.node import Node, Placed
from axoneme.core.testing.traffic import Flow, Traffic, mesh, probes

#: The port to which the client may talk, and one on which the server listens as well, but nobody may reach it.
OPEN, CLOSED = 80, 81

Values = dict[str, Any]


def policy(*ports: int) -> str:
    """Policies for both ends: the client may talk to the server on these ports, TCP and UDP, and to nobody else; nobody
    else may talk to the server, and nobody at all to the client."""
    rows = "".join(
        f"\n    - {{port: '{port}', protocol: {kind}}}" for port in ports for kind in ("TCP", "UDP")
    )
    return f"""\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: server, namespace: default}}
spec:
  endpointSelector: {{matchLabels: {{app: server}}}}
  ingress:
  - fromEndpoints: [{{matchLabels: {{app: client}}}}]
    toPorts:
    - ports:{rows.replace("    -", "      -")}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: client, namespace: default}}
spec:
  endpointSelector: {{matchLabels: {{app: client}}}}
  ingress:
  - fromEndpoints: [{{matchLabels: {{app: nobody}}}}]
  egress:
  - toEndpoints: [{{matchLabels: {{app: server}}}}]
    toPorts:
    - ports:{rows.replace("    -", "      -")}
"""


@frozen(kw_only=True)
class Scene:
    """A node and two workloads; with the policy plugin on, `OPEN` is open and `CLOSED` is closed."""

    node: Node
    client: Placed
    server: Placed

    def flows(self, *, closed: bool = True) -> list[Flow]:
        denied = probes(self.client.netns, self.server.addresses, CLOSED) if closed else []
        return [*mesh(self.client.netns, self.server.addresses, OPEN), *denied]

    @contextlib.contextmanager
    def traffic(self, *, closed: bool = True, more: Sequence[Flow] = ()) -> Iterator[Traffic]:
        """Traffic of all kinds around whatever happens inside; nothing of it may fail, get lost, or come through."""
        servers = [(self.server.netns, OPEN), (self.server.netns, CLOSED)]
        try:
            with Traffic(servers=servers, flows=[*self.flows(closed=closed), *more]) as traffic:
                yield traffic
                traffic.more(20)
            print(traffic.check())  # shown when the test fails, or by -rP
        except Exception as error:
            error.add_note(f"the agent's log ended with\n{self.node.log_end()}")
            raise


def furnish(node: Node) -> Scene:
    """A started node with the two workloads."""
    client = node.workload("client", app="client")
    return Scene(node=node, client=client, server=node.workload("server", app="server"))


@contextlib.contextmanager
def scene_of(values: Values, *, text: str = "", **options: Any) -> Iterator[Scene]:
    """A node of this configuration with the two workloads and a policy."""
    with Node(values, **options) as node:
        if text:
            node.resource("policy.yaml", text)
        node.start()
        yield furnish(node)


ENFORCED: Values = {"plugins": {"enabled": ["policy"]}}
