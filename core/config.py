"""The configuration: a YAML file, then the environment, then `--set`, each over the one before; strict.

    file          datapath: {strategy: tailcalls}
    environment   AXONEME_DATAPATH__STRATEGY=tailcalls
    --set         datapath.strategy=tailcalls

Values of the environment and of `--set` are read as YAML, so `[a, b]` is a list. Mappings are merged key by key, anything
else is replaced. Each value remembers where it came from; a wrong one is reported with its file and line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
from attrs import field, frozen

from axoneme.core.errors import ConfigError, ResourceError, Where
from axoneme.core.settings import Settings
from axoneme.core.structure import Problem, Steps, json_schema, nearest, plain, structure

T = TypeVar("T")

DEFAULT_FILE: Final = Path("/etc/axoneme/config.yaml")
PREFIX: Final = "AXONEME_"
DEFAULT: Final = "default"

_PLUGIN_KEYS: Final = ("enabled", "required")


class ConfigErrors(ConfigError):
    """Several things that are wrong with the configuration, at least one."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self.errors = tuple(errors)
        first, more = errors[0], len(errors) - 1
        text = f"{first.message} (and {more} more)" if more else first.message
        super().__init__(text, where=first.where, hint=first.hint)


@frozen
class Layer:
    """One source of values, and how to find the place of each."""

    value: Mapping[str, Any]
    locate: Callable[[Steps], Where]


@frozen
class Entry:
    """One key as `axoneme config view` shows it. `origin` is a place, or `default`."""

    path: str
    value: Any
    origin: str


