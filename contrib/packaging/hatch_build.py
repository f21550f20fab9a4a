"""Makes the import package `axoneme` out of the three top-level code folders, for editable installs.

A wheel maps core/, plugins/ and bpf/ to axoneme/… by itself. An editable install puts one folder on the path, so
this hook fills that folder (.dev/axoneme/) with links: files added later are seen at once, by mypy too.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("core", "plugins", "bpf")


class LinkFarm(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            return
        farm = Path(self.root, ".dev", "axoneme")
        farm.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            link = farm / name
            if not link.is_symlink():
                link.symlink_to(Path("..", "..", name))
