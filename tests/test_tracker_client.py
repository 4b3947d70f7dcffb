"""HTTP trackers: what is asked, every form of answer, and servers that are dead, slow, hostile or broken."""

import contextlib
import gc
import gzip
import ipaddress
import itertools
import random
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_peer import LOOPBACK, FakePeer, FakeServer, black_hole, closed_port
from torrent_client import __version__
from torrent_client.abort import Abort
from torrent_client.config import MAX_TRACKER_RESPONSE, Config
from torrent_client.errors import TrackerError
from torrent_client.local_tracker import LocalTracker
from torrent_client.protocol.bencode import bencode_encode
from torrent_client.tracker_client import (
    MAX_REASON_LENGTH,
    MAX_REDIRECTS,
    AnnounceResponse,
    HttpTrackerClient,
    PeerAddress,
    Progress,
    TrackerClient,
    generate_peer_id,
    parse_announce,
)
from torrent_client.tracker_url import Endpoint, check_tracker_url, redirected

HASH = bytes(range(20))
PEER_ID = b"-PC0001-abcdefghijkl"
PROGRESS = Progress(uploaded=1, downloaded=22, left=333)
QUICK = Config(tracker_connect_timeout=0.3, tracker_read_timeout=0.3)
EMPTY = bencode_encode({"interval": 900, "peers": b""})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to loopback directly, whatever this machine is told about the rest of the world."""
    monkeypatch.setenv("NO_PROXY", "*")


def client(url: str = "http://tracker.example/announce", **options: Any) -> HttpTrackerClient:  # noqa: ANN401  # passed on
    """Return a client with quick time-outs."""
    return HttpTrackerClient(url, HASH, PEER_ID, 6881, **{"config": QUICK} | options)


def ok(body: bytes, *headers: str) -> bytes:
    """Return a whole HTTP answer."""
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def redirect(target: str, status: int = 302) -> bytes:
    """Return an HTTP redirect."""
    return f"HTTP/1.1 {status} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")


class Tracker(FakeServer):
    """A server that reads a request and sends bytes, whatever they are; the last answer is sent again and again.

    Args:
        answers: what each connection gets.
    """

    def __init__(self, *answers: bytes) -> None:
        super().__init__(self._answer)
        self.requests_seen: list[bytes] = []
        self._answers = itertools.chain(answers, itertools.repeat(answers[-1]))

    @property
    def url(self) -> str:
        """The announce URL."""
        return f"http://{LOOPBACK}:{self.port}/announce"

    def _answer(self, peer: FakePeer) -> None:
        self.requests_seen.append(read_head(peer))
        peer.send_raw(next(self._answers))


def read_head(peer: FakePeer) -> bytes:
    """Read an HTTP request."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += peer.read_exactly(1)
    return head


def say_nothing(peer: FakePeer) -> None:
    """Read a request and wait until the other side has had enough."""
    read_head(peer)
    peer.read_exactly(1)


def refusal(url: str, **options: Any) -> str:  # noqa: ANN401  # passed on
    """Return why an announce to this URL fails."""
    with pytest.raises(TrackerError) as caught:
        client(url, **options).announce(PROGRESS)
    return str(caught.value)


def refusal_of(answer: bytes) -> str:
    """Return why an announce fails that gets this answer."""
    with Tracker(answer) as tracker:
        return refusal(tracker.url)


# --- what is asked ----------------------------------------------------------------------------------------


def test_every_parameter_is_sent() -> None:
    """Exactly those of BEP 3 and 23, `supportcrypto`, and `key`, `event`, `trackerid` if there is something to tell."""
    url = client(key=0xBEEF).announce_url(PROGRESS, "started", 50, b"a b")
    assert url.startswith("http://tracker.example/announce?info_hash=%00%01%02")
    assert dict(parse_qsl(urlsplit(url).query, encoding="latin-1")) == {
        "info_hash": HASH.decode("latin-1"),
        "peer_id": PEER_ID.decode(),
        "port": "6881",
        "uploaded": "1",
        "downloaded": "22",
        "left": "333",
        "compact": "1",
        "numwant": "50",
        "key": "0000BEEF",
        "supportcrypto": "1",
        "event": "started",
        "trackerid": "a b",
    }


