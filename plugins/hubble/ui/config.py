"""The part `ui` of the section `hubble`."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from axoneme.core.http.settings import TlsSettings, check_address, parse_address
from axoneme.core.structure import setting


@frozen(kw_only=True)
class UiSettings:
    enabled: bool = setting(
        False, help="whether the page is served from the start, rather than once `axoneme ui` was called"
    )
    listen: str = setting("127.0.0.1:12000", help="where; beyond loopback it asks for a token")
    token: Path | None = setting(
        None, help="a file with the token; null: a new one at each start, which `axoneme ui` tells"
    )
    plaintext: bool = setting(
        False, help="allow `listen` beyond loopback without TLS: who listens on the way sees token and flows"
    )
    tls: TlsSettings = setting(TlsSettings(), help="certificate and key, for HTTPS")

    def __attrs_post_init__(self) -> None:
        check_address(self.listen)
        if not (parse_address(self.listen).loopback or self.tls.certificate or self.plaintext):
            raise ValueError("beyond loopback the page needs tls.certificate and tls.key, or plaintext: true")
