"""The pytest plugin that comes with the package, for its own tests and for those of plugin authors.

It is imported by every pytest run of an environment that has the package, so it imports nothing heavy itself.

- `@pytest.mark.kernel`: the test needs a real kernel. Without the capabilities it is skipped, the missing one being
  named; with `AXONEME_REQUIRE_KERNEL=1` in the environment it fails instead.
- `namespaces`: a factory of network namespaces that are gone after the test, see `axoneme.core.testing.namespaces`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from axoneme.core.testing.namespaces import Namespaces

#: The capabilities that kernel tests need, and their bits (linux/capability.h).
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}

KERNEL_MARKER = (
    "kernel: needs root, bpf(2) and network namespaces (skipped with the missing capability named)"
)


def missing_capabilities(status: str | None = None) -> list[str]:
    """The capabilities that this process lacks for kernel tests. `status` replaces /proc/self/status."""
    text = Path("/proc/self/status").read_text() if status is None else status
    line = next((line for line in text.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    effective = int(line.split()[1], 16)
    return [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", KERNEL_MARKER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") is None or not (missing := missing_capabilities()):
        return
    message = f"needs a real kernel, but {', '.join(missing)} is missing"
    if os.environ.get("AXONEME_REQUIRE_KERNEL") == "1":
        pytest.fail(f"{message} (AXONEME_REQUIRE_KERNEL=1)", pytrace=False)
    pytest.skip(message)


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    """Makes network namespaces with unique names; everything in them is removed after the test, also a failed one."""
    from axoneme.core.testing.namespaces import Namespaces

    with Namespaces() as factory:
        yield factory
