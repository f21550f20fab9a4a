"""Who is behind a service: what slices say, or the workloads of this node that its selector chooses. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

from attrs import field, frozen

from axoneme.plugins.lb.model import Address, Endpoint, Port, Requirement, Service, Slice, SlicePort
from axoneme.plugins.lb.rows import backend_key, key_end
from axoneme.plugins.lb.selection import Candidate


@frozen
class Workload:
    """A workload of this node."""

    id: int
    namespace: str
    name: str
    addresses: tuple[Address, ...]
    labels: Mapping[str, str] = field(factory=dict)
    #: (name, protocol) → port
    ports: Mapping[tuple[str, str], int] = field(factory=dict)

    @property
    def uid(self) -> str:
        return f"{self.namespace}/{self.name}"


def of_slices(
    service: Service, slices: Iterable[Slice], local: Container[bytes], node: str
) -> dict[int, list[Candidate]]:
    """Candidates by the port of the service.

    :param local: addresses of workloads of this node, packed.
    """
    found: dict[int, dict[bytes, Candidate]] = {}
    for one in slices:
        for number, port in enumerate(service.ports):
            target = _port_of(one, port)
            if target is not None:
                candidates = found.setdefault(number, {})
                for made in _of_slice(service, one, target, port, local, node):
                    candidates.setdefault(made.key, made)
    return {number: list(candidates.values()) for number, candidates in found.items()}


def _port_of(one: Slice, port: Port) -> SlicePort | None:
    for candidate in one.ports:
        if candidate.name == port.name and candidate.protocol == port.protocol:
            return candidate
    return None


def _of_slice(
    service: Service, one: Slice, target: SlicePort, port: Port, local: Container[bytes], node: str
) -> Iterator[Candidate]:
    number = target.port or port.port
    protocol = port.protocol
    end = key_end(number, protocol)
    for endpoint in one.endpoints:
        if not endpoint.addresses:
            continue
        address = endpoint.addresses[0]  # "consumers should only use the first"
        packed = address.packed
        is_local = packed in local or bool(node and endpoint.node == node)
        weight = weight_of(service, endpoint, one.weight) if service.weights else one.weight
        yield Candidate(packed + end, address, number, protocol, endpoint, weight, is_local)


def weight_of(service: Service, endpoint: Endpoint, default: int = 1) -> int:
    """By address, by `namespace/name` of the workload, or by its name."""
    target = endpoint.target
    for name in (str(endpoint.addresses[0]), target, target.rpartition("/")[2]):
        if name and name in service.weights:
            return service.weights[name]
    return default


def of_workloads(service: Service, workloads: Iterable[Workload], node: str) -> dict[int, list[Candidate]]:
    """Candidates by the port of the service: all addresses of these workloads."""
    found: dict[int, list[Candidate]] = {}
    for workload in sorted(workloads, key=lambda one: one.id):
        for address in workload.addresses:
            endpoint = Endpoint((address,), node=node, target=workload.uid)
            for number, port in enumerate(service.ports):
                target = target_port(port, workload)
                if target is not None:
                    found.setdefault(number, []).append(
                        Candidate(
                            backend_key(address, target, port.protocol),
                            address,
                            target,
                            port.protocol,
                            endpoint,
                            weight_of(service, endpoint),
                            True,
                        )
                    )
    return found


def target_port(port: Port, workload: Workload) -> int | None:
    """None for a name that the workload gives no port."""
    if isinstance(port.target, int):
        return port.target or port.port
    return workload.ports.get((port.target, port.protocol.name))


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """A service's selector; an empty one selects nobody."""
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def all_hold(requirements: Iterable[Requirement], labels: Mapping[str, str]) -> bool:
    return all(one.holds(labels) for one in requirements)
