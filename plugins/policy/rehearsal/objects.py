"""Policies out of files, for those who rehearse: read as the agent reads them, with the places of their rules."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from axoneme.core.api.wire import RequestError
from axoneme.core.errors import AxonemeError, ResourceError, Where
from axoneme.core.state import yamlio
from axoneme.core.state.document import MAX_BYTES, Document
from axoneme.core.state.resources import Kinds, expand, read_resource
from axoneme.plugins.policy.kinds import PARSERS, resource_kinds
from axoneme.plugins.policy.model import CidrGroup, Policy

#: The most that a request may bring, unpacked.
MAX_TEXT: Final = 32 << 20

_SUFFIXES = (".yaml", ".yml", ".json")


@frozen
class Objects:
    """:param skipped: objects of kinds that are no policies, as `KIND NAME`."""

    objects: tuple[Policy | CidrGroup, ...] = ()
    skipped: tuple[str, ...] = ()


def texts_of(paths: Iterable[Path]) -> list[tuple[str, str]]:
    """Name and content of files, and of the resource files in folders. Raises `AxonemeError`."""
    found = []
    for path in paths:
        files = sorted(one for one in path.iterdir() if one.suffix in _SUFFIXES) if path.is_dir() else [path]
        for file in files:
            try:
                with file.open("rb") as opened:
                    found.append((str(file), opened.read(MAX_BYTES + 1).decode()))
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                raise AxonemeError(f"cannot be read: {reason}", where=Where(str(file))) from error
    return found


def packed(texts: list[tuple[str, str]]) -> str:
    """Files as one short word, for a request that may not be long."""
    return base64.b64encode(zlib.compress(json.dumps(texts).encode())).decode()


def unpacked(word: str) -> list[tuple[str, str]]:
    """The files again. Raises `RequestError` for what `packed` did not make, and for more than `MAX_TEXT` bytes."""
    unpacking = zlib.decompressobj()
    try:
        plain = unpacking.decompress(base64.b64decode(word, validate=True), MAX_TEXT)
        if not unpacking.eof:
            raise RequestError(
                f"the files have more than {MAX_TEXT >> 20} MiB", hint="ask about fewer at once"
            )
        return [(str(name), str(text)) for name, text in json.loads(plain)]
    except (ValueError, TypeError, zlib.error, RecursionError) as error:
        raise RequestError(f"packed files cannot be unpacked: {error}") from None


def objects_of(texts: Iterable[tuple[str, str]]) -> Objects:
    """The policies and CIDR groups of files. Raises `ResourceError` for the first thing that is wrong."""
    kinds = Kinds(resource_kinds())
    objects: list[Policy | CidrGroup] = []
    skipped: list[str] = []
    for file, text in texts:
        for document in _documents(file, text):
            value = document.value
            if isinstance(value, dict) and value.get("kind") not in PARSERS and "kind" in value:
                name = value["metadata"].get("name") if isinstance(value.get("metadata"), dict) else "?"
                skipped.append(f"{value['kind']} {name}")
                continue
            objects.append(_object(document, kinds))
    return Objects(tuple(objects), tuple(skipped))


def _documents(file: str, text: str) -> Iterator[Document]:
    for document in yamlio.load(text, file):
        yield from expand(document)


def _object(document: Document, kinds: Kinds) -> Policy | CidrGroup:
    resource = read_resource(document, kinds, "rehearsal").resource
    if resource.problems:
        first = resource.problems[0]
        raise ResourceError(first.message, where=first.where, hint=first.hint)
    parsed = resource.parsed
    assert isinstance(parsed, (Policy, CidrGroup)), "the kinds are ours"
    return parsed
