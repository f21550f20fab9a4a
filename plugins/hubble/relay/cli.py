"""`axoneme hubble relay`: a relay in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import attrs
import click

from axoneme.core import logs
from axoneme.core.errors import ConfigError
from axoneme.plugins.hubble.cli.options import default_address
from axoneme.plugins.hubble.config import HubbleConfig
from axoneme.plugins.hubble.peers import Peer
from axoneme.plugins.hubble.relay.config import RelaySettings

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

_log = logs.get(__name__)


@click.command()
@click.option(
    "--listen", metavar="HOST:PORT", help="Where clients connect, in place of the configured address."
)
@click.option(
    "--peer-service", metavar="ADDRESS", help="The agent that knows the nodes: HOST:PORT or unix:///PATH."
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME=ADDRESS",
    help="A node, in place of a peer service; may be repeated.",
)
@click.pass_obj
def relay(session: Session, /, **given: Any) -> None:
    """Serve the flows of many nodes at one address. It needs no agent on its own machine. Ctrl-C ends it.

    The rest is in the configuration: plugins.hubble.relay.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it has to say is in the errors, too
    config = session.config
    log = config.settings.agent.log
    logs.setup("debug" if session.verbose else log.level, log.format)
    settings = chosen(config.section("hubble", HubbleConfig).relay, **given)
    asyncio.run(_run(settings, default_address(session)))


def chosen(
    settings: RelaySettings,
    *,
    listen: str | None = None,
    peer_service: str | None = None,
    peers: tuple[str, ...] = (),
) -> RelaySettings:
    """The settings with what the command line says. Raises `ConfigError`."""
    changes: dict[str, Any] = {"peers": tuple(map(_peer, peers))} if peers else {}
    if listen is not None:
        changes["listen"] = listen
    if peer_service is not None:
        changes |= {"peer_service": peer_service, "peers": changes.get("peers", ())}
    try:
        return attrs.evolve(settings, **changes)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _peer(text: str) -> Peer:
    name, equals, address = text.partition("=")
    if not equals or not name or not address:
        raise ConfigError(f"{text!r} is no node", hint="it is written as NAME=HOST:PORT")
    return Peer(name=name, address=address)


async def _run(settings: RelaySettings, peer_service: str) -> None:
    from axoneme.core.systemd import Notifier
    from axoneme.plugins.hubble.relay.service import Relay

    made, notifier = Relay(settings, peer_service), Notifier()

    def ready() -> None:
        _log.info("relay listens", address=settings.listen, port=made.server.port)
        notifier.ready("serves")

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await made.run(ready)
    notifier.stopping()
