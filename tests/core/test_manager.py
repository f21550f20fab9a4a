from __future__ import annotations

import logging
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import pytest

from axoneme.core.contributions import Contributions, Provided
from axoneme.core.discovery import Found, Provenance
from axoneme.core.errors import PluginError
from axoneme.core.hooks import hookimpl
from axoneme.core.manager import PluginManager, PluginState
from axoneme.core.records import (
    ApiMethod,
    ConfigSection,
    DropReason,
    Health,
    HealthCheck,
    Level,
    Metric,
    MetricType,
    Phase,
    PluginInfo,
    ResourceKind,
    Service,
    Stage,
    TableSpec,
)


@attrs.frozen
class Row:
    name: str


async def run(ready: Callable[[], None]) -> None:
    ready()


class Whole:
    """A plugin that implements every hook that needs no map."""

    def __init__(self, name: str = "whole", **info: Any) -> None:
        self.name = name
        self.more = info

    @hookimpl
    def axoneme_info(self) -> PluginInfo:
        return PluginInfo(name=self.name, **self.more)

    @hookimpl
    def axoneme_config(self) -> ConfigSection:
        return ConfigSection(schema=Row)

    @hookimpl
    def axoneme_tables(self) -> Iterable[TableSpec]:
        yield TableSpec(name=f"{self.name}_rows", row=Row, key="name")

    @hookimpl
    def axoneme_resources(self) -> Iterable[ResourceKind]:
        return [ResourceKind(api_version="v1", kind="Thing", namespaced=False, parse=lambda fields: fields)]

    @hookimpl
    def axoneme_stages(self, context: Any) -> Iterator[Stage]:
        yield Stage(name=context.name, source="", attach=("from_workload",), phase=Phase.DECIDE)

    @hookimpl
    def axoneme_drop_reasons(self) -> Iterable[DropReason]:
        yield DropReason(number=400, name="A", text="a")

    @hookimpl
    def axoneme_services(self, context: Any) -> Iterable[Service]:
        yield Service(name="watch", run=run)

    @hookimpl
    def axoneme_api(self, context: Any) -> Iterable[ApiMethod]:
        yield ApiMethod(name="ThingList", call=list)

    @hookimpl
    def axoneme_health(self, context: Any) -> Iterable[HealthCheck]:
        yield HealthCheck(name="fine", check=lambda: Health(level=Level.OK))

    @hookimpl
    def axoneme_metrics(self, context: Any) -> Iterable[Metric]:
        yield Metric(name=f"{self.name}_total", type=MetricType.COUNTER, help="", read=lambda: 1.0)


class Only:
    """A plugin with nothing but a name."""

    def __init__(self, name: str, **info: Any) -> None:
        self.info = PluginInfo(name=name, **info)

    @hookimpl
    def axoneme_info(self) -> PluginInfo:
        return self.info


def installed(
    name: str, load: Callable[[], Any], distribution: str = "someone"
) -> dict[str, tuple[Found, ...]]:
    return {name: (Found(name, Provenance(distribution=distribution, version="1"), load),)}


def manager(found: dict[str, tuple[Found, ...]], *enabled: str, **more: Any) -> PluginManager:
    return PluginManager(enabled or list(found), found=found, environ=more.pop("environ", {}), **more)


def context_of(name: str) -> Any:
    return types.SimpleNamespace(name=name)


def state(plugins: PluginManager, name: str) -> tuple[PluginState, str]:
    return next((s.state, s.reason) for s in plugins.statuses() if s.name == name)


def test_every_hook_gives_its_records_with_the_plugins_name() -> None:
    plugins = manager(installed("whole", Whole))
    assert plugins.config_schemas() == {"whole": Row}
    assert plugins.tables() == [Provided("whole", TableSpec(name="whole_rows", row=Row, key="name"))]
    assert [p.record.kind for p in plugins.resources()] == ["Thing"]
    assert [p.record.name for p in plugins.stages(context_of)] == ["whole"]
    assert [p.record.number for p in plugins.drop_reasons()] == [400]
    assert [p.record.name for p in plugins.services(context_of)] == ["watch"]
    assert [p.record.name for p in plugins.api(context_of)] == ["ThingList"]
    assert [p.record.name for p in plugins.health(context_of)] == ["fine"]
    assert [p.record.name for p in plugins.metrics(context_of)] == ["whole_total"]
    assert plugins.maps(context_of) == plugins.commands() == []


def test_a_plugin_that_is_not_enabled_is_not_imported() -> None:
    def load() -> Any:
        raise AssertionError("imported")

    plugins = manager(installed("lazy", load) | installed("whole", Whole), "whole")
    assert plugins.enabled == ["whole"]
    assert state(plugins, "lazy") == (PluginState.AVAILABLE, "")


@pytest.mark.parametrize("error", [ImportError("no module"), SyntaxError("bad"), SystemExit(3), ValueError()])
def test_a_broken_entry_point_breaks_only_itself(error: BaseException) -> None:
    def load() -> Any:
        raise error

    plugins = manager(installed("broken", load) | installed("whole", Whole))
    assert plugins.enabled == ["whole"]
    assert state(plugins, "broken")[0] is PluginState.FAILED
    assert type(error).__name__ in plugins.failed["broken"]
    plugins.check_required()


def test_a_hook_that_raises_fails_its_plugin_alone() -> None:
    class Raises(Only):
        @hookimpl
        def axoneme_tables(self) -> Iterable[TableSpec]:
            yield TableSpec(name="half", row=Row, key="name")
            raise ZeroDivisionError

    plugins = manager(installed("raises", lambda: Raises("raises")) | installed("whole", Whole))
    assert [p.plugin for p in plugins.tables()] == ["whole"]
    assert plugins.failed == {"raises": "ZeroDivisionError"}
    assert plugins.services(context_of)[0].plugin == "whole"


