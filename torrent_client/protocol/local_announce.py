r"""The message in which a client tells its own network which torrents it has: HTTP's clothes on one datagram.

    BT-SEARCH * HTTP/1.1\r\n
    Host: 239.192.152.143:6771\r\n               the group that it is sent to
    Port: 6881\r\n                               where the client listens; its address is that of the datagram
    Infohash: d69f91e6b2ae4c542468d1073a71d4ea13879a7f\r\n      once for each torrent
    cookie: 9f2c51d0\r\n                         by which a client knows its own messages when they come back
    \r\n\r\n

Spec: BEP 14.
Thread: pure.
Lock: none.
"""

import re
from typing import Final, NamedTuple

from torrent_client.errors import ProtocolViolation

MAX_DATAGRAM: Final = 1400
"""Bytes of a message at most: beyond it might be cut into fragments (BEP 14)."""

MAX_INFO_HASHES: Final = 24
"""Torrents in a message at most: each takes 52 bytes of the 1,400, and what surrounds them up to 130."""

MAX_COOKIE: Final = 64
"""Characters of a cookie at most; real ones have 8 or so."""

_REQUEST = "BT-SEARCH * HTTP/1.1"


class LocalAnnounce(NamedTuple):
    """What a message says.

    Attributes:
        port: TCP port that the client listens on.
        info_hashes: 20 bytes each.
        cookie: what the client knows its own messages by, empty for none.
    """

    port: int
    info_hashes: tuple[bytes, ...]
    cookie: str = ""

    def encode(self, group: str) -> bytes:
        """Return the datagram.

        Args:
            group: where it is sent, as `host:port`.
        """
        lines = [_REQUEST, f"Host: {group}", f"Port: {self.port}"]
        lines += [f"Infohash: {info_hash.hex()}" for info_hash in self.info_hashes]
        lines += [f"cookie: {self.cookie}"] if self.cookie else []
        return "\r\n".join([*lines, "", "", ""]).encode()

    @classmethod
    def decode(cls, data: bytes) -> "LocalAnnounce":
        """Read a datagram; headers that we do not know are passed over.

        Raises:
            ProtocolViolation: it is no such message.
        """
        try:
            request, *lines = data.decode("ascii").rstrip("\r\n").split("\r\n")
        except UnicodeDecodeError as error:
            raise ProtocolViolation("local discovery: not ASCII (BEP 14)") from error
        if len(data) > MAX_DATAGRAM or request != _REQUEST:
            raise ProtocolViolation("local discovery: no BT-SEARCH (BEP 14)")
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name.strip().lower(), []).append(value.strip())
        ports, hashes, cookies = (headers.get(name, []) for name in ("port", "infohash", "cookie"))
        if len(ports) != 1 or not re.fullmatch("[0-9]{1,5}", ports[0]) or not 0 < int(ports[0]) < 65_536:
            raise ProtocolViolation("local discovery: no port (BEP 14)")
        if not hashes or not all(re.fullmatch("[0-9a-fA-F]{40}", text) for text in hashes):
            raise ProtocolViolation("local discovery: no info hash (BEP 14)")
        return cls(int(ports[0]), tuple(map(bytes.fromhex, hashes)), "".join(cookies)[:MAX_COOKIE])
