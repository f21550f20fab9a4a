"""What the agent remembers about plugins from one start to the next.

A plugin that cannot even be imported cannot say that it is required. If it said so the last time, it still counts: a
security plugin that broke must not open the door by breaking early.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from axoneme.core import logs
from axoneme.core.manager import PluginManager

FILE: Final = "plugins.json"

_log = logs.get(__name__)


def read_required(folder: Path) -> frozenset[str]:
    """The plugins that said that they are required. A file that cannot be read remembers nothing, and says so."""
    try:
        names = json.loads((folder / FILE).read_text())["required"]
        return frozenset(str(name) for name in names)
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("memory of plugins is unreadable", file=str(folder / FILE), error=str(error))
        return frozenset()


def write_required(folder: Path, manager: PluginManager) -> None:
    """Notes for each loaded plugin whether it is required. Those that are not enabled now stay as they were noted."""
    from axoneme.core.state.persist import PersistError, write_atomic

    known = read_required(folder)
    loaded = set(manager.enabled)
    required = (known - loaded) | {name for name in loaded if manager.info(name).required}
    if required == known:
        return
    try:
        text = json.dumps({"required": sorted(required)}, indent=1)
        write_atomic(folder / FILE, text.encode())
    except PersistError as error:
        _log.warning("memory of plugins not written", error=str(error))