@pytest.mark.parametrize(
    ("mode", "told"),
    [("allow", "supportcrypto"), ("prefer", "supportcrypto"), ("require", "requirecrypto"), ("off", None)],
)
def test_trackers_are_told_whether_we_encrypt(mode: str, told: str | None) -> None:
    """So that those who know tell us of peers that do."""
    url = client(config=Config(encryption=mode)).announce_url(PROGRESS, None, 50)
    assert [name for name, _ in parse_qsl(urlsplit(url).query, encoding="latin-1") if "crypto" in name] == (
        [told] if told else []
    )


def test_a_regular_announce_has_no_event() -> None:
    """Nor a tracker id that was never given."""
    url = client().announce_url(PROGRESS, None, 50)
    assert "event" not in url
    assert "trackerid" not in url


def test_every_byte_is_encoded_so_that_it_comes_back() -> None:
    """Letters, digits and -._~ stand for themselves, all else is %XX: no byte of a hash is ever lost."""
    for value in range(256):
        asking = HttpTrackerClient("http://tracker.example/announce", bytes([value]) * 20, PEER_ID, 6881)
        text = asking.announce_url(PROGRESS, None, 50).partition("info_hash=")[2].partition("&")[0]
        plain = chr(value).isascii() and (chr(value).isalnum() or chr(value) in "-._~")
        assert text == 20 * (chr(value) if plain else f"%{value:02X}")


@pytest.mark.parametrize(
    ("url", "beginning"),
    [
        ("http://t.example/announce?passkey=x", "http://t.example/announce?passkey=x&info_hash="),
        ("http://t.example/announce?", "http://t.example/announce??info_hash="),
        ("http://t.example/a/announce.php", "http://t.example/a/announce.php?info_hash="),
        ("http://t.example/announce#here", "http://t.example/announce?info_hash="),
    ],
)
def test_the_query_is_put_behind_what_the_url_has(url: str, beginning: str) -> None:
    """Private trackers have a key in the URL; what follows a # would never be sent."""
    assert client(url).announce_url(PROGRESS, None, 50).startswith(beginning)


def test_the_announce_arrives_as_it_should() -> None:
    """What a real server reads: path, query byte by byte, who we are, and Config's number of peers."""
    with Tracker(ok(EMPTY)) as tracker:
        client(tracker.url).announce(PROGRESS, "completed")
    (head,) = tracker.requests_seen
    line, *headers = head.decode().split("\r\n")
    assert line.startswith("GET /announce?info_hash=%00%01%02%03%04%05%06%07%08%09%0A%0B%0C%0D%0E%0F%10%11%12%13&")
    assert "&numwant=200&" in line
    assert line.endswith("&event=completed HTTP/1.1")
    assert f"User-Agent: torrent-client/{__version__}" in headers


def test_get_peers_is_the_whole_of_a_lesson() -> None:
    """One call, a list of addresses."""
    answer = bencode_encode({"interval": 900, "peers": b"\x7f\x00\x00\x01\x1a\xe1"})
    with Tracker(ok(answer)) as tracker:
        assert TrackerClient(tracker.url, HASH, PEER_ID, 6881).get_peers() == [PeerAddress("127.0.0.1", 6881)]
    assert b"event=started" in tracker.requests_seen[0]
    assert b"left=1&" in tracker.requests_seen[0]


def test_peer_ids_name_the_client_and_differ() -> None:
    """BEP 20's form, 20 bytes, from the system's randomness unless a seed makes a lesson repeatable."""
    made = {generate_peer_id() for _ in range(50)}
    assert len(made) == 50
    assert all(len(peer_id) == 20 and peer_id.startswith(b"-PC") and peer_id[7:8] == b"-" for peer_id in made)
    assert generate_peer_id(random.Random(1)) == generate_peer_id(random.Random(1))


@pytest.mark.parametrize(("host", "text"), [("10.0.0.1", "10.0.0.1:5"), ("::1", "[::1]:5"), ("a.de", "a.de:5")])
def test_an_address_reads_as_usual(host: str, text: str) -> None:
    """With brackets around IPv6 addresses."""
    assert str(PeerAddress(host, 5)) == text


# --- answers ----------------------------------------------------------------------------------------------


