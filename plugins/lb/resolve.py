"""From a service and its backends to what it wants of the kernel, and to what others are told of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from attrs import define, field, frozen

from axoneme.core.state.resources import Problem
from axoneme.plugins.lb.demand import Balance, Demand, Wanted
from axoneme.plugins.lb.maps import SLOTS_PER_BACKEND, TABLE_SIZES, Algorithm, Scope, ServiceFlag
from axoneme.plugins.lb.model import (
    Address,
    Distribution,
    FrontendKind,
    HostPort,
    Network,
    Port,
    Service,
    ServiceType,
)
from axoneme.plugins.lb.rows import BackendKey, RowKey, row_key
from axoneme.plugins.lb.selection import Candidate, Judged, Rule, Why, is_plain, judge
from axoneme.plugins.lb.values import is_loopback

#: Backends by the port of the service (number in `Service.ports`).
Backends = Mapping[int, Sequence[Candidate]]


#: Port of the service (number in `Service.ports`), address family, and whether only backends on this node count.
JudgedKey = tuple[int, int, bool]


@frozen
class Defaults:
    """What the configuration says, for services that say nothing themselves."""

    algorithm: Algorithm = Algorithm.RANDOM
    maglev_size: int = 16_381
    dsr: bool = False
    zone: str = ""
    node: str = ""


@frozen
class Surroundings:
    """What else a service depends on.

    :param node_addresses: of this node, where its NodePorts are.
    :param hosts: all addresses of this node.
    :param own: addresses of this node and its workloads, which are more than services.
    """

    defaults: Defaults = Defaults()
    node_addresses: tuple[Address, ...] = ()
    hosts: frozenset[Address] = frozenset()
    own: frozenset[Address] = frozenset()


class Front(NamedTuple):
    """An address and port of a service, and from where it is used."""

    kind: FrontendKind
    address: Address
    port: int
    number: int

    def keys(self, service: Service) -> Iterator[tuple[Scope, RowKey]]:
        protocol = service.ports[self.number].protocol
        yield Scope.INTERNAL, row_key(self.address, self.port, protocol, Scope.INTERNAL)
        if self.kind.external:
            yield Scope.EXTERNAL, row_key(self.address, self.port, protocol, Scope.EXTERNAL)


@define(eq=False)
class Resolved:
    """What a service comes to.

    :param judged: what became of its backends.
    """

    service: Service
    demand: Demand
    fronts: list[Front] = field(factory=list)
    backends: Backends = field(factory=dict)
    judged: dict[JudgedKey, Judged] = field(factory=dict)
    problems: list[Problem] = field(factory=list)


def resolve(
    service: Service,
    backends: Backends,
    around: Surroundings,
    ingress: Sequence[Address] = (),
    *,
    skips: tuple[int, ...] = (),
    kind: FrontendKind = FrontendKind.CLUSTER_IP,
    hosts: Sequence[HostPort] = (),
    redirected: Sequence[Port] = (),
) -> Resolved:
    """:param ingress: addresses that a pool gave it.
    :param skips: endpoints that reach the addresses themselves.
    :param kind: what its `cluster_ips` are called.
    :param hosts: of a pod, for each of the service's ports: at which addresses of the node it is.
    :param redirected: ports that it does not have at its `cluster_ips`, because somebody else has them there.
    """
    made = Resolved(service, Demand(), backends=backends)
    fronts = [*_fronts(service, around, ingress, kind), *_host_ports(around, hosts)]
    made.fronts = (
        [front for front in fronts if not _is_among(front, service, redirected)] if redirected else fronts
    )
    made.demand.backends = _held(service, backends)
    balance = _balance(service, around.defaults)
    for front in made.fronts:
        rank = _RANKS[front.kind]
        for scope, key in front.keys(service):
            members = _members(made, around.defaults, judged_key(service, front, scope))
            flags, sources = _flags(service, around, front, scope)
            if skips:
                flags |= _SKIP_BACKENDS
            chosen = _alike(service, around.defaults) if flags & _DSR else balance
            before = made.demand.rows.get(key)
            if before is None or rank <= before.rank:
                made.demand.rows[key] = Wanted(chosen, members, flags, sources, skips, rank)
    made.demand.guards = _guards(fronts, around)
    made.problems += _problems(service, made, fronts, hosts)
    made.problems += (Problem(text, service.where) for one in hosts if (text := _not_here(around, one)))
    return made


def _is_among(front: Front, service: Service, redirected: Sequence[Port]) -> bool:
    return front.kind is FrontendKind.CLUSTER_IP and service.ports[front.number] in redirected


def _fronts(
    service: Service, around: Surroundings, ingress: Sequence[Address], kind: FrontendKind
) -> Iterator[Front]:
    if service.type is ServiceType.EXTERNAL_NAME or service.headless:
        return
    groups = (
        (kind, service.cluster_ips),
        (FrontendKind.EXTERNAL_IPS, service.external_ips),
        (FrontendKind.LOAD_BALANCER, ingress),
    )
    for name, addresses in groups:
        if addresses and (service.exposed is None or name in service.exposed):
            for address in unique(addresses):
                for number, port in enumerate(service.ports):
                    yield Front(name, address, port.port, number)
    if service.exposed is None or FrontendKind.NODE_PORT in service.exposed:
        yield from _node_ports(service, around)


def unique(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Each once; an address's own hash costs more than its comparison with a few others."""
    found: list[Address] = []
    for address in addresses:
        if not found or (address != found[-1] and address not in found):
            found.append(address)
    return tuple(found)


