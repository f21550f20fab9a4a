"""The commands over real servers: what they print, how they find the server, and what they say when that fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from flow_world import World, records
from hubble_certificates import Authority
from hubble_nodes import running

from axoneme.core.cli.main import run
from axoneme.core.state.table import State
from axoneme.plugins.hubble import peers
from axoneme.plugins.hubble.agent_events import AgentEvents
from axoneme.plugins.hubble.cli.observe import observe
from axoneme.plugins.hubble.peers import PEERS, Peer, PeerService
from axoneme.plugins.hubble.server.listening import GrpcServer, Place
from axoneme.plugins.hubble.server.observer import SERVICE, ObserverService, Self
from axoneme.plugins.hubble.server.rpc import Room

CONFIG = "plugins: {enabled: [hubble]}\nagent: {run_dir: RUN}\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the machine's own configuration counts; the agent's socket is in a folder of the test."""
    file = tmp_path / "axoneme.yaml"
    file.write_text(CONFIG.replace("RUN", str(tmp_path)))
    monkeypatch.setenv("AXONEME_CONFIG", str(file))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


@contextlib.asynccontextmanager
async def serving(place: Place, flows: int = 3) -> AsyncIterator[GrpcServer]:
    world = World(policy_verdicts=False)
    world.observer.take(records(flows))
    events, table = AgentEvents("default/node1", now=lambda: 10**18), State([PEERS]).writer(PEERS.name, Peer)
    table.upsert(
        Peer(name="node1", address="10.0.0.1:4244", server_name=peers.server_name("default", "node1"))
    )
    service = ObserverService(world.observer, events, Self("node1", "10.0.0.1:4244"))
    server = GrpcServer(
        place, [service.handler(Room(10)), PeerService(table).handler()], [SERVICE, peers.SERVICE]
    )
    async with running(server.serve), asyncio.timeout(60):
        yield server


