"""The local tracker, asked over real loopback connections."""

import ipaddress
import random
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from urllib.parse import quote, urlsplit

import pytest

from tests.support import FakeClock, wait_until
from torrent_client import local_tracker
from torrent_client.errors import TrackerError
from torrent_client.local_tracker import MAX_NUMWANT, LocalTracker
from torrent_client.protocol.bencode import BencodeValue, bencode_decode

# All 256 bytes occur in one hash or the other, and so every kind of escape.
TORRENT = bytes(range(20))
OTHER_TORRENT = bytes(range(236, 256))
ME = b"-PC0001-\x00&=+%? /#\xff\r\n"
YOU = b"-PC0001-yyyyyyyyyyyy"
INTERVAL = 60

Answer = dict[bytes, BencodeValue]


@pytest.fixture
def tracker(clock: FakeClock) -> Iterator[LocalTracker]:
    """Run a tracker whose clock only the test moves."""
    with LocalTracker(interval=INTERVAL, clock=clock, rng=random.Random(1)) as running:
        yield running


def get(url: str) -> Answer:
    """Fetch and decode an answer."""
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310  # the tracker's own URL
        assert response.status == 200
        answer = bencode_decode(response.read())
    assert isinstance(answer, dict)
    return answer


def announce(tracker: LocalTracker, **changes: bytes | int | str | None) -> Answer:
    """Announce: `changes` replace or, as None, leave out parameters of an ordinary announce."""
    parameters: dict[str, bytes | int | str | None] = {
        "info_hash": TORRENT,
        "peer_id": ME,
        "port": 6881,
        "uploaded": 0,
        "downloaded": 0,
        "left": 100,
    }
    parameters.update(changes)
    query = "&".join(
        f"{name}={quote(value if isinstance(value, bytes) else str(value), safe='')}"
        for name, value in parameters.items()
        if value is not None
    )
    return get(f"{tracker.announce_url}?{query}")


def scrape(tracker: LocalTracker, *info_hashes: bytes) -> BencodeValue:
    """Return the `files` of a scrape."""
    query = "&".join("info_hash=" + quote(info_hash, safe="") for info_hash in info_hashes)
    url = tracker.announce_url.replace("/announce", "/scrape")
    return get(f"{url}?{query}" if query else url)[b"files"]


def compact(*ports: int) -> bytes:
    """Return loopback peers in compact form."""
    return b"".join(b"\x7f\0\0\1" + port.to_bytes(2, "big") for port in ports)


def raw_request(tracker: LocalTracker, request: bytes) -> bytes:
    """Send bytes as they are and return all that comes back."""
    url = urlsplit(tracker.announce_url)
    with closing(socket.create_connection((url.hostname, url.port), timeout=10)) as connection:
        answer = b""
        with suppress(OSError):  # the tracker has seen enough, and not read the rest
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


# --- announcing -------------------------------------------------------------------------------------------


def test_peers_find_each_other(tracker: LocalTracker) -> None:
    """The second peer is told the first, and from then on each is told the other, but never itself."""
    first = announce(tracker, event="started")
    assert first == {
        b"interval": INTERVAL,
        b"min interval": INTERVAL // 2,
        b"complete": 0,
        b"downloaded": 0,
        b"incomplete": 1,
        b"peers": b"",
    }
    second = announce(tracker, peer_id=YOU, port=6882, left=0, event="started")
    assert second[b"peers"] == compact(6881)
    assert (second[b"complete"], second[b"incomplete"]) == (1, 1)
    assert announce(tracker)[b"peers"] == compact(6882)


def test_torrents_are_kept_apart(tracker: LocalTracker) -> None:
    """Info hashes are compared as the bytes that they are."""
    announce(tracker)
    answer = announce(tracker, info_hash=OTHER_TORRENT, peer_id=YOU)
    assert answer[b"peers"] == b""
    assert answer[b"incomplete"] == 1


def test_a_plus_is_a_space_and_its_escape_a_plus(tracker: LocalTracker) -> None:
    """Clients that use a form encoder for the query mean the same torrent as the others."""
    torrent = b"+ +-+ +-+ +-+ +-+ +-"
    announce(tracker, info_hash=torrent)
    rest = f"peer_id={quote(YOU)}&port=1&uploaded=0&downloaded=0&left=0"
    encoded = "%2B+%2B-" * 5
    assert get(f"{tracker.announce_url}?info_hash={encoded}&{rest}")[b"peers"] == compact(6881)


