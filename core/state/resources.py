"""Resources: Kubernetes-shaped objects that people write, validated on entry, with what is wrong with them beside them.

A source reads documents and writes `Resource` rows into the table `resources`. Plugins read `parsed` of the rows that are
in effect. An object that became invalid keeps its last good `parsed` in effect (`Status.STALE`) and shows its problems.

Names and labels follow https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and …/labels/.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from sys import intern
from typing import Any, Final

from attrs import evolve, field, frozen

from axoneme.core import logs
from axoneme.core.errors import ResourceError, Where
from axoneme.core.records import ResourceKind, TableSpec
from axoneme.core.state.document import At, Document, Written, digest
from axoneme.core.state.parsing import Fields, flatten, nearest

log = logs.get(__name__)

#: (kind, namespace, name); the namespace of a cluster-wide object is empty.
ResourceKey = tuple[str, str, str]

DEFAULT_NAMESPACE: Final = "default"

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_LABEL: Final = re.compile(_LABEL)
_DNS_SUBDOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")

#: What people write into metadata.
_METADATA: Final = frozenset(("name", "namespace", "uid", "labels", "annotations"))
#: What a cluster writes into metadata; it means nothing here.
_CLUSTER_METADATA: Final = (
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "finalizers",
    "ownerReferences",
    "generateName",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


class Status(enum.StrEnum):
    VALID = "valid"
    #: Invalid as it is written now; the last good version is in effect.
    STALE = "stale"
    #: Invalid, and no good version is known: without effect.
    INVALID = "invalid"


@frozen
class Problem:
    """One thing that is wrong, where, and what to do about it."""

    message: str
    where: Where | None = None
    hint: str | None = None

    @classmethod
    def of(cls, error: ResourceError) -> Problem:
        return cls(error.message, error.where, error.hint)

    def __str__(self) -> str:
        return str(ResourceError(self.message, where=self.where, hint=self.hint))


@frozen(kw_only=True)
class Resource:
    """One object.

    :param namespace: empty for a cluster-wide object.
    :param source: which source brought it (`folder:/etc/axoneme/resources`).
    :param where: file and line where it begins.
    :param raw: the whole object as it was written. Of a stale one: the last good version. It is read anew from its text
        whenever it is asked (`Written`): whoever needs much of it takes `content()` once.
    :param parsed: what the kind's parse function made of it; None when it has no effect.
    :param problems: what is wrong with it as it is written now.
    """

    kind: str
    namespace: str
    name: str
    api_version: str
    uid: str = ""
    source: str
    where: Where
    labels: Mapping[str, str] = field(factory=dict)
    annotations: Mapping[str, str] = field(factory=dict)
    raw: Mapping[str, Any] = field(repr=False)
    parsed: Any = field(default=None, repr=False)
    problems: tuple[Problem, ...] = ()

    @property
    def key(self) -> ResourceKey:
        return (self.kind, self.namespace, self.name)

    def content(self) -> dict[str, Any]:
        """`raw` as plain values."""
        return self.raw.value if isinstance(self.raw, Written) else dict(self.raw)

    @property
    def digest(self) -> str:
        """Of `raw`: 32 hexadecimal digits."""
        return digest(self.raw)

    @property
    def in_effect(self) -> bool:
        return self.parsed is not None

    @property
    def status(self) -> Status:
        if not self.problems:
            return Status.VALID
        return Status.STALE if self.in_effect else Status.INVALID

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@frozen(kw_only=True)
class ResourceFile:
    """One file, or other origin, of resources.

    :param objects: how many objects it has (the last good ones, while it cannot be read).
    :param problems: what is wrong with the file as a whole; what is wrong with an object stands on its `Resource`.
    """

    path: str
    source: str
    objects: int = 0
    problems: tuple[Problem, ...] = ()


RESOURCES: Final = TableSpec(
    name="resources",
    row=Resource,
    key=("kind", "namespace", "name"),
    indexes=("kind", "namespace", "source", "status"),
    doc="The objects that people wrote, with their status.",
)
RESOURCE_FILES: Final = TableSpec(
    name="resource_files",
    row=ResourceFile,
    key="path",
    indexes=("source",),
    doc="The files that resources come from, with what is wrong with them.",
)


@frozen(kw_only=True)
class Envelope:
    """What a kind's parse function gets: an object whose type, name and labels are known to be good.

    :param fields: the object's top level. `apiVersion`, `kind`, `metadata` and `status` count as read; the parse function
        reads the others from it (see `axoneme.core.state.parsing`). Fields that it does not ask for are errors.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    fields: Fields

    def where(self) -> Where:
        return self.fields.where()

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Kinds:
    """The kinds that are understood, by apiVersion and kind."""

    def __init__(self, kinds: Iterable[ResourceKind] = ()) -> None:
        self._kinds = {(kind.api_version, kind.kind): kind for kind in kinds}

    def __iter__(self) -> Iterator[ResourceKind]:
        return iter(self._kinds.values())

    def find(self, fields: Fields, api_version: str, kind: str) -> ResourceKind:
        """The kind. Raises `ResourceError`, at the document's field that is wrong, naming the nearest known one."""
        if found := self._kinds.get((api_version, kind)):
            return found
        versions = sorted(version for version, name in self._kinds if name == kind)
        if versions:
            known = f"it is known in {', '.join(versions)}"
            raise fields.error(f"unknown apiVersion {api_version!r} of {kind}", "apiVersion", hint=known)
        hint = nearest(kind, sorted({name for _, name in self._kinds}))
        raise fields.error(f"unknown kind {kind!r}", "kind", hint=hint)

    def differ(self, other: Kinds, resource: Resource) -> bool:
        """Whether a resource would be parsed differently by `other`."""
        key = resource.api_version, resource.kind
        return self._kinds.get(key) != other._kinds.get(key)


