"""From flags to requests: what the real `hubble` command sent for the same flags (captured from 1.18)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from google.protobuf import json_format

from axoneme.core.errors import AxonemeError
from axoneme.plugins.hubble.cli import observe as command
from axoneme.plugins.hubble.cli import request as requests
from axoneme.plugins.hubble.cli import times
from axoneme.plugins.hubble.cli.flags import UsageError
from axoneme.plugins.hubble.proto import observer_pb2

NOW = 1_735_700_000_000_000_000
CAPTURED = json.loads((Path(__file__).parents[1] / "data" / "cli-requests.json").read_text())


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[observer_pb2.GetFlowsRequest]:
    """The requests that would have gone out."""
    made: list[observer_pb2.GetFlowsRequest] = []
    original = requests.flows_request

    def note(*args: Any, **more: Any) -> observer_pb2.GetFlowsRequest:
        made.append(original(*args, **more))
        raise click.exceptions.Exit(0)

    monkeypatch.setattr(command.requests, "flows_request", note)
    monkeypatch.setattr(times.time, "time_ns", lambda: NOW)
    monkeypatch.setattr(requests, "point", lambda text: times.point(text, lambda: NOW))
    return made


def run(*arguments: str) -> click.testing.Result:
    return CliRunner().invoke(
        command.observe, ["--server", "unix:///nowhere", *arguments], standalone_mode=False
    )


def wire(request: observer_pb2.GetFlowsRequest) -> dict[str, Any]:
    """As in the captures: without the default number and mask, the time now as NOW."""
    shown = dict(json_format.MessageToDict(_unmasked(request), preserving_proto_field_name=True))
    if shown.get("number") == str(requests.DEFAULT_LAST):
        del shown["number"]
    if request.HasField("since") and request.since.ToNanoseconds() == NOW - 300 * 10**9:
        shown["since"] = "NOW-5m"
    return shown


def _unmasked(request: observer_pb2.GetFlowsRequest) -> observer_pb2.GetFlowsRequest:
    copy = observer_pb2.GetFlowsRequest()
    copy.CopyFrom(request)
    copy.ClearField("field_mask")
    return copy


@pytest.mark.parametrize("captured", CAPTURED, ids=lambda captured: " ".join(captured["arguments"]) or "none")
def test_the_request_is_that_of_the_real_command(captured: dict[str, Any], sent: list[Any]) -> None:
    arguments = captured["arguments"]
    if "--experimental-field-mask" in arguments:  # 1.18 has the mask elsewhere; all servers take it here, too
        run(*arguments, "-o", "json")
        assert list(sent[0].field_mask.paths) == ["time", "verdict"]
        return
    result = run(*arguments)
    if "error" not in captured:
        assert wire(sent[0]) == captured["request"]
        return
    assert isinstance(result.exception, UsageError)
    assert captured["error"] in str(result.exception)
    assert sent == []


def test_each_capture_counts(sent: list[Any]) -> None:
    """The comparison above would notice a difference."""
    assert len(CAPTURED) == 101
    run("--pod", "other")
    assert wire(sent[0]) != {"whitelist": [{"source_pod": ["foo"]}, {"destination_pod": ["foo"]}]}


def test_not_means_the_flag_behind_it(sent: list[Any]) -> None:
    run("--not", "-n", "shop", "--not", "--last", "3", "-4", "--verdict", "DROPPED")
    assert wire(sent[0]) == {
        "number": "3",
        "whitelist": [{"verdict": ["DROPPED"]}],
        "blacklist": [
            {"source_pod": ["shop/"], "ip_version": ["IPv4"]},
            {"destination_pod": ["shop/"], "ip_version": ["IPv4"]},
        ],
    }
    assert command.move_negations(["--not", "--pod=a", "-lx=y", "--", "--not"]) == [
        "--not-pod=a", "-lx=y", "--", "--not",
    ]  # fmt: skip
    for arguments, message in ((["--not"], "trailing"), (["--not", "--not", "--pod", "a"], "consecutive")):
        with pytest.raises(UsageError, match=message):
            command.move_negations(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-n", "shop", "--pod", "other/web"), "namespace conflict"),
        (("--tcp-flags", "syn,xyz"), "unknown tcp flag: xyz"),
        (("--type", "nonsense"), "neither a known name nor a number"),
        (("--type", "trace:nowhere"), "neither a known name nor a number"),
        (("--identity", "nobody"), "neither a known name nor a number"),
        (("--traffic-direction", "up"), "invalid traffic direction"),
        (("--http-header", "novalue"), "expected name:value"),
        (("--allowlist", "{"), "failed to decode"),
        (("--allowlist", "[]"), "a filter is a JSON object"),
        (("--allowlist", '{"nonsense": 1}'), "nonsense"),
        (("--since", "yesterday"), "failed to convert yesterday"),
        (("--follow", "-o", "table"), "not compatible with follow"),
        (("--field-mask", "time"), "not compatible with custom field mask"),
        (("-o", "json", "--field-mask", "time,nonsense"), "invalid path 'nonsense'"),
        (("--tls-client-cert-file", "a"), "only shown over TLS"),
        (("--request-timeout", "soon"), "no duration"),
    ],
)
def test_mistakes_are_explained(arguments: tuple[str, ...], message: str, sent: list[Any]) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, (AxonemeError, click.ClickException)), result.exception
    shown = (
        result.exception.format_message()
        if isinstance(result.exception, click.ClickException)
        else str(result.exception)
    )
    assert message in shown
    assert sent == []


def test_formats_for_people_ask_only_for_what_they_show(sent: list[Any]) -> None:
    for arguments, paths in (
        ((), requests.SHOWN),
        (("--print-policy-names",), (*requests.SHOWN, *requests.POLICIES)),
        (("--no-default-field-masks",), ()),
        (("-o", "json"), ()),
        (("-o", "json", "--field-mask", "time,source.pod_name"), ("time", "source.pod_name")),
    ):
        run(*arguments)
        assert tuple(sent[-1].field_mask.paths) == tuple(paths)


def test_filters_are_printed_as_the_configuration_takes_them() -> None:
    result = run("--pod", "a", "--not", "--verdict", "DROPPED", "--print-raw-filters")
    assert result.output.splitlines() == [
        "allowlist:",
        """- '{"source_pod": ["a"]}'""",
        """- '{"destination_pod": ["a"]}'""",
        "denylist:",
        """- '{"verdict": ["DROPPED"]}'""",
    ]
    assert run("--print-raw-filters").output == "{}\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3s", 3),
        ("1h43m", 6180),
        ("1.5h", 5400),
        ("-5m", -300),
        ("250ms", 0.25),
        ("0", 0),
        ("1m0.5s", 60.5),
        (".5s", 0.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert times.duration(text) == int(seconds * 10**9)


@pytest.mark.parametrize("text", ["", "5", "s", "5 m", "1h-3m", "5x", "--5m", "\u0661s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError):
        times.duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-01", "2025-01-01T00:00:00Z"),
        ("2025-01-01T15Z", "2025-01-01T15:00:00Z"),
        ("2025-01-01T15+02:00", "2025-01-01T13:00:00Z"),
        ("2025-01-01T15:04Z", "2025-01-01T15:04:00Z"),
        ("2025-01-01T15:04:05Z", "2025-01-01T15:04:05Z"),
        ("2025-01-01T15:04:05.123456789-07:00", "2025-01-01T22:04:05.123456789Z"),
        ("Wed, 01 Jan 2025 15:04:05 +0100", "2025-01-01T14:04:05Z"),
        ("5m", "2025-01-01T02:48:20Z"),
    ],
)
def test_points_in_time(text: str, expected: str) -> None:
    assert times.point(text, lambda: NOW).ToJsonString() == expected


@pytest.mark.parametrize(
    "text", ["2025-13-01", "2025-01-01T25Z", "2025-01-01T15:04:05", "Jan  1 15:04:05.000", "99999999h"]
)
def test_no_points_in_time(text: str) -> None:
    with pytest.raises(UsageError, match="failed to convert"):
        times.point(text, lambda: NOW)


def test_shells_propose_values() -> None:
    def proposed(flag: str, begun: str) -> list[str]:
        option = next(param for param in command.observe.params if param.name == flag)
        return [item.value for item in option.shell_complete(click.Context(command.observe), begun)]

    assert proposed("verdict", "D") == ["DROPPED"]
    assert "trace:to-stack" in proposed("type", "trace:")
    assert proposed("from_identity", "w") == ["world", "world-ipv4", "world-ipv6"]
    assert proposed("pod", "") == []
