"""nginx and dnsmasq behind services, asked by clients that are not ours."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from lb_agents import World, world_of
from lb_scenes import service

from axoneme.core.net import namespaces
from axoneme.core.testing.namespaces import within

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        not all(map(shutil.which, ("nginx", "dnsmasq", "dig", "curl"))),
        reason="needs nginx, dnsmasq, dig and curl (make setup)",
    ),
]

NGINX = """\
daemon off; pid {folder}/pid; error_log {folder}/error; worker_processes 1; user root;
events {{}}
http {{
  log_format who '$remote_addr';
  access_log {folder}/access who;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen [::]:8080 ipv6only=off; location / {{ return 200 {name}; }} }}
}}
"""


def inside(netns: str, *command: str) -> list[str]:
    return ["nsenter", f"--net={namespaces.locate(netns)}", *command]


@contextlib.contextmanager
def running(netns: str, *command: str) -> Iterator[None]:
    process = subprocess.Popen(inside(netns, *command), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def answers(netns: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        within(netns, lambda: socket.create_connection(("127.0.0.1", port), 5).close())
    except ConnectionRefusedError:
        return False
    return True


def output(netns: str, *command: str) -> str:
    return subprocess.run(inside(netns, *command), capture_output=True, text=True, check=True).stdout


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_of(algorithm="round-robin") as made, contextlib.ExitStack() as owned:
        for name in ("web-0", "web-1"):
            placed = made.workload(name, app="web")
            folder = tmp_path / name
            folder.mkdir()
            (folder / "conf").write_text(NGINX.format(folder=folder, name=name))
            owned.enter_context(running(placed.netns, "nginx", "-p", str(folder), "-c", str(folder / "conf")))
        names = made.workload("names", app="names")
        options: Sequence[str] = (
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
            "--user=root",
            "--address=/web.test/10.1.2.3",
        )
        owned.enter_context(running(names.netns, "dnsmasq", "-k", "-p", "53", *options))
        made.workload("client")
        for one in ("web-0", "web-1"):
            made.node.until(partial(answers, made.workloads[one].netns, 8080), f"{one} listens")
        made.node.until(partial(answers, names.netns, 53), "dnsmasq listens")
        yield made


def test_nginx_and_dnsmasq_behind_services(world: World, tmp_path: Path) -> None:
    web = service(
        "web",
        'clusterIPs: [10.96.0.10, "fd00:96::a"], selector: {app: web}, ports: [{port: 80, targetPort: 8080}]',
    )
    ports = "ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]"
    world.resource(
        "s.yaml",
        web + service("dns", f'clusterIPs: [10.96.0.53, "fd00:96::53"], selector: {{app: names}}, {ports}'),
    )
    world.until_used("[fd00:96::a]:80", *(world.workloads[name].ipv6 for name in ("web-0", "web-1")))
    world.until_used("[fd00:96::53]:53", world.workloads["names"].ipv6)
    client = world.workloads["client"]
    for vip in ("10.96.0.10", "[fd00:96::a]"):
        got = Counter(output(client.netns, "curl", "-sm", "5", f"http://{vip}/") for _ in range(6))
        assert got == {"web-0": 3, "web-1": 3}
        kept = output(client.netns, "curl", "-sm", "5", *([f"http://{vip}/"] * 5))
        assert kept in ("web-0" * 5, "web-1" * 5), "one connection has one backend"
    seen = (tmp_path / "web-0" / "access").read_text()
    assert client.ipv4 in seen
    assert client.ipv6 in seen
    for vip in ("10.96.0.53", "fd00:96::53"):
        for more in ("+notcp", "+tcp"):
            answer = output(
                client.netns, "dig", f"@{vip}", more, "+tries=2", "+time=2", "+short", "web.test", "A"
            )
            assert answer.strip() == "10.1.2.3"
