"""Measures the figures that the project promises: prints a table and writes build/bench.json.

    python contrib/bench/run.py [--rounds N] [--output FILE] [NAME…]

NAME is a figure or the beginning of one (`datapath.established`). Exits with 1 when a median misses its limit.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import figures

#: Modules of this folder with a function `figures()`. Each is imported only when it is run.
MODULES = (
    "datapath",
    "agent",
    "policy",
    "hubble",
    "hubble_metrics",
    "hubble_serve",
    "lb",
    "lb_control",
    "lb_files",
    "lb_traffic",
    "edge",
    "event_store",
    "rehearsal",
)


def selected(names: Sequence[str]) -> Iterator[figures.Figure]:
    """The figures whose names begin with one of these; all, without any."""
    for module in MODULES:
        for figure in importlib.import_module(module).figures():
            if not names or figure.name.startswith(tuple(names)):
                yield figure


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what the project promises.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only figures that begin with this")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each figure (default 5)")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"), metavar="FILE")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    if os.geteuid():
        print("the figures are of programs in the kernel: run this as root", file=sys.stderr)
        return 2
    results = []
    for figure in selected(arguments.names):
        print(f"{figure.name} …", file=sys.stderr, flush=True)
        results.append(figures.run(figure, arguments.rounds))
    if not results:
        print(f"no figure begins with {' or '.join(arguments.names)}", file=sys.stderr)
        return 2
    figures.show(results)
    figures.write(results, arguments.output)
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
