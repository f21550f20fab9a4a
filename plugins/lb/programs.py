"""The plugin's stages: which C goes to which attach point."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from axoneme.core.records import Stage

if TYPE_CHECKING:
    from axoneme.plugins.lb.config import LbConfig


def stages(config: LbConfig) -> Iterable[Stage]:
    """All stages, with the configuration's constants."""
    return ()