def parse(**fields: object) -> AnnounceResponse:
    """Parse an answer with these fields; underscores stand for spaces."""
    return parse_announce(bencode_encode({key.replace("_", " "): value for key, value in fields.items()}))


def test_a_full_answer_is_read() -> None:
    """Every field that trackers send."""
    answer = parse(
        interval=1800, min_interval=300, complete=5, incomplete=7, tracker_id=b"\xff\x00", warning_message="slow down",
        peers=b"\x0a\x00\x00\x01\x1a\xe1" + b"\x0a\x00\x00\x02\x00\x01",
        peers6=ipaddress.ip_address("2001:db8::7").packed + b"\x1a\xe1",
    )  # fmt: skip
    assert answer == AnnounceResponse(
        peers=(PeerAddress("10.0.0.1", 6881), PeerAddress("10.0.0.2", 1), PeerAddress("2001:db8::7", 6881)),
        interval=1800.0,
        min_interval=300.0,
        seeders=5,
        leechers=7,
        tracker_id=b"\xff\x00",
        warning="slow down",
    )


def test_an_empty_answer_is_read() -> None:
    """Nothing is required: no peers, and BEP 3's usual half hour."""
    assert parse() == AnnounceResponse(peers=(), interval=1800.0)


def test_peers_may_be_a_list_of_dictionaries() -> None:
    """The old form, with names, IPv6 and entries that are of no use."""
    answer = parse(
        peers=[
            {"ip": "10.0.0.1", "port": 1, "peer id": PEER_ID},
            {"ip": "::1", "port": 2},
            {"ip": "peer.example", "port": 3},
            {"ip": "10.0.0.1", "port": 1},
            {"ip": "x", "port": 0},
            {"ip": "x", "port": 65_536},
            {"ip": "", "port": 1},
            {"ip": "x" * 256, "port": 1},
            {"ip": b"\xff", "port": 1},
            {"ip": "\x1b[2J", "port": 1},
            {"ip": "a\0b", "port": 1},
            {"ip": 5, "port": 1},
            {"port": 1},
            "x",
        ]
    )
    assert answer.peers == (PeerAddress("10.0.0.1", 1), PeerAddress("::1", 2), PeerAddress("peer.example", 3))


@pytest.mark.parametrize(
    ("peers", "found"),
    [
        (b"", 0),
        (b"\x0a\x00\x00\x01\x1a", 0),
        (b"\x0a\x00\x00\x01\x1a\xe1\x0a", 1),
        (b"\x0a\x00\x00\x01\x1a\xe1" * 3, 1),
        (b"\x0a\x00\x00\x01\x00\x00", 0),
        (5, 0),
        ({"ip": "10.0.0.1", "port": 1}, 0),
    ],
)
def test_odd_compact_peers_are_survived(peers: object, found: int) -> None:
    """A cut address, the same one again, port 0, something else altogether: what is good is kept."""
    assert len(parse(peers=peers).peers) == found


@pytest.mark.parametrize("value", [-1, "x", [1]])
def test_numbers_that_are_none_are_left_out(value: object) -> None:
    """A wrong count or interval spoils nothing else."""
    peers = b"\x0a\x00\x00\x01\x1a\xe1"
    answer = parse(interval=value, min_interval=value, complete=value, incomplete=value, peers=peers)
    assert (answer.interval, answer.min_interval, answer.seeders, answer.leechers) == (1800.0, 0.0, None, None)
    assert len(answer.peers) == 1


@pytest.mark.parametrize(
    ("retry_in", "seconds"), [(None, None), (5, 300.0), (0, None), (-3, None), ("never", None), (10**9, None)]
)
def test_a_refusal_tells_when_to_try_again(retry_in: object, seconds: float | None) -> None:
    """BEP 31: minutes, if the tracker says so."""
    more = {} if retry_in is None else {"retry_in": retry_in}
    with pytest.raises(TrackerError, match="refused: unknown info hash") as caught:
        parse(failure_reason="unknown info hash", **more)
    assert caught.value.retry_in == seconds


