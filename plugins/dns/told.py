"""Questions and answers as whoever watches layer 7 wants to hear them."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import dns.rcode

from axoneme.core.events.requests import Dns, Outcome, Request
from axoneme.plugins.dns.messages import Answer, Question

if TYPE_CHECKING:
    from axoneme.plugins.dns.proxy import Way

_OUTCOMES: Final = {
    "forwarded": Outcome.FORWARDED, "timeout": Outcome.FORWARDED, "denied": Outcome.DENIED,
    "failed": Outcome.ERROR, "busy": Outcome.ERROR,
}  # fmt: skip


def told(
    connection: Any, way: Way, question: Question, verdict: str, answer: Answer, seconds: float
) -> list[Request]:
    """The question, and the server's answer where there was one.

    :param connection: the entry of the answers' direction.
    :param seconds: since the question came.
    """
    now, waited = time.time_ns(), int(seconds * 1e9)
    ends: dict[str, Any] = {
        "source": ip_address(way.client[0]), "source_port": way.client[1],
        "destination": ip_address(way.server[0]), "destination_port": way.server[1],
        "source_endpoint": int(connection["destination_endpoint"]),
        "source_identity": int(connection["destination_identity"]),
        "destination_endpoint": int(connection["source_endpoint"]),
        "destination_identity": int(connection["source_identity"]),
    }  # fmt: skip
    common: dict[str, Any] = {
        "protocol": way.protocol, "egress_rule": int(connection["egress_rule"]),
        "ingress_rule": int(connection["ingress_rule"]),
    }  # fmt: skip
    asked = Dns(query=f"{question.name}.", types=(question.type,))
    made = [Request(time=now - waited, outcome=_OUTCOMES[verdict], what=asked, **ends, **common)]
    if verdict == "forwarded":
        what = Dns(
            query=asked.query, types=asked.types, rcode=int(dns.rcode.from_text(answer.rcode)), ttl=answer.ttl,
            addresses=tuple(map(str, answer.addresses)), cnames=tuple(f"{name}." for name in answer.cnames),
            answer_types=(*(["CNAME"] if answer.cnames else []), *([question.type] if answer.addresses else [])),
        )  # fmt: skip
        back = {name: ends[_OTHER_END[name]] for name in ends}
        made.append(
            Request(
                time=now, outcome=Outcome.FORWARDED, what=what, answer=True, latency=waited, **back, **common
            )
        )
    return made


_OTHER_END: Final = {
    f"{end}{what}": f"{other}{what}"
    for end, other in (("source", "destination"), ("destination", "source"))
    for what in ("", "_port", "_endpoint", "_identity")
}
