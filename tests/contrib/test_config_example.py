"""The annotated example is a configuration, and what it calls defaults are the defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from axoneme.core import config
from axoneme.core.settings import Settings
from axoneme.core.structure import plain
from axoneme.plugins.dns.config import DnsConfig
from axoneme.plugins.hubble.config import HubbleConfig
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.policy.config import PolicyConfig
from axoneme.plugins.prometheus.config import PrometheusConfig

EXAMPLE = Path(__file__).parents[2] / "contrib" / "config" / "axoneme.yaml"

#: The plugins' sections.
SECTIONS = {
    "dns": DnsConfig,
    "hubble": HubbleConfig,
    "lb": LbConfig,
    "policy": PolicyConfig,
    "prometheus": PrometheusConfig,
}

#: What an empty installation does not do by itself.
CHOSEN = {"plugins.enabled"}


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """The example with all that is commented out (`#key:`, prose has a space) switched on."""
    path = tmp_path / "config.yaml"
    path.write_text(re.sub(r"(?m)^( *)#(?=[a-z])", r"\1", EXAMPLE.read_text()))
    return path


def test_it_is_accepted() -> None:
    settings = config.load(EXAMPLE, environ={}).settings
    assert settings.plugins.enabled == ("policy",)


def test_its_defaults_are_the_defaults(complete: Path) -> None:
    made = config.load(complete, environ={})
    sections = {name: made.section(name, schema) for name, schema in SECTIONS.items()}
    entries = {entry.path: entry.value for entry in made.entries(sections)}
    default = config.from_values({})
    known = {
        entry.path: entry.value
        for entry in default.entries({name: schema() for name, schema in SECTIONS.items()})
    }
    assert {path for path in known if entries[path] != known[path]} == CHOSEN


def test_it_has_every_key(complete: Path) -> None:
    made = config.load(complete, environ={})
    entries = made.entries({name: made.section(name, schema) for name, schema in SECTIONS.items()})
    assert [entry.path for entry in entries if entry.origin == "default"] == []
    assert plain(made.settings).keys() == plain(Settings()).keys()
