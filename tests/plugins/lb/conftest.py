"""Makes the helpers beside these tests importable: test files are not packages here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# The packets and workloads of the shared C's own tests.
sys.path.insert(1, str(Path(__file__).parents[2] / "bpf"))
