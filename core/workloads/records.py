"""What is remembered of each endpoint over restarts: one small JSON file, written before the kernel is touched.

So whatever an agent made before it was killed is known to the next one: a record that is still `creating` or `removing`
is a workload whose making or removal was cut short.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from attrs import field, frozen

from axoneme.core import logs
from axoneme.core.errors import Where
from axoneme.core.state.persist import PersistError
from axoneme.core.structure import plain, structure
from axoneme.core.workloads.endpoints import Endpoint, EndpointState, NamedPort, Workload

log = logs.get(__name__)

VERSION = 1


@frozen(kw_only=True)
class Record:
    """An endpoint, its workload, and by what to know its parts again.

    :param netns_device: with `netns_inode` the identity of its namespace: a path may lead to another one by now.
    :param peer: the index of the workload's side in its namespace.
    """

    version: int = VERSION
    id: int
    name: str
    namespace: str
    labels: Mapping[str, str] = field(factory=dict)
    service_account: str = ""
    named_ports: Mapping[str, NamedPort] = field(factory=dict)
    created_by: str = ""
    netns: str
    netns_device: int = 0
    netns_inode: int = 0
    managed: bool
    asked_ipv4: IPv4Address | None = None
    asked_ipv6: IPv6Address | None = None
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    ifname: str
    ifindex: int = 0
    peer: int = 0
    mac: str
    node_mac: str
    state: EndpointState = EndpointState.CREATING

    @property
    def uid(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def netns_identity(self) -> tuple[int, int]:
        return self.netns_device, self.netns_inode

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return tuple(address for address in (self.ipv4, self.ipv6) if address is not None)

    def workload(self) -> Workload:
        """The row of `workloads` that it stands for."""
        return Workload(
            name=self.name,
            namespace=self.namespace,
            labels=self.labels,
            service_account=self.service_account,
            netns=self.netns,
            managed=self.managed,
            ipv4=self.asked_ipv4,
            ipv6=self.asked_ipv6,
            named_ports=self.named_ports,
            created_by=self.created_by,
        )

    def endpoint(self, identity: int, labels: tuple[str, ...], reason: str = "") -> Endpoint:
        """The row of `endpoints`; with a reason it has failed."""
        return Endpoint(
            id=self.id,
            name=self.name,
            namespace=self.namespace,
            ifindex=self.ifindex,
            ifname=self.ifname,
            mac=self.mac,
            node_mac=self.node_mac,
            ipv4=self.ipv4,
            ipv6=self.ipv6,
            identity=identity,
            labels=labels,
            netns=self.netns,
            named_ports=self.named_ports,
            state=EndpointState.FAILED if reason else self.state,
            reason=reason,
        )


class Records:
    """The folder of the records: `<id>.json` each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, record: Record) -> None:
        """Replaces a record, all at once. Raises `PersistError` when the disk refuses; an older record is then still there.

        It is not flushed to the disk, which may take as long as all the rest: a power cut, the only thing that this could
        lose it to, ends the namespace that it is about, too.
        """
        path = self._path(record.id)
        temporary = path.with_suffix(".tmp")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_text(json.dumps(plain(record), separators=(",", ":")))
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise PersistError(f"cannot write: {error.strerror}", where=Where(str(path))) from error

    def delete(self, number: int) -> None:
        """Nothing happens when there is none."""
        try:
            self._path(number).unlink(missing_ok=True)
        except OSError as error:
            raise PersistError(
                f"cannot remove: {error.strerror}", where=Where(str(self._path(number)))
            ) from error

    def load(self) -> list[Record]:
        """All records, by number. One that cannot be read is put aside as `<id>.json.bad`, with a line in the log."""
        return sorted(self._load(), key=lambda record: record.id)

    def _load(self) -> Iterator[Record]:
        seen: set[str] = set()
        for path in sorted(self._folder.glob("*.json")):
            try:
                record = _parse(path)
                if record.uid in seen:
                    raise PersistError(f"another record is of {record.uid} too", where=Where(str(path)))
            except PersistError as error:
                log.error("endpoint record put aside", error=error)
                path.replace(path.with_suffix(".json.bad"))
                continue
            seen.add(record.uid)
            yield record

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.json"


def _parse(path: Path) -> Record:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise PersistError(f"cannot be read: {error}", where=Where(str(path))) from error
    record, problems = structure(Record, value)
    if record is None:
        problem = problems[0]
        raise PersistError(problem.message, where=Where(str(path), field=".".join(map(str, problem.path))))
    if record.version != VERSION or path.name != f"{record.id}.json" or not 0 < record.id <= 0xFFFF:
        raise PersistError("not a record of this version and name", where=Where(str(path)))
    return record
