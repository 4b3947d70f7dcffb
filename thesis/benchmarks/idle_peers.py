"""Peers that only are there: they accept a connection, shake hands, have nothing, and wait.

One thread and one socket each, so that many cost the machine nothing. Prints a line of JSON with the state "complete"
as soon as somebody has shaken hands with each of them.

usage: idle_peers.py INFO_HASH_HEX PIECES ADDRESS:PORT...
"""

import json
import selectors
import socket
import sys

PROTOCOL = b"\x13BitTorrent protocol"
HANDSHAKE = 68
BITFIELD = 5


class IdlePeers:
    """All of them, and who came."""

    def __init__(self, info_hash: bytes, pieces: int, addresses: list[str]) -> None:
        """Listen on every address."""
        self._handshake = PROTOCOL + bytes(8) + info_hash
        length = (pieces + 7) // 8
        self._nothing = (1 + length).to_bytes(4, "big") + bytes([BITFIELD]) + bytes(length)
        self._selector = selectors.DefaultSelector()
        self._missing = set(range(len(addresses)))
        for number, address in enumerate(addresses):
            host, _, port = address.rpartition(":")
            listener = socket.create_server((host, int(port)))
            self._selector.register(listener, selectors.EVENT_READ, (number, None))

    def run(self) -> None:
        """Be there until killed."""
        while True:
            for key, _ in self._selector.select():
                number, received = key.data
                assert isinstance(key.fileobj, socket.socket)
                if received is None:
                    peer, _address = key.fileobj.accept()
                    self._selector.register(peer, selectors.EVENT_READ, (number, bytearray()))
                else:
                    self._read(key.fileobj, number, received)

    def _read(self, peer: socket.socket, number: int, received: bytearray) -> None:
        """Answer the handshake; whatever comes after it is for nobody."""
        try:
            data = peer.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(peer)
            peer.close()
        elif len(received) < HANDSHAKE:
            received += data
            if len(received) >= HANDSHAKE:
                peer.sendall(self._handshake + b"-ID0001-%012d" % number + self._nothing)
                self._tick_off(number)

    def _tick_off(self, number: int) -> None:
        if number in self._missing:
            self._missing.discard(number)
            if not self._missing:
                print(json.dumps({"state": "complete"}), flush=True)


if __name__ == "__main__":
    IdlePeers(bytes.fromhex(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]).run()
