"""Everything that is known of services, and which of them must be looked at anew when something of it changes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from attrs import evolve, frozen

from axoneme.core.state.resources import Problem
from axoneme.plugins.lb.backends import Workload, all_hold, of_slices, of_workloads, selects
from axoneme.plugins.lb.model import (
    Address,
    AddressPool,
    FrontendKind,
    Name,
    Pod,
    Port,
    Redirect,
    Service,
    ServiceType,
    Slice,
)
from axoneme.plugins.lb.pools import Addresses
from axoneme.plugins.lb.resolve import Backends, Resolved, Surroundings, resolve
from axoneme.plugins.lb.selection import Candidate

#: What the names of redirect policies' own services, and of pods', end with.
REDIRECT: Final = ":local-redirect"
HOST_PORT: Final = ":host-port"


@frozen
class Local:
    """A service that somebody added by command, with its backends."""

    service: Service
    slices: tuple[Slice, ...] = ()


class Catalog:
    """Services by name; `dirty` has those that must be resolved again."""

    def __init__(self, around: Surroundings, addresses: Addresses) -> None:
        self.around = around
        self.addresses = addresses
        self.services: dict[Name, Service] = {}
        self.locals: dict[Name, Local] = {}
        self.redirects: dict[Name, Redirect] = {}
        self.pods: dict[Name, Pod] = {}
        self.workloads: dict[int, Workload] = {}
        #: By service; each by its own name and family.
        self.slices: dict[Name, dict[tuple[str, int], Slice]] = {}
        self.dirty: dict[Name, None] = {}
        #: Services that wait for an address that somebody else has.
        self._waiting: set[Name] = set()
        self._own: dict[bytes, int] = {}
        self._selecting: dict[Name, None] = {}
        self._node_ports: dict[Name, None] = {}
        self._asking: dict[Name, None] = {}
        #: Services with a health check port.
        self.checked: dict[Name, None] = {}

    # What changes

    def touch(self, *names: Name) -> None:
        for name in names:
            self.dirty[name] = None

    def take_dirty(self) -> list[Name]:
        """Who must be resolved again, by name."""
        names = sorted(self.dirty)
        self.dirty.clear()
        return names

    def set_resource(self, old: Any, new: Any) -> None:
        """What the parsers made of a resource before and now; None for nothing."""
        if old is not None:
            for one in old if isinstance(old, tuple) else (old,):
                self._drop(one)
        if new is not None:
            for one in new if isinstance(new, tuple) else (new,):
                self._add(one)

    def _drop(self, old: Any) -> None:
        if isinstance(old, Slice):
            name = (old.namespace, old.service)
            slices = self.slices.get(name, {})
            slices.pop((old.name, old.family), None)
            if not slices:
                self.slices.pop(name, None)
            self.touch(name)
        elif isinstance(old, Service):
            self.services.pop(old.key, None)
            self._note(old.key, None)
        elif isinstance(old, Redirect):
            self.redirects.pop(old.key, None)
            self._touch_redirect(old)
        elif isinstance(old, Pod):
            self.pods.pop(old.key, None)
            self._touch_pod(old)
        elif isinstance(old, AddressPool):
            self.addresses.pools.pop(old.name, None)
            self.touch(*self._asking)

    def _add(self, new: Any) -> None:
        if isinstance(new, Slice):
            name = (new.namespace, new.service)
            self.slices.setdefault(name, {})[new.name, new.family] = new
            self.touch(name)
        elif isinstance(new, Service):
            self.services[new.key] = new
            self._note(new.key, new)
        elif isinstance(new, Redirect):
            self.redirects[new.key] = new
            self._touch_redirect(new)
        elif isinstance(new, Pod):
            if new.ports:
                self.pods[new.key] = new
                self._touch_pod(new)
        elif isinstance(new, AddressPool):
            self.addresses.pools[new.name] = new
            self.touch(*self._asking)

    def set_local(self, name: Name, local: Local | None) -> None:
        """A service that a command added or deleted."""
        if local is None:
            self.locals.pop(name, None)
        else:
            self.locals[name] = local
        self._note(name, self.service(name))

    def _note(self, name: Name, service: Service | None) -> None:
        self.touch(name)
        service = service or self.service(name)
        indexes = self._selecting, self._node_ports, self._asking, self.checked
        for index, holds in zip(indexes, _traits(service), strict=True):
            if holds:
                index[name] = None
            else:
                index.pop(name, None)
        self._touch_redirects_of(name)

    def _touch_redirect(self, redirect: Redirect) -> None:
        """Another policy for the same service may have it now, or have it no longer."""
        self.touch(_own_name(redirect))
        if redirect.service:
            name = (redirect.namespace, redirect.service)
            self.touch(name)
            self._touch_redirects_of(name)

    def _touch_redirects_of(self, service: Name) -> None:
        for redirect in self.redirects.values():
            if (redirect.namespace, redirect.service) == service:
                self.touch(_own_name(redirect))

    def _touch_pod(self, pod: Pod) -> None:
        self.touch((pod.namespace, pod.name + HOST_PORT))

    def set_workload(self, number: int, workload: Workload | None) -> tuple[Address, ...]:
        """Returns the addresses whose services may have changed, too."""
        old = self.workloads.pop(number, None)
        if workload is not None:
            self.workloads[number] = workload
        if old == workload:
            return ()
        for one in (old, workload):
            if one is not None:
                self._touch_selecting(one)
        before = old.addresses if old else ()
        after = workload.addresses if workload else ()
        for address in before:
            if self._own.get(address.packed) == number:  # who has it since may have been told of first
                del self._own[address.packed]
        self._own.update({address.packed: number for address in after})
        return tuple(set(before) ^ set(after))

    def _touch_selecting(self, workload: Workload) -> None:
        if (pod := self.pods.get((workload.namespace, workload.name))) is not None:
            self._touch_pod(pod)
        for name in self._selecting:
            service = self.service(name)
            if (
                service is not None
                and name[0] == workload.namespace
                and selects(service.selector, workload.labels)
            ):
                self.touch(name)
        for redirect in self.redirects.values():
            if redirect.namespace == workload.namespace and all_hold(redirect.selector, workload.labels):
                self._touch_redirect(redirect)

    def set_surroundings(self, around: Surroundings) -> None:
        if around == self.around:
            return
        other = around.defaults != self.around.defaults
        moved = set(around.own) ^ set(self.around.own)
        self.around = around
        self.touch(*(self.names() if other else self._node_ports))
        for pod in self.pods.values():
            self._touch_pod(pod)
        if moved:
            self.touch(*(name for name in self.names() if self._has_any(name, moved)))

    def _has_any(self, name: Name, addresses: set[Address]) -> bool:
        service = self.service(name)
        return service is not None and not addresses.isdisjoint(
            (*service.cluster_ips, *service.external_ips, *self.addresses.of(name))
        )

    # What follows

    def service(self, name: Name) -> Service | None:
        """The service of a name; a resource hides a local one."""
        found = self.services.get(name)
        if found is None and (local := self.locals.get(name)) is not None:
            return local.service
        return found

    def names(self) -> Iterator[Name]:
        yield from self.services
        yield from (name for name in self.locals if name not in self.services)
        yield from map(_own_name, self.redirects.values())
        yield from ((pod.namespace, pod.name + HOST_PORT) for pod in self.pods.values())

    def resolve(self, name: Name) -> Resolved | None:
        """What becomes of a service now; None when there is none."""
        if name[1].endswith(REDIRECT):
            return self._redirected(name)
        if name[1].endswith(HOST_PORT):
            return self._of_pod(name)
        service = self.service(name)
        if service is None:
            self._let_go(name)
            return None
        ingress, problems = self._ingress(service)
        backends = self.backends(service)
        redirected: tuple[Port, ...] = ()
        if (redirect := self._redirect_of(name)) is not None:
            redirected = _ports(service.ports, redirect.ports)
            problems = [*problems, _withdrawn(service, redirected, redirect)]
        made = resolve(service, backends, self.around, ingress, redirected=redirected)
        made.problems += problems
        return made

    def _ingress(self, service: Service) -> tuple[tuple[Address, ...], list[Problem]]:
        name = service.key
        before = self.addresses.of(name)
        if name not in self._asking and not before:
            return (), []
        given, problems = self.addresses.assign(service)
        self._waiting.discard(name)
        if set(before) - set(given):
            self.touch_waiting()
        if problems:
            self._waiting.add(name)
        return given, problems

    def touch_waiting(self) -> None:
        """Those who wait for an address may get it now."""
        self.touch(*self._waiting)

    def _let_go(self, name: Name) -> None:
        """The service is gone; others may want its addresses."""
        self._waiting.discard(name)
        if self.addresses.of(name):
            self.addresses.release(name)
            self.touch_waiting()

    def backends(self, service: Service) -> Backends:
        name, node = service.key, self.around.defaults.node
        local = self.locals.get(name)
        if local is not None and local.service is service and local.slices:
            return of_slices(service, local.slices, self._own, node)
        slices = self.slices.get(name)
        if slices is not None:
            return of_slices(service, [slices[key] for key in sorted(slices)], self._own, node)
        if not service.selector:
            return {}
        return of_workloads(service, self._selected(service), node)

    def _selected(self, service: Service) -> Iterable[Workload]:
        return (
            workload
            for workload in self.workloads.values()
            if workload.namespace == service.namespace and selects(service.selector, workload.labels)
        )

    def _of_pod(self, name: Name) -> Resolved | None:
        """The host ports of a pod of this node."""
        pod = self.pods.get((name[0], name[1].removesuffix(HOST_PORT)))
        if pod is None:
            return None
        own = [one for one in self.workloads.values() if (one.namespace, one.name) == pod.key]
        node = self.around.defaults.node
        if not own and (not pod.node or pod.node == node) and pod.addresses:
            own = [Workload(0, pod.namespace, pod.name, pod.addresses)]
        service = Service(
            namespace=name[0],
            name=name[1],
            ports=tuple(Port(one.host_port, one.protocol, target=one.port) for one in pod.ports),
            where=pod.where,
        )
        made = resolve(service, of_workloads(service, own, node), self.around, hosts=pod.ports if own else ())
        if not own:
            made.problems = [Problem("the pod is not on this node", pod.where)]
        return made

    # Redirects

    def _redirect_of(self, name: Name) -> Redirect | None:
        """The redirect policy that takes a service's ClusterIP away: one with somebody to redirect to."""
        for key in sorted(self.redirects):
            redirect = self.redirects[key]
            if (redirect.namespace, redirect.service) == name and self._chosen(redirect):
                service = self.service(name)
                if service is not None and _ports(service.ports, redirect.ports):
                    return redirect
        return None

    def _chosen(self, redirect: Redirect) -> list[Workload]:
        return [
            workload
            for workload in self.workloads.values()
            if workload.namespace == redirect.namespace and all_hold(redirect.selector, workload.labels)
        ]

    def _redirected(self, name: Name) -> Resolved | None:
        redirect = self.redirects.get((name[0], name[1].removesuffix(REDIRECT)))
        if redirect is None:
            return None
        workloads = self._chosen(redirect)
        service = self._as_service(redirect, name[1])
        why = self._in_vain(redirect) if workloads else "no workload of this node is selected"
        if why:
            return _nobody(service, redirect, why)
        backends = of_workloads(service, workloads, self.around.defaults.node)
        skips = tuple(sorted(one.id for one in workloads)) if redirect.skip_backends else ()
        return resolve(service, backends, self.around, skips=skips, kind=FrontendKind.LOCAL_REDIRECT)

    def _in_vain(self, redirect: Redirect) -> str:
        """Why a policy has no effect though it has workloads; empty if it has."""
        if not redirect.service:
            return ""
        winner = self._redirect_of((redirect.namespace, redirect.service))
        if winner is None:
            return f"{redirect.namespace}/{redirect.service} is not there, or has none of its ports"
        return "" if winner is redirect else f"{winner.name} redirects the same service"

    def _as_service(self, redirect: Redirect, name: str) -> Service:
        addresses: tuple[Address, ...] = () if redirect.address is None else (redirect.address,)
        ports = redirect.ports
        if redirect.service:
            original = self.service((redirect.namespace, redirect.service))
            if original is not None:
                addresses = original.cluster_ips
                ports = _ports(original.ports, redirect.ports)
        return Service(
            namespace=redirect.namespace,
            name=name,
            cluster_ips=addresses,
            ports=tuple(_to_backend(port, redirect.backend_ports) for port in ports),
            where=redirect.where,
        )


