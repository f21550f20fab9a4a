"""From the lines of `hubble observe` to numbers."""

from __future__ import annotations

from pathlib import Path

from axoneme.core.demo.observed import observe, read

LINES = """\
Nov 25 04:34:11.274: production/cache:1 (ID:1) -> production/web:2 (ID:2) policy-verdict:L3-L4 INGRESS ALLOWED (TCP Flags: SYN)
Nov 25 04:34:11.275: production/cache:1 (ID:1) -> production/web:2 (ID:2) policy-verdict:L3-L4 INGRESS ALLOWED (TCP Flags: SYN)
Nov 25 04:34:11.276: production/cache:1 (ID:1) -> production/web:2 (ID:2) to-endpoint FORWARDED (TCP Flags: SYN)
Nov 25 04:34:12.303: production/a:1 (ID:1) <> production/b:2 (ID:2) policy-verdict:none INGRESS DENIED (TCP Flags: SYN)
EVENTS LOST: HUBBLE_RING_BUFFER CPU(0) 3
""".splitlines()


def test_verdicts_are_counted_and_the_newest_of_policies_are_shown() -> None:
    seen = read(LINES)
    assert seen.verdicts == {"ALLOWED": 2, "FORWARDED": 1, "DENIED": 1}
    assert seen.samples == (LINES[1], LINES[3])


async def test_where_no_agent_answers_it_says_so(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"agent: {{run_dir: {tmp_path}}}\n")
    seen = await observe(config)
    assert not seen.verdicts
    assert seen.problem.startswith("error:")
