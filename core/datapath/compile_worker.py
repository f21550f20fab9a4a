"""The compile worker: C text in, bytecode out, then it exits. The one module that imports bcc.

It is a process of its own because LLVM takes some 130 MB and libbcc is not thread-safe. One job on standard input, one
answer on standard output, both JSON; what the compiler has to say goes to standard error.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import sys
from typing import Any

#: bcc prints the annotated disassembly (`DEBUG_SOURCE`) to standard error.
_DEBUG_SOURCE = 0x8


def work(job: dict[str, Any]) -> dict[str, str]:
    """Compiles `job["text"]` and returns the instructions of each of `job["programs"]`, base64.

    The process's environment must name the header shim: bcc reads `BCC_KERNEL_SOURCE` when it is imported.
    """
    os.environ["BCC_KERNEL_SOURCE"] = job["shim"]
    from bcc import BPF  # noqa: TID251 - this is the one place

    module = BPF(
        text=job["text"].encode(),
        cflags=job["cflags"],
        debug=_DEBUG_SOURCE if job["annotate"] else 0,
    )
    return {name: base64.b64encode(module.dump_func(name.encode())).decode() for name in job["programs"]}


def main() -> int:
    _no_new_privileges()
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever libbcc prints must not mix with the answer
    try:
        programs = work(json.load(sys.stdin))
    except ImportError as error:
        print(f"missing: {error}", file=sys.stderr)
        return 3
    except Exception as error:  # noqa: BLE001 - bcc raises bare Exceptions; its diagnostics are on standard error
        print(f"failed: {error}", file=sys.stderr)
        return 1
    with os.fdopen(answer, "w") as out:
        json.dump(programs, out)
    sys.stdout.flush()
    os._exit(0)  # not through bcc's atexit handlers


def _no_new_privileges() -> None:
    """The compiler parses text of third parties: nothing it runs may gain privileges (`PR_SET_NO_NEW_PRIVS`)."""
    ctypes.CDLL(None, use_errno=True).prctl(38, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
