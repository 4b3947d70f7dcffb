"""Task 5: Implement Tracker Request."""

from typing import Any

from tests.milestones.lesson import Torrent, Tracker, encode, made_up, make_torrent, shown
from tests.milestones.student import Student, Surprise, Task, as_address

TASK = Task(
    5,
    "Implement Tracker Request",
    "Contact the tracker to get list of peers",
    "TrackerClient class with `get_peers()` method",
    """\
tracker_client.py
    class TrackerClient:
        def __init__(self, ...): ...       # any of: torrent, announce_url, info_hash, peer_id, port, length
        def get_peers(self):
            '''Announce ourselves; return a list of (ip, port).'''
        interval                           # seconds, after get_peers()""",
    "`requests.get(url, params={...})` encodes bytes values as a tracker wants them. The answer is bencoded; "
    "cut `peers` "
    "into 6 bytes each: `socket.inet_ntoa(part[:4])`, and the port is two bytes, the high one first.",
)

TRACKERS = 'BEP 3, section "trackers"'
COMPACT = "BEP 23"


def client_of(student: Student, torrent: Torrent) -> Any:
    """Return the student's TrackerClient."""
    return student.call(
        student.find("tracker_client", "TrackerClient"),
        path=str(torrent.path),
        torrent=student.torrent(torrent),
        announce=torrent.announce,
        info_hash=torrent.info_hash,
        peer_id=student.peer_id(),
        length=len(torrent.data),
        port=6881,
    )


def test_the_request(student: Student) -> None:
    """The GET request has every parameter."""
    with Tracker() as tracker:
        torrent = make_torrent(student.folder, made_up(100_000), tracker.url)
        with student.rule("get_peers() sends an HTTP GET to the announce URL", TRACKERS):
            client = client_of(student, torrent)
            student.method(client, "get_peers")()
            student.expect(tracker.requests, "no request came to the tracker")
    sent = tracker.requests[0]
    for name, value in (
        ("info_hash", torrent.info_hash),
        ("peer_id", None),
        ("port", b"6881"),
        ("uploaded", b"0"),
        ("downloaded", b"0"),
        ("left", b"%d" % len(torrent.data)),
        ("compact", b"1"),
        ("event", b"started"),
    ):
        wanted = {"info_hash": "the 20 bytes of the info hash, percent-encoded", "peer_id": "our 20 bytes"}
        means = wanted.get(name) or f"{(value or b'').decode()} here"
        with student.rule(
            f"the request has the parameter `{name}`, {means}", COMPACT if name == "compact" else TRACKERS
        ):
            student.expect(name in sent, f"it has only {', '.join(sorted(sent))}")
            is_right = len(sent[name]) == 20 if value is None else sent[name] == value
            student.expect(is_right, f"`{name}` came as {shown(sent[name])}")


def test_the_peers_of_the_answer(student: Student) -> None:
    """Compact peers become addresses, and the interval is kept."""
    with Tracker() as tracker:
        tracker.peers = [("192.168.1.100", 6881), ("10.0.0.54", 51234), ("203.0.113.255", 80)]
        torrent = make_torrent(student.folder, made_up(100_000), tracker.url)
        with student.rule("each peer is 6 bytes: an IPv4 address, and a port with the high byte first", COMPACT):
            client = client_of(student, torrent)
            got = student.method(client, "get_peers")()
            answer = got
            if isinstance(got, dict):
                got = got.get("peers")
            if not isinstance(got, list | tuple):
                raise Surprise(f"get_peers() gave {shown(got)}, which is no list")
            student.expect([as_address(peer) for peer in got] == tracker.peers, f"get_peers() gave {shown(got, 200)}")
        with student.rule("the answer's `interval` says after how many seconds to ask again, here 1800", TRACKERS):
            if isinstance(answer, dict) and "interval" in answer:
                interval = answer["interval"]
            else:
                interval = student.attribute(client, "interval")
            student.expect(interval == 1800, f"TrackerClient.interval is {shown(interval)}")


def test_a_tracker_that_refuses(student: Student) -> None:
    """A `failure reason` is no list of peers."""
    with Tracker(encode({"failure reason": "unknown torrent"})) as tracker:
        torrent = make_torrent(student.folder, made_up(100_000), tracker.url)
        with student.rule("an answer with `failure reason` has no peers: raise an exception or return []", TRACKERS):
            client = client_of(student, torrent)
            student.refuses(student.method(client, "get_peers"), "get_peers()")
