"""Names, patterns and addresses: against the obvious way to say it, whatever the order of changes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.workloads.names import name_matches
from axoneme.plugins.policy.fqdn import Names
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.prefixes import world_labels

NAMES = ("a.io", "b.io", "www.a.io", "x.www.a.io")
PATTERNS = ("a.io", "*.a.io", "*", "*.io", "w*.a.io", "nobody.io")
ADDRESSES = tuple(ip_address(one) for one in ("192.0.2.1", "192.0.2.2", "2001:db8::1"))

change = st.one_of(
    st.tuples(st.just("select"), st.sets(st.sampled_from(PATTERNS))),
    st.tuples(st.sampled_from(["add", "remove"]), st.sampled_from(NAMES), st.sampled_from(ADDRESSES)),
)


@given(st.lists(change))
def test_what_changed_is_known_and_nothing_else_is_wrong(changes: list[tuple]) -> None:
    names, patterns, pairs, known = Names(), set(), set(), {}
    for what, *rest in changes:
        getattr(names, what)(*rest)
        if what == "select":
            patterns = rest[0]
        else:
            (pairs.add if what == "add" else pairs.discard)(tuple(rest))
        known |= {address: names.of(address) for address in names.take_changed()}
    for address in ADDRESSES:
        mine = {name for name, other in pairs if other == address}
        want = {pattern for pattern in patterns for name in mine if name_matches(pattern, name)}
        assert names.of(address) == known.get(address, frozenset()) == want
    assert names.selected().keys() == {address for address in ADDRESSES if names.of(address)}


def test_a_star_is_one_label_and_a_star_alone_is_everything() -> None:
    matching = [
        [name_matches(pattern, name) for name in ("a.io", "www.a.io", "x.www.a.io", "WWW.A.io.")]
        for pattern in ("a.io", "*.a.io", "*.*.a.io", "*", "W*W.a.io", "*a.io")
    ]
    assert matching == [
        [True, False, False, False],
        [False, True, False, True],
        [False, False, True, False],
        [True] * 4,
        [False, True, False, True],
        [True, False, False, False],
    ]


def test_addresses_that_nothing_tells_apart_share_their_labels() -> None:
    spec = {
        "endpointSelector": {},
        "egress": [{"toFQDNs": [{"matchPattern": "*.a.io"}]}, {"toCIDR": ["192.0.2.0/28", "192.0.2.3/32"]}],
    }
    parsed = parse_policy({"kind": "CiliumNetworkPolicy", "metadata": {"name": "p"}, "spec": spec})
    resolved = {
        "www.a.io": [ip_address(f"192.0.2.{n}") for n in (1, 2, 3, 99)],
        "b.io": [ip_address("192.0.2.98")],
    }
    labels = world_labels([parsed], (), resolved)
    assert labels[ip_network("192.0.2.1/32")] == labels[ip_network("192.0.2.2/32")] == (
        "cidr:192.0.2.0/28", "fqdn:*.a.io", "reserved:world-ipv4",
    )  # fmt: skip
    assert labels[ip_network("192.0.2.99/32")] == ("fqdn:*.a.io", "reserved:world-ipv4")
    assert set(labels[ip_network("192.0.2.3/32")]) == {
        "cidr:192.0.2.3/32",
        "fqdn:*.a.io",
        "reserved:world-ipv4",
    }
    assert ip_network("192.0.2.98/32") not in labels
