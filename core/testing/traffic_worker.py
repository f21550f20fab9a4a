"""The process that makes traffic: servers and clients in threads, each client's thread in its workload's namespace.

It is started by `axoneme.core.testing.traffic` and told what to do by lines of JSON. It is a process of its own so that a
test which is busy does not look like packets that are late.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import selectors
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
from attrs import define, field

from axoneme.core.net import namespaces
from axoneme.core.testing.namespaces import listen, within
from axoneme.core.testing.traffic import Count, Flow, Kind

_NUMBER = struct.Struct("!Q")
#: What a client says to a server that shall speak from then on, and how often, in microseconds.
_PUSH = struct.Struct("!4sI")
_PUSH_MARK = b"push"
#: The offset of `tcpi_total_retrans` in `struct tcp_info` (linux/tcp.h).
_TOTAL_RETRANS = slice(100, 104)
_RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python does not name it
_FIRST_ERRORS = 5
#: Seconds between two looks at whether it is over.
_LOOK = 0.1


def retransmissions(connection: socket.socket) -> int:
    """How many segments this connection sent again so far."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(info[_TOTAL_RETRANS], sys.byteorder)


class Servers:
    """All servers, in one thread: they send back what they get, on TCP and UDP."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        #: What arrived, by `netns:port/protocol`: connections and datagrams.
        self.received: Counter[str] = Counter()
        self.retransmits = 0

    def add(self, netns: str, port: int) -> None:
        tcp = within(netns, lambda: listen(socket.SOCK_STREAM, port))
        udp = within(netns, lambda: listen(socket.SOCK_DGRAM, port))
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self._watch(tcp, lambda: self._accept(tcp, f"{netns}:{port}/tcp"))
        self._watch(udp, lambda: self._datagram(udp, f"{netns}:{port}/udp"))

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _watch(self, watched: socket.socket, act: Callable[[], None]) -> None:
        watched.setblocking(False)
        self._selector.register(watched, selectors.EVENT_READ, act)

    def _accept(self, listening: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):  # whoever wanted to connect is gone already
            connection, _ = listening.accept()
            self.received[name] += 1
            self._watch(connection, lambda: self._request(connection))

    def _request(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(1 << 16)
            if data.startswith(_PUSH_MARK):
                self._push(connection, data)
                return
            if data:
                connection.sendall(data)
                return
            self.retransmits += retransmissions(connection)
        except OSError:
            pass  # the client counts it
        self._selector.unregister(connection)
        connection.close()

    def _push(self, connection: socket.socket, data: bytes) -> None:
        self._selector.unregister(connection)
        interval = _PUSH.unpack(data)[1] / 1e6

        def speak() -> None:
            connection.setblocking(True)
            again = 0
            with connection, contextlib.suppress(OSError):
                for number in itertools.count(1):
                    connection.sendall(_NUMBER.pack(number))
                    time.sleep(interval)
                    self.retransmits += retransmissions(connection) - again
                    again = retransmissions(connection)

        threading.Thread(target=speak, name="push", daemon=True).start()

    def _datagram(self, receiving: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = receiving.recvfrom(1 << 16)
                self.received[name] += 1
                receiving.sendto(data, peer)


@define(eq=False)
class Client:
    """One flow and its counts."""

    flow: Flow
    changed: threading.Condition
    sent: int = 0
    answered: int = 0
    failed: int = 0
    retransmits: int = 0
    longest_gap: float = 0.0
    errors: list[str] = field(factory=list)
    ended: bool = False
    _stop: threading.Event = field(factory=threading.Event)
    _last: float = 0.0
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self.flow.name, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()

    def join(self) -> None:
        assert self._thread is not None
        self._thread.join(self.flow.timeout + 5)

    def count(self) -> Count:
        return Count(
            sent=self.sent,
            answered=self.answered,
            failed=self.failed,
            lost=self.sent - self.answered - self.failed,
            retransmits=self.retransmits,
            longest_gap=round(self.longest_gap, 4),
            errors=tuple(self.errors),
        )

    @property
    def family(self) -> int:
        return socket.AF_INET6 if ":" in self.flow.address else socket.AF_INET

    def _run(self) -> None:
        namespaces.stay_in(self.flow.netns)
        work = {
            Kind.REQUEST: self._requests,
            Kind.STREAM: self._stream,
            Kind.DATAGRAM: self._datagrams,
            Kind.PUSH: self._listen,
        }
        self._last = time.monotonic()
        try:
            work[self.flow.kind]()
        except Exception as error:  # noqa: BLE001 - the report is where it is seen
            self._fail(error)
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _paced(self, act: Callable[[], None]) -> None:
        """Acts at the flow's rate until the end; after a delay it goes on, it does not catch up."""
        while not self._stop.is_set():
            begin = time.monotonic()
            act()
            self._stop.wait(max(0.0, begin + self.flow.interval - time.monotonic()))

    # Kinds of traffic

    def _requests(self) -> None:
        self._paced(self._request)

    def _request(self) -> None:
        try:
            with self._connected() as connection:
                self._exchange(connection)
                self.retransmits += retransmissions(connection)
        except OSError as error:
            self._fail(error)

    def _stream(self) -> None:
        with self._connected(count=False) as connection:
            self._paced(lambda: self._exchange(connection))
            self.retransmits += retransmissions(connection)

    def _listen(self) -> None:
        with self._connected(count=False) as connection:
            connection.sendall(_PUSH.pack(_PUSH_MARK, int(self.flow.interval * 1e6)))
            while not self._stop.is_set():
                self.sent += 1
                data = self._received(connection)
                if data != _NUMBER.pack(self.sent):
                    raise OSError(f"{data!r} came instead of number {self.sent}")
                self._answer()

    def _connected(self, *, count: bool = True) -> socket.socket:
        self.sent += count
        connection = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.flow.timeout)
            connection.connect((self.flow.address, self.flow.port))
        except OSError:
            connection.close()
            raise
        return connection

    def _exchange(self, connection: socket.socket) -> None:
        self.sent += self.flow.kind is Kind.STREAM
        data = _NUMBER.pack(self.sent)
        connection.sendall(data)
        answer = self._received(connection)
        if answer != data:
            raise OSError(f"{answer!r} came back instead of {data!r}")
        self._answer()

    def _received(self, connection: socket.socket) -> bytes:
        data = b""
        while len(data) < _NUMBER.size:
            part = connection.recv(_NUMBER.size - len(data))
            if not part:
                raise ConnectionResetError("the server closed the connection")
            data += part
        return data

    def _datagrams(self) -> None:
        with socket.socket(self.family, socket.SOCK_DGRAM) as channel:
            channel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            channel.settimeout(_LOOK)
            channel.connect((self.flow.address, self.flow.port))
            receiver = threading.Thread(target=self._receive, args=(channel,), daemon=True)
            receiver.start()
            self._paced(lambda: self._send(channel))
            receiver.join()

    def _send(self, channel: socket.socket) -> None:
        self.sent += 1
        try:
            channel.send(_NUMBER.pack(self.sent))
        except OSError as error:
            self._fail(error)

    def _receive(self, channel: socket.socket) -> None:
        """Until everything is answered after the end of sending, or nothing came for as long as the flow has patience."""
        seen: set[int] = set()
        heard = time.monotonic()
        while not (self._stop.is_set() and self._done(heard)):
            try:
                (number,) = _NUMBER.unpack(channel.recv(64))
                heard = time.monotonic()
            except TimeoutError:
                continue
            except OSError as error:  # an ICMP error that a datagram earned
                self.errors = [*self.errors, str(error)][:_FIRST_ERRORS]
                continue
            if number not in seen:
                seen.add(number)
                self._answer()

    def _done(self, heard: float) -> bool:
        everything = self.answered + self.failed >= self.sent
        return everything or time.monotonic() - heard > self.flow.timeout

    # Counting

    def _answer(self) -> None:
        now = time.monotonic()
        with self.changed:
            self.answered += 1
            self.longest_gap = max(self.longest_gap, now - self._last)
            self._last = now
            self.changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self.changed:
            self.failed += 1
            if len(self.errors) < _FIRST_ERRORS:
                self.errors.append(f"{type(error).__name__}: {error}")
            self.changed.notify_all()