def _traits(service: Service | None) -> tuple[bool, bool, bool, bool]:
    """Whether it selects workloads, has node ports, asks for an address, is asked how it is."""
    if service is None:
        return False, False, False, False
    return (
        bool(service.selector),
        any([port.node_port for port in service.ports]),  # noqa: C419 - a list is made sooner than a generator
        service.type is ServiceType.LOAD_BALANCER,
        service.external_local and service.health_check_port > 0,
    )


def _own_name(redirect: Redirect) -> Name:
    return (redirect.namespace, redirect.name + REDIRECT)


def _ports(every: tuple[Port, ...], chosen: tuple[Port, ...]) -> tuple[Port, ...]:
    """The ports of a service that a policy redirects: all, unless it names some."""
    wanted = {(port.port, port.protocol) for port in chosen}
    return tuple(port for port in every if not wanted or (port.port, port.protocol) in wanted)


def _withdrawn(service: Service, ports: tuple[Port, ...], redirect: Redirect) -> Problem:
    what = "" if ports == service.ports else f"{', '.join(port.text for port in ports)} of "
    return Problem(f"{what}its ClusterIP is redirected by {redirect.name}", redirect.where)


def _to_backend(port: Port, backend_ports: tuple[Port, ...]) -> Port:
    """With the port of the backends as its target: the one of the same name, or the only one."""
    if len(backend_ports) == 1:
        return evolve(port, target=backend_ports[0].port)
    same = [one.port for one in backend_ports if one.name == port.name.lower()]
    return evolve(port, target=same[0] if same else port.port)


def _nobody(service: Service, redirect: Redirect, why: str) -> Resolved:
    """It redirects nothing: the traffic goes where it would go anyway."""
    made = resolve(evolve(service, cluster_ips=()), {}, Surroundings())
    made.problems = [Problem(f"it redirects nothing: {why}", redirect.where)]
    return made


def candidates_of(made: Resolved) -> Iterator[Candidate]:
    """All backends of a service, port by port."""
    return chain.from_iterable(made.backends.values())