def test_an_announce_replaces_what_was_known_of_the_peer(tracker: LocalTracker) -> None:
    """A peer that comes back on another port, or complete, is still one peer."""
    announce(tracker)
    announce(tracker, port=7000, left=0)
    answer = announce(tracker, peer_id=YOU, port=6882)
    assert answer[b"peers"] == compact(7000)
    assert (answer[b"complete"], answer[b"incomplete"]) == (1, 1)


def test_dictionary_peers_for_those_who_ask(tracker: LocalTracker) -> None:
    """`compact=0` gets BEP 3's own form, with `no_peer_id=1` without the ids."""
    announce(tracker)
    peer = {b"ip": b"127.0.0.1", b"port": 6881}
    assert announce(tracker, peer_id=YOU, compact=0)[b"peers"] == [{**peer, b"peer id": ME}]
    assert announce(tracker, peer_id=YOU, compact=0, no_peer_id=1)[b"peers"] == [peer]
    assert announce(tracker, peer_id=YOU, compact=1)[b"peers"] == compact(6881)


def test_numwant_bounds_the_answer(tracker: LocalTracker) -> None:
    """As many as wanted, 50 by default, never more than 200; the choice is random and without repeats."""
    for number in range(MAX_NUMWANT + 10):
        announce(tracker, peer_id=b"-PC0001-%012d" % number, port=1000 + number, numwant=0)
    for numwant, expected in ((0, 0), (7, 7), (None, 50), (-1, 50), (10**6, MAX_NUMWANT)):
        peers = announce(tracker, numwant=numwant)[b"peers"]
        assert isinstance(peers, bytes)
        assert len({peers[start : start + 6] for start in range(0, len(peers), 6)}) == expected
    assert announce(tracker, numwant=7)[b"peers"] != announce(tracker, numwant=7)[b"peers"]


def test_a_stopped_peer_is_told_to_nobody(tracker: LocalTracker) -> None:
    """It gets no peers either, and stopping twice, or in an unknown torrent, changes nothing."""
    announce(tracker)
    announce(tracker, peer_id=YOU, port=6882)
    for _ in range(2):
        answer = announce(tracker, event="stopped")
        assert (answer[b"peers"], answer[b"incomplete"]) == (b"", 1)
    assert announce(tracker, peer_id=YOU, port=6882)[b"peers"] == b""
    announce(tracker, info_hash=OTHER_TORRENT, event="stopped")
    assert scrape(tracker, OTHER_TORRENT) == {}


def test_a_silent_peer_is_forgotten_after_two_intervals(tracker: LocalTracker, clock: FakeClock) -> None:
    """One missed announce is forgiven."""
    announce(tracker)
    clock.advance(2 * INTERVAL)
    assert announce(tracker, peer_id=YOU, port=6882)[b"peers"] == compact(6881)
    clock.advance(0.1)
    answer = announce(tracker, peer_id=YOU, port=6882)
    assert (answer[b"peers"], answer[b"incomplete"]) == (b"", 1)
    clock.advance(2 * INTERVAL + 0.1)
    assert scrape(tracker, TORRENT) == {TORRENT: {b"complete": 0, b"downloaded": 0, b"incomplete": 0}}


def test_many_clients_at_once(tracker: LocalTracker) -> None:
    """A swarm that starts in the same second is counted to the last peer."""
    with ThreadPoolExecutor(16) as pool:
        peer_ids = [b"-PC0001-%012d" % number for number in range(150)]
        list(pool.map(lambda peer_id: announce(tracker, peer_id=peer_id, left=0), peer_ids))
    assert scrape(tracker, TORRENT) == {TORRENT: {b"complete": 150, b"downloaded": 0, b"incomplete": 0}}


# --- IPv6 and claimed addresses ---------------------------------------------------------------------------


