"""A watched folder on a clock that stands still until a test moves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axoneme.core.records import ResourceKind
from axoneme.core.state.ingest import FolderSource
from axoneme.core.state.resources import Envelope, Resource, Status
from axoneme.core.state.table import State


def parse(envelope: Envelope) -> Any:
    return envelope.fields.fields("spec").number("size")


WIDGET = ResourceKind(api_version="axoneme.io/v1", kind="Widget", namespaced=True, parse=parse)


def widget(name: str, size: object = 1) -> str:
    return f"apiVersion: axoneme.io/v1\nkind: Widget\nmetadata: {{name: {name}}}\nspec: {{size: {size}}}\n"


class Bench:
    """A source on a clock that stands still until the test moves it."""

    def __init__(self, path: Path, state: State | None = None) -> None:
        self.path, self.now = path, 1000.0
        self.state = state or State()
        self.source = FolderSource(path, self.state, [WIDGET], clock=lambda: self.now)
        self.resources = self.state.table("resources", Resource)

    async def step(self, seconds: float = 0.0) -> None:
        """What the source does at once, and then within `seconds`."""
        end = self.now + seconds
        while (due := await self.source.step()) <= end:
            self.now = max(self.now, due)
        self.now = end
        await self.source.step()

    def put(self, name: str, text: str | bytes) -> None:
        """As a careful program replaces a file: written beside it, renamed over it."""
        temporary = self.path / f".{name}.new"
        temporary.write_bytes(text.encode() if isinstance(text, str) else text)
        temporary.rename(self.path / name)

    @property
    def sizes(self) -> dict[str, int | None]:
        """The objects, with what is in effect of them."""
        return {row.name: row.parsed for row in self.resources}

    def status(self, name: str) -> Status:
        row = self.resources.get(("Widget", "default", name))
        assert row is not None
        return row.status

    def problems(self, name: str) -> list[str]:
        """What is wrong with a file (or, with "", the folder)."""
        row = self.state.table("resource_files").get(str(self.path / name))
        return [] if row is None else [str(problem).replace(f"{self.path}/", "") for problem in row.problems]

    def object_problems(self, name: str) -> list[str]:
        row = self.resources.get(("Widget", "default", name))
        assert row is not None
        return [str(problem).replace(f"{self.path}/", "") for problem in row.problems]
