"""Loads the enabled plugins and asks them what they bring.

Our own plugins take the same path as everybody's: the entry-point group `axoneme.plugins`. Finding imports nothing; only
enabled plugins are imported, each in its own `try`. A plugin whose import or hook fails is *failed*, with the reason, and
contributes nothing; the others don't notice.

pluggy marks and validates the implementations. They are called one by one, never broadcast: each plugin gets its own
context, and a failure is that plugin's alone.
"""

from __future__ import annotations

import enum
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import pluggy
from attrs import field, frozen, mutable

from axoneme.core import hooks, logs, records
from axoneme.core.contributions import Provided, raise_conflicts
from axoneme.core.discovery import Found, Provenance, discover, in_process
from axoneme.core.errors import PluginError
from axoneme.core.records import API_VERSION, PluginInfo
from axoneme.core.structure import nearest

if TYPE_CHECKING:
    from axoneme.core.datapath.maps import MapSpec
    from axoneme.core.plugin import PluginContext

T = TypeVar("T")
Contexts = Callable[[str], "PluginContext"]

NO_PLUGINS: Final = "--no-plugins"
DISABLE_VARIABLE: Final = "AXONEME_DISABLE_PLUGINS"
TRACE_VARIABLE: Final = "AXONEME_TRACE_HOOKS"

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{1,30}")
_log = logs.get(__name__)


class PluginState(enum.StrEnum):
    AVAILABLE = "available"
    DISABLED = "disabled"
    ENABLED = "enabled"
    FAILED = "failed"


@frozen(kw_only=True)
class PluginStatus:
    """What `axoneme plugin list` shows of a plugin. `reason` says why it is disabled or failed."""

    name: str
    state: PluginState
    provenance: Provenance
    reason: str = ""
    info: PluginInfo | None = None
    hooks: tuple[str, ...] = ()


@mutable
class _Loaded:
    """A plugin of the list of enabled ones, and what became of it."""

    found: Found
    state: PluginState = PluginState.DISABLED
    reason: str = ""
    plugin: Any = None
    info: PluginInfo | None = None
    implementations: dict[str, Any] = field(factory=dict)
    error: BaseException | None = None