@frozen(eq=False)
class Config:
    """A complete configuration. Equal configurations have equal digests, wherever their values came from."""

    settings: Settings
    file: Path | None = None
    layers: tuple[Layer, ...] = ()
    sources: Callable[[], Config] | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        text = json.dumps(plain(self.settings), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def section(self, name: str, schema: type[T]) -> T:
        """A plugin's section as an instance of its class, defaults filled in.

        :raises ConfigErrors: with the place of everything that is wrong.
        """
        result, problems = structure(schema, self._raw_section(name), ("plugins", name))
        if problems or result is None:
            raise self.errors(problems)
        return result

    def _raw_section(self, name: str) -> Any:
        """What is written for a plugin; the environment spells its name with underscores."""
        raw: Any = {}
        for key in dict.fromkeys((name.replace("-", "_"), name)):
            written = self.settings.plugins.sections.get(key)
            if isinstance(written, Mapping):
                raw = _merged(raw, written)
            elif written is not None:
                return written
        return raw

    def check_sections(self, installed: Iterable[str]) -> None:
        """Raises `ConfigErrors` for names of plugins that are not installed."""
        known = set(installed)
        problems = [
            Problem(("plugins", key, number), f"there is no plugin {name!r}", nearest(name, known) or INSTALL)
            for key in _PLUGIN_KEYS
            for number, name in enumerate(getattr(self.settings.plugins, key))
            if name not in known
        ]
        names = known | {name.replace("-", "_") for name in known}
        problems += [
            Problem(("plugins", name), f"unknown key {name!r}", nearest(name, known | set(_PLUGIN_KEYS)))
            for name in self.settings.plugins.sections
            if name not in names
        ]
        if problems:
            raise self.errors(problems)

    def where(self, path: Steps) -> Where:
        """The place of a value, or of what is nearest around it."""
        for layer in reversed(self.layers):
            if _has(layer.value, path):
                return layer.locate(path)
        if len(path) > 1:
            return attrs.evolve(self.where(path[:-1]), field=_dotted(path))
        return Where(str(self.file or "configuration"), field=_dotted(path))

    def origin(self, path: Steps) -> str:
        found = [layer for layer in self.layers if _has(layer.value, path)]
        return str(attrs.evolve(found[-1].locate(path), field=None)) if found else DEFAULT

    def errors(self, problems: Sequence[Problem]) -> ConfigErrors:
        ordered = sorted(problems, key=lambda problem: str(problem.path))
        return ConfigErrors([ConfigError(p.message, where=self.where(p.path), hint=p.hint) for p in ordered])

    def entries(self, sections: Mapping[str, Any] | None = None) -> list[Entry]:
        """All keys with value and origin; `sections` are the plugins' structured ones."""
        value = plain(self.settings)
        written = value["plugins"].pop("sections")
        value["plugins"] |= written | {name: plain(section) for name, section in (sections or {}).items()}
        return [Entry(_dotted(path), leaf, self.origin(path)) for path, leaf in _leaves(value)]

    def again(self) -> Config:
        """The configuration as its sources are now. One that was made from values stays as it is."""
        return self.sources() if self.sources is not None else self


INSTALL: Final = "install the package that has it; `axoneme plugin list` shows what is there"


def load(
    file: Path | None = None, *, environ: Mapping[str, str] | None = None, sets: Sequence[str] = ()
) -> Config:
    """Reads all sources.

    :param file: it must be there, unless it is not given: then the default one is read if it exists.
    :param sets: texts like `a.b=c`.
    :raises ConfigErrors: with the place of everything that is wrong.
    """
    environ = os.environ if environ is None else environ
    chosen = file if file is not None else DEFAULT_FILE if DEFAULT_FILE.exists() else None
    layers = [_file_layer(chosen)] if chosen is not None else []
    layers += [_assigned(_split_env(name), text, f"environment {name}") for name, text in _variables(environ)]
    layers += [_set_layer(text) for text in sets]
    return _build(layers, chosen, lambda: load(file, environ=environ, sets=sets))


def from_values(values: Mapping[str, Any], *, name: str = "configuration") -> Config:
    """A configuration from a mapping, for embedders and tests."""
    return _build([Layer(values, lambda path: Where(name, field=_dotted(path)))], None, None)


def schema(sections: Mapping[str, type[Any]] | None = None) -> dict[str, Any]:
    """The JSON schema of the configuration file, with the sections of these plugins."""
    result = json_schema(Settings)
    plugins = result["properties"]["plugins"]
    del plugins["properties"]["sections"]
    plugins["properties"] |= {name: json_schema(kind) for name, kind in (sections or {}).items()}
    plugins["additionalProperties"] = {"type": "object"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Axoneme configuration",
        **result,
    }


def _build(layers: list[Layer], file: Path | None, sources: Callable[[], Config] | None) -> Config:
    merged: Mapping[str, Any] = {}
    for layer in layers:
        merged = _merged(merged, layer.value)
    draft = Config(Settings(), file, tuple(layers))
    value = _with_sections(merged)
    settings, problems = structure(Settings, value)
    if problems or settings is None:
        raise draft.errors([_as_written(problem) for problem in problems])
    return attrs.evolve(draft, settings=settings, sources=sources)


def _with_sections(merged: Mapping[str, Any]) -> Mapping[str, Any]:
    """Moves what is under plugins' own names into the field that holds it."""
    plugins = merged.get("plugins")
    if not isinstance(plugins, Mapping):
        return merged
    own = {key: plugins[key] for key in _PLUGIN_KEYS if key in plugins}
    rest = {key: value for key, value in plugins.items() if key not in _PLUGIN_KEYS}
    return {**merged, "plugins": {**own, "sections": rest}}


def _as_written(problem: Problem) -> Problem:
    steps = problem.path
    return attrs.evolve(problem, path=steps[:1] + steps[2:]) if steps[1:2] == ("sections",) else problem


def _file_layer(file: Path) -> Layer:
    from axoneme.core.state import yamlio

    try:
        documents = yamlio.load(file.read_bytes(), str(file))
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration: {error.strerror}", where=Where(str(file)), hint="check --config"
        ) from error
    except ResourceError as error:
        raise ConfigError(error.message, where=error.where, hint=error.hint) from None
    if not documents:
        return Layer({}, lambda path: Where(str(file)))
    if len(documents) > 1:
        raise ConfigError("a configuration is one document", where=documents[1].position())
    if not isinstance(documents[0].value, dict):
        raise ConfigError("a configuration is a mapping", where=documents[0].position())
    return Layer(documents[0].value, documents[0].position)


def _variables(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """The variables that hold configuration: two underscores tell them from switches such as AXONEME_TRACE_HOOKS."""
    return sorted((k, v) for k, v in environ.items() if k.startswith(PREFIX) and "__" in k)


def _split_env(name: str) -> list[str]:
    return [part.lower() for part in name.removeprefix(PREFIX).split("__")]


def _set_layer(text: str) -> Layer:
    path, equals, value = text.partition("=")
    steps = path.strip().split(".")
    if not equals or not all(steps):
        raise ConfigError(f"--set {text!r} is not of the form a.b=c", where=Where("--set"))
    return _assigned(steps, value, f"--set {path}")


def _assigned(steps: list[str], text: str, name: str) -> Layer:
    value: Any = _scalar(text, name)
    for step in reversed(steps):
        value = {step: value}
    return Layer(value, lambda path: Where(name, field=_dotted(path)))


def _scalar(text: str, name: str) -> Any:
    from axoneme.core.state import yamlio

    if not text.strip():
        return text
    try:
        documents = yamlio.load(text, name)
    except ResourceError as error:
        raise ConfigError(error.message, where=Where(name)) from None
    return documents[0].value if documents else None


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(below, value) if both and below is not None else value
    return result


def _has(value: Any, path: Steps) -> bool:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _leaves(value: Any, path: Steps = ()) -> Iterable[tuple[Steps, Any]]:
    if isinstance(value, dict) and (value or not path):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _dotted(path: Steps) -> str:
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in path).removeprefix(".")
