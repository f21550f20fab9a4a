"""What the agent answers about services, as JSON-like values: for the API and so for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from axoneme.plugins.lb.annotations import ALGORITHMS
from axoneme.plugins.lb.engine import Engine
from axoneme.plugins.lb.maps import Algorithm, BackendFlag, Scope, ServiceFlag
from axoneme.plugins.lb.model import Address, Protocol
from axoneme.plugins.lb.pools import Addresses
from axoneme.plugins.lb.resolve import Front, Resolved, judged_key
from axoneme.plugins.lb.rows import SERVICE, row_key
from axoneme.plugins.lb.selection import Candidate, Judged, Why
from axoneme.plugins.lb.tables import BackendState

_ALGORITHM_NAMES = {algorithm: name for name, algorithm in ALGORITHMS.items()}


def place(address: Address, port: int, protocol: str = "") -> str:
    """`10.0.0.1:80/TCP`, `[fd00::1]:80/TCP`."""
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{port}" + (f"/{protocol}" if protocol else "")


def services(engine: Engine) -> list[dict[str, Any]]:
    """A row per frontend, by its number."""
    rows = [row for made in engine.resolved.values() for row in _frontends(engine, made)]
    return sorted(rows, key=lambda row: (row["id"] == 0, row["id"], row["frontend"]))


def _frontends(engine: Engine, made: Resolved) -> Iterator[dict[str, Any]]:
    service = made.service
    for front in made.fronts:
        port = service.ports[front.number]
        external = service.external_local and front.kind.external
        judged = _judged(made, front, Scope.EXTERNAL if external else Scope.INTERNAL)
        yield {
            "id": _number(engine, made, front, Scope.INTERNAL),
            "external_id": _number(engine, made, front, Scope.EXTERNAL),
            "frontend": place(front.address, front.port, port.protocol.name),
            "type": front.kind.value,
            "namespace": service.namespace,
            "name": service.name,
            "port_name": port.name,
            "source": service.origin.value,
            "algorithm": _ALGORITHM_NAMES[made.demand.rows[next(front.keys(service))[1]].balance.algorithm],
            "affinity": service.affinity,
            "internal_traffic_policy": "Local" if service.internal_local else "Cluster",
            "external_traffic_policy": "Local" if service.external_local else "Cluster",
            "backends": _backends(engine, judged),
            "problems": _problems(engine, made),
        }
    if not made.fronts:
        yield {
            "id": 0, "external_id": 0, "frontend": "", "type": service.type.value, "namespace": service.namespace,
            "name": service.name, "port_name": "", "source": service.origin.value, "algorithm": "",
            "affinity": service.affinity, "internal_traffic_policy": "", "external_traffic_policy": "",
            "backends": [], "problems": _problems(engine, made),
        }  # fmt: skip


def _problems(engine: Engine, made: Resolved) -> list[str]:
    row = engine.row(made.service.key)
    return [str(problem) for problem in row.problems] if row is not None else []


def _number(engine: Engine, made: Resolved, front: Front, scope: Scope) -> int:
    protocol = made.service.ports[front.number].protocol
    return engine.image.number(row_key(front.address, front.port, protocol, scope))


def kinds(engine: Engine) -> dict[bytes, list[str]]:
    """What the rows of services are, in the words of `cilium-dbg bpf lb list`, by their keys."""
    found = {}
    for made in engine.resolved.values():
        for front in made.fronts:
            for _, key in front.keys(made.service):
                if engine.image.owner(key) == made.service.key:
                    found[key] = _kind(made, front, made.demand.rows[key].flags)
    return found


def _kind(made: Resolved, front: Front, flags: int) -> list[str]:
    service, external = made.service, front.kind.external
    words = {
        front.kind.value: True,
        "Local": external and service.external_local,
        "InternalLocal": service.internal_local,
        "two-scopes": external and service.external_local,
        "sessionAffinity": service.affinity > 0,
        "non-routable": not external,
        "check source-range": bool(flags & ServiceFlag.SOURCE_RANGES),
        "dsr": bool(flags & ServiceFlag.DSR),
    }
    return [word for word, true in words.items() if true]


def _judged(made: Resolved, front: Front, scope: Scope) -> Judged:
    """What became of the backends for a frontend used from there."""
    return made.judged.get(judged_key(made.service, front, scope), Judged(()))


def _pairs(judged: Judged) -> Iterator[tuple[Candidate, Why]]:
    return zip(judged.candidates, judged.reasons, strict=True)


#: Whoever is passed over for these reasons would get connections if there were nobody nearer.
_FAR = (Why.REMOTE, Why.ZONE, Why.NODE)


def _backends(engine: Engine, judged: Judged) -> list[dict[str, Any]]:
    """With `affinity`: `preferred` to others that are `far`, or empty."""
    some_far = any(why in _FAR for why in judged.reasons)
    words = dict.fromkeys(_FAR, "far") | ({Why.USED: "preferred"} if some_far else {})
    return [_backend(engine, one, why) | {"affinity": words.get(why, "")} for one, why in _pairs(judged)]


def _backend(engine: Engine, one: Candidate, why: Why) -> dict[str, Any]:
    return {
        "id": engine.image.backends.number(one.key),
        "address": place(one.address, one.port, one.protocol.name),
        "state": one.state.value,
        "used": why is Why.USED,
        "why": why.value if why is not Why.USED or one.state is not BackendState.TERMINATING else LAST,
        "weight": one.weight,
        "node": one.endpoint.node,
        "zone": one.endpoint.zone,
        "workload": one.endpoint.target,
        "local": one.local,
    }


#: Why a terminating backend is used nevertheless.
LAST = "used: all are terminating"


def explain(engine: Engine, address: Address, port: int, protocol: Protocol | None) -> list[dict[str, Any]]:
    """What an address and port comes to, for each protocol and for traffic from within and from outside."""
    found = []
    for made in engine.resolved.values():
        for front in made.fronts:
            of_port = made.service.ports[front.number].protocol
            if (front.address, front.port) == (address, port) and protocol in (None, of_port):
                found += [
                    _explained(engine, made, front, scope, key) for scope, key in front.keys(made.service)
                ]
    return found


def _explained(engine: Engine, made: Resolved, front: Front, scope: Scope, key: bytes) -> dict[str, Any]:
    service, wanted = made.service, made.demand.rows[key]
    value = engine.image.rows.get(key)
    _, _, slots, affinity, flags, algorithm, _ = SERVICE.unpack(value) if value else (0, 0, 0, 0, 0, 0, 0)
    counts = engine.image.shares(key)
    return {
        "frontend": place(front.address, front.port, service.ports[front.number].protocol.name),
        "traffic": "from outside" if scope is Scope.EXTERNAL else "from this node",
        "service": service.uid,
        "type": front.kind.value,
        "id": engine.image.number(key),
        "in_kernel": engine.image.owner(key) == service.key,
        "algorithm": _ALGORITHM_NAMES[Algorithm(algorithm)],
        "slots": slots,
        "affinity": affinity,
        "flags": [flag.name.lower() for flag in ServiceFlag if flags & flag and flag.name],
        "source_ranges": [str(one) for one in wanted.sources],
        "backends": [
            _backend(engine, one, why) | {"slots": counts.get(one.key, 0)}
            for one, why in _pairs(_judged(made, front, scope))
        ],
        "problems": _problems(engine, made),
    }


def pools(addresses: Addresses) -> list[dict[str, Any]]:
    """Address pools, by name, with how many of their addresses are given."""
    conflicts = addresses.conflicts()
    given = [address for each in addresses.given.values() for address in each]
    rows = []
    for name, pool in sorted(addresses.pools.items()):
        used = sum(any(address in block for block in pool.blocks) for address in set(given))
        total = sum(int(block.last) - int(block.first) + 1 for block in pool.blocks)
        other = conflicts.get(name)
        rows.append(
            {
                "name": name,
                "blocks": [f"{block.first}-{block.last}" for block in pool.blocks],
                "disabled": pool.disabled,
                "given": used,
                "available": total - used,
                "problem": "" if other is None else f"it overlaps with {other}: nothing is given from it",
                "where": str(pool.where or ""),
            }
        )
    return rows


def frontend_text(key: bytes) -> str:
    """A row's key as `10.96.0.1:80/TCP`, with `/e` behind it for traffic from outside; `10.96.0.1:0/ANY` for a guard."""
    address, port = ip_address(key[:-4]), int.from_bytes(key[-4:-2], "big")
    protocol = Protocol(key[-2]).name if key[-2] else "ANY"
    return place(address, port, protocol) + ("/e" if key[-1] == Scope.EXTERNAL else "/i")


def backend_text(value: bytes) -> str:
    """A backend's row as `10.0.0.1:8080/TCP`."""
    port = int.from_bytes(value[-4:-2], "big")
    protocol = Protocol(value[-1]).name if value[-1] else "ANY"
    return place(ip_address(value[:-4]), port, protocol)


def backend_flags(value: bytes) -> list[str]:
    return [str(flag.name).lower() for flag in BackendFlag if value[-2] & flag]


def service_flags(flags: int) -> list[str]:
    return [str(flag.name).lower() for flag in ServiceFlag if flags & flag]
