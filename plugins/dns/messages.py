"""DNS messages (RFC 1035), read and made by dnspython. What comes from outside is untrusted; nothing here raises but `BadMessageError`."""

from __future__ import annotations

from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
from attrs import frozen

from axoneme.core.errors import AxonemeError
from axoneme.core.workloads.endpoints import Address
from axoneme.core.workloads.names import normal

#: RFC 1035 4.1.1: no message is shorter than its header.
HEADER = 12


class BadMessageError(AxonemeError):
    """A message that is none, or no question as anybody asks it."""


@frozen
class Question:
    """:param name: in lower case, without the dot at its end; `type` is `A`, `AAAA`, `HTTPS` …"""

    id: int
    name: str
    type: str


@frozen
class Answer:
    """:param addresses: those at the end of the chain of CNAMEs that begins with the question's name.
    :param ttl: the smallest one on the way, in seconds.
    :param cnames: the names on the way.
    """

    rcode: str
    addresses: tuple[Address, ...] = ()
    ttl: int = 0
    cnames: tuple[str, ...] = ()


def read_question(wire: bytes) -> Question:
    """The one question of a message. Raises `BadMessageError`."""
    try:
        message = dns.message.from_wire(wire, question_only=True, ignore_trailing=True)
        opcode = message.opcode()
    except (dns.exception.DNSException, ValueError) as error:
        raise BadMessageError(f"no DNS message: {error}") from None
    if message.flags & dns.flags.QR or opcode != dns.opcode.QUERY or len(message.question) != 1:
        raise BadMessageError("not one question")
    asked = message.question[0]
    return Question(message.id, normal(asked.name.to_text()), dns.rdatatype.to_text(asked.rdtype))


def reply(wire: bytes, rcode: str) -> bytes | None:
    """What to say to a question oneself: REFUSED, SERVFAIL … None when the question is not even one."""
    try:
        try:
            message = dns.message.from_wire(wire, ignore_trailing=True)
        except dns.exception.DNSException:
            message = dns.message.from_wire(wire, question_only=True, ignore_trailing=True)
        made = dns.message.make_response(message, recursion_available=True)
        made.set_rcode(dns.rcode.from_text(rcode))
        return made.to_wire()
    except (dns.exception.DNSException, ValueError):
        return None


def answers(wire: bytes, question: Question) -> bool:
    """Whether this is an answer to that question: the rest of it may be whatever the server says."""
    try:
        message = dns.message.from_wire(wire, question_only=True, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return False
    if not message.flags & dns.flags.QR or message.id != question.id:
        return False
    asked = message.question
    return not asked or (len(asked) == 1 and normal(asked[0].name.to_text()) == question.name)


def read_answer(wire: bytes) -> Answer:
    """What is to be learnt from an answer. Only addresses that the question's name leads to count: an answer must not speak
    for names that nobody asked for."""
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
        rcode = dns.rcode.to_text(message.rcode())
    except (dns.exception.DNSException, ValueError):
        return Answer("FORMERR")
    if rcode != "NOERROR" or not isinstance(message, dns.message.QueryMessage):
        return Answer(rcode)
    try:
        chain = message.resolve_chaining()
    except (dns.exception.DNSException, ValueError):
        return Answer(rcode)
    if chain.answer is None or chain.answer.rdtype not in (dns.rdatatype.A, dns.rdatatype.AAAA):
        return Answer(rcode)
    addresses = tuple(ip_address(one.address) for one in chain.answer)
    cnames = tuple(normal(one.name.to_text()) for one in chain.cnames)
    return Answer(rcode, addresses, chain.minimum_ttl, cnames)
