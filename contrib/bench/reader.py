"""A reader of the event ring in a process of its own, as the agent is one: `python reader.py FD SIZE`.

It drains the ring until its standard input is closed, then prints how many records it read.
"""

from __future__ import annotations

import select
import sys

from axoneme.core.datapath import abi
from axoneme.core.datapath.maps import Map, MapKind, MapSpec
from axoneme.core.datapath.ring import RingReader
from axoneme.core.datapath.syscall import SyscallKernel

#: Seconds between two looks. The agent pauses longer and has a larger ring for it; what counts here is that somebody
#: moves the reader's position while programs write.
_PAUSE = 0.001


def main() -> None:
    fd, size = (int(word) for word in sys.argv[1:])
    reader = RingReader(
        Map(SyscallKernel(), MapSpec("events", MapKind.RINGBUF, None, None, size), fd), abi.EVENT
    )
    print("reading", flush=True)
    while not select.select([sys.stdin], [], [], _PAUSE)[0]:
        while len(reader.read()):
            pass
    while len(reader.read()):
        pass
    print(reader.read_total)


if __name__ == "__main__":
    main()
