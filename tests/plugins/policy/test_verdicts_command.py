"""`axoneme policy verdicts`: a corpus in, a summary and an exit code out."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from axoneme.plugins.policy.cli import verdicts
from axoneme.plugins.policy.corpus import CorpusError, read

CORPUS = Path(__file__).parents[2] / "conformance" / "policy" / "handwritten.jsonl.gz"


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    return list(itertools.islice(read(CORPUS), 20))


def run(*arguments: str) -> tuple[int, dict[str, Any], list[str]]:
    done = CliRunner().invoke(verdicts, arguments)
    first, *others = done.output.splitlines()
    return done.exit_code, json.loads(first), others


def test_agreement(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    text = "\n".join(map(json.dumps, cases)) + "\n\n"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    flows = sum(len(case["flows"]) for case in cases)
    code, summary, others = run(str(plain), str(packed))
    assert (code, others) == (0, [])
    assert summary["cases"] == 40
    assert summary["flows"] == 2 * flows
    assert summary["sides"] > flows
    assert summary["mismatches"] == {}


def test_mismatches_are_counted_by_kind_and_the_first_are_shown(
    cases: list[dict[str, Any]], tmp_path: Path
) -> None:
    wrong = json.loads(json.dumps(cases))
    turned = 0
    for case in wrong:
        for side in (
            side for result in case["expected"]["results"] for side in (result["egress"], result["ingress"])
        ):
            if side is not None and turned < 30:
                side["verdict"] = "deny" if side["verdict"] == "allow" else "allow"
                turned += 1
    wrong[5]["expected"]["rejected"] = [{"policy": 0, "error": "made up"}]
    path = tmp_path / "wrong.jsonl"
    path.write_text("\n".join(map(json.dumps, wrong)))
    code, summary, others = run(str(path), "--show", "7")
    assert code == 1
    assert summary["mismatches"] == {"verdict": 30, "rejected": 1}
    assert len(others) == 7
    assert "verdict: " in others[0]
    assert "want deny, got allow" in "".join(others) or "want allow, got deny" in "".join(others)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", ":1"),
        (b"[]\n", "a case is an object"),
        (b'{"name": "x"}', "a case needs 'namespaces'"),
        (b"\x1f\x8b rubbish", ":1"),
        (b"\xff\xfe", "codec"),
        (b"[" * 100_000, ":1"),
    ],
)
def test_what_is_no_corpus(content: bytes, words: str, tmp_path: Path) -> None:
    for name in ("x.jsonl", "x.jsonl.gz"):
        path = tmp_path / name
        path.write_bytes(
            gzip.compress(content) if name.endswith("gz") and not content.startswith(b"\x1f") else content
        )
        with pytest.raises(CorpusError) as caught:
            list(read(path))
        assert words in str(caught.value)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(CORPUS.read_bytes()[:5000])
    with pytest.raises(CorpusError, match=r"cut\.jsonl\.gz:\d+"):
        list(read(cut))