class Worker:
    """Does what the lines say, and answers each with a line."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._servers = Servers()
        self._clients: list[Client] = []

    def begin(self, servers: list[list[Any]], flows: list[dict[str, Any]]) -> dict[str, Any]:
        for netns, port in servers:
            self._servers.add(netns, port)
        threading.Thread(target=self._servers.run, name="servers", daemon=True).start()
        for given in flows:
            flow = Flow(**{**given, "kind": Kind(given["kind"])})
            self._clients.append(Client(flow, self._changed))
        for client in self._clients:
            client.start()
        return {}

    def wait(self, answers: int, seconds: float) -> dict[str, Any]:
        """Until each flow that shall be answered got this many more answers, or failures, than it has now, or broke."""
        wanted = {
            client: client.answered + client.failed + answers
            for client in self._clients
            if client.flow.answered
        }
        with self._changed:
            done = self._changed.wait_for(
                lambda: all(c.ended or c.answered + c.failed >= least for c, least in wanted.items()),
                seconds,
            )
        return {"done": done}

    def report(self) -> dict[str, Any]:
        return {
            "flows": {client.flow.name: attrs.asdict(client.count()) for client in self._clients},
            "received": dict(self._servers.received),
            "retransmits": self._servers.retransmits,
        }

    def end(self) -> dict[str, Any]:
        for client in self._clients:
            client.end()
        for client in self._clients:
            client.join()
        return self.report()


def main() -> None:
    worker = Worker()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(worker, order.pop("do"))(**order)
        except Exception as error:  # noqa: BLE001 - whoever gave the order is told
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