def test_ipv6_peers_are_told_in_peers6(tracker: LocalTracker) -> None:
    """Peers of both kinds are told, 6 and 18 bytes each, or all in one list of dictionaries (BEP 7)."""
    announce(tracker, ipv6="[2001:db8::7]:7777")
    answer = announce(tracker, peer_id=YOU)
    assert answer[b"peers"] == compact(6881)
    assert answer[b"peers6"] == ipaddress.ip_address("2001:db8::7").packed + (7777).to_bytes(2, "big")
    answer = announce(tracker, peer_id=YOU, compact=0, no_peer_id=1)
    assert answer[b"peers"] == [
        {b"ip": b"127.0.0.1", b"port": 6881},
        {b"ip": b"2001:db8::7", b"port": 7777},
    ]


@pytest.mark.parametrize(
    ("parameter", "claim", "told"),
    [
        ("ipv6", "2001:db8::7", ("2001:db8::7", 6881)),
        ("ipv6", "[2001:db8::7]", ("2001:db8::7", 6881)),
        ("ipv4", "192.0.2.1", ("192.0.2.1", 6881)),
        ("ipv4", "192.0.2.1:99", ("192.0.2.1", 99)),
    ],
)
def test_a_program_on_this_machine_may_tell_its_other_address(
    tracker: LocalTracker, parameter: str, claim: str, told: tuple[str, int]
) -> None:
    """Each way to write it is understood."""
    announce(tracker, **{parameter: claim})
    peers = announce(tracker, peer_id=YOU, compact=0, no_peer_id=1)[b"peers"]
    assert isinstance(peers, list)
    assert {b"ip": told[0].encode(), b"port": told[1]} in peers


@pytest.mark.parametrize("claim", ["", "x", "192.0.2.1", "[::1]:0", "[::1]:99999", "[::1]:", "::g", "\xff"])
def test_a_claim_that_is_no_ipv6_address_is_refused(tracker: LocalTracker, claim: str) -> None:
    """It is malformed like any other parameter."""
    assert announce(tracker, ipv6=claim) == {b"failure reason": b"ipv6 must be an IPv6 address"}


def test_the_ip_parameter_is_not_believed(tracker: LocalTracker) -> None:
    """Otherwise anybody could send a swarm to a victim."""
    announce(tracker, ip="192.0.2.1")
    assert announce(tracker, peer_id=YOU)[b"peers"] == compact(6881)


def test_only_loopback_may_claim_addresses() -> None:
    """A stranger's `ipv4` and `ipv6` are ignored; an IPv4 client of an IPv6 socket is an IPv4 peer."""
    parameters = {b"ipv4": b"192.0.2.1", b"ipv6": b"2001:db8::7"}
    stranger = ipaddress.ip_address("::ffff:198.51.100.1")
    assert local_tracker._endpoints(parameters, stranger, 1) == {4: (ipaddress.ip_address("198.51.100.1"), 1)}


