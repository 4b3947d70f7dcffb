"""Our client, run as a user runs it, with a real web server: nginx."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.integration.real_peers import free_port, libtorrent_seeder, make_torrent, require_program
from tests.support import payload, running, running_client, wait_until
from torrent_client.protocol.bencode import bencode_decode, bencode_encode

PIECE_LENGTH = 64 * 1024

NGINX = """
daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log;
events {{}}
http {{
    access_log {root}/access.log;
    client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
    uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
    server {{ listen 127.0.0.1:{port}; root {files}; {more} }}
}}
"""


@contextmanager
def nginx(tmp_path: Path, files: Path, more: str = "") -> Iterator[str]:
    """Run nginx on a directory and give its URL.

    Args:
        tmp_path: for what nginx writes.
        files: what it serves.
        more: directives for the server.
    """
    program = require_program("nginx")
    root, port = tmp_path / "nginx", free_port()
    root.mkdir()
    (root / "nginx.conf").write_text(NGINX.format(root=root, files=files, port=port, more=more))
    # nginx may drop to another user, who must be able to read what pytest keeps for itself.
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    url = f"http://127.0.0.1:{port}/"
    with running([program, "-e", root / "error.log", "-c", root / "nginx.conf", *user], root / "log"):

        def answers() -> bool:
            try:
                requests.get(url, timeout=5).close()
            except requests.ConnectionError:
                return False
            return True

        wait_until(answers, what="nginx")
        yield url


def served(root: Path) -> list[list[str]]:
    """Return the words of each line of nginx's access log: the status is the ninth."""
    return [line.split() for line in (root / "nginx" / "access.log").read_text().splitlines()]


def with_web_seeds(torrent: Path, *urls: str) -> Path:
    """Write a copy of a torrent that names web seeds."""
    value = bencode_decode(torrent.read_bytes())
    assert isinstance(value, dict)
    value[b"url-list"] = [url.encode() for url in urls]
    copy = torrent.with_name("web.torrent")
    copy.write_bytes(bencode_encode(value))
    return copy


CONTENTS: Mapping[str, bytes | dict[str, bytes]] = {
    "one file": payload(5_000_000),
    "several files": {
        "a b.txt": payload(70_000, 1),
        "empty": b"",
        "deep/ü #1.bin": payload(2_000_000, 2),
        "tiny": b"x",
    },
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_web_server_alone_is_enough(tmp_path: Path, downloads: Path, kind: str) -> None:
    """No tracker, no peer: nginx serves ranges of the files as they lie there."""
    torrent = make_torrent(tmp_path, CONTENTS[kind], PIECE_LENGTH)
    with nginx(tmp_path, torrent.directory) as url:
        path = with_web_seeds(torrent.path, url)
        with running_client(tmp_path, path, downloads, "--port", "0") as client:
            assert client.wait(30) == 0, client.log_tail()
            report = client.last_report()
    torrent.assert_content_in(downloads)
    assert report["type"] == "complete"
    assert report["wasted"] == 0
    (seed,) = report["web_seeds"]
    assert (seed["source"], seed["error"], seed["downloaded"]) == ("web", None, torrent.size)
    assert report["portmap"]["state"] == "off"
    statuses = {words[8] for words in served(tmp_path)[1:]}
    assert statuses <= {"200", "206"}


def test_a_web_server_and_a_peer_together(tmp_path: Path, downloads: Path) -> None:
    """Both are slow, both bring some of it, and next to nothing comes twice."""
    torrent = make_torrent(tmp_path, payload(3_000_000), PIECE_LENGTH)
    slow = "limit_rate 600k;"
    with (
        nginx(tmp_path, torrent.directory, slow) as url,
        libtorrent_seeder(tmp_path, torrent, upload_limit=600_000) as peer,
        running_client(tmp_path, torrent.path, downloads, "--peer", peer.address, "--web-seed", url) as client,
    ):
        assert client.wait(60) == 0, client.log_tail()
        reports = client.reports()
    torrent.assert_content_in(downloads)
    assert reports[-1]["web_seeds"][0]["downloaded"] > 300_000
    assert max(peer["downloaded"] for report in reports for peer in report["peers"]) > 300_000
    assert reports[-1]["wasted"] <= 1_000_000


def test_a_server_that_gives_whole_files_only(tmp_path: Path, downloads: Path) -> None:
    """One answer is enough for the whole file."""
    torrent = make_torrent(tmp_path, payload(3_000_000), PIECE_LENGTH)
    with (
        nginx(tmp_path, torrent.directory, "max_ranges 0;") as url,
        running_client(tmp_path, torrent.path, downloads, "--web-seed", url) as client,
    ):
        assert client.wait(30) == 0, client.log_tail()
    torrent.assert_content_in(downloads)
    assert [words[8] for words in served(tmp_path)[1:]] == ["200"]


def test_a_missing_file_is_told(tmp_path: Path, downloads: Path) -> None:
    """The reason is there to be read, with the time of the next try."""
    torrent = make_torrent(tmp_path, payload(300_000), PIECE_LENGTH)
    empty = tmp_path / "empty"
    empty.mkdir()
    with (
        nginx(tmp_path, empty) as url,
        running_client(tmp_path, torrent.path, downloads, "--web-seed", url, "--stop-timeout", "2") as client,
    ):
        assert client.wait(30) == 5, client.log_tail()
        report = client.last_report()
    assert report["web_seeds"][0]["state"] in ("failing", "idle")
    assert "nothing from the web seed: HTTP 404 Not Found; asking again in" in report["error"]
