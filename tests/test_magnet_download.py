"""A magnet link from its text to its files: what is kept between runs, and what is said meanwhile."""

import os
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import pytest

from tests.fake_peer import LOOPBACK, torrent_of
from tests.support import payload, wait_until
from torrent_client.config import Config
from torrent_client.download_options import DownloadOptions
from torrent_client.magnet import MagnetLink
from torrent_client.magnet_download import MagnetDownload
from torrent_client.session import Job, Session
from torrent_client.stats import TorrentState
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress
from torrent_client.views import summary_line

CONFIG = Config(listen_port=0, housekeeping_interval=30.0, tracker_stop_timeout=1.0, lsd=False, dht=False)
"""With ticks so far apart that nothing works which waits for one."""

DATA = payload(100_003)


@pytest.fixture
def torrent() -> TorrentFile:
    """Return a torrent of one file."""
    return torrent_of(DATA, name="a.bin")


@pytest.fixture
def seed(tmp_path: Path, torrent: TorrentFile) -> Iterator[PeerAddress]:
    """Seed it, and return where."""
    directory = tmp_path / "seed"
    directory.mkdir()
    (directory / "a.bin").write_bytes(DATA)
    with Session(CONFIG) as session:
        manager = session.add(torrent, DownloadOptions(directory, seed=True))
        wait_until(lambda: manager.state is TorrentState.COMPLETE)
        yield PeerAddress(LOOPBACK, session.port)


def run(tmp_path: Path, link: MagnetLink, **options: object) -> MagnetDownload:
    """Run a link until it is over, with a state directory, and return what it was."""
    choices = DownloadOptions(tmp_path / "out", tmp_path / "state")._replace(**options)  # type: ignore[arg-type]
    with Session(CONFIG) as session:
        download = session.add(link, choices)
        assert isinstance(download, MagnetDownload)
        wait_until(lambda: download.is_over)
    assert download.error is None
    return download


def kept(tmp_path: Path, torrent: TorrentFile) -> Path:
    """Return where the metadata is kept for the next run."""
    return tmp_path / "state" / f"{torrent.info_hash.hex()}.torrent"


def test_both_stages_dial_at_once(tmp_path: Path, torrent: TorrentFile, seed: PeerAddress) -> None:
    """A link with a peer in it need not wait for a tick of housekeeping, neither at first nor between the stages."""
    run(tmp_path, MagnetLink(torrent.info_hash, peers=(seed,)))
    assert (tmp_path / "out/a.bin").read_bytes() == DATA


def test_metadata_that_was_kept_and_is_spoilt_is_replaced(
    tmp_path: Path, torrent: TorrentFile, seed: PeerAddress, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would be fetched in every run."""
    path = kept(tmp_path, torrent)
    path.parent.mkdir()
    path.write_bytes(b"garbage")
    run(tmp_path, MagnetLink(torrent.info_hash, peers=(seed,)), metadata_only=True)
    assert "it is fetched again" in caplog.text
    assert TorrentFile.from_file(path).info == torrent.info
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    caplog.clear()
    run(tmp_path, MagnetLink(torrent.info_hash), metadata_only=True)
    assert not caplog.text


def test_what_has_a_name_is_called_by_it(tmp_path: Path, torrent: TorrentFile, seed: PeerAddress) -> None:
    """Until then a link is called by its info hash; nobody wants to read of 100 % of nothing."""
    link = MagnetLink(torrent.info_hash, peers=(seed,))
    stats = run(tmp_path, link, metadata_only=True).stats()
    assert summary_line(stats) == "a.bin: the metadata is there"


def test_the_torrent_is_saved_under_a_name_that_is_free_whatever_has_the_first_one(
    tmp_path: Path, torrent: TorrentFile, seed: PeerAddress
) -> None:
    """Nobody ever writes into that pipe, so that reading it would take for ever."""
    link, out = MagnetLink(torrent.info_hash, peers=(seed,)), tmp_path / "out"
    out.mkdir()
    os.mkfifo(out / "a.bin.torrent")
    for _ in range(2):
        saved_as = run(tmp_path, link, metadata_only=True, save_torrent=True).saved_as
        assert saved_as is not None
        assert TorrentFile.from_file(saved_as).info == torrent.info
    (out / "a.bin.torrent").unlink()
    assert run(tmp_path, link, metadata_only=True, save_torrent=True).saved_as == out / "a.bin.torrent"
    assert run(tmp_path, link, metadata_only=True, save_torrent=True).saved_as == out / "a.bin.torrent"


def test_the_limits_hold_for_the_metadata_as_well(
    tmp_path: Path, torrent: TorrentFile, seed: PeerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have 10 MiB, and a peer may send more than that, unasked."""
    booked: list[int] = []
    with Session(CONFIG) as session:
        options = DownloadOptions(tmp_path / "o", metadata_only=True)
        download = session._download(Job(MagnetLink(torrent.info_hash, peers=(seed,)), options))
        monkeypatch.setattr(download.limits.download, "book", lambda count: booked.append(count) or 0.0)
        download.start()
        try:
            wait_until(lambda: download.is_over)
        finally:
            download.stop()
    assert sum(booked) > len(torrent.info)


def test_who_lied_about_the_metadata_stays_banned(tmp_path: Path, torrent: TorrentFile, seed: PeerAddress) -> None:
    """In the download itself, too, which is a swarm of its own."""
    liar = PeerAddress("192.0.2.9", 7)
    with Session(CONFIG) as session:
        download = session._download(Job(MagnetLink(torrent.info_hash, peers=(seed,)), DownloadOptions(tmp_path / "o")))
        assert isinstance(download, MagnetDownload)
        download._stage.swarm.ban([liar], "it lied")
        download.start()
        try:
            wait_until(lambda: download.is_over)
            assert download.stats().banned == 1
        finally:
            download.stop()


def test_given_peers_are_known_from_the_beginning(tmp_path: Path) -> None:
    """Nobody is told that no peer was given before the first thread runs."""
    with Session(CONFIG) as session:
        link = MagnetLink(sha1(b"").digest(), peers=(PeerAddress("192.0.2.1", 5),))
        download = session._download(Job(link, DownloadOptions(tmp_path)))
        assert download.stats().known_peers == 1
