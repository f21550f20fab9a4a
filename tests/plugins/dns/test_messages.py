"""DNS messages from outside: what is read from them, and that nothing in them is an exception."""

from __future__ import annotations

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.events.rules import L7_RULES, L7Rules
from axoneme.core.state.table import State
from axoneme.plugins.dns.messages import (
    Answer,
    BadMessageError,
    Question,
    answers,
    read_answer,
    read_question,
    reply,
)
from axoneme.plugins.dns.permits import Permits


def query(name: str = "WWW.Example.io", kind: str = "A", **options: object) -> dns.message.Message:
    return dns.message.make_query(name, kind, **options)


def answer(to: dns.message.Message, *rows: str) -> bytes:
    made = dns.message.make_response(to)
    for row in rows:
        name, ttl, kind, value = row.split(" ", 3)
        made.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, value))
    return made.to_wire()


def test_a_question() -> None:
    asked = query(use_edns=0, payload=4096)
    assert read_question(asked.to_wire()) == Question(asked.id, "www.example.io", "A")


def test_what_is_no_question() -> None:
    for wire in (b"", b"x" * 11, b"\0" * 12, answer(query()), query().to_wire()[:20]):
        with pytest.raises(BadMessageError):
            read_question(wire)


def test_two_questions_and_other_operations_are_none() -> None:
    two = query()
    two.question += query("b.io").question
    with pytest.raises(BadMessageError):
        read_question(two.to_wire())
    update = query()
    update.set_opcode(4)
    with pytest.raises(BadMessageError):
        read_question(update.to_wire())


def test_own_answers_keep_what_was_asked() -> None:
    asked = query(use_edns=0, payload=1400)
    said = dns.message.from_wire(reply(asked.to_wire(), "REFUSED") or b"")
    assert (said.id, said.question, said.rcode()) == (asked.id, asked.question, dns.rcode.REFUSED)
    assert said.flags & dns.flags.QR
    assert said.edns == 0, "whoever speaks EDNS is answered with it (RFC 6891 6.1.1)"
    assert reply(b"nothing", "FORMERR") is None


def test_addresses_at_the_end_of_the_chain() -> None:
    wire = answer(
        query(),
        "www.example.io. 300 CNAME cdn.net.",
        "cdn.net. 20 CNAME edge.cdn.net.",
        "edge.cdn.net. 60 A 192.0.2.1",
        "victim.io. 60 A 192.0.2.66",
    )
    assert read_answer(wire) == Answer(
        "NOERROR", (ip_address("192.0.2.1"),), 20, ("www.example.io", "cdn.net")
    )


def test_an_answer_does_not_speak_for_other_names() -> None:
    assert read_answer(answer(query(), "other.io. 60 A 192.0.2.1")).addresses == ()
    assert read_answer(answer(query(kind="AAAA"), "www.example.io. 60 A 192.0.2.1")).addresses == ()
    loop = answer(query(), "www.example.io. 9 CNAME b.io.", "b.io. 9 CNAME www.example.io.")
    assert read_answer(loop).addresses == ()
    six = answer(query(kind="AAAA"), "www.example.io. 60 AAAA 2001:db8::1")
    assert read_answer(six).addresses == (ip_address("2001:db8::1"),)


def test_only_an_answer_to_the_question_counts() -> None:
    asked = query()
    question = read_question(asked.to_wire())
    assert answers(answer(asked), question)
    assert not answers(asked.to_wire(), question), "a question is no answer"
    other = query("b.io")
    other.id = asked.id
    assert not answers(answer(other), question)
    asked.id ^= 1
    assert not answers(answer(asked), question)
    assert not answers(b"noise", question)


@given(st.binary(max_size=100), st.integers(0, 60), st.binary(max_size=8))
def test_noise_is_never_an_exception(noise: bytes, at: int, more: bytes) -> None:
    whole = answer(query(), "www.example.io. 300 CNAME cdn.net.", "cdn.net. 20 A 192.0.2.1")
    for wire in (noise, whole[:at] + more + whole[at + len(more) :], whole[:at]):
        read_answer(wire)
        reply(wire, "REFUSED")
        answers(wire, Question(1, "a.io", "A"))
        try:
            read_question(wire)
        except BadMessageError:
            continue


def test_permits() -> None:
    state = State([L7_RULES])
    table = state.writer(L7_RULES.name, L7Rules)
    rules = ('{"matchName":"a.io"}', '{"matchPattern":"*.B.io"}')
    table.upsert(
        L7Rules(number=1, kind="dns", rules=rules),
        L7Rules(number=2, kind="dns", rules=rules, wildcard=True),
        L7Rules(number=3, kind="http", wildcard=True),
        L7Rules(number=4, kind="dns"),
    )
    permits = Permits(table)
    allowed = [
        [permits.allows(number, name) for name in ("a.io", "x.b.io", "b.io", "x.a.io")] for number in range(6)
    ]
    none, everything = [False] * 4, [True] * 4
    assert allowed == [none, [True, True, False, False], everything, none, none, none]
    table.upsert(L7Rules(number=1, kind="dns", rules=('{"matchName":"b.io"}',)))
    assert [permits.allows(1, name) for name in ("a.io", "b.io")] == [False, True]
