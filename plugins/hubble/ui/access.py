"""Who may look: whoever reaches loopback, and beyond it whoever knows the token."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import Final

from axoneme.core.errors import ConfigError, Where

#: Browsers that are logged in at once; the oldest gives way.
_SESSIONS: Final = 64
#: A token that is shorter can be guessed.
_SHORTEST: Final = 16

COOKIE: Final = "axoneme-ui"


class Access:
    """Checks tokens, and remembers who showed the right one.

    :param token: None: everybody may look.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._sessions: OrderedDict[str, None] = OrderedDict()

    @property
    def open(self) -> bool:
        return self._token is None

    @property
    def token(self) -> str:
        """Empty if none is needed."""
        return self._token or ""

    def enter(self, token: str) -> str | None:
        """A new session for the right token, which goes into a cookie; None for a wrong one."""
        if self._token is None or not _equal(token, self._token):
            return None
        session = secrets.token_urlsafe(32)
        self._sessions[session] = None
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def allows(self, cookie: str, authorization: str = "") -> bool:
        """Whether a request with this cookie or Authorization header may be answered."""
        if self._token is None:
            return True
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "bearer" and _equal(given.strip(), self._token):
            return True
        return any(_equal(cookie, session) for session in self._sessions)


def _equal(given: str, expected: str) -> bool:
    """In a time that does not depend on how much of it is right."""
    return hmac.compare_digest(given.encode(), expected.encode())


def access(loopback: bool, file: Path | None) -> Access:
    """:raises ConfigError: the token's file cannot be read, or its token is too short."""
    if file is None:
        return Access(None if loopback else secrets.token_urlsafe(32))
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the token cannot be read: {error}", where=Where(str(file))) from None
    if len(token) < _SHORTEST:
        raise ConfigError(
            f"the token has fewer than {_SHORTEST} characters",
            where=Where(str(file)),
            hint="openssl rand -hex 32",
        )
    return Access(token)
