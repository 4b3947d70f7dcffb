"""Our client among peers that misbehave: it gets the whole file from the good one, and does what each advice says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.fake_peer import torrent_of
from tests.support import payload, wait_until
from torrent_client.cli.arguments import BEHAVIOURS as CHOICES
from torrent_client.cli.main import main
from torrent_client.config import Config
from torrent_client.download_manager import DownloadManager
from torrent_client.download_options import DownloadOptions
from torrent_client.errors import StorageError
from torrent_client.misbehaving_peers import BEHAVIOURS, Behaviour, Gallery
from torrent_client.stats import TorrentStats
from torrent_client.tracker_client import PeerAddress

PIECE = 32768
DATA = payload(40 * PIECE + 777)
TORRENT = torrent_of(DATA, piece_length=PIECE)
QUICK = Config(
    handshake_timeout=1.0,
    request_timeout=1.0,
    housekeeping_interval=0.1,
    socket_tick=0.2,
    redial_delays=(60.0,),
)


def read_block(index: int, begin: int, length: int) -> bytes:
    """Return a block of the data."""
    start = index * PIECE + begin
    return DATA[start : start + length]


@contextmanager
def gallery(behaviour: type[Behaviour]) -> Iterator[tuple[PeerAddress, list[str]]]:
    """Run a peer; gives its address and what it says."""
    said: list[str] = []
    peer = Gallery(TORRENT, read_block, behaviour, say=said.append, rng=Random(behaviour.name))
    peer.start()
    try:
        yield PeerAddress("127.0.0.1", peer.port), said
    finally:
        peer.stop()


@contextmanager
def downloading(directory: Path, *peers: PeerAddress) -> Iterator[DownloadManager]:
    """Run our client."""
    manager = DownloadManager(TORRENT, DownloadOptions(directory, given_peers=peers), b"-PC0000-us0000000000", 0, QUICK)
    manager.start()
    try:
        yield manager
    finally:
        manager.stop()


def test_the_command_line_offers_every_behaviour() -> None:
    assert tuple(BEHAVIOURS) == CHOICES


def was_banned(stats: TorrentStats, _said: list[str]) -> bool:
    return stats.banned == 1


def was_left(_stats: TorrentStats, said: list[str]) -> bool:
    return len(said) >= 2


def was_kept(_stats: TorrentStats, _said: list[str]) -> bool:
    return True


EXPECTED: dict[str, Callable[[TorrentStats, list[str]], bool]] = {
    "good": was_kept,
    "corrupt": was_banned,
    "stall": was_kept,
    "choke": was_kept,
    "slow": was_kept,
    "liar": was_kept,
    "flood": was_left,
    "garbage": was_left,
    "silent": was_left,
    "impostor": was_left,
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_the_download_is_whole_whatever_one_of_two_peers_does(name: str, tmp_path: Path) -> None:
    with (
        gallery(BEHAVIOURS[name]) as (bad, said),
        gallery(Behaviour) as (good, _),
        downloading(tmp_path, bad) as manager,
    ):
        wait_until(lambda: bool(said), what="the misbehaving peer was called")
        wait_until(lambda: bool(manager.stats().peers) or len(said) >= 2 or name == "silent")
        manager.swarm.add_addresses([good], "given")
        assert manager.wait(40), manager.stats()
        assert manager.error is None
        wait_until(lambda: EXPECTED[name](manager.stats(), said), what=f"what a good client does about {name}")
        if name == "corrupt":
            assert manager.stats().hash_failures
        if name == "stall":
            assert not manager.stats().wasted
    assert (tmp_path / TORRENT.name).read_bytes() == DATA


def test_a_choking_peer_alone_gives_everything_in_the_end(tmp_path: Path) -> None:
    with gallery(BEHAVIOURS["choke"]) as (peer, _), downloading(tmp_path, peer) as manager:
        assert manager.wait(60), manager.stats()
    assert (tmp_path / TORRENT.name).read_bytes() == DATA


def test_a_liar_is_not_asked_as_fast_as_it_can_refuse(tmp_path: Path) -> None:
    refused: list[int] = []

    class CountingLiar(BEHAVIOURS["liar"]):  # type: ignore[misc]
        def requested(self, talk, request) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
            refused.append(request.piece_index)
            super().requested(talk, request)

    with gallery(CountingLiar) as (peer, _), downloading(tmp_path, peer) as manager:
        wait_until(lambda: len(refused) > 0)
        assert not manager.wait(1.0)
    assert len(refused) <= 2 * len(DATA) // 16384


def test_what_each_does_and_what_to_do_about_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["peer", "--behave", "list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name} " in out for name in BEHAVIOURS)
    assert out.count("A good client") >= len(BEHAVIOURS)


def test_without_a_torrent_the_command_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["peer", "--behave", "slow"]) == 1
    assert "needs a torrent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StorageError("cannot read a.bin: it is gone"), "cannot read a.bin: it is gone"),
        (BrokenPipeError(32, "Broken pipe"), "the caller hung up"),
    ],
)
def test_what_ends_the_conversation_is_told_in_words(error: Exception, told: str, tmp_path: Path) -> None:
    """And no thread ends with a traceback, which the fixtures would report."""

    def vanished(_index: int, _begin: int, _length: int) -> bytes:
        raise error

    said: list[str] = []
    peer = Gallery(TORRENT, vanished, Behaviour, say=said.append)
    peer.start()
    try:
        with downloading(tmp_path, PeerAddress("127.0.0.1", peer.port)):
            wait_until(lambda: len(said) >= 2)
    finally:
        peer.stop()
    assert said[1].endswith(told)
