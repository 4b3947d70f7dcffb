"""Several torrents in one process: what they share, what they may not, and how they end."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_peer import LOOPBACK, FakePeer, Gone, black_hole, fake_id, seeder, serving, torrent_of
from tests.support import payload, wait_until
from torrent_client.config import Config
from torrent_client.download_manager import DownloadManager
from torrent_client.download_options import DownloadOptions
from torrent_client.errors import DataIncomplete, PeerError, SelectionError, StorageError, TorrentConflict
from torrent_client.file_selection import FileSelection
from torrent_client.protocol.messages import Interested, Piece, Request, Unchoke
from torrent_client.resume import ResumeFile
from torrent_client.seeding_goals import SeedingGoals
from torrent_client.session import Job, Session
from torrent_client.stats import TorrentState
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress

CONFIG = Config(listen_port=0, housekeeping_interval=0.05, tracker_stop_timeout=1.0)
SIZE = 100_003


def make(tmp_path: Path, name: str, *, complete: bool = True, seed: int = 0, **options: object) -> Job:
    """Return a job for a torrent in a directory of its own, with its data in place or without."""
    data = payload(SIZE, seed)
    directory = tmp_path / name
    directory.mkdir(exist_ok=True)
    if complete:
        (directory / f"{name}.bin").write_bytes(data)
    torrent = torrent_of(data, name=f"{name}.bin")
    return Job(torrent, DownloadOptions(directory, tmp_path / "state", seed=True)._replace(**options))  # type: ignore[arg-type]


def is_seeding(manager: DownloadManager) -> bool:
    """Tell whether a torrent is complete."""
    return manager.state is TorrentState.COMPLETE


@contextlib.contextmanager
def seeding(*jobs: Job, config: Config = CONFIG) -> Iterator[tuple[Session, list[DownloadManager]]]:
    """Run a session in which all torrents are complete."""
    with Session(config) as session:
        managers = session.add_all(jobs)
        wait_until(lambda: all(map(is_seeding, managers)))
        yield session, managers


def fetch(port: int, torrent: TorrentFile, name: str, length: int = 16_384) -> bytes:
    """Connect, ask for the first block, and leave."""
    with FakePeer.dial(port) as peer:
        peer.shake_hands(torrent.info_hash, fake_id(name))
        peer.send(Interested())
        peer.expect(Unchoke)
        peer.send(Request(0, 0, length))
        return bytes(peer.expect(Piece).block)


def test_one_port_serves_the_torrent_that_a_handshake_names(tmp_path: Path) -> None:
    """Two torrents, one listener; a third info hash is closed on."""
    jobs = [make(tmp_path, "a", seed=1), make(tmp_path, "b", seed=2)]
    with seeding(*jobs) as (session, _):
        for number, job in enumerate(jobs, 1):
            assert fetch(session.port, job.torrent, "peer") == payload(SIZE, number)[:16_384]
        with FakePeer.dial(session.port) as stranger, pytest.raises(Gone):
            stranger.shake_hands(bytes(20))


def test_accepted_connections_of_all_torrents_together_are_limited(tmp_path: Path) -> None:
    """Two connections in all: the third is refused, for whichever torrent, until one of the others leaves."""
    jobs = [make(tmp_path, "a", seed=1), make(tmp_path, "b", seed=2)]
    with seeding(*jobs, config=CONFIG._replace(max_peers_total=2)) as (session, _):
        first, second = FakePeer.dial(session.port), FakePeer.dial(session.port)
        with second:
            with first:
                first.shake_hands(jobs[0].torrent.info_hash, fake_id("first"))
                second.shake_hands(jobs[1].torrent.info_hash, fake_id("second"))
                for job in jobs:
                    with FakePeer.dial(session.port) as third, pytest.raises(Gone):
                        third.shake_hands(job.torrent.info_hash, fake_id("third"))
            wait_until(lambda: session._slots._value == 1)
            assert fetch(session.port, jobs[1].torrent, "third")


def test_dialled_connections_count_as_well_and_a_torrent_says_what_it_waits_for(tmp_path: Path) -> None:
    """One torrent's only connection leaves none for the other, which does not dial until it is free."""
    slow = make(tmp_path, "slow", complete=False, seed=1)
    with black_hole() as hole, serving(seeder(torrent_of(payload(SIZE, 2), name="b.bin"), payload(SIZE, 2))) as servers:
        slow = Job(slow.torrent, slow.options._replace(given_peers=(hole,)))
        config = CONFIG._replace(max_peers_total=1, connect_timeout=1.0)
        with Session(config) as session:
            session.add(*slow)
            wait_until(lambda: session._slots._value == 0)
            job = make(tmp_path, "b", complete=False, seed=2, given_peers=(servers[0].address,))
            waiting = session.add(*job)
            wait_until(lambda: "in use by other torrents" in (waiting.stats().waiting_for or ""))
            assert not servers[0].peers
            wait_until(lambda: is_seeding(waiting), 5)


