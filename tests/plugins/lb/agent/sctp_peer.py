"""One end of a real SCTP association, in a process of its own: this kernel may have no SCTP, so by libusrsctp over raw sockets.

python sctp_peer.py server FAMILY ADDRESS PORT     prints `ready`, answers one association's messages, ends with it
python sctp_peer.py client FAMILY ADDRESS PORT     sends messages of several sizes, prints how many came back right
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import time

SIZES = (1, 100, 1400, 20_000)
_LIBRARY = ctypes.CDLL("libusrsctp.so.2")
_PROTOCOL, _MOST = 132, 1 << 16


def _declare() -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    data, size, u32, u16 = ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint16
    for name, result, arguments in (
        ("init", None, [u16, pointer, pointer]),
        ("socket", pointer, [number, number, number, pointer, pointer, u32, pointer]),
        ("bind", number, [pointer, data, u32]),
        ("connect", number, [pointer, data, u32]),
        ("listen", number, [pointer, number]),
        ("accept", pointer, [pointer, pointer, pointer]),
        (
            "sendv",
            ctypes.c_ssize_t,
            [pointer, data, size, pointer, number, pointer, u32, ctypes.c_uint, number],
        ),
        ("recvv", ctypes.c_ssize_t, [pointer, data, size, *[pointer] * 6]),
        ("shutdown", number, [pointer, number]),
        ("close", None, [pointer]),
        ("finish", number, []),
    ):
        function = getattr(_LIBRARY, f"usrsctp_{name}")
        function.restype, function.argtypes = result, arguments


def _sockaddr(family: int, address: str, port: int) -> bytes:
    if family == 4:
        return (
            struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(address) + bytes(8)
        )
    packed = socket.inet_pton(socket.AF_INET6, address)
    return struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", port, 0) + packed + bytes(4)


def _send(end: int, message: bytes) -> None:
    if _LIBRARY.usrsctp_sendv(end, message, len(message), None, 0, None, 0, 0, 0) != len(message):
        raise OSError("not sent")


def _receive(end: int) -> bytes:
    buffer, source = ctypes.create_string_buffer(_MOST), ctypes.create_string_buffer(128)
    sizes = [ctypes.c_uint32(128), ctypes.c_uint32(0), ctypes.c_uint(0), ctypes.c_int(0)]
    length, info, kind, flags = (ctypes.addressof(each) for each in sizes)
    got = _LIBRARY.usrsctp_recvv(
        end, buffer, _MOST, ctypes.addressof(source), length, None, info, kind, flags
    )
    if got < 0:
        raise OSError("the association broke")
    return buffer.raw[:got]


def _serve(listening: int) -> None:
    if _LIBRARY.usrsctp_listen(listening, 1):
        raise OSError("not listening")
    print("ready", flush=True)
    end = _LIBRARY.usrsctp_accept(listening, None, None)
    while message := _receive(end):
        _send(end, message[::-1])
    _LIBRARY.usrsctp_close(end)


def _ask(end: int) -> None:
    right = 0
    for size in SIZES:
        message = bytes(at % 251 for at in range(size))
        _send(end, message)
        answer = b""
        while len(answer) < size:
            answer += _receive(end)
        right += answer == message[::-1]
    _LIBRARY.usrsctp_shutdown(end, socket.SHUT_WR)
    if not _receive(end):
        print(right, flush=True)


def main() -> None:
    role, family, address, port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    _declare()
    _LIBRARY.usrsctp_init(0, None, None)
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    end = _LIBRARY.usrsctp_socket(kind, socket.SOCK_STREAM, _PROTOCOL, None, None, 0, None)
    place = _sockaddr(family, address, port)
    if role == "server":
        if _LIBRARY.usrsctp_bind(end, place, len(place)):
            raise OSError("not bound")
        _serve(end)
    else:
        if _LIBRARY.usrsctp_connect(end, place, len(place)):
            raise OSError("not connected")
        _ask(end)
    _LIBRARY.usrsctp_close(end)
    for _ in range(100):
        if not _LIBRARY.usrsctp_finish():
            break
        time.sleep(0.02)  # the library has no call that waits for its last packets


if __name__ == "__main__":
    main()
