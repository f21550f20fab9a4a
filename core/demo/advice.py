"""What to look at while a demo is kept running."""

from __future__ import annotations

import shlex
import shutil

from axoneme.core.demo import machine
from axoneme.core.demo.place import Place
from axoneme.core.demo.running import Result


def next_steps(place: Place, result: Result, program: str) -> list[str]:
    """What to look at while it runs: commands that can be copied.

    :param program: how `axoneme` is called here.
    """
    axoneme = f"{program} --config {place.config_file}"
    known = {each.call.service for each in result.tallies}
    backend = result.endpoints["backend-service"].ipv4
    frontend, gateway = (_netns(result, name) for name in ("frontend", "api-gateway"))
    lines = [
        "It goes on running. In another terminal, as root:",
        "",
        f"  {axoneme} status",
        f"  {axoneme} endpoint list",
        f"  {axoneme} policy explain production/frontend production/backend-service 8080",
    ]
    if known:
        lines += [
            f"  {axoneme} service list",
            f"  ip netns exec {frontend} curl -m 2 http://10.96.0.10/    # again and again: a tenth is v2",
            f"  ip netns exec {machine.names(place.name)[1]} curl -m 2 http://{machine.NODE[4]}:30080/    # from outside",
        ]
    if result.observed is not None:
        lines += [
            f"  {axoneme} hubble observe --follow",
            f"  {axoneme} ui    # prints the address of the page: who talks to whom",
        ]
    return [
        *lines,
        f"  ip netns exec {gateway} curl -m 2 http://{backend}:8080/    # answered",
        f"  ip netns exec {frontend} curl -m 2 http://{backend}:8080/    # dropped, and why: {axoneme} monitor --type drop",
        "",
        f"Edit {place.resources / 'l4-lb-policy.yaml'} and try again. Ctrl-C removes everything.",
    ]


def _netns(result: Result, app: str) -> str:
    return result.endpoints[app].netns.rpartition("/")[2]


def program(argument: str) -> str:
    """How to call this program from another terminal."""
    found = shutil.which("axoneme")
    return "axoneme" if found == argument or argument.endswith(".py") else shlex.quote(argument)