def test_texts_of_a_tracker_are_made_safe() -> None:
    """Reasons and warnings are shown on a terminal: no escape codes, and not without end."""
    with pytest.raises(TrackerError) as caught:
        parse(failure_reason=b"\x1b[2J\x07\xff" + b"x" * 1000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < MAX_REASON_LENGTH + 20
    warning = parse(warning_message=b"\x1b]0;title\x07" + b"x" * 1000).warning
    assert warning is not None
    assert warning.isprintable()
    assert len(warning) <= MAX_REASON_LENGTH


@given(st.binary(max_size=200) | st.builds(bencode_encode, st.dictionaries(
    st.sampled_from([b"peers", b"peers6", b"interval", b"failure reason", b"retry in", b"tracker id", b"complete"]),
    st.integers(-10, 10) | st.binary(max_size=20) | st.lists(st.integers(0, 9), max_size=2)
    | st.lists(st.dictionaries(st.sampled_from([b"ip", b"port"]), st.integers(0, 70_000) | st.binary(max_size=5))),
)))  # fmt: skip
def test_any_answer_is_read_or_refused(body: bytes) -> None:
    """Any bytes give a response whose addresses can be dialled, or a TrackerError."""
    with contextlib.suppress(TrackerError):
        answer = parse_announce(body)
        assert all(peer.host.isprintable() and 0 < peer.port < 65_536 for peer in answer.peers)


# --- HTTP -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        ok(EMPTY),
        b"HTTP/1.1 200 OK\r\n\r\n" + EMPTY,
        b"HTTP/1.0 200 OK\r\nContent-Type: text/html; charset=nonsense\r\n\r\n" + EMPTY,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"
        + EMPTY[:5] + b"\r\n" + f"{len(EMPTY) - 5:x}\r\n".encode() + EMPTY[5:] + b"\r\n0\r\n\r\n",
        ok(gzip.compress(EMPTY), "Content-Encoding: gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
        + f"{len(gzip.compress(EMPTY, mtime=0)):x}\r\n".encode() + gzip.compress(EMPTY, mtime=0) + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + EMPTY,
    ],
    ids=["length", "until closed", "HTTP/1.0", "chunked", "gzip", "chunked gzip", "an answer with an error code"],
)  # fmt: skip
def test_every_way_to_send_an_answer_is_understood(answer: bytes) -> None:
    """Old trackers, proxies, compression."""
    with Tracker(answer) as tracker:
        assert client(tracker.url).announce(PROGRESS).interval == 900.0


def test_a_large_answer_is_read_whole() -> None:
    """Several reads, with and without compression."""
    addresses = b"".join(bytes([10, *divmod(number, 256), 1, 1, 1]) for number in range(40_000))
    answer = bencode_encode({"peers": addresses})
    with Tracker(ok(answer), ok(gzip.compress(answer), "Content-Encoding: gzip")) as tracker:
        for _ in range(2):
            assert len(client(tracker.url).announce(PROGRESS).peers) == 40_000


def test_a_refusal_with_an_error_code_is_told() -> None:
    """The tracker's own words say more than `HTTP 400`."""
    answer = b"HTTP/1.1 403 Forbidden\r\n\r\n" + bencode_encode({"failure reason": "not registered"})
    assert refusal_of(answer) == "refused: not registered"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\nno such page", "HTTP 404 Not Found"),
        (b"HTTP/1.1 503 \x1b[2J\r\n\r\n", "HTTP 503"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "HTTP 302"),
        (ok(b""), "no tracker's"),
        (ok(b"<html>Welcome</html>"), "a web page"),
        (ok(b"le"), "no dictionary"),
        (ok(EMPTY + b"x"), "no tracker's"),
        (b"", "hung up"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nde", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nde\r\n0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nnot gzip", ""),
        (ok(gzip.compress(EMPTY)[:-15], "Content-Encoding: gzip"), ""),
        (b"HTTP/1.1 99999 x\r\n\r\n", ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ""),
        (b"\x13BitTorrent protocol" + bytes(48), ""),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, ""),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", ""),
        (b"\0" * 100_000, ""),
        (redirect("http://["), ""),
        (redirect("http://" + "a" * 64 + "/announce"), ""),
        (redirect("http://tracker.example:99999/announce"), ""),
        (redirect("ftp://tracker.example/announce"), "ftp trackers are not supported"),
        (redirect("file:///etc/passwd"), "file trackers are not supported"),
    ],
)  # fmt: skip
def test_a_broken_server_is_a_tracker_error(answer: bytes, reason: str) -> None:
    """Whatever a server does, the announce thread gets the one error that it expects, fit for a terminal."""
    message = refusal_of(answer)
    assert reason in message
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", redirect("\xff\xfe")])
def test_an_answer_that_confuses_the_library_is_a_tracker_error(answer: bytes) -> None:
    """As above; here requests and urllib3 leave the socket to the garbage collector, which we cannot help."""
    assert refusal_of(answer).isprintable()
    gc.collect()


