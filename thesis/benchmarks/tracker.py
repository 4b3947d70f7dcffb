"""The smallest HTTP tracker: it answers every announce with the peers it was given (BEP 3, BEP 23 compact).

A process of its own, so that its time is nobody else's; not all clients can be given a peer's address
directly, so all of them get it from here. Prints the port it listens on.

Those after ``--swarm`` are members of a swarm, known by their ports: each is told of those that announced before it. Of
any two, the one that comes later is told of the other, which listens by then: all meet at once, and nobody has to
announce twice.

usage: tracker.py ADDRESS:PORT... [--swarm ADDRESS:PORT...]
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from urllib.parse import parse_qs, urlsplit

INTERVAL = 1800  # seconds; longer than any benchmark, so that nobody announces twice


def compact(address: str) -> bytes:
    """Return ADDRESS:PORT as 4 + 2 bytes."""
    host, _, port = address.rpartition(":")
    return IPv4Address(host).packed + int(port).to_bytes(2, "big")


class AnnounceHandler(BaseHTTPRequestHandler):
    """Answers any GET; what it knows is the class's, for there is one swarm."""

    given: tuple[str, ...] = ()  # ADDRESS:PORT of the peers that everybody is told of
    members: dict[str, str] = {}  # noqa: RUF012 - ADDRESS:PORT of each member, by its port
    met: dict[str, None] = {}  # noqa: RUF012 - ADDRESS:PORT of those who announced, in their order
    lock = threading.Lock()  # for met

    def do_GET(self) -> None:
        """Send the peers."""
        peers = b"".join(map(compact, [*self.given, *self.met_before()]))
        answer = b"d8:intervali%de5:peers%d:%se" % (INTERVAL, len(peers), peers)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def met_before(self) -> list[str]:
        """Return all other members who have announced, and take note of this one."""
        port = parse_qs(urlsplit(self.path).query, encoding="latin-1").get("port", [""])[0]
        address = self.members.get(port)
        if address is None:
            return []
        with self.lock:
            others = [other for other in self.met if other != address]
            self.met[address] = None
        return others

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    words = sys.argv[1:]
    end = words.index("--swarm") if "--swarm" in words else len(words)
    AnnounceHandler.given = tuple(words[:end])
    AnnounceHandler.members = {address.rpartition(":")[2]: address for address in words[end + 1 :]}
    server = ThreadingHTTPServer(("127.0.0.1", 0), AnnounceHandler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
