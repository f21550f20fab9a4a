from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from axoneme.core import config
from axoneme.core.config import ConfigErrors
from axoneme.core.errors import ConfigError
from axoneme.core.structure import setting


@attrs.frozen(kw_only=True)
class Section:
    limit: int = setting(5, help="how many")
    name: str = setting("", help="who")


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return file


def load(file: Path | None, environ: dict[str, str] | None = None, *sets: str) -> config.Config:
    return config.load(file, environ=environ or {}, sets=sets)


def test_later_sources_win_key_by_key(tmp_path: Path) -> None:
    file = written(tmp_path, "agent: {name: one, log: {level: debug}}\nnode: {name: a}\n")
    environ = {"AXONEME_AGENT__NAME": "two", "AXONEME_NODE__NAME": "b", "AXONEME_TRACE_HOOKS": "1"}
    settings = load(file, environ, "node.name=c", "datapath.devices=[eth0, eth1]").settings
    assert (settings.agent.name, settings.node.name) == ("two", "c")
    assert settings.agent.log.level == "debug"
    assert settings.datapath.devices == ("eth0", "eth1")


def test_every_value_says_where_it_came_from(tmp_path: Path) -> None:
    file = written(tmp_path, "agent:\n  name: one\n")
    origins = {e.path: e.origin for e in load(file, {"AXONEME_NODE__NAME": "b"}, "pools.ipv6=null").entries()}
    assert origins["agent.name"] == f"{file}:2"
    assert origins["node.name"] == "environment AXONEME_NODE__NAME"
    assert origins["pools.ipv6"] == "--set pools.ipv6"
    assert origins["agent.log.level"] == "default"


def test_all_mistakes_come_with_their_places_and_the_nearest_key(tmp_path: Path) -> None:
    file = written(tmp_path, "agent:\n  nmae: one\ndatapath:\n  strategy: fast\n")
    with pytest.raises(ConfigErrors) as caught:
        load(file)
    first, second = caught.value.errors
    assert str(first) == f"{file}:2 (agent.nmae): unknown key 'nmae' (did you mean name?)"
    assert second.where is not None
    assert (second.where.line, second.hint) == (4, "it can be auto, single, tailcalls")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "malformed YAML"),
        ("- a", "a configuration is a mapping"),
        ("a: 1\n---\nb: 2\n", "a configuration is one document"),
        ("agent: {}\nagent: {}\n", "twice"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "absent.yaml")


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "# nothing yet\n")).digest == load(written(tmp_path, "agent:\n")).digest


@pytest.mark.parametrize("text", ["agent", "=x", "a..b=c"])
def test_a_set_that_is_no_assignment(text: str) -> None:
    with pytest.raises(ConfigError, match="not of the form"):
        load(None, {}, text)


def test_a_plugins_section_is_structured_by_its_class(tmp_path: Path) -> None:
    file = written(tmp_path, "plugins:\n  enabled: [rate-limit]\n  rate-limit:\n    limit: 7\n")
    loaded = load(file, {"AXONEME_PLUGINS__RATE_LIMIT__NAME": "x"})
    loaded.check_sections(["rate-limit"])
    assert loaded.section("rate-limit", Section) == Section(limit=7, name="x")
    assert loaded.section("other", Section) == Section()
    file.write_text("plugins:\n  rate-limit:\n    limt: 7\n")
    with pytest.raises(ConfigErrors, match="unknown key 'limt'") as caught:
        load(file).section("rate-limit", Section)
    assert str(caught.value.where) == f"{file}:3 (plugins.rate-limit.limt)"


def test_a_section_that_is_no_mapping_is_a_mistake(tmp_path: Path) -> None:
    file = written(tmp_path, "plugins:\n  policy: yes\n")
    with pytest.raises(ConfigErrors, match="expected a mapping"):
        load(file).section("policy", Section)


def test_plugins_that_nobody_has_installed(tmp_path: Path) -> None:
    file = written(tmp_path, "plugins:\n  enabled: [polcy]\n  wat: {}\n")
    with pytest.raises(ConfigErrors) as caught:
        load(file).check_sections(["policy"])
    assert [error.message for error in caught.value.errors] == [
        "there is no plugin 'polcy'",
        "unknown key 'wat'",
    ]
    assert caught.value.errors[0].hint == "did you mean policy?"


def test_equal_configurations_have_equal_digests_wherever_from(tmp_path: Path) -> None:
    file = written(tmp_path, "# a comment\nnode: {name: a}\n")
    assert load(file).digest == load(None, {"AXONEME_NODE__NAME": "a"}).digest
    assert load(file).digest != load(None).digest


def test_again_reads_the_sources_anew(tmp_path: Path) -> None:
    file = written(tmp_path, "node: {name: a}\n")
    first = load(file, {}, "agent.name=x")
    file.write_text("node: {name: b}\n")
    assert first.again().settings.node.name == "b"
    assert first.again().settings.agent.name == "x"


def test_a_configuration_from_values() -> None:
    assert config.from_values({"node": {"name": "n"}}).settings.node.name == "n"
    with pytest.raises(ConfigErrors, match="unknown key"):
        config.from_values({"nod": {}})


def test_the_schema_has_every_section_and_those_of_plugins() -> None:
    schema: dict[str, Any] = config.schema({"policy": Section})
    assert set(schema["properties"]) == {"agent", "node", "pools", "datapath", "events", "plugins"}
    assert schema["properties"]["plugins"]["properties"]["policy"]["properties"]["limit"]["default"] == 5
