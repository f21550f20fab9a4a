"""What the plugin itself keeps in the state folder: services that were added by command, and addresses that pools gave."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from axoneme.core import logs
from axoneme.core.errors import Where
from axoneme.core.state.persist import PersistError, write_atomic
from axoneme.core.structure import plain, structure
from axoneme.plugins.lb.annotations import ALGORITHMS, MAX_WEIGHT
from axoneme.plugins.lb.catalog import Local
from axoneme.plugins.lb.model import (
    Address,
    Endpoint,
    Name,
    Origin,
    Port,
    Protocol,
    Service,
    ServiceType,
    Slice,
    SlicePort,
)
from axoneme.plugins.lb.values import address, virtual

log = logs.get(__name__)

VERSION: Final = 1
_MOST: Final = 1000
#: The file is written as a whole for each change.
MOST_SERVICES: Final = 4096


@frozen(kw_only=True)
class BackendRecord:
    address: str
    port: int
    weight: int = 1


@frozen(kw_only=True)
class LocalRecord:
    """A service as `axoneme service add` made it.

    :param selector: of workloads of this node; then there are no `backends` and `target` is their port.
    """

    name: str
    namespace: str = "default"
    vips: tuple[str, ...] = ()
    port: int
    protocol: str = "TCP"
    node_port: int = 0
    external: bool = False
    backends: tuple[BackendRecord, ...] = ()
    selector: Mapping[str, str] = field(factory=dict)
    target: int = 0
    algorithm: str = ""
    affinity: int = 0

    @property
    def key(self) -> Name:
        return (self.namespace, self.name)

    def local(self, path: Path) -> Local:
        """The service. Raises `ValueError` with what is wrong."""
        vips = tuple(virtual(text) for text in self.vips)
        for number, what in (
            (self.port, "port"),
            (self.node_port or 1, "node port"),
            (self.target or 1, "target port"),
        ):
            if not 1 <= number <= 65535:
                raise ValueError(f"{number} is no {what}")
        if self.protocol not in Protocol.__members__:
            raise ValueError(f"{self.protocol!r} is no protocol of services; it can be TCP, UDP, SCTP")
        if self.algorithm and self.algorithm not in ALGORITHMS:
            raise ValueError(f"{self.algorithm!r} is no algorithm; it can be {', '.join(ALGORITHMS)}")
        if not vips and not self.node_port:
            raise ValueError("it needs an address (--vip) or a node port")
        if len(self.backends) > _MOST:
            raise ValueError(f"{len(self.backends)} backends, the limit is {_MOST}")
        protocol, where = Protocol[self.protocol], Where(str(path))
        service = Service(
            namespace=self.namespace,
            name=self.name,
            type=ServiceType.NODE_PORT if self.node_port else ServiceType.CLUSTER_IP,
            origin=Origin.LOCAL,
            selector=self.selector,
            cluster_ips=() if self.external else vips,
            external_ips=vips if self.external else (),
            ports=(Port(self.port, protocol, target=self.target, node_port=self.node_port),),
            affinity=self.affinity,
            algorithm=ALGORITHMS[self.algorithm] if self.algorithm else None,
            where=where,
        )
        return Local(service, tuple(self._slices(protocol, where)))

    def _slices(self, protocol: Protocol, where: Where) -> Iterable[Slice]:
        for number, backend in enumerate(self.backends):
            one = address(backend.address)
            if not 1 <= backend.port <= 65535 or not 0 <= backend.weight <= MAX_WEIGHT:
                raise ValueError(f"{backend.address}: a port from 1 to 65535, a weight up to {MAX_WEIGHT}")
            yield Slice(
                namespace=self.namespace,
                name=f"{self.name}-{number}",
                service=self.name,
                family=one.version,
                ports=(SlicePort(backend.port, protocol),),
                endpoints=(Endpoint((one,)),),
                weight=backend.weight,
                where=where,
            )


class LocalServices:
    """The file of local services. What cannot be read is put aside, with a line in the log."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lb-services.json"
        self.records: dict[Name, LocalRecord] = {}

    def load(self) -> dict[Name, Local]:
        found = {}
        for row in _read(self.path, "services", list):
            record, problems = structure(LocalRecord, row)
            try:
                if record is None:
                    raise ValueError(problems[0].message)
                found[record.key] = record.local(self.path)
                self.records[record.key] = record
            except ValueError as error:
                log.error("local_service_ignored", reason=str(error), file=str(self.path))
        return found

    def add(self, record: LocalRecord) -> Local:
        """Raises `ValueError` for what is wrong with it, `PersistError` when it cannot be written down."""
        local = record.local(self.path)
        if record.key not in self.records and len(self.records) >= MOST_SERVICES:
            raise ValueError(f"there are {MOST_SERVICES:,} local services, which is the limit")
        self._save({**self.records, record.key: record})
        return local

    def delete(self, name: Name) -> bool:
        """False when there is none. Raises `PersistError`."""
        if name not in self.records:
            return False
        self._save({key: record for key, record in self.records.items() if key != name})
        return True

    def _save(self, records: dict[Name, LocalRecord]) -> None:
        rows = [plain(records[key]) for key in sorted(records)]
        _write(self.path, {"version": VERSION, "services": rows})
        self.records = records


class GivenAddresses:
    """The file of addresses that pools gave, by service."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lb-addresses.json"
        self._saved: dict[Name, tuple[Address, ...]] = {}

    def load(self) -> dict[Name, tuple[Address, ...]]:
        for uid, texts in _read(self.path, "addresses", dict).items():
            namespace, _, name = uid.partition("/")
            try:
                self._saved[namespace, name] = tuple(ip_address(text) for text in texts)
            except (TypeError, ValueError) as error:
                log.error("given_address_ignored", service=uid, reason=str(error))
        return self._saved

    def save(self, given: dict[Name, tuple[Address, ...]]) -> None:
        """Writes if anything changed. A disk that refuses is a line in the log: the addresses stay, until the next start."""
        if given == self._saved:
            return
        rows = {"/".join(name): [str(one) for one in addresses] for name, addresses in sorted(given.items())}
        try:
            _write(self.path, {"version": VERSION, "addresses": rows})
            self._saved = given
        except PersistError as error:
            log.error("given_addresses_not_saved", error=error)


def _read(path: Path, key: str, kind: type[Any]) -> Any:
    try:
        content = json.loads(path.read_bytes())
        if content.get("version") != VERSION or not isinstance(content.get(key), kind):
            raise ValueError(f"not a file of version {VERSION}")
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        log.error("state_put_aside", file=str(path), reason=str(error))
        path.replace(path.with_suffix(".json.bad"))
        return kind()
    return content[key]


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, json.dumps(content, separators=(",", ":")).encode())
