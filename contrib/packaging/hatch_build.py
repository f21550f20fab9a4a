"""What is built before an installation: the import package `axoneme`, for editable ones, and the plugins' protobuf code.

A wheel maps core/, plugins/ and bpf/ to axoneme/… by itself. An editable install puts one folder on the path, so
this hook fills that folder (.dev/axoneme/) with links: files added later are seen at once, by mypy too.

Python code and type stubs of each `plugins/NAME/proto/*.proto` are written beside it, as
`axoneme.plugins.NAME.proto.…_pb2`, a name that no other package's protobuf code has. They are never committed.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("core", "plugins", "bpf")
GENERATED = "plugins/*/proto/*_pb2*.py*"


class Build(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        _generate(Path(self.root))
        build_data["artifacts"].append(f"/{GENERATED}")
        if version == "editable":
            _link(Path(self.root, ".dev", "axoneme"))


def _link(farm: Path) -> None:
    farm.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        link = farm / name
        if not link.is_symlink():
            link.symlink_to(Path("..", "..", name))


def _generate(root: Path) -> None:
    import grpc_tools
    from grpc_tools import protoc

    for old in root.glob(GENERATED):
        old.unlink()
    sources = sorted(root.glob("plugins/*/proto/*.proto"))
    names = [str(Path("axoneme", source.relative_to(root))) for source in sources]
    services = [
        name for name, source in zip(names, sources, strict=True) if "\nservice " in source.read_text()
    ]
    with tempfile.TemporaryDirectory() as out:
        common = [
            "protoc", f"--proto_path=axoneme/plugins={root / 'plugins'}",
            f"--proto_path={Path(grpc_tools.__path__[0], '_proto')}",
        ]  # fmt: skip
        for arguments in (
            [f"--python_out={out}", f"--pyi_out={out}", *names],
            [f"--grpc_python_out={out}", *services],
        ):
            if protoc.main([*common, *arguments]):
                raise RuntimeError("the protobuf sources do not compile; protoc's messages are above")
        shutil.copytree(Path(out, "axoneme", "plugins"), root / "plugins", dirs_exist_ok=True)
