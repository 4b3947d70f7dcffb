"""A scripted UDP tracker on loopback: honest by default, and lying, silent or flooding where a test wants that."""

import socket
import threading
from collections.abc import Callable, Iterable
from struct import pack, unpack_from
from typing import Self

CONNECTION_ID = 0x1122334455667788

Answer = Callable[[bytes], Iterable[bytes]]
"""Makes the datagrams that answer one."""


def connected(datagram: bytes, connection_id: int = CONNECTION_ID) -> bytes:
    """Return the answer to a connect request."""
    return pack(">IIQ", 0, unpack_from(">I", datagram, 12)[0], connection_id)


def announced(
    datagram: bytes, peers: bytes = b"", interval: int = 1800, leechers: int = 2, seeders: int = 3, action: int = 1
) -> bytes:
    """Return the answer to an announce."""
    return pack(">IIIII", action, unpack_from(">I", datagram, 12)[0], interval, leechers, seeders) + peers


def error(datagram: bytes, message: bytes) -> bytes:
    """Return an error message."""
    return pack(">II", 3, unpack_from(">I", datagram, 12)[0]) + message


def honest(datagram: bytes, peers: bytes = b"") -> list[bytes]:
    """Answer as a tracker does."""
    action = unpack_from(">I", datagram, 8)[0]
    if action == 0:
        return [connected(datagram)]
    if action == 1:
        return [announced(datagram, peers)]
    count = (len(datagram) - 16) // 20
    entries = b"".join(pack(">III", 10 * n, 10 * n + 1, 10 * n + 2) for n in range(count))
    return [pack(">II", 2, unpack_from(">I", datagram, 12)[0]) + entries]


class FakeUdpTracker:
    """Listens in a `with` block, and answers each datagram with what the script makes of it.

    Args:
        answer: the script.
        host: where to listen.
    """

    def __init__(self, answer: Answer = honest, host: str = "127.0.0.1") -> None:
        self.answer = answer
        self.seen: list[bytes] = []
        self._sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((host, 0))
        self._sock.settimeout(0.05)
        self.port: int = self._sock.getsockname()[1]
        self.url = f"udp://{f'[{host}]' if ':' in host else host}:{self.port}/announce"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake-udp-tracker")

    @property
    def actions(self) -> list[int]:
        """What it was asked: 0 connect, 1 announce, 2 scrape."""
        return [unpack_from(">I", datagram, 8)[0] for datagram in self.seen]

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                datagram, sender = self._sock.recvfrom(65_536)
            except TimeoutError:
                continue
            except ConnectionRefusedError:  # who asked has gone
                continue
            self.seen.append(datagram)
            for answer in self.answer(datagram):
                if self._stopping.is_set():
                    return
                self._sock.sendto(answer, sender)

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread and close the socket."""
        self._stopping.set()
        self._thread.join()
        self._sock.close()
