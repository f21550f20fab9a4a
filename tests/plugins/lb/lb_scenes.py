"""Objects for tests, as people write them, and an agent of its own on a kernel in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

from axoneme.core.testing.agent import AgentKit, FakePlatform
from axoneme.plugins.lb.maps import BackendFlag, Scope
from axoneme.plugins.lb.rows import row_key
from axoneme.plugins.lb.tables import ServiceRow

#: Small maps: the kernel in memory fills its arrays with objects.
SIZES = {
    "services": 1024,
    "slots": 8192,
    "backends": 1024,
    "sockets": 1024,
    "affinity": 1024,
    "sources": 1024,
}
PATIENCE = 10.0


def values(**lb: Any) -> dict[str, Any]:
    return {"plugins": {"enabled": ["lb"], "lb": {**SIZES, **lb}}}


def kit(folder: Any = None, platform: FakePlatform | None = None, **lb: Any) -> AgentKit:
    return AgentKit(values=values(**lb), folder=folder, platform=platform)


async def until(reached: Callable[[], Any]) -> Any:
    """Lets the agent work until this is true."""
    async with asyncio.timeout(PATIENCE):
        while not (answer := reached()):  # noqa: ASYNC110 -- what is waited for is in maps, which tell nobody
            await asyncio.sleep(0.005)
    return answer


def names(made: AgentKit) -> dict[str, ServiceRow]:
    return {row.name: row for row in made.agent.state.table("services", ServiceRow).all()}


def row_of(made: AgentKit, address: str, port: int, scope: Scope = Scope.INTERNAL, protocol: int = 6) -> Any:
    one = ip_address(address)
    return made.agent.datapath.map(f"lb_services{one.version}").lookup(row_key(one, port, protocol, scope))


def behind(made: AgentKit, address: str, port: int, scope: Scope = Scope.INTERNAL) -> list[str]:
    """The backends that the kernel chooses from, as `address:port`; slot by slot."""
    row = row_of(made, address, port, scope)
    if row is None:
        return []
    version = ip_address(address).version
    backends = made.agent.datapath.map(f"lb_backends{version}")
    slots = made.agent.datapath.map("lb_slots")
    found = []
    for slot in range(int(row["first"]), int(row["first"] + row["count"])):
        one = backends.lookup(slots.lookup(slot))
        assert one["flags"] & BackendFlag.USED
        words = b"".join(int(word).to_bytes(4, "big") for word in one["address"]["a"])
        found.append(f"{ip_address(words)}:{int(one['port'])}")
    return found


def service(name: str, spec: str, *, namespace: str = "default", annotations: str = "{}") -> str:
    return f"""\
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, annotations: {annotations}}}
spec: {{{spec}}}
---
"""


def slices(
    service_name: str,
    addresses: Sequence[str],
    port: int = 8080,
    *,
    namespace: str = "default",
    protocol: str = "TCP",
    port_name: str = "",
    more: str = "",
) -> str:
    """A slice with these addresses; each may be followed by a space and further fields."""
    family = 6 if ":" in addresses[0].split(" ")[0] else 4
    name = f", name: {port_name}" if port_name else ""
    rows = "".join(
        f'- {{addresses: ["{one.partition(" ")[0]}"]{", " if " " in one else ""}{one.partition(" ")[2]}}}\n'
        for one in addresses
    )
    return f"""\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service_name}-{family}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service_name}}}}}
addressType: IPv{family}
ports: [{{port: {port}, protocol: {protocol}{name}}}]
{more}endpoints:
{rows}---
"""
