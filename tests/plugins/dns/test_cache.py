"""What is known of names: limits, expiry, and what is left of it after a crash."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.plugins.dns.cache import MAX_TTL, NameCache
from axoneme.plugins.dns.journal import Journal

ADDRESSES = [ip_address(f"192.0.2.{n}") for n in range(8)] + [ip_address("2001:db8::1")]
NAMES = [f"{letter}.io" for letter in "abcdef"]


def cache(**limits: int) -> NameCache:
    return NameCache(**({"min_ttl": 0, "names": 100, "addresses": 100} | limits))


def pairs(of: NameCache) -> set[tuple[str, str]]:
    return {(name, str(address)) for (name, address), _ in of.items()}


def test_an_address_lives_as_long_as_the_longest_of_its_answers() -> None:
    known = cache(min_ttl=30)
    known.learn("a.io", ADDRESSES[:2], 10, 1, now=1000)
    known.learn("a.io", ADDRESSES[:1], 100, 2, now=1000)
    known.learn("a.io", ADDRESSES[:1], 1, 1, now=1001)
    entry = known.get("a.io", ADDRESSES[0])
    assert entry is not None
    assert (entry.expires, entry.ttl, entry.endpoints) == (1100, 1, {1: 1001, 2: 1000})
    assert known.expire(1029, 0, lambda: ()) == []
    assert known.expire(1030, 0, lambda: ()) == [("a.io", ADDRESSES[1])]
    assert known.expire(1100, 5, lambda: ()) == []
    assert known.expire(1105, 5, lambda: ADDRESSES[:1]) == [], "somebody still talks to it"
    assert known.expire(1106, 5, lambda: ADDRESSES[1:]) == [("a.io", ADDRESSES[0])]
    assert (len(known), list(known.names)) == (0, [])


def test_no_answer_is_believed_for_ever() -> None:
    known = cache()
    known.learn("a.io", ADDRESSES[:1], 2**31 - 1, 1, now=0)
    assert known.expire(MAX_TTL, 0, lambda: ()) == [("a.io", ADDRESSES[0])]


def test_who_is_alive_is_only_asked_when_something_is_over() -> None:
    known = cache()
    known.learn("a.io", ADDRESSES[:1], 10, 1, now=0)

    def never() -> tuple[()]:
        raise AssertionError

    assert known.expire(9, 0, never) == []


def test_limits() -> None:
    known = cache(addresses=3, names=2)
    known.learn("a.io", ADDRESSES[:2], 10, 1, now=0)
    change = known.learn("a.io", ADDRESSES[2:4], 20, 1, now=0)
    assert len(change.evicted) == 1, "those that expire first make room"
    assert change.evicted[0][1] in ADDRESSES[:2]
    known.learn("b.io", ADDRESSES[:1], 10, 1, now=1)
    known.learn("a.io", ADDRESSES[3:4], 10, 1, now=2)
    change = known.learn("c.io", ADDRESSES[:1], 10, 1, now=3)
    assert change.evicted == (("b.io", ADDRESSES[0]),), "the name that was asked for longest ago goes"
    huge = cache(addresses=3).learn("d.io", ADDRESSES, 10, 1, now=0)
    assert len(huge.added) == 3
    assert not set(huge.added) & set(huge.evicted)


steps = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.lists(st.sampled_from(ADDRESSES), min_size=1),
        st.integers(0, 50),
        st.integers(0, 20),
    ),
    max_size=30,
)


@given(steps)
def test_what_changes_say_is_what_is_known(given: list) -> None:
    known, said, now = cache(names=3, addresses=4), set(), 0
    for name, addresses, ttl, wait in given:
        now += wait
        change = known.learn(name, addresses, ttl, 1, now)
        said |= set(change.added)
        assert set(change.evicted) <= said
        said -= set(change.evicted)
        said -= set(known.expire(now, 5, lambda: ()))
        assert said == {pair for pair, _ in known.items()}
        assert len(known.names) <= 3


@settings(max_examples=25)
@given(steps)
def test_a_journal_has_what_was_known(tmp_path_factory: object, given: list) -> None:
    folder: Path = tmp_path_factory.mktemp("journal")  # type: ignore[attr-defined]
    known, journal, now = cache(names=3, addresses=4), Journal(folder / "names"), 0
    journal.load(known, 0, 0)
    for name, addresses, ttl, wait in given:
        now += wait
        change = known.learn(name, addresses, ttl, 1, now)
        journal.learned(known, [(name, one) for one in addresses])
        journal.forgotten(change.evicted)
    again = cache(names=3, addresses=4)
    Journal(folder / "names").load(again, -1, 0)  # as after kill -9: nothing was closed
    assert pairs(again) == pairs(known)


def test_a_journal_that_was_cut_off_or_damaged(tmp_path: Path) -> None:
    path, known = tmp_path / "names", cache()
    journal = Journal(path)
    journal.load(known, 0, 0)
    for index, name in enumerate(NAMES):
        known.learn(name, [ADDRESSES[index]], 100, 1, now=0)
        journal.learned(known, [(name, ADDRESSES[index])])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b'{"name": "b.io", "address": "nowhere"}\n'
    lines[2] = b"\x00\xff\n"
    path.write_bytes(b"".join(lines)[:-5])
    again = cache()
    Journal(path).load(again, 0, 0)
    assert {name for name, _ in pairs(again)} == {"a.io", "d.io", "e.io"}
    over = cache()
    Journal(path).load(over, 101, 0)
    assert pairs(over) == set(), "what is over is not taken over"


def test_a_journal_stays_small(tmp_path: Path) -> None:
    known, journal = cache(), Journal(tmp_path / "names")
    journal.load(known, 0, 0)
    for now in range(0, 300_000, 100):
        known.learn("a.io", ADDRESSES[:1], 100, 1, now)
        journal.learned(known, [("a.io", ADDRESSES[0])])
    assert (tmp_path / "names").stat().st_size < 200_000


def test_a_disk_that_refuses_is_a_problem_and_no_end(tmp_path: Path) -> None:
    known, journal = cache(), Journal(tmp_path / "absent" / "names")
    journal.load(known, 0, 0)
    assert "cannot be written down" in journal.problem
    known.learn("a.io", ADDRESSES[:1], 100, 1, 0)
    journal.learned(known, [("a.io", ADDRESSES[0])])
    assert journal.problem
