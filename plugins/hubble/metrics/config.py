"""The part `metrics` of the section `hubble`."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from axoneme.core.errors import ConfigError
from axoneme.core.http.settings import TlsSettings, check_address
from axoneme.core.structure import setting
from axoneme.plugins.hubble.metrics.options import parse


@frozen(kw_only=True)
class MetricsSettings:
    handlers: tuple[str, ...] = setting(
        (),
        help="which metrics of flows there are, as Cilium's hubble.metrics.enabled; none: nothing is served",
    )
    dynamic: Path | None = setting(
        None,
        help="a file with handlers and filters that may change while the agent runs, instead of `handlers`",
    )
    listen: str = setting("127.0.0.1:9965", help="where /metrics is served; :9965 for all addresses")
    max_series: int = setting(
        10_000, help="series per metric; what is more is counted as `overflow`", minimum=1, maximum=1_000_000
    )
    tls: TlsSettings = setting(TlsSettings(), help="certificate and key, for HTTPS")

    def __attrs_post_init__(self) -> None:
        check_address(self.listen)
        if self.handlers and self.dynamic is not None:
            raise ValueError("metrics.handlers and metrics.dynamic exclude each other")
        try:
            parse(self.handlers)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @property
    def enabled(self) -> bool:
        return bool(self.handlers) or self.dynamic is not None