def expand(document: Document) -> list[Document]:
    """The objects of a document: itself, or the elements of a `List` (what `kubectl get -o yaml` prints).

    Raises `ResourceError` when the list is none.
    """
    value = document.value
    if not isinstance(value, dict) or value.get("kind") != "List" or "items" not in value:
        return [document]
    top = Fields(document)
    top.ignore("apiVersion", "kind", "metadata")
    items: Any = top.raw("items", None) or []
    if not isinstance(items, list):
        raise top.error("expected a list", "items")
    top.finish()
    return [document.within(("items", i)) for i in range(len(items))]


@frozen
class Read:
    """What was read from one document.

    :param certain: whether it is sure which object is meant. It is not, when its kind is not known or its name is none.
    """

    resource: Resource
    certain: bool


def read_resource(document: Document, kinds: Kinds, source: str) -> Read:
    """The object of a document, with all that is wrong inside it.

    Raises `ResourceError` when the document names no object at all: no kind, no name.
    """
    top = Fields(document)
    metadata: Fields = top.fields("metadata")
    api_version, kind_name = top.text("apiVersion"), top.text("kind")
    name, namespace = metadata.text("name"), metadata.text("namespace", "")
    raw = Written.of(document.value) if document.written is None else document.written
    try:
        kind = kinds.find(top, api_version, kind_name)
    except ResourceError as error:
        unknown = Resource(
            kind=kind_name,
            namespace=namespace,
            name=name,
            api_version=api_version,
            source=source,
            where=document.where,
            raw=raw,
            problems=_problems([error]),
        )
        return Read(unknown, False)
    namespace = _named(name, namespace, kind, metadata)
    certain = not top.report
    envelope = _envelope(name, namespace, kind, top, metadata)
    parsed, problems = _parsed(envelope, kind, document.where)
    resource = Resource(
        kind=kind.kind,
        namespace=namespace,
        name=name,
        api_version=kind.api_version,
        uid=envelope.uid,
        source=source,
        where=document.where,
        labels=envelope.labels,
        annotations=envelope.annotations,
        raw=raw,
        parsed=parsed,
        problems=problems,
    )
    return Read(resource, certain)


