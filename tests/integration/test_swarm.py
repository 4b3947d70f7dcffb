"""Swarms from one seed: the pieces spread among the leechers, ours and other people's."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.real_peers import (
    MadeTorrent,
    Tracker,
    aria2_leech,
    free_port,
    libtorrent_leech,
    make_torrent,
    opentracker,
)
from tests.support import ClientProcess, payload, running_client, running_command, wait_until

KIB = 1024
MIB = 1024 * KIB
TIMEOUT = 60.0  # seconds, for a swarm on a busy machine
COPIES_AT_MOST = 2.2
"""That a slow seed sends to five leechers. Usually 1.5 to 1.7, as each leecher asks for three seconds' worth ahead and
cannot know what the others have asked for; libtorrent sends 2.1. Leechers that keep to themselves would make it 5."""


def our_seed(
    tmp_path: Path, torrent: MadeTorrent, *options: str, rate: int = 0
) -> contextlib.AbstractContextManager[ClientProcess]:
    """Seed with our client, at most `rate` bytes per second, as if on a machine of its own."""
    home = tmp_path / "seed"
    home.mkdir()
    data = torrent.directory / torrent.name
    limit = ("--max-torrent-upload-rate", str(rate))
    return running_command(home, "seed", torrent.path, "--data", data, "--port", "0", *limit, *options)


def address_of(client: ClientProcess) -> str:
    """Return where our client listens, as it tells its user."""
    marker = "listening on port "

    def told() -> str:
        return client.log.read_text().partition(marker)[2].partition("\n")[0]

    wait_until(lambda: told().isdigit(), 20, "a port told")
    return f"127.0.0.1:{told()}"


@contextlib.contextmanager
def our_leechers(
    tmp_path: Path, torrent: MadeTorrent, count: int, seed: str
) -> Iterator[tuple[list[ClientProcess], list[Path]]]:
    """Start leechers that stay when they are complete; each knows the seed and those before it.

    Yields the processes, and where each downloads to.
    """
    ports = [free_port() for _ in range(count)]
    addresses = [seed, *(f"127.0.0.1:{port}" for port in ports)]
    with ExitStack() as stack:
        clients, folders = [], []
        for number, port in enumerate(ports):
            home = tmp_path / f"leecher-{number}"
            home.mkdir()
            peers = [word for address in addresses[: number + 1] for word in ("--peer", address)]
            command = running_client(home, torrent.path, home / "out", "--seed", "--port", str(port), *peers)
            clients.append(stack.enter_context(command))
            folders.append(home / "out")
        yield clients, folders


def is_complete(client: ClientProcess) -> bool:
    """Tell whether a client has everything; fail when it has ended."""
    assert client.process.poll() is None, client.log_tail()
    return any(report["state"] == "complete" for report in client.reports())


def end(clients: Sequence[ClientProcess]) -> list[int]:
    """Wait until all are complete, let them end, and return what each has uploaded, in bytes."""
    wait_until(lambda: all(map(is_complete, clients)), TIMEOUT, "everybody complete")
    return stop(clients)


def stop(clients: Sequence[ClientProcess]) -> list[int]:
    """Let clients end by SIGTERM, and return what each has uploaded, in bytes."""
    for client in clients:
        client.process.terminate()
    for client in clients:
        client.wait(10)
    return [client.last_report()["uploaded"] for client in clients]


def test_the_pieces_of_a_slow_seed_spread_among_the_leechers(tmp_path: Path) -> None:
    """The seed sends far less than a copy to each: rarest first makes them ask for different pieces, and trade."""
    torrent = make_torrent(tmp_path, payload(5 * MIB), 16 * KIB)
    with (
        our_seed(tmp_path, torrent, rate=MIB) as seed,
        our_leechers(tmp_path, torrent, 5, address_of(seed)) as (leechers, folders),
    ):
        uploads = end(leechers)
        (given,) = stop([seed])
        assert seed.last_report()["max_upload_rate"] == MIB
    for folder in folders:
        torrent.assert_content_in(folder)
    assert torrent.size <= given < COPIES_AT_MOST * torrent.size
    assert all(uploads), f"somebody gave nothing: {uploads}"
    assert given + sum(uploads) >= 5 * torrent.size


def test_a_super_seed_sends_hardly_more_than_one_copy(tmp_path: Path) -> None:
    """It shows each leecher other pieces, so that they must get the rest from each other (BEP 16)."""
    torrent = make_torrent(tmp_path, payload(2 * MIB), 16 * KIB)
    with (
        our_seed(tmp_path, torrent, "--super-seed", rate=2 * MIB) as seed,
        our_leechers(tmp_path, torrent, 4, address_of(seed)) as (leechers, folders),
    ):
        uploads = end(leechers)
        (given,) = stop([seed])
    for folder in folders:
        torrent.assert_content_in(folder)
    assert torrent.size <= given < 1.5 * torrent.size
    assert all(uploads), f"somebody gave nothing: {uploads}"


def test_six_of_ours_download_64_mib_from_one_seed(tmp_path: Path) -> None:
    """As fast as they can, and every file is right."""
    torrent = make_torrent(tmp_path, payload(64 * MIB), 256 * KIB)
    with (
        our_seed(tmp_path, torrent) as seed,
        our_leechers(tmp_path, torrent, 6, address_of(seed)) as (leechers, folders),
    ):
        uploads = end(leechers)
        (given,) = stop([seed])
    for folder in folders:
        torrent.assert_content_in(folder)
        (folder / torrent.name).unlink()  # pytest keeps the folders of three runs
    assert given < 4 * torrent.size
    assert sum(uploads) > 2 * torrent.size


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[tuple[MadeTorrent, Tracker]]:
    """Return a torrent, and the tracker that it names."""
    torrent = make_torrent(tmp_path, payload(3 * MIB), 32 * KIB)
    with opentracker(tmp_path, torrent) as tracker:
        yield torrent.with_trackers(tracker.announce_url), tracker


def test_we_and_libtorrent_and_aria2_share_one_slow_seed(
    mixed: tuple[MadeTorrent, Tracker], tmp_path: Path, downloads: Path
) -> None:
    """All end with the same bytes, and ours have given some of them to others."""
    torrent, tracker = mixed
    with (
        ThreadPoolExecutor(2) as executor,
        our_seed(tmp_path, torrent, rate=600 * KIB) as seed,
        our_leechers(tmp_path, torrent, 2, address_of(seed)) as (leechers, folders),
    ):
        tracker.wait_for_seeders(torrent)
        others = [
            executor.submit(libtorrent_leech, tmp_path, torrent, downloads / "libtorrent", [], TIMEOUT),
            executor.submit(aria2_leech, tmp_path, torrent, downloads / "aria2", TIMEOUT),
        ]
        for other in others:
            other.result()
        wait_until(lambda: all(map(is_complete, leechers)), TIMEOUT, "ours complete")
        uploads = stop(leechers)
        (given,) = stop([seed])
    for folder in (*folders, downloads / "libtorrent", downloads / "aria2"):
        torrent.assert_content_in(folder)
    assert sum(uploads) > 0
    assert given < 4 * torrent.size
