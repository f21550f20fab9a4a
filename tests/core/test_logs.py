from __future__ import annotations

import json
import logging
import sys

from axoneme.core import logs
from axoneme.core.errors import ConfigError, Where


def written(caplog, style: str) -> list[str]:
    formatter = logs.FORMATTERS[style]()
    return [formatter.format(record) for record in caplog.records]


def test_text_quotes_only_what_needs_it(caplog) -> None:
    caplog.set_level(logging.INFO, logger="axoneme.test")
    logs.get("axoneme.test").info("started", plugin="policy", seconds=0.01234, reason="two words")
    assert written(caplog, "text")[0].endswith(
        'info    started  plugin=policy seconds=0.012 reason="two words"'
    )


def test_json_has_stable_keys_and_masks_secrets(caplog) -> None:
    caplog.set_level(logging.INFO, logger="axoneme.test")
    logs.get("axoneme.test").info("joined", token="t0ps3cret", node="a")
    entry = json.loads(written(caplog, "json")[0])
    assert list(entry)[:4] == ["time", "level", "logger", "event"]
    assert entry["token"] == "***"
    assert entry["node"] == "a"


def test_our_errors_have_no_traceback_and_strangers_have(caplog) -> None:
    log = logs.get("axoneme.test")
    log.error("refused", error=ConfigError("no such key", where=Where("a.yaml", 3)))
    try:
        raise ValueError("boom")
    except ValueError as error:
        log.error("broke", error=error)
    ours, stranger = written(caplog, "text")
    assert ours.endswith('refused  error="a.yaml:3: no such key"')
    assert "Traceback" in stranger


def test_a_group_is_described_by_all_its_errors() -> None:
    group = ExceptionGroup("both", [ValueError("one"), ExceptionGroup("in", [KeyError()])])
    assert logs.describe(group) == "ValueError: one; KeyError"


def test_setup_leaves_libraries_at_warnings(monkeypatch, capsys) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(logging.getLogger("axoneme"), "level", logging.NOTSET)
    logs.setup("debug", "text")
    logging.getLogger("library").info("chatter")
    logs.get("axoneme.x").debug("detail")
    assert capsys.readouterr().err.splitlines()[0].endswith("detail")
    assert "rich" not in sys.modules or "structlog" not in sys.modules
