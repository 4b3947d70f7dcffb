"""Tasks 6, 7, 8 and 10: one peer."""

import socket
import struct

BLOCK = 16384
PIPELINE = 8


class PeerConnection:
    """A connection to one peer."""

    def __init__(self, ip: str, port: int, info_hash: bytes, peer_id: bytes) -> None:
        """Connect to nobody yet."""
        self.ip = ip
        self.port = port
        self.info_hash = info_hash
        self.peer_id = peer_id
        self.choked = True
        self.pieces: set[int] = set()

    def connect(self) -> None:
        """Open the TCP connection."""
        self.sock = socket.create_connection((self.ip, self.port), timeout=5)

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise ConnectionError("the peer has closed")
            data += part
        return data

    def handshake(self) -> bytes:
        """Exchange handshakes; return the peer's id."""
        head = b"\x13BitTorrent protocol"
        self.sock.sendall(head + bytes(8) + self.info_hash + self.peer_id)
        answer = self._exactly(68)
        if answer[:20] != head:
            raise ValueError("no BitTorrent peer")
        if answer[28:48] != self.info_hash:
            raise ValueError("another torrent")
        return answer[48:]

    def _send(self, number: int, payload: bytes = b"") -> None:
        self.sock.sendall(struct.pack(">IB", 1 + len(payload), number) + payload)

    def send_choke(self) -> None:
        """Send choke."""
        self._send(0)

    def send_unchoke(self) -> None:
        """Send unchoke."""
        self._send(1)

    def send_interested(self) -> None:
        """Send interested."""
        self._send(2)

    def send_not_interested(self) -> None:
        """Send not interested."""
        self._send(3)

    def send_have(self, index: int) -> None:
        """Send have."""
        self._send(4, struct.pack(">I", index))

    def send_bitfield(self, bitfield: bytes) -> None:
        """Send a bitfield."""
        self._send(5, bitfield)

    def send_request(self, index: int, begin: int, length: int) -> None:
        """Ask for a block."""
        self._send(6, struct.pack(">III", index, begin, length))

    def send_piece(self, index: int, begin: int, block: bytes) -> None:
        """Send a block."""
        self._send(7, struct.pack(">II", index, begin) + block)

    def receive_message(self) -> tuple[int | None, bytes]:
        """Return the next message."""
        (length,) = struct.unpack(">I", self._exactly(4))
        if length == 0:
            return None, b""
        if length > 1 << 20:
            raise ValueError("a message of an impossible length")
        body = self._exactly(length)
        number, payload = body[0], body[1:]
        if number in (0, 1):
            self.choked = number == 0
        elif number == 4:
            self.pieces.add(int.from_bytes(payload, "big"))
        elif number == 5:
            self.pieces |= {i for i in range(8 * len(payload)) if payload[i // 8] >> (7 - i % 8) & 1}
        return number, payload

    def has_piece(self, index: int) -> bool:
        """Tell whether the peer has a piece."""
        return index in self.pieces

    def download_piece(self, index: int, piece_length: int) -> bytes:
        """Return a piece's bytes."""
        if self.choked:
            self.send_interested()
        while self.choked:
            self.receive_message()
        todo = [(begin, min(BLOCK, piece_length - begin)) for begin in range(0, piece_length, BLOCK)]
        data = bytearray(piece_length)
        waiting = 0
        while todo or waiting:
            while todo and waiting < PIPELINE:
                self.send_request(index, *todo.pop(0))
                waiting += 1
            number, payload = self.receive_message()
            if number == 7:
                where, begin = struct.unpack(">II", payload[:8])
                if where == index:
                    data[begin : begin + len(payload) - 8] = payload[8:]
                    waiting -= 1
        return bytes(data)
