"""The doctor with real peers: what it says of seeders, trackers and a DHT that work, and of those that have died."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.real_peers import (
    MadeTorrent,
    aria2_seeder,
    libtorrent_seeder,
    make_torrent,
    opentracker,
    rtorrent_seeder,
    transmission_seeder,
)
from tests.support import ALONE, payload, wait_until
from torrent_client.config import Config
from torrent_client.dht.node import DhtNode

MAIN = Path(__file__).parents[2] / "main.py"
TIMEOUT = 40.0  # seconds; the doctor itself takes 20, and this machine may have other things to do


@pytest.fixture
def torrent(tmp_path: Path) -> MadeTorrent:
    """Return a torrent of a file of 16 pieces."""
    return make_torrent(tmp_path, payload(16 * 65_536 - 5), 65_536)


def examine(
    tmp_path: Path, what: str | Path, *options: str | Path, alone: tuple[str, ...] = ALONE
) -> tuple[int, list[dict[str, Any]], str]:
    """Run `doctor`; return its code, its findings and its verdict."""
    command = [sys.executable, MAIN, "doctor", what, "--json", "--port", "0", *alone, *options]
    places = ["-o", tmp_path / "nowhere", "--state-dir", tmp_path / "nothing"]
    result = subprocess.run([*command, *places], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert not result.stderr
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "nothing").exists()
    *findings, verdict = [json.loads(line) for line in result.stdout.splitlines()]
    assert verdict["exit_code"] == result.returncode
    return result.returncode, findings, verdict["text"]


def of_topic(findings: list[dict[str, Any]], topic: str) -> list[dict[str, Any]]:
    """Return those of one kind."""
    return [finding for finding in findings if finding["topic"] == topic]


@pytest.mark.parametrize("over_udp", [False, True])
def test_a_tracker_and_a_seeder_that_work(tmp_path: Path, torrent: MadeTorrent, *, over_udp: bool) -> None:
    with opentracker(tmp_path, torrent) as tracker:
        url = tracker.udp_announce_url if over_udp else tracker.announce_url
        tracked = torrent.with_trackers(url)
        with libtorrent_seeder(tmp_path, tracked) as seeder:
            tracker.wait_for_seeders(tracked)
            code, findings, verdict = examine(tmp_path, tracked.path)
            assert tracker.seeders(tracked) == 1
        (told,) = of_topic(findings, "tracker")
    assert (code, verdict) == (0, "you would download: 1 peer has pieces for you")
    assert (told["subject"], told["outcome"], told["facts"]["seeders"]) == (url, "ok", 1)
    (peer,) = [finding for finding in of_topic(findings, "peer") if finding["subject"] == seeder.address]
    assert "libtorrent" in peer["text"]
    assert "gave a good piece" in peer["text"]
    assert peer["facts"]["has"] == 100
    assert peer["facts"]["source"] == "tracker"


def test_we_do_not_stay_in_the_list_of_a_tracker(tmp_path: Path, torrent: MadeTorrent) -> None:
    """After two visits it still knows nobody who downloads."""
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url, tracker.udp_announce_url)
        for _ in range(2):
            code, findings, verdict = examine(tmp_path, tracked.path)
            assert code == 5
            assert "the trackers know nobody else" in verdict
            for told in of_topic(findings, "tracker"):
                assert (told["outcome"], told["facts"]["seeders"]) == ("note", 0)
                assert told["facts"]["leechers"] <= 1  # ourselves, while we are there


def test_a_tracker_and_a_seeder_that_have_died(tmp_path: Path, torrent: MadeTorrent) -> None:
    with opentracker(tmp_path, torrent) as tracker:
        tracked = torrent.with_trackers(tracker.announce_url)
    with libtorrent_seeder(tmp_path, torrent) as seeder:
        pass
    code, findings, verdict = examine(tmp_path, tracked.path, "--peer", seeder.address)
    assert (code, verdict) == (5, "nobody can be reached: 1 peer called (1 refused)")
    (told,) = of_topic(findings, "tracker")
    assert (told["outcome"], told["text"]) == ("bad", "connection refused: nothing listens there")


@pytest.mark.parametrize("start", [aria2_seeder, rtorrent_seeder, transmission_seeder])
def test_seeders_of_other_kinds_give_a_piece(tmp_path: Path, torrent: MadeTorrent, start: Any) -> None:  # noqa: ANN401
    with start(tmp_path, torrent) as seeder:
        code, findings, _ = examine(tmp_path, torrent.path, "--peer", seeder.address)
    (peer,) = of_topic(findings, "peer")
    assert (code, peer["outcome"]) == (0, "ok"), peer
    assert peer["facts"]["client"]


def test_a_seeder_that_insists_on_encryption(tmp_path: Path, torrent: MadeTorrent) -> None:
    """It hangs up on those who do not encrypt, and the advice is right."""
    with libtorrent_seeder(tmp_path, torrent, encryption="rc4") as seeder:
        code, findings, _ = examine(tmp_path, torrent.path, "--peer", seeder.address)
        (peer,) = of_topic(findings, "peer")
        assert (code, peer["facts"]["encrypted"]) == (0, True)
        code, findings, _ = examine(tmp_path, torrent.path, "--peer", seeder.address, "--encryption", "off")
    (peer,) = of_topic(findings, "peer")
    assert (code, peer["facts"]["result"]) == (5, "hung up")
    assert "--encryption" in peer["advice"]


def test_a_magnet_link_and_who_has_its_metadata(tmp_path: Path, torrent: MadeTorrent) -> None:
    with libtorrent_seeder(tmp_path, torrent) as seeder:
        link = f"magnet:?xt=urn:btih:{torrent.info_hash.hex()}&x.pe={seeder.address}"
        code, findings, verdict = examine(tmp_path, link)
    (peer,) = of_topic(findings, "peer")
    assert (code, verdict) == (0, "you would download: 1 peer has the metadata for you")
    assert "gave us the metadata" in peer["text"]


def test_a_seeder_is_found_in_the_dht(tmp_path: Path, torrent: MadeTorrent) -> None:
    with ExitStack() as stack:
        nodes: list[DhtNode] = []
        for _ in range(4):
            entrance = (("127.0.0.1", nodes[0].port),) if nodes else ()
            nodes.append(DhtNode(Config(dht_bootstrap=entrance), 0))
            stack.callback(nodes[-1].stop)
            nodes[-1].start()
        wait_until(lambda: all(node.stats().nodes >= 3 for node in nodes), what="everybody knows everybody")
        entrance_word = f"127.0.0.1:{nodes[0].port}"
        seeder = stack.enter_context(libtorrent_seeder(tmp_path, torrent, dht=entrance_word))
        wait_until(lambda: any(node.stats().best.stored_peers for node in nodes), 30, "announced in the DHT")
        code, findings, verdict = examine(
            tmp_path, torrent.path, "--dht-bootstrap", entrance_word, alone=("--no-lsd", "--no-portmap")
        )
        for node in nodes:
            node.begin_stop()
    (told,) = of_topic(findings, "dht")
    assert (told["outcome"], told["facts"]["peers"]) == ("ok", 1), told
    (peer,) = of_topic(findings, "peer")
    assert (peer["subject"], peer["facts"]["source"]) == (seeder.address, "dht")
    assert (code, verdict) == (0, "you would download: 1 peer has pieces for you")
