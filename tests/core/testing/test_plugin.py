"""Kernel tests are skipped with the missing capability named, or fail when the kernel is required."""

from __future__ import annotations

import pytest

from axoneme.core.testing import plugin

pytest_plugins = ["pytester"]

ALL = "Name:\tx\nCapEff:\t000001ffffffffff\n"


def test_everything_is_there() -> None:
    assert plugin.missing_capabilities(ALL) == []


def test_the_missing_ones_are_named() -> None:
    assert plugin.missing_capabilities("CapEff:\t000001fffffff000\n") == []
    assert plugin.missing_capabilities("CapEff:\t000001ffffdfffff\n") == ["CAP_SYS_ADMIN"]
    assert set(plugin.missing_capabilities("")) == set(plugin.CAPABILITIES)


@pytest.mark.parametrize(("require", "outcome"), [("", {"skipped": 1}), ("1", {"errors": 1})])
def test_a_kernel_test_without_capabilities(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, require: str, outcome: dict[str, int]
) -> None:
    monkeypatch.setenv("AXONEME_REQUIRE_KERNEL", require)
    monkeypatch.setattr(plugin, "missing_capabilities", lambda: ["CAP_BPF"])
    pytester.makepyfile(
        "import pytest\n\n@pytest.mark.kernel\ndef test_it():\n    pass\n\ndef test_other():\n    pass\n"
    )
    result = pytester.runpytest_inprocess("-rs", "-o", "asyncio_default_fixture_loop_scope=function")
    result.assert_outcomes(passed=1, **outcome)
    result.stdout.fnmatch_lines(["*CAP_BPF is missing*"])
