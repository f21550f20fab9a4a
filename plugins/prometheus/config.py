"""The section `prometheus` of the configuration."""

from __future__ import annotations

import re

from attrs import frozen

from axoneme.core.http.settings import TlsSettings, check_address
from axoneme.core.structure import setting

_TOGGLE = re.compile(r"[+-][a-zA-Z_:][a-zA-Z0-9_:]*")


@frozen(kw_only=True)
class PrometheusConfig:
    listen: str = setting("127.0.0.1:9962", help="where /metrics is served; :9962 for all addresses")
    metrics: tuple[str, ...] = setting(
        (), help="-NAME takes a metric out, +NAME brings in what is off by default"
    )
    max_series: int = setting(
        10_000,
        help="series per metric; what is more is summed up as `overflow`",
        minimum=10,
        maximum=1_000_000,
    )
    tls: TlsSettings = setting(TlsSettings(), help="certificate and key, for HTTPS")

    def __attrs_post_init__(self) -> None:
        check_address(self.listen)
        for toggle in self.metrics:
            if _TOGGLE.fullmatch(toggle) is None:
                raise ValueError(f"{toggle!r} is neither -NAME nor +NAME")