class PluginManager:
    """The plugins of one generation.

    :param enabled: names from the configuration.
    :param extra: plugins that an embedding program hands over: modules or objects; they are enabled by that.
    :param required: names that must not fail, besides those whose `PluginInfo` says so.
    :param no_plugins: load none at all.
    :raises PluginError: when two packages provide an enabled plugin, or an extra one cannot say its name.
    """

    def __init__(
        self,
        enabled: Iterable[str] = (),
        *,
        extra: Sequence[Any] = (),
        required: Collection[str] = (),
        no_plugins: bool = False,
        found: Mapping[str, tuple[Found, ...]] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._required = frozenset(required)
        self._trace = self._environ.get(TRACE_VARIABLE, "") not in ("", "0")
        self._pluggy = pluggy.PluginManager(hooks.PROJECT)
        self._pluggy.add_hookspecs(hooks)
        self.found = _with_extra(discover() if found is None else found, extra)
        self._no_plugins = no_plugins
        self._loaded: dict[str, _Loaded] = {}
        self.load([*enabled, *(found.name for found in _named(extra))])

    def load(self, names: Iterable[str]) -> None:
        """Loads these plugins, once each. Raises `PluginError` for names that nobody, or several, provide."""
        for name in dict.fromkeys(names):
            if name not in self._loaded:
                self._load(name, self._disabled(name))

    # What became of whom

    @property
    def enabled(self) -> list[str]:
        """The plugins that are loaded and did not fail, by name."""
        return sorted(n for n, loaded in self._loaded.items() if loaded.state is PluginState.ENABLED)

    @property
    def failed(self) -> dict[str, str]:
        """The plugins that failed, and why."""
        return {n: lo.reason for n, lo in sorted(self._loaded.items()) if lo.state is PluginState.FAILED}

    def info(self, name: str) -> PluginInfo:
        info = self._loaded[name].info
        assert info is not None, "only plugins that could be loaded are asked"
        return info

    def plugin(self, name: str) -> Any:
        """The module or object with the hook implementations."""
        return self._loaded[name].plugin

    def provenance(self, name: str) -> Provenance:
        return self._loaded[name].found.provenance

    def is_required(self, name: str) -> bool:
        info = self._loaded[name].info
        return name in self._required or (info is not None and info.required)

    def check_required(self) -> None:
        """Raises `PluginError` when a plugin failed that the agent must not run without."""
        for name, loaded in self._loaded.items():
            if loaded.state is PluginState.FAILED and self.is_required(name):
                raise PluginError(
                    f"the plugin {name} is required and failed: {loaded.reason}",
                    hint=f"repair it, or take {name} out of plugins.enabled",
                ) from loaded.error

    def statuses(self) -> list[PluginStatus]:
        """All installed plugins, whether they run or not."""
        rows = [
            PluginStatus(
                name=name,
                state=loaded.state,
                provenance=loaded.found.provenance,
                reason=loaded.reason,
                info=loaded.info,
                hooks=tuple(sorted(loaded.implementations)),
            )
            for name, loaded in self._loaded.items()
        ]
        rows += [
            PluginStatus(name=found.name, state=PluginState.AVAILABLE, provenance=found.provenance)
            for name, several in self.found.items()
            for found in several
            if name not in self._loaded
        ]
        return sorted(rows, key=lambda status: status.name)

    def fail(self, name: str, error: BaseException | str) -> None:
        """From now on the plugin counts as failed and is not asked for anything."""
        loaded = self._loaded[name]
        loaded.state = PluginState.FAILED
        loaded.reason = error if isinstance(error, str) else logs.describe(error)
        if isinstance(error, BaseException):
            loaded.error = error
            _log.error("plugin failed", plugin=name, provider=str(loaded.found.provenance), error=error)
        else:
            _log.error("plugin failed", plugin=name, reason=error)

    # The hooks, one method each

    def config_schemas(self) -> dict[str, type[Any]]:
        """`axoneme_config`: the classes of the plugins' configuration sections, by plugin."""
        return {p.plugin: p.record.schema for p in self._one("axoneme_config", records.ConfigSection)}

    def tables(self) -> list[Provided[records.TableSpec]]:
        return self._many("axoneme_tables", records.TableSpec)

    def resources(self) -> list[Provided[records.ResourceKind]]:
        return self._many("axoneme_resources", records.ResourceKind)

    def maps(self, contexts: Contexts) -> list[Provided[MapSpec]]:
        from axoneme.core.datapath.maps import MapSpec

        return self._many("axoneme_maps", MapSpec, contexts)

    def stages(self, contexts: Contexts) -> list[Provided[records.Stage]]:
        return self._many("axoneme_stages", records.Stage, contexts)

    def drop_reasons(self) -> list[Provided[records.DropReason]]:
        return self._many("axoneme_drop_reasons", records.DropReason)

    def services(self, contexts: Contexts) -> list[Provided[records.Service]]:
        return self._many("axoneme_services", records.Service, contexts)

    def api(self, contexts: Contexts) -> list[Provided[records.ApiMethod]]:
        return self._many("axoneme_api", records.ApiMethod, contexts)

    def commands(self) -> list[Provided[records.Command]]:
        return self._many("axoneme_commands", records.Command)

    def health(self, contexts: Contexts) -> list[Provided[records.HealthCheck]]:
        return self._many("axoneme_health", records.HealthCheck, contexts)

    def metrics(self, contexts: Contexts) -> list[Provided[records.Metric]]:
        return self._many("axoneme_metrics", records.Metric, contexts)

    # Loading

    def _disabled(self, name: str) -> str:
        """Why the plugin is not to be loaded, or an empty text."""
        if self._no_plugins:
            return NO_PLUGINS
        named = [part.strip() for part in self._environ.get(DISABLE_VARIABLE, "").split(",")]
        return DISABLE_VARIABLE if name in named else ""

    def _load(self, name: str, disabled: str) -> None:
        several = self.found.get(name, ())
        if not several:
            raise PluginError(f"there is no plugin {name!r}", hint=nearest(name, self.found))
        raise_conflicts(
            [f"the plugin {name} comes from {' and '.join(str(f.provenance) for f in several)}"]
            if len(several) > 1
            else []
        )
        loaded = self._loaded[name] = _Loaded(several[0], reason=disabled)
        if disabled:
            _log.warning("plugin is switched off", plugin=name, by=disabled)
            return
        try:
            self._register(name, loaded)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's own mistake is a state, whatever it is
            self.fail(name, error)

    def _register(self, name: str, loaded: _Loaded) -> None:
        loaded.plugin = loaded.found.load()
        if unmarked := _unmarked(loaded.plugin):
            raise PluginError(f"{unmarked[0]} is not marked as a hook", hint="write @hookimpl above it")
        try:
            self._pluggy.register(loaded.plugin, name)
        except pluggy.PluginValidationError as error:
            raise PluginError(" ".join(str(error).split())) from None
        for caller in self._pluggy.get_hookcallers(loaded.plugin) or ():
            for implementation in caller.get_hookimpls():
                if implementation.plugin_name == name:
                    loaded.implementations[caller.name] = implementation
        _check_implementations(loaded.implementations)
        loaded.info = _check_info(name, self._call(name, "axoneme_info", None))
        loaded.state = PluginState.ENABLED

    # Calling

    def _call(self, name: str, hook: str, contexts: Contexts | None) -> Any:
        """What one plugin's implementation returns; a generator is read to its end."""
        implementation = self._loaded[name].implementations[hook]
        wanted = set(implementation.argnames)
        arguments = {"context": contexts(name)} if contexts is not None and "context" in wanted else {}
        start = time.perf_counter()
        result = implementation.function(**arguments)
        if isinstance(result, Iterator):
            result = list(result)
        if self._trace:
            count = len(result) if isinstance(result, (list, tuple)) else 1
            took = (time.perf_counter() - start) * 1000
            _log.info("hook", hook=hook, plugin=name, milliseconds=took, records=count)
        return result

    def _ask(self, hook: str, contexts: Contexts | None) -> Iterator[tuple[str, Any]]:
        for name in self.enabled:
            if hook not in self._loaded[name].implementations:
                continue
            try:
                yield name, self._call(name, hook, contexts)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
                self.fail(name, error)

    def _one(self, hook: str, kind: type[T]) -> list[Provided[T]]:
        provided = []
        for name, record in self._ask(hook, None):
            if isinstance(record, kind):
                provided.append(Provided(name, record))
            else:
                self.fail(name, _wrong_type(name, hook, kind, record))
        return provided

    def _many(self, hook: str, kind: type[T], contexts: Contexts | None = None) -> list[Provided[T]]:
        provided: list[Provided[T]] = []
        for name, result in self._ask(hook, contexts):
            items = list(result) if isinstance(result, (list, tuple)) else [result]
            wrong = [item for item in items if not isinstance(item, kind)]
            if wrong:
                self.fail(name, _wrong_type(name, hook, kind, wrong[0]))
            else:
                provided += [Provided(name, item) for item in cast("list[T]", items)]
        return provided


def _wrong_type(name: str, hook: str, kind: type[Any], record: Any) -> PluginError:
    return PluginError(
        f"{hook} of {name} gave a {type(record).__name__}, not a {kind.__name__}",
        hint=f"yield {kind.__name__} records",
    )


def _unmarked(plugin: Any) -> list[str]:
    """Functions that are named like hooks but carry no mark: pluggy would pass over them in silence."""
    return [
        name
        for name in dir(plugin)
        if name.startswith(f"{hooks.PROJECT}_")
        and callable(getattr(plugin, name))
        and not hasattr(getattr(plugin, name), f"{hooks.PROJECT}_impl")
    ]


def _check_implementations(implementations: Mapping[str, Any]) -> None:
    known = [name for name in vars(hooks) if name.startswith(f"{hooks.PROJECT}_")]
    for name, implementation in implementations.items():
        if name not in known and not implementation.optionalhook:
            raise PluginError(f"there is no hook {name}", hint=nearest(name, known))
        if implementation.wrapper or implementation.hookwrapper:
            raise PluginError(f"{name} is a wrapper", hint="hooks yield records; they don't wrap others'")
    if "axoneme_info" not in implementations:
        raise PluginError("it does not implement axoneme_info", hint="every plugin must")


def _check_info(name: str, info: Any) -> PluginInfo:
    if not isinstance(info, PluginInfo):
        raise _wrong_type(name, "axoneme_info", PluginInfo, info)
    if info.name != name:
        raise PluginError(
            f"it calls itself {info.name!r}, but is installed as {name!r}", hint="the two must be equal"
        )
    if not _NAME.fullmatch(name):
        raise PluginError(f"{name!r} is not a plugin's name", hint=f"it must match {_NAME.pattern}")
    if info.requires_api != API_VERSION:
        raise PluginError(
            f"it was written for version {info.requires_api} of the plugin API, this is {API_VERSION}",
            hint="install a version of it that fits",
        )
    return info


def _named(extra: Sequence[Any]) -> list[Found]:
    """Plugins that were handed over, under the names that they give themselves."""
    result = []
    for plugin in extra:
        info = plugin.axoneme_info() if hasattr(plugin, "axoneme_info") else None
        if not isinstance(info, PluginInfo):
            raise PluginError(
                f"{plugin!r} is no plugin", hint="it needs an axoneme_info that returns PluginInfo"
            )
        result.append(in_process(plugin, info.name))
    return result


def _with_extra(found: Mapping[str, tuple[Found, ...]], extra: Sequence[Any]) -> dict[str, tuple[Found, ...]]:
    """All plugins; one that was handed over and is installed as well is the same one."""
    result = dict(found)
    for handed in _named(extra):
        module = handed.provenance.target
        others = [f for f in result.get(handed.name, ()) if f.provenance.target != module]
        result[handed.name] = (*others, handed)
    return result
