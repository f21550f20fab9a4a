"""Changes the list of enabled plugins in a configuration file and leaves the rest, comments included, as it was written."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from axoneme.core.errors import ConfigError, ResourceError, Where
from axoneme.core.state import yamlio

_FLOW: Final = re.compile(r"^(\s*enabled\s*:\s*)\[[^\]]*\](.*)$")
_NOTHING: Final = re.compile(r"^(\s*enabled\s*:)\s*(?:null|~)?\s*(#.*)?$")
_ITEM: Final = re.compile(r"^(\s*-\s+)([\"']?)([\w-]+)\2\s*(#.*)?$")


def with_enabled(text: str, enabled: Sequence[str], file: str) -> str:
    """The text of a configuration file with another value of `plugins.enabled`.

    Edits the lines concerned. Where it was written in a way that this does not understand, the whole is written anew:
    then comments are lost, but never a value.

    :raises ConfigError: when the text is no configuration to begin with.
    """
    value = _value(text, file)
    wanted = {**value, "plugins": {**(value.get("plugins") or {}), "enabled": list(enabled)}}
    if file.endswith(".json"):
        return json.dumps(wanted, indent=2) + "\n"
    edited = _edited(text, value, enabled, file)
    try:
        if edited is not None and _value(edited, file) == wanted:
            return edited
    except ConfigError:
        pass
    import yaml

    return yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)


def _value(text: str, file: str) -> dict[str, Any]:
    try:
        documents = yamlio.load(text, file) if text.strip() else []
    except ResourceError as error:
        raise ConfigError(error.message, where=error.where, hint=error.hint) from None
    value = documents[0].value if documents else {}
    plugins = value.get("plugins") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(plugins, (dict, type(None))) or len(documents) > 1:
        raise ConfigError("this is no configuration that can be edited", where=Where(file))
    return value


def _edited(text: str, value: dict[str, Any], enabled: Sequence[str], file: str) -> str | None:
    flow = f"[{', '.join(enabled)}]"
    if "plugins" not in value:
        before = text if not text or text.endswith("\n") else f"{text}\n"
        return f"{before}plugins:\n  enabled: {flow}\n"
    document = yamlio.load(text, file)[0]
    lines = text.splitlines(keepends=False)
    plugins = (document.position(("plugins",)).line or 1) - 1
    if "enabled" not in (value["plugins"] or {}):
        if not re.match(r"^plugins\s*:\s*(#.*)?$", lines[plugins]):
            return None
        return _join(
            [*lines[: plugins + 1], f"{_indent(lines, plugins)}enabled: {flow}", *lines[plugins + 1 :]]
        )
    here = (document.position(("plugins", "enabled")).line or 1) - 1
    if found := _FLOW.match(lines[here]):
        lines[here] = f"{found[1]}{flow}{found[2]}"
        return _join(lines)
    return _block(lines, here, enabled)


def _block(lines: list[str], here: int, enabled: Sequence[str]) -> str | None:
    """Items on lines of their own: those that stay keep their lines, new ones come after the last."""
    key = _NOTHING.match(lines[here])
    if key is None:
        return None
    kept, end, prefix, left = [], here + 1, "", list(enabled)
    for number in range(here + 1, len(lines)):
        if lines[number].strip().startswith("#") or not lines[number].strip():
            continue
        item = _ITEM.match(lines[number])
        if item is None:
            break
        kept += lines[end:number]  # comments between the items
        prefix, end = item[1], number + 1
        if item[3] in left:
            left.remove(item[3])
            kept.append(lines[number])
    if not prefix or not enabled:
        lines[here] = f"{key[1]} [{', '.join(enabled)}]" + (f"  {key[2]}" if key[2] else "")
        return _join([*lines[: here + 1], *lines[end:]])
    return _join([*lines[: here + 1], *kept, *(f"{prefix}{name}" for name in left), *lines[end:]])


def _indent(lines: list[str], parent: int) -> str:
    """The indentation of what stands under a key: that of its first child, else two spaces."""
    for line in lines[parent + 1 :]:
        if line.strip() and not line.strip().startswith("#"):
            spaces = line[: len(line) - len(line.lstrip())]
            return spaces or "  "
    return "  "


def _join(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