def test_a_record_of_the_wrong_type_fails_its_plugin() -> None:
    class Wrong(Only):
        @hookimpl
        def axoneme_services(self, context: Any) -> Any:
            return ["run me"]

    plugins = manager(installed("wrong", lambda: Wrong("wrong")))
    assert plugins.services(context_of) == []
    assert plugins.failed["wrong"].startswith("axoneme_services of wrong gave a str, not a Service")


@pytest.mark.parametrize("how", ["record", "config"])
def test_a_required_plugin_that_fails_stops_the_start(how: str) -> None:
    class Raises(Only):
        @hookimpl
        def axoneme_tables(self) -> Iterable[TableSpec]:
            raise ZeroDivisionError

    found = installed("guard", lambda: Raises("guard", required=how == "record"))
    plugins = manager(found, required=["guard"] if how == "config" else [])
    plugins.tables()
    with pytest.raises(PluginError, match="guard is required and failed: ZeroDivisionError"):
        plugins.check_required()


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Only("other"), "calls itself 'other', but is installed as 'p1'"),
        (Only("p1", requires_api=99), "version 99 of the plugin API"),
        (types.SimpleNamespace(), "does not implement axoneme_info"),
        (types.SimpleNamespace(axoneme_info=lambda: None), "axoneme_info is not marked as a hook"),
    ],
)
def test_what_is_not_a_plugin_of_ours(plugin: Any, reason: str) -> None:
    assert reason in manager(installed("p1", lambda: plugin)).failed["p1"]


def test_a_misspelt_hook_is_named_with_the_nearest() -> None:
    class Misspelt(Only):
        @hookimpl
        def axoneme_servces(self) -> None:
            return None

    reason = manager(installed("p1", lambda: Misspelt("p1"))).failed["p1"]
    assert reason == "there is no hook axoneme_servces (did you mean axoneme_services?)"


def test_an_argument_that_the_hook_does_not_have() -> None:
    class Curious(Only):
        @hookimpl
        def axoneme_tables(self, agent: Any) -> Any:
            return []

    assert "agent" in manager(installed("p1", lambda: Curious("p1"))).failed["p1"]


def test_two_packages_with_one_name_are_named_both() -> None:
    found = installed("p1", lambda: Only("p1"), "alpha")
    found["p1"] += installed("p1", lambda: Only("p1"), "beta")["p1"]
    with pytest.raises(PluginError, match=r"p1 comes from alpha 1 and beta 1"):
        manager(found)
    assert manager(found | installed("whole", Whole), "whole").enabled == ["whole"]


def test_an_unknown_plugin_is_an_error_with_the_nearest() -> None:
    with pytest.raises(PluginError, match="did you mean whole"):
        manager(installed("whole", Whole), "whoel")


def test_switches_load_nothing_and_say_so() -> None:
    found = installed("whole", Whole) | installed("p1", lambda: Only("p1"))
    assert state(manager(found, no_plugins=True), "whole") == (PluginState.DISABLED, "--no-plugins")
    plugins = manager(found, environ={"AXONEME_DISABLE_PLUGINS": "p1, x"})
    assert plugins.enabled == ["whole"]
    assert state(plugins, "p1") == (PluginState.DISABLED, "AXONEME_DISABLE_PLUGINS")


def test_plugins_of_an_embedder_take_the_same_path() -> None:
    plugins = manager(installed("whole", Whole), "whole", extra=[Only("mine")])
    assert plugins.enabled == ["mine", "whole"]
    assert plugins.provenance("mine").distribution == "in process"
    with pytest.raises(PluginError, match="is no plugin"):
        manager({}, extra=[object()])
    with pytest.raises(PluginError, match="in process"):
        manager(installed("mine", lambda: Only("mine")), extra=[Only("mine")])


def test_a_hook_call_can_be_traced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="axoneme")
    manager(installed("whole", Whole), environ={"AXONEME_TRACE_HOOKS": "1"}).tables()
    traced = [getattr(r, "axoneme_fields") for r in caplog.records if r.getMessage() == "hook"]  # noqa: B009
    assert [(t["hook"], t["plugin"], t["records"]) for t in traced] == [
        ("axoneme_info", "whole", 1),
        ("axoneme_tables", "whole", 1),
    ]


def test_conflicts_are_one_error_that_names_every_provider() -> None:
    plugins = manager(
        installed("p1", lambda: Whole("p1"))
        | installed("p2", lambda: Whole("p2"))
        | installed("p3", lambda: Whole("p3"))
    )
    everything = Contributions(
        tables=tuple(plugins.tables()),
        resources=tuple(plugins.resources()),
        drop_reasons=tuple(plugins.drop_reasons()),
        services=tuple(plugins.services(context_of)),
        api=tuple(plugins.api(context_of)),
    )
    with pytest.raises(PluginError) as caught:
        everything.check()
    assert "the resource kind v1 Thing comes from p1 and p2 and p3" in str(caught.value)
    assert "the drop reason 400 comes from p1 and p2 and p3" in str(caught.value)
    assert "the API method ThingList comes from p1 and p2 and p3" in str(caught.value)
    assert "watch" not in str(caught.value), "services are named within their plugin"
    assert everything.only(["p2"]).check().api[0].plugin == "p2"
    both = everything.only(["p1"]).plus(everything.only(["p2"]))
    assert [p.plugin for p in both.tables] == ["p1", "p2"]
