"""The smallest client, against scripted peers."""

import threading

import pytest

from tests.fake_peer import FakePeer, Script, fake_id, greet, seeder, serve, serving, torrent_of
from tests.support import payload
from torrent_client import plain_client
from torrent_client.config import BLOCK_SIZE
from torrent_client.errors import StorageError, TorrentError, TrackerError
from torrent_client.local_tracker import LocalTracker
from torrent_client.plain_client import PlainClient, find_peers
from torrent_client.protocol.messages import Choke, Have, Interested, Message, Request, Unchoke
from torrent_client.tracker_client import Progress, TrackerClient

DATA = payload(5 * 2 * BLOCK_SIZE + 7)
TORRENT = torrent_of(DATA)
OUR_ID = fake_id("ours")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second round comes at once."""
    monkeypatch.setattr(plain_client, "ROUND_PAUSE", 0.0)


def fetched(*scripts: Script, wanted: list[int] | None = None) -> dict[int, bytes]:
    """Return the pieces that the client gets from peers with these scripts."""
    got: dict[int, bytes] = {}

    def store(index: int, data: memoryview) -> None:
        assert index not in got, "a piece is stored once"
        got[index] = bytes(data)

    with serving(*scripts) as servers:
        PlainClient(TORRENT, OUR_ID, store, wanted).fetch([server.address for server in servers])
    return got


def together(got: dict[int, bytes]) -> bytes:
    """Return the pieces in their order."""
    return b"".join(got[index] for index in sorted(got))


def test_it_gets_everything_from_one_peer() -> None:
    """The last piece of 7 bytes included."""
    assert together(fetched(seeder(TORRENT, DATA))) == DATA


def test_it_gets_the_wanted_pieces_only() -> None:
    """`download_piece` wants one."""
    got = fetched(seeder(TORRENT, DATA), wanted=[3])
    assert got == {3: DATA[3 * TORRENT.piece_length : 4 * TORRENT.piece_length]}


def test_it_puts_together_what_several_peers_have() -> None:
    """None of them has everything."""
    got = fetched(seeder(TORRENT, DATA, pieces=[0, 1, 2]), seeder(TORRENT, DATA, name="b", pieces=[3, 4, 5]))
    assert together(got) == DATA


def test_what_it_says_is_in_the_order_of_a_lesson() -> None:
    """No reserved bit, then `interested` once the peer has something, then requests once it unchokes."""
    said: list[Message] = []
    reserved: list[bytes] = []

    def script(peer: FakePeer) -> None:
        greet(peer, TORRENT)
        assert peer.handshake_seen is not None
        reserved.append(peer.handshake_seen.reserved)
        assert isinstance(peer.next_message(), Interested)
        peer.read_until_quiet()
        said.extend(peer.transcript)
        peer.send(Unchoke())
        serve(peer, TORRENT, DATA)

    assert together(fetched(script)) == DATA
    assert reserved == [bytes(8)]
    assert said == [Interested()]


def test_it_is_not_put_off_by_a_choke() -> None:
    """What was asked for before it is asked for again after it."""

    def script(peer: FakePeer) -> None:
        greet(peer, TORRENT, pieces=[])
        peer.send(*(Have(index) for index in range(TORRENT.piece_count)), Unchoke())
        peer.expect(Request)
        peer.send(Choke(), Unchoke())
        serve(peer, TORRENT, DATA)

    assert together(fetched(script)) == DATA


def test_a_peer_that_was_cut_off_is_tried_again() -> None:
    """The first connection of this one ends after a block."""
    calls = iter(range(10))

    def script(peer: FakePeer) -> None:
        if next(calls) == 0:
            greet(peer, TORRENT)
            peer.send(Unchoke())
            peer.expect(Request)
            return
        seeder(TORRENT, DATA)(peer)

    assert together(fetched(script)) == DATA


def test_a_bad_piece_is_not_stored_and_the_other_peer_gives_it() -> None:
    """The hash decides."""
    got = fetched(seeder(TORRENT, DATA, corrupt=[2], pieces=[2]), seeder(TORRENT, DATA, name="good"))
    assert together(got) == DATA


def test_peers_that_send_bad_pieces_only_end_in_an_error_that_says_so() -> None:
    """A sentence with the peer's address."""
    with pytest.raises(TorrentError, match=r"127\.0\.0\.1:\d+: it sent piece 0 with a bad hash"):
        fetched(seeder(TORRENT, DATA, corrupt=[0]), wanted=[0])


def test_no_peers_is_an_error() -> None:
    """There is nothing to wait for."""
    with pytest.raises(TorrentError, match="there are no peers"):
        fetched()


def test_a_piece_that_cannot_be_kept_ends_the_download() -> None:
    """Not only that peer's connection."""

    def store(_index: int, _data: memoryview) -> None:
        raise StorageError("the disk is full")

    with serving(seeder(TORRENT, DATA)) as (server,), pytest.raises(StorageError, match="full"):
        PlainClient(TORRENT, OUR_ID, store).fetch([server.address])


def test_it_leaves_nothing_behind_when_it_has_enough() -> None:
    """A peer that says nothing would keep its worker for two minutes."""
    silent = threading.Event()

    def script(peer: FakePeer) -> None:
        greet(peer, TORRENT)
        silent.set()
        peer.read_until_gone()

    def waiting(peer: FakePeer) -> None:
        assert silent.wait(10)
        seeder(TORRENT, DATA, name="b")(peer)

    assert together(fetched(script, waiting)) == DATA
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("peer")]


# --- trackers ---------------------------------------------------------------------------------------------


def test_the_next_tracker_is_asked_when_one_fails() -> None:
    """Tiers and all that is in them, in order."""
    with LocalTracker() as tracker:
        other = TrackerClient(tracker.announce_url, TORRENT.info_hash, fake_id("seed"), 7001)
        other.announce(Progress(0, 0, 0), "started")
        tiers = [["http://127.0.0.1:9/announce"], [tracker.announce_url]]
        assert [str(peer) for peer in find_peers(tiers, TORRENT.info_hash, OUR_ID, 1)] == ["127.0.0.1:7001"]


def test_the_tracker_is_left_again() -> None:
    """We serve nothing, so that nobody should be told of us."""
    with LocalTracker() as tracker:
        other = TrackerClient(tracker.announce_url, TORRENT.info_hash, fake_id("seed"), 7001)
        other.announce(Progress(0, 0, 0), "started")
        assert find_peers([[tracker.announce_url]], TORRENT.info_hash, OUR_ID, 1)
        assert other.announce(Progress(0, 0, 0)).leechers == 0


def test_when_all_trackers_fail_the_error_names_each() -> None:
    """Else nobody knows which one to mend."""
    with pytest.raises(TrackerError, match="announce: connection refused"):
        find_peers([["http://127.0.0.1:9/announce"]], TORRENT.info_hash, OUR_ID, 1)


def test_no_tracker_is_an_error() -> None:
    """The torrent names none."""
    with pytest.raises(TrackerError, match="no tracker"):
        find_peers([], TORRENT.info_hash, OUR_ID, 1)