async def axoneme(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `axoneme hubble …`."""
    code = await asyncio.to_thread(run, ["hubble", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


async def test_commands_ask_the_agent_of_this_machine(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Place(socket=home / "hubble.sock")):
        code, out, err = await axoneme(capsys, "status")
        assert (code, err) == (0, "")
        assert out.splitlines()[:2] == [
            f"Healthcheck (via unix://{home / 'hubble.sock'}): Ok",
            "Current/Max Flows: 3/65,536 (0.00%)",
        ]
        for arguments, keys in (
            (
                ("status", "-o", "json"),
                {"num_flows", "max_flows", "seen_flows", "uptime_ns", "version", "flows_rate"},
            ),
            (("list", "nodes", "-o", "json"), {"name", "address", "state", "version", "tls", "num_flows"}),
            (("list", "namespaces", "-o", "json"), {"cluster", "namespace"}),
        ):
            code, out, _ = await axoneme(capsys, *arguments)
            shown = json.loads(out)
            first = shown[0] if isinstance(shown, list) else shown
            assert (code, keys <= first.keys()) == (0, True)
        assert (await axoneme(capsys, "list", "namespaces"))[1] == "NAMESPACE\nshop\n"
        assert (
            (await axoneme(capsys, "list", "nodes", "-o", "wide"))[1]
            .splitlines()[1]
            .startswith("node1   Connected   ")
        )
        code, out, _ = await axoneme(capsys, "observe", "--last", "2")
        assert [line.partition(": ")[2] for line in out.splitlines()] == [
            f"shop/web:{port} (ID:300) -> shop/api:8080 (ID:301) to-endpoint FORWARDED (TCP Flags: SYN)"
            for port in (1001, 1002)
        ]
        code, out, _ = await axoneme(
            capsys, "observe", "flows", "-o", "table", "--not", "--from-port", "1001"
        )
        assert [name in out for name in ("shop/web:1000", "shop/web:1001", "shop/web:1002")] == [
            True,
            False,
            True,
        ]
        saved = home / "flows.json"
        saved.write_text((await axoneme(capsys, "observe", "--all", "-o", "json"))[1])
        code, out, _ = await axoneme(
            capsys, "observe", "--input-file", str(saved), "-o", "dict", "--last", "1"
        )
        assert (code, out.count("SOURCE: shop/web:1002")) == (0, 1)
        assert (await axoneme(capsys, "observe", "agent-events")) == (0, "", "")
        code, _, err = await axoneme(capsys, "observe", "debug-events")
        assert (code, err) == (1, "error: UNIMPLEMENTED: this datapath has no debug events\n")
        code, _, err = await axoneme(capsys, "observe", "--ip", "nonsense")
        assert (code, err.startswith("error: invalid source ip filter")) == (1, True)


async def test_the_server_is_named_by_flag_variable_or_file(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Authority(home / "ca")
    certificate, key = ours.issue("client")
    async with serving(Place(listen="127.0.0.1:0", tls=ours.server(clients=True))) as server:
        address = f"tls://localhost:{server.port}"
        flags = ["--tls-client-cert-file", str(certificate), "--tls-client-key-file", str(key)]
        trust = ["--tls-ca-cert-files", str(ours.file)]
        code, out, _ = await axoneme(capsys, "status", "--server", address, *trust, *flags)
        assert (code, out.splitlines()[0]) == (0, f"Healthcheck (via localhost:{server.port}): Ok")
        basic = ["--basic-auth-username", "u", "--basic-auth-password", "p"]
        assert (await axoneme(capsys, "list", "nodes", "--server", address, *trust, *flags, *basic))[0] == 0
        monkeypatch.setenv("HUBBLE_SERVER", address)
        monkeypatch.setenv("HUBBLE_TLS_CA_CERT_FILES", str(ours.file))
        code, _, err = await axoneme(capsys, "list", "nodes")
        assert (code, "no Hubble server answers" in err) == (1, True)  # without a certificate
        file = home / ".config" / "hubble" / "config.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(
            f"tls-client-cert-file: {certificate}\ntls-client-key-file: {key}\nserver: elsewhere:1\n"
        )
        assert (await axoneme(capsys, "list", "nodes"))[0] == 0  # the variable goes before the file
        file.write_text("[]")
        code, _, err = await axoneme(capsys, "list", "nodes")
        assert (code, "expected a mapping of flags to values" in err) == (1, True)


async def test_what_goes_wrong_is_said_without_a_traceback(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code, message in (
        (("status",), 3, "no Hubble server answers at unix://"),
        (("status", "--server", "127.0.0.1:1"), 1, "no Hubble server answers at 127.0.0.1:1"),
        (("status", "--basic-auth-username", "u"), 1, "a password is only sent over TLS"),
        (("status", "--tls", "--server", "x:1", "--tls-ca-cert-files", "/none"), 1, "No such file"),
        (("status", "--tls", "--server", "x:1", "--tls-client-key-file", "/none"), 1, "go together"),
        (("status", "--tls-allow-insecure", "--server", "tls://127.0.0.1:1"), 1, "no TLS server answers"),
        (("observe", "--input-file", "/none"), 1, "cannot be read"),
        (("observe", "--first", "1", "--follow"), 1, "cannot set both --first and --follow"),
        (("observe", "--nonsense"), 2, "No such option"),
        (("relay", "--peer", "x"), 1, "is no node"),
        (("status", "-P"), 1, "kubectl -n kube-system port-forward"),
    ):
        shown = await axoneme(capsys, *arguments)
        assert (shown[0], message in shown[2], "Traceback" in shown[2]) == (code, True, False), shown


async def test_peers_are_watched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from axoneme.plugins.hubble.cli.commands import watch_peers

    sent, notify = asyncio.Event(), PeerService.notify

    async def noticed(service: PeerService, request: Any, context: Any) -> AsyncIterator[bytes]:
        async for message in notify(service, request, context):
            yield message
            sent.set()

    monkeypatch.setattr(PeerService, "notify", noticed)
    async with serving(Place(socket=home / "hubble.sock")) as server:
        watched = asyncio.ensure_future(
            asyncio.to_thread(
                CliRunner().invoke,
                watch_peers,
                ["--server", f"unix://{home / 'hubble.sock'}"],
                standalone_mode=False,
            )
        )
        await sent.wait()
        await server.stop()  # the stream ends, and so does the command
        result = await watched
    assert result.output == (
        "PEER_ADDED   10.0.0.1:4244 node1 (TLS.ServerName: node1.default.hubble-grpc.cilium.io)\n"
    )


def test_help_names_every_flag_once_and_hides_the_twins() -> None:
    shown = CliRunner().invoke(observe, ["--help"], terminal_width=200).output
    assert "--from-pod" in shown
    assert "--not-from-pod" not in shown
    assert isinstance(observe, click.Group)
