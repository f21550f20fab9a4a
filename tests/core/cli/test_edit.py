from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.cli.edit import with_enabled
from axoneme.core.errors import ConfigError


@pytest.mark.parametrize(
    ("before", "enabled", "after"),
    [
        ("", ["a"], "plugins:\n  enabled: [a]\n"),
        ("# mine\nnode: {name: n}", ["a"], "# mine\nnode: {name: n}\nplugins:\n  enabled: [a]\n"),
        ("plugins:\n  enabled: [a]  # why\n", ["a", "b"], "plugins:\n  enabled: [a, b]  # why\n"),
        ("plugins:\n  enabled: [a]\n  a: {x: 1} # c\n", [], "plugins:\n  enabled: []\n  a: {x: 1} # c\n"),
        ("plugins: # p\n  a: {x: 1}\n", ["a"], "plugins: # p\n  enabled: [a]\n  a: {x: 1}\n"),
        ("plugins:\n    a: {x: 1}\n", ["a"], "plugins:\n    enabled: [a]\n    a: {x: 1}\n"),
        ("plugins:\n", ["a"], "plugins:\n  enabled: [a]\n"),
        (
            "plugins:\n  enabled:\n    - a  # first\n    - b\nnode: {name: n}\n",
            ["a", "b", "c"],
            "plugins:\n  enabled:\n    - a  # first\n    - b\n    - c\nnode: {name: n}\n",
        ),
        (
            "plugins:\n  enabled:\n  - a  # first\n  # about b\n  - b\n  x: {y: 1}\n",
            ["b"],
            "plugins:\n  enabled:\n  # about b\n  - b\n  x: {y: 1}\n",
        ),
        ("plugins:\n  enabled:\n  - a\n  a: {}\n", [], "plugins:\n  enabled: []\n  a: {}\n"),
        ("plugins:\n  enabled:  # none\n  a: {}\n", ["a"], "plugins:\n  enabled: [a]  # none\n  a: {}\n"),
    ],
)
def test_only_the_list_changes(before: str, enabled: list[str], after: str) -> None:
    assert with_enabled(before, enabled, "c.yaml") == after


def test_what_is_written_in_another_way_is_written_anew_without_losing_a_value() -> None:
    before = "plugins: {enabled: [a], a: {x: 1}}\nnode: {name: n}\n"
    after = yaml.safe_load(with_enabled(before, ["b"], "c.yaml"))
    assert after == {"plugins": {"enabled": ["b"], "a": {"x": 1}}, "node": {"name": "n"}}


def test_json_stays_json() -> None:
    assert json.loads(with_enabled('{"node": {"name": "n"}}', ["a"], "c.json")) == {
        "node": {"name": "n"},
        "plugins": {"enabled": ["a"]},
    }


@pytest.mark.parametrize("text", ["- a\n", "plugins: [a]\n", "a: 1\n---\nb: 2\n", "a: ["])
def test_what_is_no_configuration_is_not_touched(text: str) -> None:
    with pytest.raises(ConfigError):
        with_enabled(text, ["a"], "c.yaml")


names = st.lists(st.from_regex(r"[a-z][a-z0-9_-]{1,8}", fullmatch=True), unique=True, max_size=4)
styles = st.sampled_from([None, True, False])


@given(names, names, styles, st.booleans())
def test_whatever_the_style_the_value_is_the_wanted_one(
    before: list[str], after: list[str], style: bool | None, section: bool
) -> None:
    value = {"plugins": {"enabled": before, **({"zz": {"x": [1]}} if section else {})}, "node": {"name": "n"}}
    text = yaml.safe_dump(value, default_flow_style=style)
    changed = yaml.safe_load(with_enabled(text, after, "c.yaml"))
    assert changed == {**value, "plugins": {**value["plugins"], "enabled": after}}