def _node_ports(service: Service, around: Surroundings) -> Iterator[Front]:
    for number, port in enumerate(service.ports):
        if port.node_port:
            for address in around.node_addresses:
                if not service.families or address.version in service.families:
                    yield Front(FrontendKind.NODE_PORT, address, port.node_port, number)


def _host_ports(around: Surroundings, hosts: Sequence[HostPort]) -> Iterator[Front]:
    for number, one in enumerate(hosts):
        if not _not_here(around, one):
            for address in around.node_addresses if one.host_ip is None else (one.host_ip,):
                yield Front(FrontendKind.HOST_PORT, address, one.host_port, number)


def _not_here(around: Surroundings, one: HostPort) -> str:
    """Why a host port is not at the address that it names; empty if it is."""
    if one.host_ip is None:
        return ""
    if is_loopback(one.host_ip):
        return f"hostIP {one.host_ip} is every workload's own (loopback): port {one.host_port} is not served there"
    if one.host_ip not in around.hosts:
        return f"hostIP {one.host_ip} is no address of this node: port {one.host_port} is not served there"
    return ""


def _held(service: Service, backends: Backends) -> dict[BackendKey, tuple[bool, bool]]:
    """Who needs a row: those who get connections, or may go on with those that they have."""
    held = {}
    for candidates in backends.values():
        for one in candidates:
            endpoint = one.endpoint
            if service.publish_not_ready or endpoint.ready or endpoint.serving:
                leaving = endpoint.terminating or not endpoint.ready
                held[one.key] = _STATES[leaving and not service.publish_not_ready][not one.local]
    return held


#: By whether one is terminating, and remote: just that. Of 100,000 backends each would have a pair of its own.
_STATES: Final = (((False, False), (False, True)), ((True, False), (True, True)))


def _balance(service: Service, defaults: Defaults) -> Balance:
    algorithm = defaults.algorithm if service.algorithm is None else service.algorithm
    size = (service.maglev_size or defaults.maglev_size) if algorithm is Algorithm.MAGLEV else 0
    return Balance(algorithm, size, service.affinity)


def _alike(service: Service, defaults: Defaults) -> Balance:
    """Where backends answer clients themselves, every node has to choose the same one."""
    return Balance(Algorithm.MAGLEV, service.maglev_size or defaults.maglev_size, service.affinity)


def judged_key(service: Service, front: Front, scope: Scope) -> JudgedKey:
    """What of `Resolved.judged` a frontend has for traffic from there.

    externalTrafficPolicy is about those who come from outside, internalTrafficPolicy about ClusterIPs.
    """
    local = service.internal_local and front.kind is FrontendKind.CLUSTER_IP
    if scope is Scope.EXTERNAL:
        local = service.external_local
    return front.number, front.address.version, local


def _members(made: Resolved, defaults: Defaults, chosen: JudgedKey) -> tuple[tuple[BackendKey, int], ...]:
    number, version, local = chosen
    judged = made.judged.get(chosen)
    if judged is None:
        candidates = [one for one in made.backends.get(number, ()) if one.address.version == version]
        judged = made.judged[chosen] = _judged(made.service, candidates, defaults, local)
    return tuple(sorted({one.key: (one.key, one.weight) for one in judged.used}.values()))