def test_it_listens_on_ipv6() -> None:
    """The URL has brackets, and a peer that comes over IPv6 is an IPv6 peer."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with LocalTracker("::1") as tracker:
        assert tracker.announce_url.startswith("http://[::1]:")
        announce(tracker)
        answer = announce(tracker, peer_id=YOU)
        assert answer[b"peers"] == b""
        assert answer[b"peers6"] == ipaddress.ip_address("::1").packed + (6881).to_bytes(2, "big")


# --- scraping ---------------------------------------------------------------------------------------------


def test_scrape_counts_each_torrent(tracker: LocalTracker) -> None:
    """Those that are asked for and known, or all; each completion is counted once (BEP 48)."""
    announce(tracker)
    announce(tracker, info_hash=OTHER_TORRENT, left=0)
    for _ in range(2):
        announce(tracker, info_hash=OTHER_TORRENT, left=0, event="completed")
    one = {TORRENT: {b"complete": 0, b"downloaded": 0, b"incomplete": 1}}
    other = {OTHER_TORRENT: {b"complete": 1, b"downloaded": 1, b"incomplete": 0}}
    assert scrape(tracker, TORRENT) == one
    assert scrape(tracker, OTHER_TORRENT, b"?" * 20, OTHER_TORRENT) == other
    assert scrape(tracker, b"?" * 20) == {}
    assert scrape(tracker) == one | other


def test_scrape_refuses_a_malformed_hash(tracker: LocalTracker) -> None:
    """The client is told."""
    url = tracker.announce_url.replace("/announce", "/scrape") + "?info_hash=short"
    assert get(url) == {b"failure reason": b"each info_hash must be 20 bytes"}


# --- mistakes and malice ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"info_hash": None}, "info_hash is missing"),
        ({"info_hash": b"short"}, "info_hash must be 20 bytes, percent-encoded; it is 5"),
        ({"info_hash": b"x" * 40}, "info_hash must be 20 bytes, percent-encoded; it is 40"),
        ({"peer_id": None}, "peer_id is missing"),
        ({"peer_id": b""}, "peer_id must be 20 bytes, percent-encoded; it is 0"),
        ({"port": None}, "port is missing"),
        ({"port": 0}, "port must be from 1 to 65535"),
        ({"port": 65536}, "port must be from 1 to 65535"),
        ({"port": -1}, "port must be a number"),
        ({"port": "6881x"}, "port must be a number"),
        ({"port": "\u0663"}, "port must be a number"),
        ({"port": "9" * 21}, "port must be a number"),
        ({"left": None}, "left is missing"),
        ({"left": ""}, "left must be a number"),
        ({"uploaded": None}, "uploaded is missing"),
        ({"downloaded": "1.5"}, "downloaded must be a number"),
        ({"numwant": "many"}, "numwant must be a number"),
        ({"event": "begun"}, "event must be started, completed or stopped, or left out"),
    ],
)
def test_malformed_announces_are_told_what_is_wrong(
    tracker: LocalTracker, changes: dict[str, bytes | int | str | None], reason: str
) -> None:
    """The reason names the parameter, and nothing is remembered of the peer."""
    assert announce(tracker, **changes) == {b"failure reason": reason.encode()}
    assert scrape(tracker) == {}


def test_other_paths_are_not_found(tracker: LocalTracker) -> None:
    """A mistyped URL is an HTTP error, not an empty swarm."""
    for path in ("", "/", "/announce/", "/announcee"):
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            get(tracker.announce_url.removesuffix("/announce") + path)
        caught.value.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\r\n\r\n",
        b"\x13BitTorrent protocol" + bytes(48),
        b"GET\r\n\r\n",
        b"GET /announce?\xff\xfe&&=&%&%zz&info_hash=%&a=b=c HTTP/1.0\r\n\r\n",
        b"GET /announce?" + b"x" * 100_000 + b" HTTP/1.0\r\n\r\n",
        b"GET /announce HTTP/9.9.9\r\n\r\n",
        b"GET /announce HTTP/1.0\r\n" + b"a: b\r\n" * 500 + b"\r\n",
        b"POST /announce HTTP/1.0\r\nContent-Length: 1000000000\r\n\r\n",
        b"GET /scrape?info_hash=\x00 HTTP/1.0\r\n\r\n",
    ],
)
def test_garbage_does_not_stop_the_tracker(tracker: LocalTracker, request_bytes: bytes) -> None:
    """It answers the next client as if nothing had happened."""
    raw_request(tracker, request_bytes)
    assert announce(tracker)[b"incomplete"] == 1


def test_random_bytes_do_not_stop_the_tracker(tracker: LocalTracker, rng: random.Random) -> None:
    """The same for requests and for queries that nobody thought of."""
    for _ in range(30):
        raw_request(tracker, rng.randbytes(rng.randrange(300)))
        letters = bytes(rng.choice(b"info_hash=&%+0f\x00\xff;") for _ in range(80))
        answer = raw_request(tracker, b"GET /announce?" + letters + b" HTTP/1.0\r\n\r\n")
        assert b"failure reason" in answer or b" 400 " in answer
    assert announce(tracker)[b"incomplete"] == 1


def test_a_client_that_breaks_off_does_not_stop_the_tracker(tracker: LocalTracker) -> None:
    """A reset in the middle of a request ends that request only."""
    url = urlsplit(tracker.announce_url)
    for _ in range(5):
        connection = socket.create_connection((url.hostname, url.port), timeout=10)
        connection.sendall(b"GET /scrape")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by reset
        connection.close()
    assert announce(tracker)[b"incomplete"] == 1


def test_memory_is_bounded(clock: FakeClock) -> None:
    """Torrents and peers beyond the limits are refused until others have gone; known peers never are."""
    full = {b"failure reason": b"this tracker is full"}
    with LocalTracker(interval=INTERVAL, max_torrents=2, max_peers=3, clock=clock) as tracker:
        announce(tracker)
        announce(tracker, info_hash=OTHER_TORRENT)
        assert announce(tracker, info_hash=b"3" * 20) == full
        announce(tracker, peer_id=YOU)
        assert announce(tracker, peer_id=b"4" * 20) == full
        assert announce(tracker)[b"incomplete"] == 2
        announce(tracker, event="stopped")
        assert announce(tracker, peer_id=b"4" * 20)[b"incomplete"] == 2
        announce(tracker, info_hash=OTHER_TORRENT, event="stopped")
        assert announce(tracker, info_hash=b"3" * 20)[b"incomplete"] == 1
        clock.advance(3 * INTERVAL)
        assert announce(tracker, info_hash=b"5" * 20)[b"incomplete"] == 1
        assert announce(tracker, info_hash=b"5" * 20, peer_id=YOU)[b"incomplete"] == 2


def test_too_many_connections_are_hung_up_on(tracker: LocalTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that only connect cannot use up the threads; when they leave, others are answered again."""
    monkeypatch.setattr(local_tracker, "MAX_CONNECTIONS", 2)
    url = urlsplit(tracker.announce_url)
    idle = [socket.create_connection((url.hostname, url.port), timeout=10) for _ in range(2)]
    try:
        assert raw_request(tracker, b"") == b""
    finally:
        for connection in idle:
            connection.close()

    def answers() -> bool:
        return raw_request(tracker, b"GET /scrape HTTP/1.0\r\n\r\n") != b""

    wait_until(answers, what="an answer after the idle clients left")


