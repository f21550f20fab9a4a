"""How commands reach a Hubble server: the flags of the `hubble` command, its variables and its configuration file.

What is not given on the command line comes from `HUBBLE_…`, then from the file, then it is the agent of this machine.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import frozen

from axoneme.core.api.client import NotRunningError
from axoneme.core.errors import AxonemeError, ConfigError, Where
from axoneme.plugins.hubble.channel import TLS_PREFIX, Target, Tls, open_channel
from axoneme.plugins.hubble.cli.flags import UsageError
from axoneme.plugins.hubble.cli.times import duration

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

RELAY_PORT: Final = 4245
_FILE: Final = "config.yaml"


@frozen(kw_only=True)
class Server:
    """A server to ask, and the seconds that an answer may take (streams take as long as they take)."""

    target: Target
    timeout: float
    shown: str
    debug: bool = False

    @contextmanager
    def stub(self, kind: Callable[[Any], Any]) -> Iterator[Any]:
        """A service's stub; what goes wrong with calls is explained."""
        import grpc

        with open_channel(self.target) as channel:
            try:
                yield kind(channel)
            except grpc.RpcError as error:
                raise self._explained(error) from None

    def _explained(self, error: Any) -> AxonemeError:
        code, details = error.code().name, error.details() or ""
        if code == "UNKNOWN":
            return AxonemeError(details)
        if code == "UNAVAILABLE":
            hint = "is the agent running, with the plugin hubble? --server ADDRESS asks another one"
            if self.target.address.startswith("unix:"):
                return NotRunningError(f"no Hubble server answers at {self.shown}: {details}", hint=hint)
            return AxonemeError(f"no Hubble server answers at {self.shown}: {details}", hint=hint)
        return AxonemeError(f"{code}: {details}")


def _seconds(_ctx: click.Context, param: click.Parameter, value: Any) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    try:
        return duration(str(value)) / 1e9
    except UsageError as error:
        raise click.BadParameter(str(error), param=param) from None


def _files(_ctx: click.Context, _param: click.Parameter, value: Any) -> tuple[Path, ...]:
    """Several, with commas or spaces between them; in the file they may be a list."""
    parts = value if isinstance(value, (list, tuple)) else re.split(r"[,\s]+", str(value or ""))
    return tuple(Path(part) for part in parts if part)


def variable(name: str) -> str:
    return "HUBBLE_" + name.upper().replace("-", "_")


def config_file() -> Path:
    """Where the `hubble` command's configuration is."""
    home = os.environ.get("HOME", "")
    base = os.environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    return Path(base, "hubble", _FILE) if base else Path(".hubble", _FILE)


def _read_defaults(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    path = value or config_file()
    if value is None and not path.is_file():
        path = Path.home() / ".hubble" / _FILE
        if not path.is_file():
            return
    import yaml

    try:
        read = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=Where(str(path))) from None
    if not isinstance(read, Mapping) and read is not None:
        raise ConfigError("expected a mapping of flags to values", where=Where(str(path)))
    known = {str(key).replace("-", "_"): inner for key, inner in (read or {}).items()}
    ctx.default_map = {**(ctx.default_map or {}), **known}


_OPTIONS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("server", {"metavar": "ADDRESS", "help": "The server: HOST:PORT, tls://HOST:PORT or unix:///PATH. Without it, "
                "the agent of this machine."}),
    ("tls", {"is_flag": True, "help": "Speak TLS; so does a tls:// address."}),
    ("tls-allow-insecure", {"is_flag": True, "help": "Take any certificate: whoever is in between can read along."}),
    ("tls-ca-cert-files", {"type": click.UNPROCESSED, "callback": _files, "metavar": "FILES",
                           "help": "Authorities to trust in place of the system's, PEM; commas between several."}),
    ("tls-client-cert-file", {"type": Path, "metavar": "FILE", "help": "The client certificate, PEM."}),
    ("tls-client-key-file", {"type": Path, "metavar": "FILE", "help": "The client certificate's key, PEM."}),
    ("tls-server-name", {"default": "", "metavar": "NAME", "help": "The name that the server's certificate must have."}),
    ("basic-auth-username", {"default": "", "metavar": "NAME", "help": "A user's name, sent with each request."}),
    ("basic-auth-password", {"default": "", "metavar": "TEXT",
                             "help": "The password; better in HUBBLE_BASIC_AUTH_PASSWORD, which `ps` does not show."}),
    ("timeout", {"callback": _seconds, "metavar": "DURATION", "default": "5s", "help": "Kept for scripts: connections are made when needed."}),
    ("request-timeout", {"callback": _seconds, "metavar": "DURATION", "default": "12s",
                         "help": "How long an answer may take; streams take as long as they take."}),
    ("port-forward", {"is_flag": True, "hidden": True}),
    ("port-forward-port", {"type": int, "hidden": True}),
    ("kube-context", {"hidden": True}),
    ("kube-namespace", {"hidden": True}),
    ("kubeconfig", {"hidden": True}),
    ("debug", {"is_flag": True, "help": "Print which nodes are connected, too."}),
)  # fmt: skip


_SHORT: Final = {"debug": ("-D",), "port-forward": ("-P",)}


def server_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The flags, as the one parameter `server`: a `Server`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **values: Any) -> Any:
        own = {name: values.pop(name.replace("-", "_")) for name, _ in _OPTIONS}
        session = click.get_current_context().find_root().obj
        return function(*args, server=_server(session, own), **values)

    decorated: Any = wrapped
    for name, arguments in reversed(_OPTIONS):
        decorated = click.option(*_SHORT.get(name, ()), f"--{name}", envvar=variable(name), **arguments)(
            decorated
        )
    final: Callable[..., Any] = click.option(
        "--config", type=Path, envvar=variable("config"), metavar="FILE", is_eager=True, expose_value=False,
        callback=_read_defaults, help="The hubble command's configuration file.",
    )(decorated)  # fmt: skip
    return final


def _server(session: Session, values: Mapping[str, Any]) -> Server:
    if values["port-forward"]:
        raise UsageError(
            "--port-forward is Kubernetes', which this command knows nothing of",
            hint="kubectl -n kube-system port-forward svc/hubble-relay 4245:80, and --server localhost:4245",
        )
    shown: str = values["server"] or default_address(session)
    address = shown.removeprefix(TLS_PREFIX)
    secure = values["tls"] or shown.startswith(TLS_PREFIX)
    if not secure and values["tls-client-cert-file"]:
        raise UsageError("a client certificate is only shown over TLS", hint="use --tls, or a tls:// address")
    tls = Tls(
        ca=values["tls-ca-cert-files"],
        server_name=values["tls-server-name"],
        certificate=values["tls-client-cert-file"],
        key=values["tls-client-key-file"],
        insecure=values["tls-allow-insecure"],
    )
    user, password = values["basic-auth-username"], values["basic-auth-password"]
    target = Target(
        address=_with_port(address),
        tls=tls if secure else None,
        basic=(user, password) if user or password else None,
    )
    return Server(target=target, timeout=values["request-timeout"], shown=address, debug=values["debug"])


def _with_port(address: str) -> str:
    if address.startswith("unix:") or "://" in address or re.search(r":\d+$", address):
        return address
    return f"{address}:{RELAY_PORT}"


def default_address(session: Session) -> str:
    """The socket of the agent that the configuration is of."""
    from axoneme.plugins.hubble.config import HubbleConfig

    config = session.config
    section = config.section("hubble", HubbleConfig)
    return f"unix://{section.server.socket or config.settings.agent.run_dir / 'hubble.sock'}"
