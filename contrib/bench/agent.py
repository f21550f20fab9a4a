"""The figures of the agent: how soon it is ready, what it takes, and what a workload costs.

Each is measured on a whole agent, started as a program in a network namespace of its own, with the policy plugin. Ready is
what it tells systemd: programs in force, every service caught up.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import Figure

from axoneme.core.testing.node import Node

_VALUES: Mapping[str, Any] = {"plugins": {"enabled": ["policy"]}}

WORKLOADS, POLICIES = 10, 100
#: What must never be in the agent's memory: the compiler is another process.
FORBIDDEN = ("libbcc", "libLLVM", "libclang")

ADDITIONS, MANY, WINDOW = 100, 500, 50


def ready_warm(rounds: int) -> Sequence[float]:
    """Of an agent that finds its programs compiled, but none in the kernel."""
    with tempfile.TemporaryDirectory(prefix="axoneme-bench-") as folder:
        _start_once(Path(folder))
        return [_start_once(Path(folder)) for _ in range(rounds)]


def ready_cold(rounds: int) -> Sequence[float]:
    """Of an agent that has to compile everything."""
    samples = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="axoneme-bench-") as folder:
            samples.append(_start_once(Path(folder)))
    return samples


def _start_once(cache: Path) -> float:
    with Node(_VALUES, cache=cache) as node:
        begin = time.perf_counter()
        node.start()
        return time.perf_counter() - begin


def rss(rounds: int) -> Sequence[float]:
    """Of an agent with 10 workloads and 100 policies, after a start with both, and after both came one by one."""
    samples = []
    for _ in range(rounds):
        with _furnished() as node:
            grown = _resident(node)
            node.stop()
            node.start()
            samples.append(max(grown, _resident(node)))
            _check_libraries(node)
    return samples


@contextlib.contextmanager
def _furnished() -> Iterator[Node]:
    with Node(_VALUES) as node:
        node.start()
        for number in range(WORKLOADS):
            node.workload(f"app{number}", app=f"app{number}")
        for number in range(POLICIES):
            node.resource(f"policy{number}.yaml", _policy(number))
        node.until(lambda: len(node.call("policy.get")["policies"]) == POLICIES, "all policies are in force")
        if problems := node.problems():
            raise RuntimeError(f"the agent of the bench is not well: {problems}")
        yield node


def _policy(number: int) -> str:
    """Each of the workloads is selected by ten of them."""
    return f"""\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: policy{number}, namespace: default}}
spec:
  endpointSelector: {{matchLabels: {{app: app{number % WORKLOADS}}}}}
  ingress:
  - fromEndpoints: [{{matchLabels: {{app: app{(number * 7 + 1) % WORKLOADS}}}}}]
    toPorts:
    - ports: [{{port: '{8000 + number}', protocol: TCP}}]
  egress:
  - toEndpoints: [{{matchLabels: {{app: app{(number * 3 + 2) % WORKLOADS}}}}}]
"""


def _resident(node: Node) -> float:
    """MiB of the agent's memory that are in RAM, shared pages of libraries included."""
    lines = Path("/proc", str(node.pid), "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024


def _check_libraries(node: Node) -> None:
    mapped = Path("/proc", str(node.pid), "maps").read_text()
    if found := [name for name in FORBIDDEN if name in mapped]:
        raise RuntimeError(f"{', '.join(found)} is mapped in the agent")


def workload_add(_rounds: int) -> Sequence[float]:
    """Through the API, as `axoneme workload add` does it; then 500 in a row, for the slope."""
    with Node(_VALUES) as node:
        node.start()
        samples = _add(node, ADDITIONS)
    with Node(_VALUES) as node:
        node.start()
        many = _add(node, MANY)
    first, last = statistics.median(many[:WINDOW]), statistics.median(many[-WINDOW:])
    print(
        f"  of {MANY} additions the first {WINDOW} took {first:.1f} ms each, the last {WINDOW} {last:.1f} ms (medians)",
        file=sys.stderr,
    )
    return samples


def _add(node: Node, count: int) -> list[float]:
    """Milliseconds of each addition, from the call to the answer, after which traffic flows."""
    samples = []
    with node.client() as client:
        client.call("status")  # the connection is not what is measured
        for number in range(count):
            begin = time.perf_counter()
            client.call("workload.add", name=f"w{number}", labels={"app": f"app{number % 20}"})
            samples.append((time.perf_counter() - begin) * 1000)
    return samples


def figures() -> list[Figure]:
    return [
        Figure(name="agent.ready.warm", unit="s", limit=1.5, what="start until ready, programs compiled", measure=ready_warm),
        Figure(name="agent.ready.cold", unit="s", limit=8, what="start until ready, all to be compiled", measure=ready_cold),
        Figure(name="agent.rss", unit="MiB", limit=96, what="memory, 10 workloads and 100 policies", measure=rss),
        Figure(name="workload.add", unit="ms", limit=30, what="one more workload, through the API", measure=workload_add),
    ]  # fmt: skip