@pytest.mark.parametrize(
    "url",
    [
        "http://" + "a" * 64 + "/announce",
        "http://a..b/announce",
        "http://.a/announce",
        "http://*/announce",
        "http://a b/announce",
        "http://%zz/announce",
        "http://\u00e9\u0301\u0301.example:1/announce",
        "http://xn--a/announce",
    ],
)
def test_a_name_that_is_none_is_a_tracker_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torrent with a nonsense host must not end the thread that asks its other trackers."""
    real = socket.getaddrinfo

    def offline(host: str, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401  # passed on
        real(host, *arguments, **more | {"flags": socket.AI_NUMERICHOST})
        raise AssertionError("a name was found")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    assert refusal(url).isprintable()


@pytest.mark.parametrize("compressed", [False, True])
def test_an_answer_without_end_is_cut_off(compressed: bool) -> None:
    """The limit is on what it unpacks to: a small bomb is as bad as a large answer."""
    body = b"d5:peers" + bytes(2 * MAX_TRACKER_RESPONSE)
    answer = ok(gzip.compress(body), "Content-Encoding: gzip") if compressed else ok(body)
    assert "longer than" in refusal_of(answer)


# --- dead and slow servers --------------------------------------------------------------------------------


def test_nothing_listens() -> None:
    """The sentence says what it means."""
    assert refusal(f"http://{LOOPBACK}:{closed_port()}/announce") == "connection refused: nothing listens there"


def test_a_server_that_accepts_nothing() -> None:
    """A firewall that drops everything costs the connect time-out and no more."""
    with black_hole() as address:
        begin = time.monotonic()
        assert refusal(f"http://{address}/announce") == "no answer in time"
        assert time.monotonic() - begin < 2


def test_a_server_that_says_nothing() -> None:
    """It costs the read time-out and no more."""
    with FakeServer(say_nothing) as server:
        begin = time.monotonic()
        assert refusal(f"http://{server.address}/announce") == "no answer in time"
        assert time.monotonic() - begin < 2


def test_a_server_that_drips_is_given_up() -> None:
    """A byte now and then is under every time-out for one read; the limit for the whole answer ends it."""

    def drip(peer: FakePeer) -> None:
        read_head(peer)
        peer.send_raw(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(1000):
            peer.send_raw(b"x")
            time.sleep(0.02)  # the slow server itself

    with FakeServer(drip) as server:
        begin = time.monotonic()
        assert refusal(f"http://{server.address}/announce") == "the answer takes too long"
        assert time.monotonic() - begin < 2


def test_a_header_that_drips_is_given_up() -> None:
    """The library waits for each line, and would wait for ever."""

    def drip(peer: FakePeer) -> None:
        read_head(peer)
        peer.send_raw(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(1000):
            peer.send_raw(b"x")
            time.sleep(0.02)  # the slow server itself

    with FakeServer(drip) as server:
        begin = time.monotonic()
        assert refusal(f"http://{server.address}/announce") == "the answer takes too long"
        assert time.monotonic() - begin < 5


def test_a_wait_ends_at_once_when_it_is_aborted() -> None:
    """The end of the program does not wait for a server that says nothing."""
    abort = Abort()
    with FakeServer(say_nothing) as server:
        Timer(0.2, abort.set).start()
        with pytest.raises(TrackerError, match="we are stopping"):
            client(f"http://{server.address}/announce", config=Config()).announce(PROGRESS, abort=abort)


@pytest.mark.parametrize("family", [None, socket.AF_INET, socket.AF_INET6])
def test_a_tracker_is_asked_at_the_kind_of_address_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily | None
) -> None:
    """BEP 7: a tracker with both kinds is asked at both, and names the peers of each."""
    real = socket.getaddrinfo

    def both(host: str, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401  # passed on
        if host != "tracker.example":
            return real(host, *arguments, **more)
        return [*real("127.0.0.1", *arguments, **more), *real("::1", *arguments, **more)]

    with LocalTracker() as over_ipv4:
        port = int(over_ipv4.announce_url.rpartition(":")[2].partition("/")[0])
        with LocalTracker("::1", port):
            monkeypatch.setattr(socket, "getaddrinfo", both)
            asking = client(f"http://tracker.example:{port}/announce")
            assert asking.families() == (socket.AF_INET, socket.AF_INET6)
            asking.announce(PROGRESS, "started", family=family)
            seen = client(f"http://tracker.example:{port}/announce", config=QUICK)
            seen._peer_id = b"-PC0100-another00000"
            hosts = {peer.host for kind in (socket.AF_INET, socket.AF_INET6)
                     for peer in seen.announce(PROGRESS, family=kind).peers if peer.port == 6881}  # fmt: skip
    assert ("::1" in hosts) == (family == socket.AF_INET6)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(b"\xcb\x00\x71\x05", "203.0.113.5"), (ipaddress.ip_address("2001:db8::7").packed, "2001:db8::7"),
     (b"203.0.113.5", "203.0.113.5"), (b"", None), (b"\x1b[2J!", None), (5, None)],
)  # fmt: skip
def test_the_address_that_the_tracker_sees_is_read(value: object, shown: str | None) -> None:
    """BEP 24: packed, as some write it as text; nonsense is left out."""
    assert parse(external_ip=value).external_ip == shown


def test_a_time_limit_replaces_the_usual_one() -> None:
    """The goodbye at the end of the program must not take 40 seconds."""
    with FakeServer(say_nothing) as server:
        begin = time.monotonic()
        with pytest.raises(TrackerError, match="no answer in time"):
            client(f"http://{server.address}/announce", config=Config()).announce(PROGRESS, "stopped", time_limit=0.2)
        assert time.monotonic() - begin < 2


# --- certificates -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a key with a certificate for 127.0.0.1 that nobody has signed."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("certificate") / "tracker.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=x"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", path.with_suffix(".crt")]
    subprocess.run(["openssl", "req", "-x509", *options, *names], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def https_tracker(certificate: Path) -> FakeServer:
    """Return a tracker that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def script(peer: FakePeer) -> None:
        with contextlib.suppress(OSError):  # the client does not trust us
            peer.sock = context.wrap_socket(peer.sock, server_side=True)
            read_head(peer)
            peer.send_raw(ok(EMPTY))

    return FakeServer(script)


