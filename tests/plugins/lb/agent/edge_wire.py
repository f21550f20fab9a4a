"""Virtual cables that behave as real ones do towards XDP."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

from axoneme.core.datapath import asm
from axoneme.core.datapath.kernel import Program, ProgramAttributes
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.datapath.uapi import ProgramType
from axoneme.core.datapath.xdp import XdpTarget


def as_a_wire(device: str) -> None:
    """Makes a veth do what cards do: take frames that XDP sends, and send only those whose checksums are complete.

    The kernel hands what XDP sends to a veth only if that has a program itself.
    """
    command = ctypes.create_string_buffer(struct.pack("=II", 0x17, 0))  # ETHTOOL_STXCSUM: off
    request = struct.pack("16sP", device.encode(), ctypes.addressof(command))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8946, request)  # SIOCETHTOOL
    kernel = SyscallKernel()
    passing = ProgramAttributes(type=ProgramType.XDP, name="pass", instructions=asm.returning(2))
    with Program.load(kernel, passing) as program:
        XdpTarget(ifindex=socket.if_nametoindex(device)).link(
            kernel, program.fd
        )  # ends with the test's process