def test_no_more_threads_is_survived(tracker: LocalTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system refuses a thread, the client is hung up on and the next one is served."""
    with monkeypatch.context() as patch:

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        assert raw_request(tracker, b"GET /scrape HTTP/1.0\r\n\r\n") == b""
    assert scrape(tracker) == {}


def test_a_silent_client_is_hung_up_on(tracker: LocalTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a request does not keep its thread for ever."""
    monkeypatch.setattr(local_tracker._RequestHandler, "timeout", 0.05)
    url = urlsplit(tracker.announce_url)
    with closing(socket.create_connection((url.hostname, url.port), timeout=10)) as connection:
        assert connection.recv(1) == b""


# --- starting and stopping --------------------------------------------------------------------------------


def test_stop_hangs_up_on_idle_clients() -> None:
    """`stop` does not wait for clients, and leaves no thread; the leak fixture sees to the sockets."""
    tracker = LocalTracker()
    tracker.start()
    url = urlsplit(tracker.announce_url)
    with closing(socket.create_connection((url.hostname, url.port), timeout=10)) as connection:
        wait_until(lambda: any(thread.name == "local-tracker-request" for thread in threading.enumerate()))
        tracker.stop()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("local-tracker")]
        assert connection.recv(1) == b""
    tracker.stop()


def test_a_stopped_tracker_comes_back_on_its_port() -> None:
    """Clients see an outage; the swarm is still known afterwards."""
    tracker = LocalTracker()
    with tracker:
        url = tracker.announce_url
        announce(tracker)
    with pytest.raises(urllib.error.URLError):
        get(url)
    with tracker:
        assert tracker.announce_url == url
        assert announce(tracker, peer_id=YOU)[b"peers"] == compact(6881)


def test_starting_twice_is_an_error() -> None:
    """As is asking for the URL of a tracker that has no port yet."""
    tracker = LocalTracker()
    with pytest.raises(RuntimeError):
        _ = tracker.announce_url
    with tracker, pytest.raises(RuntimeError):
        tracker.start()


def test_a_port_in_use_is_a_tracker_error() -> None:
    """The message says which, and nothing is left open."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TrackerError, match=str(port)):
            LocalTracker(port=port).start()


def test_the_url_of_any_address_is_loopback() -> None:
    """`0.0.0.0` is no address that a client could dial."""
    assert LocalTracker("0.0.0.0", 6969).announce_url == "http://127.0.0.1:6969/announce"
    assert LocalTracker("::", 6969).announce_url == "http://[::1]:6969/announce"
    assert LocalTracker("example.org", 80).announce_url == "http://example.org:80/announce"