def test_a_torrent_has_limits_of_its_own_within_those_of_all(tmp_path: Path) -> None:
    """Its snapshot tells its own, and those of all hold for it as well, until they are lifted."""
    jobs = [make(tmp_path, "a", seed=1, max_upload_rate=20_000.0), make(tmp_path, "b", seed=2)]
    with seeding(*jobs, config=CONFIG._replace(max_upload_rate=50_000.0)) as (session, managers):
        assert [manager.stats().max_upload_rate for manager in managers] == [20_000.0, 0.0]
        assert [manager.stats().max_download_rate for manager in managers] == [0.0, 0.0]
        assert [manager.limits.upload.quantum() for manager in managers] == [16_384, 16_384]
        assert managers[1].limits.upload.is_limited
        session.limits.upload.set_rate(0)
        assert not managers[1].limits.upload.is_limited


def test_the_end_saves_each_torrent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the files were synced, and not also before: each time costs a wait for the disk."""
    synced: list[bool] = []
    save = ResumeFile.save

    def noted(*arguments: Any, **options: Any) -> None:  # noqa: ANN401  # passed on
        synced.append(options["synced"])
        save(*arguments, **options)

    monkeypatch.setattr(ResumeFile, "save", noted)
    with seeding(make(tmp_path, "a", seed=1), make(tmp_path, "b", seed=2)):
        pass
    assert synced == [True, True]


def test_slots_come_back_from_addresses_that_do_not_answer(tmp_path: Path) -> None:
    """Whatever ends a connection frees its place."""
    addresses = tuple(PeerAddress(LOOPBACK, port) for port in range(1, 40))
    with Session(CONFIG) as session:
        manager = session.add(*make(tmp_path, "a", complete=False, given_peers=addresses))
        wait_until(lambda: manager.swarm.pool.counts()[0] == len(addresses) and manager.swarm.connecting == 0)
        wait_until(lambda: session._slots._value == CONFIG.max_peers_total)


def test_the_same_torrent_twice_is_refused_before_anything_begins(tmp_path: Path) -> None:
    """Not even the first one is started."""
    job = make(tmp_path, "a")
    with Session(CONFIG) as session:
        with pytest.raises(TorrentConflict, match=r"a\.bin is given twice"):
            session.add_all([job, make(tmp_path, "a")])
        assert not session._torrents
        session.add(*job)
        with pytest.raises(TorrentConflict):
            session.add(*job)


def test_a_torrent_that_cannot_start_owns_nothing(tmp_path: Path) -> None:
    """A slip in the choice of files can be mended, and nothing of the others has begun."""
    job, other = make(tmp_path, "a"), make(tmp_path, "b", seed=1)
    wrong = Job(job.torrent, job.options._replace(files=FileSelection(selected=((9, 9),))))
    with Session(CONFIG) as session:
        with pytest.raises(SelectionError):
            session.add_all([other, wrong])
        assert not session._torrents
        assert len(session.add_all([other, job])) == 2


def test_two_torrents_that_would_write_one_file_are_refused(tmp_path: Path) -> None:
    """The same name in the same directory, though named another way; in another directory it is fine."""
    one, other = make(tmp_path, "a", seed=1), make(tmp_path, "a", seed=2)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    other = Job(other.torrent, other.options._replace(output=tmp_path / "link"))
    elsewhere = Job(other.torrent, other.options._replace(output=tmp_path / "elsewhere"))
    with Session(CONFIG) as session:
        with pytest.raises(TorrentConflict, match="would write the same file"):
            session.add_all([one, other])
        session.add_all([one, elsewhere])


def test_two_torrents_may_read_one_file(tmp_path: Path) -> None:
    """Seeding the same data under two info hashes is fine, since neither writes."""
    one = make(tmp_path, "a", read_only=True)
    other = Job(torrent_of(payload(SIZE), 16_384, name="a.bin"), one.options)
    with seeding(one, other) as (_, managers):
        assert all(map(is_seeding, managers))


def test_all_torrents_stop_at_the_same_time(tmp_path: Path) -> None:
    """Eight trackers that never answer cost the time of one."""
    with black_hole() as hole:
        jobs = []
        for number in range(8):
            job = make(tmp_path, f"t{number}", complete=False, seed=number)
            tracked = job.torrent._replace(trackers=((f"http://{hole}/announce",),))
            jobs.append(Job(tracked, job.options))
        session = Session(CONFIG)
        session.start()
        managers = session.add_all(jobs)
        wait_until(lambda: all(m.discovery.trackers()[0].state == "asking" for m in managers))
        begin = time.monotonic()
        session.stop()
        assert time.monotonic() - begin < 3


def test_an_error_of_one_torrent_does_not_stop_another(tmp_path: Path) -> None:
    """A directory in a file's place is that torrent's own trouble."""
    bad = make(tmp_path, "bad", complete=False)
    (bad.options.output / "bad.bin").mkdir()
    with Session(CONFIG) as session:
        broken, good = session.add_all([bad, make(tmp_path, "good", seed=1)])
        wait_until(lambda: broken.is_over and is_seeding(good))
        assert isinstance(broken.error, StorageError)
        assert not good.is_over


def test_a_ratio_ends_seeding_and_survives_a_restart(tmp_path: Path) -> None:
    """Half a block in the first run and half in the second make up the goal."""
    goals = SeedingGoals(ratio=20_000 / SIZE)
    job = make(tmp_path, "a", goals=goals)
    with seeding(job) as (session, (manager,)):
        fetch(session.port, job.torrent, "first")
        wait_until(lambda: manager.stats().uploaded == 16_384)
        assert manager.goal_reached is None
        assert manager.stats().seeding
    with seeding(job) as (session, (manager,)):
        assert manager.stats().ratio == pytest.approx(16_384 / SIZE)
        fetch(session.port, job.torrent, "second")
        wait_until(lambda: manager.is_over)
        stats = manager.stats()
        assert (stats.uploaded, stats.seeding, stats.state) == (16_384, False, TorrentState.COMPLETE)
        assert stats.ratio == pytest.approx(2 * 16_384 / SIZE)
        with pytest.raises((Gone, PeerError)):
            fetch(session.port, job.torrent, "third")
    (state,) = (tmp_path / "state").glob("*.json")
    assert json.loads(state.read_text())["uploaded"] == 2 * 16_384


def test_a_time_ends_seeding(tmp_path: Path) -> None:
    """Nobody came, and it ends all the same."""
    with seeding(make(tmp_path, "a", goals=SeedingGoals(seconds=0.2))) as (_, (manager,)):
        wait_until(lambda: manager.is_over)
        assert "seeded" in (manager.goal_reached or "")


def read_only_cases() -> list[tuple[str, Callable[[Path], object]]]:
    """Return ways in which data is not complete."""
    return [
        ("shorter", lambda path: path.write_bytes(payload(SIZE)[:-1])),
        ("wrong", lambda path: path.write_bytes(bytes(1) + payload(SIZE)[1:])),
        ("absent", lambda path: path.unlink()),
    ]


@pytest.mark.parametrize("case", read_only_cases(), ids=lambda case: case[0])
def test_read_only_data_that_is_not_complete_is_refused_and_left_alone(
    case: tuple[str, Callable[[Path], object]], tmp_path: Path
) -> None:
    """No file is made, made longer or changed."""
    job = make(tmp_path, "a", read_only=True)
    path = job.options.output / "a.bin"
    case[1](path)
    before = path.read_bytes() if path.exists() else None
    with Session(CONFIG) as session:
        manager = session.add(*job)
        wait_until(lambda: manager.is_over)
        assert isinstance(manager.error, DataIncomplete)
        assert "pieces are good" in str(manager.error)
    assert (path.read_bytes() if path.exists() else None) == before


def test_renamed_data_of_a_folder_is_served(tmp_path: Path) -> None:
    """The torrent's top folder is called otherwise on disk; the names below it stay."""
    files = {"sub/one": payload(40_000, 1), "two": payload(30_000, 2)}
    torrent = torrent_of(files, name="album").stored_as("renamed")
    for name, data in files.items():
        path = tmp_path / "renamed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with seeding(Job(torrent, DownloadOptions(tmp_path, seed=True, read_only=True))) as (session, _):
        assert fetch(session.port, torrent, "peer") == files["sub/one"][:16_384]
