"""The smallest HTTP tracker: it answers every announce with the same peers (BEP 3, BEP 23 compact).

A process of its own, so that its time is nobody else's; not all clients can be given a peer's address
directly, so all of them get it from here. Prints the port it listens on.

usage: tracker.py ADDRESS:PORT...
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address

INTERVAL = 1800  # seconds; longer than any benchmark, so that nobody announces twice


def compact(address: str) -> bytes:
    """Return ADDRESS:PORT as 4 + 2 bytes."""
    host, _, port = address.rpartition(":")
    return IPv4Address(host).packed + int(port).to_bytes(2, "big")


class AnnounceHandler(BaseHTTPRequestHandler):
    """Answers any GET; the peers are the class's, for they are the same for all."""

    answer = b""

    def do_GET(self) -> None:
        """Send the one answer."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    peers = b"".join(map(compact, sys.argv[1:]))
    AnnounceHandler.answer = b"d8:intervali%de5:peers%d:%se" % (INTERVAL, len(peers), peers)
    server = ThreadingHTTPServer(("127.0.0.1", 0), AnnounceHandler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