def _judged(service: Service, candidates: list[Candidate], defaults: Defaults, local: bool) -> Judged:
    if not local and service.distribution is Distribution.NONE and all(map(is_plain, candidates)):
        return Judged(tuple(candidates), (Why.USED,) * len(candidates))
    rule = Rule(local, service.publish_not_ready, service.distribution, defaults.zone, defaults.node)
    return judge(candidates, rule)


#: Numbers: to combine an enumeration's members costs more than the rest of what is done with them.
_DSR, _SKIP_BACKENDS, _SOURCE_RANGES = map(
    int, (ServiceFlag.DSR, ServiceFlag.SKIP_BACKENDS, ServiceFlag.SOURCE_RANGES)
)


def _flags(
    service: Service, around: Surroundings, front: Front, scope: Scope
) -> tuple[int, tuple[Network, ...]]:
    flags = 0
    if scope is Scope.INTERNAL:
        return flags, ()
    direct = around.defaults.dsr if service.dsr is None else service.dsr
    if direct and front.address not in around.own:  # another node knows no service at an address of this one
        flags |= _DSR
    if front.kind is FrontendKind.LOAD_BALANCER and service.source_ranges:
        return flags | _SOURCE_RANGES, service.source_ranges
    return flags, ()


#: Who has an address and port that several services want. What a namespace's owner may say of any address (externalIPs)
#: comes after all that is given out: else he could have other namespaces' traffic (CVE-2020-8554).
_RANKS: Final = {
    kind: rank
    for rank, kind in enumerate(
        (
            FrontendKind.LOCAL_REDIRECT,
            FrontendKind.CLUSTER_IP,
            FrontendKind.LOAD_BALANCER,
            FrontendKind.NODE_PORT,
            FrontendKind.HOST_PORT,
            FrontendKind.EXTERNAL_IPS,
        )
    )
}


_GUARDED: Final = (FrontendKind.CLUSTER_IP, FrontendKind.LOAD_BALANCER)


def _guards(fronts: Sequence[Front], around: Surroundings) -> tuple[RowKey, ...]:
    """Addresses that are nothing but a service's: what has no service there goes nowhere."""
    found: dict[RowKey, None] = {}
    for front in fronts:
        if front.kind in _GUARDED and front.address not in around.own:
            found[row_key(front.address, 0, 0, Scope.INTERNAL)] = None
            if front.kind.external:
                found[row_key(front.address, 0, 0, Scope.EXTERNAL)] = None
    return tuple(found)


def _problems(
    service: Service, made: Resolved, fronts: Sequence[Front], hosts: Sequence[HostPort]
) -> Iterator[Problem]:
    def problem(message: str, hint: str | None = None) -> Problem:
        return Problem(message, service.where, hint)

    if service.type is ServiceType.EXTERNAL_NAME:
        yield problem("an external name is an answer of DNS: there is nothing to balance")
    elif service.headless:
        yield problem("a headless service has no address: there is nothing to balance")
    elif not service.ports:
        yield problem("it has no ports")
    elif not fronts and not hosts:
        yield problem("it has no address", "there is nobody here who gives it one: say clusterIP")
    elif service.type is not ServiceType.CLUSTER_IP:
        missing = [port for port in service.ports if not port.node_port]
        if missing and service.type is ServiceType.NODE_PORT:
            names = ", ".join(port.text for port in missing)
            yield problem(f"no node port for {names}", "there is nobody here who gives it one: say nodePort")
    if (crowd := _crowd(made)) is not None:
        backends, slots = crowd
        larger = next((size for size in TABLE_SIZES if size >= SLOTS_PER_BACKEND * backends), TABLE_SIZES[-1])
        yield problem(
            f"{backends} backends share a table of {slots} slots, less than {SLOTS_PER_BACKEND} each: loads do not follow weights well",
            f"say maglev-table-size: {larger}" if larger > slots else None,
        )


def _crowd(made: Resolved) -> tuple[int, int] | None:
    """The most backends of any of its consistent hashing tables that is too small for them, and the slots of that."""
    sizes = [(len(row.members), row.balance.size) for row in made.demand.rows.values() if row.balance.size]
    return max((one for one in sizes if one[0] * SLOTS_PER_BACKEND > one[1]), default=None) if sizes else None


def port_of(service: Service, front: Front) -> Port:
    return service.ports[front.number]