def reread(resource: Resource, kinds: Kinds) -> Resource:
    """The same object, with `parsed` made anew from `raw`: for kinds whose parse function was replaced."""
    where = resource.where
    start = At((where.line or 1) - 1, (where.column or 1) - 1)
    read = read_resource(Document(where.file, resource.content(), {}, start), kinds, resource.source)
    return evolve(read.resource, namespace=resource.namespace, where=where, raw=resource.raw)


def _named(name: str, namespace: str, kind: ResourceKind, metadata: Fields) -> str:
    """The namespace that an object's kind gives it; what is wrong with the names is reported."""
    if len(name) > 253 or not _DNS_SUBDOMAIN.fullmatch(name):
        metadata.note(
            f"{name[:80]!r} is not a valid name",
            "name",
            hint="lower-case letters, digits, '-' and '.', at most 253, a letter or digit first and last",
        )
    if not kind.namespaced:
        if namespace:
            metadata.note(f"{kind.kind} is cluster-wide, it has no namespace", "namespace")
        return ""
    namespace = intern(namespace or DEFAULT_NAMESPACE)
    if len(namespace) > 63 or not _DNS_LABEL.fullmatch(namespace):
        metadata.note(
            f"{namespace[:80]!r} is not a valid namespace",
            "namespace",
            hint="lower-case letters, digits and '-', at most 63, a letter or digit first and last",
        )
    return namespace


def _parsed(envelope: Envelope, kind: ResourceKind, where: Where) -> tuple[Any, tuple[Problem, ...]]:
    """What its kind's parse function makes of an object, or None and all that is wrong with it."""
    top, parsed, failed = envelope.fields, None, []
    try:
        if (parsed := kind.parse(envelope)) is None:
            raise RuntimeError("it returned nothing")
        top.report_unknown()
    except Exception as error:
        failed = flatten(error)
        if not isinstance(error, (ResourceError, ExceptionGroup)):
            log.exception("resource_parser_failed", resource=str(envelope), where=str(where))
    if not top.report and not failed:
        return parsed, ()
    placed = [error if error.where else _placed(error, where) for error in failed]
    return None, _problems([*top.report, *placed])


def _placed(error: ResourceError, where: Where) -> ResourceError:
    return ResourceError(error.message, where=where, hint=error.hint)


def _problems(errors: list[ResourceError]) -> tuple[Problem, ...]:
    return tuple(Problem.of(error) for error in errors)


def _envelope(name: str, namespace: str, kind: ResourceKind, top: Fields, metadata: Fields) -> Envelope:
    """What the parse function gets. Errors in the metadata are reported, so that those of the rest come out as well."""
    top.ignore("status")
    if not _METADATA.issuperset(metadata.value):
        metadata.ignore(*_CLUSTER_METADATA)
    uid, labels, annotations = "", {}, {}
    try:
        uid = metadata.text("uid", "")
        annotations = metadata.labels("annotations", {})
        labels = metadata.labels("labels", {})
    except ResourceError as error:
        top.report.extend(flatten(error))
    _check_labels(labels, metadata)
    return Envelope(
        api_version=kind.api_version,
        kind=kind.kind,
        namespace=namespace,
        name=name,
        uid=uid,
        labels=labels,
        annotations=annotations,
        fields=top,
    )


def _check_labels(labels: Mapping[str, str], metadata: Fields) -> None:
    for key, value in labels.items():
        if not _is_label_key(key):
            metadata.note(f"{key[:80]!r} is not a valid label key", "labels", key)
        if value and (len(value) > 63 or not _QUALIFIED.fullmatch(value)):
            metadata.note(f"{value[:80]!r} is not a valid label value", "labels", key)


@lru_cache(maxsize=1024)
def _is_label_key(key: str) -> bool:
    prefix, _, name = key.rpartition("/")
    good_prefix = "/" not in key or (len(prefix) <= 253 and _DNS_SUBDOMAIN.fullmatch(prefix))
    return bool(good_prefix and len(name) <= 63 and _QUALIFIED.fullmatch(name))
