"""Records survive, whole or not at all; what cannot be read is put aside."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import attrs
import pytest

from axoneme.core.state.persist import PersistError
from axoneme.core.workloads.endpoints import EndpointState, NamedPort
from axoneme.core.workloads.records import Record, Records

RECORD = Record(
    id=7, name="one", namespace="default", labels={"app": "x"}, named_ports={"dns": NamedPort(53, "UDP")},
    netns="/run/netns/x", netns_device=4, netns_inode=1000, managed=True, asked_ipv4=IPv4Address("10.0.0.2"),
    ipv4=IPv4Address("10.0.0.2"), ipv6=IPv6Address("fd00::2"), ifname="axo7", ifindex=70, peer=2,
    mac="02:00:00:00:00:01", node_mac="02:00:00:00:00:02", state=EndpointState.READY,
)  # fmt: skip


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "endpoints")


def test_what_is_written_is_read(records: Records, tmp_path: Path) -> None:
    other = attrs.evolve(RECORD, id=3, name="two", ipv6=None)
    records.write(RECORD)
    records.write(other)
    assert records.load() == [other, RECORD]
    records.write(attrs.evolve(RECORD, state=EndpointState.REMOVING))
    assert [record.state for record in records.load()] == ["ready", "removing"]
    records.delete(7)
    records.delete(7)
    assert records.load() == [other]
    assert [path.name for path in (tmp_path / "endpoints").iterdir()] == ["3.json"]


def test_no_folder_no_records(records: Records) -> None:
    assert records.load() == []


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"id": 0}, {"id": 8}, {"id": "7"}, {"name": None}, {"ipv4": "10.0.0"}, {"state": "odd"},
        {"surplus": 1}, {"labels": {"app": 1}}, {"managed": "yes"},
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_put_aside(records: Records, tmp_path: Path, change: dict[str, Any]) -> None:
    records.write(RECORD)
    path = tmp_path / "endpoints" / "7.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert records.load() == []
    assert [entry.name for entry in path.parent.iterdir()] == ["7.json.bad"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_pieces_of_files_are_put_aside(records: Records, tmp_path: Path, content: bytes) -> None:
    records.write(RECORD)
    (tmp_path / "endpoints" / "8.json").write_bytes(content)
    assert records.load() == [RECORD]
    assert (tmp_path / "endpoints" / "8.json.bad").exists()


def test_two_records_of_one_workload(records: Records, tmp_path: Path) -> None:
    records.write(RECORD)
    records.write(attrs.evolve(RECORD, id=8))
    assert records.load() == [RECORD]
    assert (tmp_path / "endpoints" / "8.json.bad").exists()


def test_a_disk_that_refuses_keeps_the_old_one(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records.write(RECORD)

    def full(self: Path, text: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(PersistError, match="No space left on device"):
        records.write(attrs.evolve(RECORD, ifindex=71))
    monkeypatch.undo()
    assert records.load() == [RECORD]