def test_an_untrusted_certificate_is_refused(certificate: Path) -> None:
    """Whoever sits between us and a tracker could name us any peers (CVE-2024-51774)."""
    with https_tracker(certificate) as server:
        reason = refusal(f"https://{server.address}/announce")
    assert reason.startswith("its certificate is not trusted: self")


def test_a_trusted_certificate_is_accepted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS trackers work; what is trusted is the system's or the user's choice."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with https_tracker(certificate) as server:
        assert client(f"https://{server.address}/announce").announce(PROGRESS).interval == 900.0


def test_a_server_that_does_not_speak_tls_is_a_tracker_error() -> None:
    """An https URL of an http tracker."""
    with FakeServer(lambda peer: peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        assert refusal(f"https://{server.address}/announce") == "it does not speak TLS as we do"


# --- redirects --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int) -> None:
    """Absolute or relative."""
    with Tracker(redirect("/announce?moved=1", status), ok(EMPTY)) as tracker:
        assert client(tracker.url).announce(PROGRESS).interval == 900.0
    assert tracker.requests_seen[1].startswith(b"GET /announce?moved=1 ")


def test_redirects_without_end_are_given_up() -> None:
    """After five, as libraries and browsers do with some number."""
    with Tracker(redirect("/announce")) as tracker:
        assert refusal(tracker.url) == f"more than {MAX_REDIRECTS} redirects"
    assert len(tracker.requests_seen) == MAX_REDIRECTS + 1


def test_a_redirect_to_another_path_on_this_machine_is_not_followed() -> None:
    """A tracker must not make us talk to other services of this machine."""
    with Tracker(ok(EMPTY)) as service, Tracker(redirect(f"http://{service.address}/shutdown")) as tracker:
        assert "must be at /announce" in refusal(tracker.url)
    assert not service.requests_seen


@pytest.mark.parametrize(
    ("source", "target", "followed"),
    [
        ("public", "public", True),
        ("public", "other-public", True),
        ("public", "private", False),
        ("public", "link-local", False),
        ("public", "mapped", False),
        ("public", "both", False),
        ("private", "private", True),
        ("private", "public", True),
        ("private", "link-local", True),
        ("public", "unknown", True),
    ],
)
def test_no_redirect_leads_from_the_internet_into_a_private_network(
    monkeypatch: pytest.MonkeyPatch, source: str, target: str, followed: bool
) -> None:
    """The addresses of a name decide, all of them; a name that nobody knows cannot be reached anyway."""
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    urls = f"http://{source}.example/announce", f"http://{target}.example/announce"
    if followed:
        assert redirected(*urls) == urls[1]
    else:
        with pytest.raises(TrackerError, match="from a public host to a private one"):
            redirected(*urls)


# --- URLs that a torrent should not have ------------------------------------------------------------------

NAMES = {
    "public": ["93.184.216.34"],
    "other-public": ["2606:2800:220:1::1"],
    "private": ["10.0.0.1"],
    "link-local": ["169.254.169.254"],
    "mapped": ["::ffff:192.168.0.1"],
    "both": ["93.184.216.34", "fd00::1"],
    "loopback": ["127.0.0.1"],
}


def looked_up(host: str, *_arguments: object, **_more: object) -> list[tuple[Any, ...]]:
    """Stand in for the name server."""
    addresses = NAMES.get(host.removesuffix(".example"))
    if addresses is None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "no trackers are not supported"),
        ("tracker.example/announce", "no trackers"),
        ("udp://tracker.example/announce", "no port"),
        ("wss://tracker.example", "wss trackers"),
        ("file:///etc/passwd", "file trackers"),
        ("http:///announce", "no host"),
        ("http://[::1/announce", "not a URL"),
        ("http://tracker.example:99999/announce", "not a URL"),
        ("http://tracker.example:x/announce", "not a URL"),
    ],
)
def test_what_is_no_http_url_is_refused(url: str, reason: str) -> None:
    """In words, before anything is sent."""
    with pytest.raises(TrackerError, match=reason):
        check_tracker_url(url)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.9.9.9",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "user:password@127.0.0.1",
    ],
)
@pytest.mark.parametrize("path", ["", "/", "/admin?x=/announce", "/announce/../admin", "/announce/%2e%2e/admin"])
def test_a_service_on_this_machine_is_not_asked(host: str, path: str) -> None:
    """Whatever a torrent calls this machine and however it writes the path, only /announce is asked."""
    with pytest.raises(TrackerError, match="must be at /announce"):
        check_tracker_url(f"http://{host}:8080{path}")
    check_tracker_url(f"http://{host}:8080/announce")
    check_tracker_url(f"http://{host}:8080/announce.php?passkey=1")


def test_a_public_name_of_this_machine_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker can give 127.0.0.1 any name."""
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    with pytest.raises(TrackerError, match="must be at /announce"):
        check_tracker_url("http://loopback.example/admin")
    check_tracker_url("http://public.example/any/path")
    check_tracker_url("http://unknown.example/any/path")


def test_a_refused_url_is_not_asked() -> None:
    """`announce` itself refuses: nothing arrives."""
    with Tracker(ok(EMPTY)) as tracker:
        assert "must be at /announce" in refusal(tracker.url.replace("/announce", "/admin"))
    assert not tracker.peers


def test_an_address_of_a_kind_that_the_system_lacks_is_passed_over() -> None:
    """A machine without IPv6, and a tracker that has both: what is left is asked."""
    from torrent_client.http_connection import WatchedAdapter

    with socket.create_server((LOOPBACK, 0)) as server:
        good = Endpoint(socket.AF_INET, server.getsockname())
        lacking = Endpoint(socket.AF_UNSPEC, ("2001:db8::1", 80))  # no socket can be of that
        watched: list[socket.socket] = []
        with WatchedAdapter([lacking, good], watched.append, 5.0)._connect() as sock:
            assert sock.getpeername() == server.getsockname()
    for copy in watched:
        copy.close()
