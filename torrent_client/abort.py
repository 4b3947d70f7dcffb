"""Ends waits for the network from another thread: what is watched is shut down, which wakes `recv`.

Spec: none.
Thread: any.
Lock: `_lock`, a leaf, around the set of watched sockets.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock


class Abort:
    """A switch that is thrown once, and then nobody waits any more."""

    def __init__(self) -> None:
        """Begin with nothing to end."""
        self._lock = Lock()
        self._watched: set[socket.socket] = set()
        self._is_set = False

    @property
    def is_set(self) -> bool:
        """Whether it was thrown."""
        return self._is_set

    def set(self) -> None:
        """Shut down every watched socket, and those that come later."""
        with self._lock:
            self._is_set = True
            watched = list(self._watched)
        for sock in watched:
            _shut_down(sock)

    @contextmanager
    def watching(self, sock: socket.socket) -> Iterator[None]:
        """Watch a socket inside the block; whoever waits on it asks `is_set` why it woke."""
        with self._lock:
            self._watched.add(sock)
            is_set = self._is_set
        if is_set:
            _shut_down(sock)
        try:
            yield
        finally:
            with self._lock:
                self._watched.discard(sock)


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # not connected yet, or closed meanwhile
        sock.shutdown(socket.SHUT_RDWR)
