from __future__ import annotations

import subprocess
import sys

import pytest

from axoneme.core import privileges
from axoneme.core.errors import ConfigError
from axoneme.core.settings import CAPABILITIES


def test_names_are_bits_of_the_kernels_header() -> None:
    assert privileges.mask(["chown"]) == 1
    assert privileges.mask(["net_admin", "CAP_NET_RAW"]) == 1 << 12 | 1 << 13
    assert privileges.mask(["bpf"]) == 1 << 39
    assert privileges.mask(["checkpoint_restore"]) == 1 << 40
    with pytest.raises(ConfigError, match="there is no capability 'everything'"):
        privileges.mask(["everything"])


def test_the_default_is_known() -> None:
    assert privileges.mask(CAPABILITIES)


def run(code: str) -> str:
    program = f"from axoneme.core import privileges\n{code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


@pytest.mark.kernel
def test_what_is_dropped_is_gone_for_good_and_for_children_too() -> None:
    status = run(
        "import subprocess\n"
        "privileges.drop(['net_admin', 'bpf'])\n"
        "print(subprocess.run(['grep', '-E', 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNew', '/proc/self/status'],"
        " capture_output=True, text=True).stdout)"
    )
    kept = f"{privileges.mask(['net_admin', 'bpf']):016x}"
    fields = dict(line.split(":\t") for line in status.split("\n") if line)
    assert fields == {
        "CapInh": "0" * 16,
        "CapPrm": kept,
        "CapEff": kept,
        "CapBnd": kept,
        "CapAmb": "0" * 16,
        "NoNewPrivs": "1",
    }


@pytest.mark.kernel
def test_what_is_missing_is_named() -> None:
    assert privileges.missing(["bpf"]) == []
    assert (
        run("privileges.drop(['bpf']); print(privileges.missing(['bpf', 'sys_admin']))")
        == "['CAP_SYS_ADMIN']\n"
    )


def test_other_threads_would_keep_theirs_so_it_is_refused() -> None:
    shown = run(
        "import threading\n"
        "from axoneme.core.errors import KernelError\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "try:\n    privileges.drop([])\nexcept KernelError as error:\n    print(error.message)"
    )
    assert shown == "privileges cannot be dropped: other threads run already\n"
