"""Downloads from web servers: good, slow, lying, forgetful and hostile ones."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.fake_peer import PIECE_LENGTH, black_hole, closed_port, fake_id, metainfo, seeder, serving, torrent_of
from tests.support import payload, wait_until
from tests.web_server import Exchange, WebServer
from torrent_client.config import BLOCK_SIZE, KIB, Config
from torrent_client.download_manager import DownloadManager
from torrent_client.download_options import DownloadOptions
from torrent_client.protocol.messages import Piece, Request
from torrent_client.rate_limiter import Limits, RateLimiter
from torrent_client.stats import TorrentState, WebSeedStats
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress
from torrent_client.web_seed import BlockCutter, runs_of

QUICK = Config(
    housekeeping_interval=0.02,
    socket_tick=30.0,
    connect_timeout=30.0,
    web_seed_timeout=30.0,
    web_seed_retry_delays=(0.01,),
    web_seed_lasting_delay=30.0,
    web_seed_skip=PIECE_LENGTH,
)
DATA = payload(20 * PIECE_LENGTH + BLOCK_SIZE + 1)
FILES = {"/file.bin": DATA}


def with_seeds(
    *urls: str, content: bytes | Mapping[str, bytes] = DATA, piece_length: int = PIECE_LENGTH, **top: object
) -> TorrentFile:
    """Return a torrent that names web seeds and no tracker."""
    return torrent_of(content, piece_length, **{"url-list": list(urls), **top})


@contextmanager
def download(
    folder: Path,
    torrent: TorrentFile,
    *peers: PeerAddress,
    config: Config = QUICK,
    limits: Limits | None = None,
    **options: Any,  # noqa: ANN401  # passed on
) -> Iterator[DownloadManager]:
    """Run a download into `folder` for the length of a `with` block."""
    choices = DownloadOptions(folder / "out", folder / "state", given_peers=peers, **options)
    manager = DownloadManager(torrent, choices, fake_id("us"), 6881, config, limits, rng=Random(1))
    manager.start()
    try:
        yield manager
    finally:
        manager.stop()
        manager.pieces.check_invariants()


def assert_complete(manager: DownloadManager, folder: Path, data: bytes = DATA) -> None:
    """Wait for the end of a download, which must be a good one."""
    assert manager.wait(20), manager.stats()
    assert manager.error is None
    assert (folder / "out" / "file.bin").read_bytes() == data


def the_seed(manager: DownloadManager) -> WebSeedStats:
    """Return the state of the only web seed."""
    (seed,) = manager.stats().web_seeds
    return seed


def wait_for_error(manager: DownloadManager, text: str) -> WebSeedStats:
    """Wait until the only web seed says that something is wrong."""
    wait_until(lambda: text in (the_seed(manager).error or ""), what=f"{text!r} in {the_seed(manager)}")
    return the_seed(manager)


# --- good servers -----------------------------------------------------------------------------------------


def test_a_web_seed_alone_is_enough(tmp_path: Path) -> None:
    """Without a tracker, without a peer: everything comes, in few requests over one connection."""
    with WebServer(FILES) as server, download(tmp_path, with_seeds(server.url)) as manager:
        assert_complete(manager, tmp_path)
        seed = the_seed(manager)
        assert seed.downloaded == len(DATA)
        assert seed.source == "web"
        assert manager.stats().wasted == 0
    assert len(server.requests) <= 5
    assert len(server.connections) == 1


def test_ranges_grow_and_follow_each_other(tmp_path: Path) -> None:
    """From the first byte on, each beginning where the last one ended."""
    with WebServer(FILES) as server, download(tmp_path, with_seeds(server.url + "file.bin")) as manager:
        assert_complete(manager, tmp_path)
    ranges = [part for part in server.ranges if part]
    assert ranges[0] == (0, 16 * BLOCK_SIZE)
    assert [start for start, _ in ranges[1:]] == [end for _, end in ranges[:-1]]
    assert ranges[1][1] - ranges[1][0] > ranges[0][1] - ranges[0][0]
    assert {request.headers["Accept-Encoding"] for request in server.requests} == {"identity"}


def test_a_file_that_is_wanted_whole_is_asked_for_without_a_range(tmp_path: Path) -> None:
    """Any server understands that."""
    data = payload(3 * PIECE_LENGTH)
    with (
        WebServer({"/file.bin": data}) as server,
        download(tmp_path, with_seeds(server.url, content=data)) as manager,
    ):
        assert_complete(manager, tmp_path, data)
    assert server.ranges == [None]


def test_several_files_with_names_that_need_quotes(tmp_path: Path) -> None:
    """Also an empty one, and pieces and blocks that lie in several files."""
    content = {"a #1.txt": payload(5), "empty": b"", "d/ü.bin": payload(3 * PIECE_LENGTH, 1), "z": payload(9, 2)}
    files = {f"/pub/file.bin/{path}": data for path, data in content.items()}
    torrent = with_seeds("", content=content)
    with WebServer(files) as server, download(tmp_path, torrent, web_seeds=(server.url + "pub",)) as manager:
        assert manager.wait(20)
        for path, data in content.items():
            assert (tmp_path / "out" / "file.bin" / path).read_bytes() == data
    assert "/pub/file.bin/empty" not in server.paths


def test_padding_is_not_asked_for(tmp_path: Path) -> None:
    """A torrent whose files begin at pieces has some between them."""
    from torrent_client.protocol.bencode import bencode_decode, bencode_encode

    content = {"a": payload(10), "pad": bytes(PIECE_LENGTH - 10), "b": payload(PIECE_LENGTH, 1)}
    value = bencode_decode(metainfo(content))
    assert isinstance(value, dict)
    assert isinstance(value[b"info"], dict)
    entries = value[b"info"][b"files"]
    assert isinstance(entries, list)
    assert isinstance(entries[1], dict)
    entries[1][b"attr"] = b"p"
    torrent = TorrentFile.from_bytes(bencode_encode(value))
    files = {"/file.bin/a": content["a"], "/file.bin/b": content["b"]}
    with WebServer(files) as server, download(tmp_path, torrent, web_seeds=(server.url,)) as manager:
        assert manager.wait(20)
        assert (tmp_path / "out" / "file.bin" / "b").read_bytes() == content["b"]
    assert set(server.paths) == set(files)


def test_only_what_is_wanted_is_fetched(tmp_path: Path) -> None:
    """Of two files one."""
    from torrent_client.file_selection import FileRange, FileSelection

    content = {"a": payload(PIECE_LENGTH), "b": payload(PIECE_LENGTH, 1)}
    files = {f"/file.bin/{path}": data for path, data in content.items()}
    torrent = torrent_of(content)
    choice = FileSelection((FileRange(2, 2),))
    with WebServer(files) as server, download(tmp_path, torrent, web_seeds=(server.url,), files=choice) as manager:
        assert manager.wait(20)
        assert server.paths == ["/file.bin/b"]
        manager.select_files(FileSelection())
        wait_until(lambda: manager.pieces.is_complete)
    assert server.paths == ["/file.bin/b", "/file.bin/a"]


def test_nothing_is_asked_when_everything_is_there(tmp_path: Path) -> None:
    """Not even a connection is made."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file.bin").write_bytes(DATA)
    with WebServer(FILES) as server, download(tmp_path, with_seeds(server.url), seed=True) as manager:
        assert_complete(manager, tmp_path)
    assert not server.connections


def test_a_web_seed_and_a_peer_share_the_work(tmp_path: Path) -> None:
    """Nothing comes twice while there is enough for both, and each brings some."""
    served = threading.Event()

    def wait_for_peer(exchange: Exchange) -> None:
        served.wait(10)
        exchange.serve()

    torrent = with_seeds("")
    peer = seeder(torrent, DATA, blocks=6)
    with (
        WebServer(FILES, wait_for_peer) as server,
        serving(peer) as [other],
        download(tmp_path, torrent, other.address, web_seeds=(server.url,)) as manager,
    ):
        wait_until(lambda: any(peer.downloaded for peer in manager.stats().peers))
        served.set()
        wait_until(lambda: the_seed(manager).downloaded > 0)
        assert manager.stats().web_seeds[0].downloaded < len(DATA)


def test_the_download_limit_holds(tmp_path: Path) -> None:
    """Bytes of web seeds are booked like those of peers."""
    limits = Limits(download=RateLimiter(256 * KIB))
    started = time.monotonic()
    data = payload(4 * PIECE_LENGTH)
    with (
        WebServer({"/file.bin": data}) as server,
        download(tmp_path, with_seeds(server.url, content=data), limits=limits) as manager,
    ):
        assert_complete(manager, tmp_path, data)
    least = (len(data) - 2 * BLOCK_SIZE) / (256 * KIB) - 0.3  # a limiter saves up 0.2 s, and pays for the last later
    assert time.monotonic() - started > least


# --- BEP 17 -----------------------------------------------------------------------------------------------


def by_piece(exchange: Exchange) -> None:
    """Answer as a script that gives pieces."""
    query = parse_qs(exchange.path.partition("?")[2], encoding="latin-1")
    start, _, last = query["ranges"][0].partition("-")
    begin = int(query["piece"][0]) * PIECE_LENGTH
    exchange.send(200, DATA[begin + int(start) : begin + int(last) + 1])


def test_a_script_that_gives_pieces(tmp_path: Path) -> None:
    """The older kind of web seed."""
    with WebServer({}, by_piece) as server:
        torrent = torrent_of(DATA, httpseeds=[server.url + "seed"])
        with download(tmp_path, torrent) as manager:
            assert_complete(manager, tmp_path)
    assert all(path.startswith("/seed?info_hash=") for path in server.paths)


def test_a_script_says_in_words_when_to_come_again(tmp_path: Path) -> None:
    """503, and seconds as its body."""
    with WebServer({}, lambda exchange: exchange.send(503, b"1234")) as server:
        torrent = torrent_of(DATA, httpseeds=[server.url])
        with download(tmp_path, torrent) as manager:
            seed = wait_for_error(manager, "HTTP 503")
            assert seed.state == "failing"
            assert seed.next_try_in is not None
            assert 1200 < seed.next_try_in <= 1234


# --- servers without ranges, redirects --------------------------------------------------------------------


def test_a_server_without_ranges_is_read_through(tmp_path: Path) -> None:
    """One answer, from which range after range is taken; nothing of it comes twice."""
    with (
        WebServer(FILES, lambda exchange: exchange.serve(ranges=False)) as server,
        download(tmp_path, with_seeds(server.url)) as manager,
    ):
        assert_complete(manager, tmp_path)
    assert len(server.requests) == 1


def test_a_server_without_ranges_is_given_up_where_much_would_be_thrown_away(tmp_path: Path) -> None:
    """Only the end is lacking: to read all before it would cost more than it brings."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file.bin").write_bytes(DATA[: 10 * PIECE_LENGTH] + bytes(len(DATA) - 10 * PIECE_LENGTH))
    with (
        WebServer(FILES, lambda exchange: exchange.serve(ranges=False)) as server,
        download(tmp_path, with_seeds(server.url)) as manager,
    ):
        seed = wait_for_error(manager, "it gives whole files only, not parts of them")
        assert (seed.state, seed.downloaded) == ("failing", 0)
        wait_until(lambda: manager.stats().waiting_for is not None)
        assert "it gives whole files only" in (manager.stats().waiting_for or "")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_remembered(tmp_path: Path, status: int) -> None:
    """The first server is asked once."""
    with (
        WebServer(FILES) as mirror,
        WebServer({}, lambda exchange: exchange.send(status, Location=mirror.url + "file.bin")) as server,
        download(tmp_path, with_seeds(server.url)) as manager,
    ):
        assert_complete(manager, tmp_path)
    assert len(server.requests) == 1
    assert len(mirror.requests) > 1


def test_where_a_redirect_led_to_may_be_gone(tmp_path: Path) -> None:
    """Signed URLs expire: the first server is asked again, and leads to the next mirror."""
    with WebServer(FILES, once_then_gone) as first, WebServer(FILES) as second:
        targets = iter([first.url, second.url])
        with (
            WebServer({}, lambda exchange: exchange.send(302, Location=next(targets) + "file.bin")) as server,
            download(tmp_path, with_seeds(server.url)) as manager,
        ):
            assert_complete(manager, tmp_path)
            assert the_seed(manager).failures == 0
    assert [len(server.requests), len(first.requests)] == [2, 2]


def once_then_gone(exchange: Exchange) -> None:
    """Serve one range, and refuse the next."""
    if len(exchange.server.owner.requests) == 1:
        exchange.serve()
    else:
        exchange.send(403)


def in_chunks(exchange: Exchange) -> None:
    """Answer without a length, in chunks."""
    assert exchange.file
    assert exchange.range
    start, end = exchange.range
    exchange.send_response(206)
    exchange.send_header("Transfer-Encoding", "chunked")
    exchange.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(exchange.file)}")
    exchange.end_headers()
    for place in range(start, end, 10_000):
        chunk = exchange.file[place : min(end, place + 10_000)]
        exchange.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    exchange.wfile.write(b"0\r\n\r\n")


def closing_each(exchange: Exchange) -> None:
    """Serve, and close the connection each time, as old servers do."""
    exchange.close_connection = True
    exchange.serve()


@pytest.mark.parametrize("script", [in_chunks, closing_each])
def test_other_ways_of_http(tmp_path: Path, script: Callable[[Exchange], None]) -> None:
    """All that a server may do is understood."""
    with WebServer(FILES, script) as server, download(tmp_path, with_seeds(server.url)) as manager:
        assert_complete(manager, tmp_path)
        assert the_seed(manager).failures == 0


def test_redirects_without_end_are_given_up(tmp_path: Path) -> None:
    """A circle leads nowhere."""
    with (
        WebServer({}, lambda exchange: exchange.send(302, Location="/again")) as server,
        download(tmp_path, with_seeds(server.url)) as manager,
    ):
        wait_for_error(manager, "more than 5 redirects")
    assert len(server.requests) == 6


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/file", "http://[", "http://127.0.0.1/x?reboot"])
def test_redirects_to_what_is_no_web_server_are_not_followed(tmp_path: Path, target: str) -> None:
    """And it is said."""
    with (
        WebServer({}, lambda exchange: exchange.send(302, Location=target)) as server,
        download(tmp_path, with_seeds(server.url)) as manager,
    ):
        wait_until(lambda: the_seed(manager).state == "failing")
        assert the_seed(manager).error


# --- broken and lying servers -----------------------------------------------------------------------------


def once(script: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """Follow a script for the first request, and then be a good server."""
    scripts = iter([script])

    def follow(exchange: Exchange) -> None:
        next(scripts, Exchange.serve)(exchange)

    return follow


def test_an_answer_that_ends_too_early_is_taken_up_where_it_ended(tmp_path: Path) -> None:
    """What came of it counts."""

    def cut(exchange: Exchange) -> None:
        assert exchange.range
        start, end = exchange.range
        content_range = f"bytes {start}-{end - 1}/{len(DATA)}"
        exchange.send(206, DATA[start : start + 3 * BLOCK_SIZE + 5], length=end - start, content_range=content_range)
        exchange.hang_up()

    with WebServer(FILES, once(cut)) as server, download(tmp_path, with_seeds(server.url)) as manager:
        assert_complete(manager, tmp_path)
        assert manager.stats().wasted == 0
    assert server.ranges[1] is not None
    assert server.ranges[1][0] == 3 * BLOCK_SIZE


def test_a_kept_connection_that_the_server_has_closed_is_no_failure(tmp_path: Path) -> None:
    """Servers close idle ones, just when we ask again."""

    def hang_up_at_the_second(exchange: Exchange) -> None:
        if len(server.requests) == 2:
            exchange.hang_up()
        else:
            exchange.serve()

    with (
        WebServer(FILES, hang_up_at_the_second) as server,
        download(tmp_path, with_seeds(server.url), config=QUICK._replace(web_seed_retry_delays=(30.0,))) as manager,
    ):
        assert_complete(manager, tmp_path)
    assert len(server.connections) == 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda exchange: exchange.send(404), "HTTP 404 Not Found"),
        (lambda exchange: exchange.send(403), "HTTP 403 Forbidden"),
        (lambda exchange: exchange.send(416), "its file is shorter than the torrent says"),
        (lambda exchange: exchange.send(206, bytes(16 * BLOCK_SIZE)), "it does not say which bytes it sends"),
        (
            lambda exchange: exchange.send(206, bytes(16 * BLOCK_SIZE), content_range=f"bytes 1-{16 * BLOCK_SIZE}/*"),
            "it sends other bytes than asked for",
        ),
        (
            lambda exchange: exchange.send(206, bytes(10), content_range=f"bytes 0-{16 * BLOCK_SIZE - 1}/*"),
            "it answers 10 bytes to a range of 262,144",
        ),
        (
            lambda exchange: exchange.send(206, bytes(9), content_range=f"bytes 0-{16 * BLOCK_SIZE - 1}/999999"),
            "its file has 999,999 bytes instead of 671,745",
        ),
        (lambda exchange: exchange.send(200, bytes(10)), "its file has 10 bytes instead of 671,745"),
        (lambda exchange: exchange.send(200, DATA, content_encoding="gzip"), "it compresses files (gzip)"),
        (lambda exchange: exchange.send(302), "HTTP 302"),
    ],
)
def test_what_will_hardly_change_is_said_and_not_asked_again_soon(
    tmp_path: Path, answer: Callable[[Exchange], None], told: str
) -> None:
    """An hour is the usual pause."""
    with WebServer(FILES, answer) as server, download(tmp_path, with_seeds(server.url)) as manager:
        seed = wait_for_error(manager, told)
        assert seed.state == "failing"
        assert seed.next_try_in is not None
        assert seed.next_try_in > 20
        wait_until(lambda: told in (manager.stats().waiting_for or ""))
    assert len(server.requests) == 1


@pytest.mark.parametrize(("header", "least"), [("120", 100), ("Fri, 31 Dec 9999 23:59:59 GMT", 3500), ("soon", 0)])
def test_a_server_that_is_busy_says_when_to_come_again(tmp_path: Path, header: str, least: float) -> None:
    """In seconds, or as a date; an hour at most."""
    with (
        WebServer(FILES, lambda exchange: exchange.send(503, retry_after=header)) as server,
        download(tmp_path, with_seeds(server.url), config=QUICK._replace(web_seed_retry_delays=(30.0,))) as manager,
    ):
        seed = wait_for_error(manager, "HTTP 503 Service Unavailable")
        assert seed.next_try_in is not None
        assert least < seed.next_try_in <= 3600


def test_a_passing_failure_is_tried_again_and_forgotten(tmp_path: Path) -> None:
    """The second try brings everything."""
    with (
        WebServer(FILES, once(lambda exchange: exchange.send(500))) as server,
        download(tmp_path, with_seeds(server.url)) as manager,
    ):
        assert_complete(manager, tmp_path)
        assert the_seed(manager).error is None
    assert len(server.requests) > 1


def test_of_several_files_one_may_be_missing(tmp_path: Path) -> None:
    """The others come from the web seed, and that one from a peer."""
    content = {"a": payload(PIECE_LENGTH), "gone": payload(PIECE_LENGTH, 1), "c": payload(PIECE_LENGTH, 2)}
    data = b"".join(content.values())
    torrent = torrent_of(content)
    files = {"/file.bin/a": content["a"], "/file.bin/c": content["c"]}
    with (
        WebServer(files) as server,
        serving(seeder(torrent, data)) as [peer],
        download(tmp_path, torrent, web_seeds=(server.url,)) as manager,
    ):
        wait_until(lambda: manager.stats().pieces_done == 2)
        wait_for_error(manager, "file.bin/gone: HTTP 404")
        manager.swarm.add_addresses([peer.address], "test")
        assert manager.wait(20)
    assert server.paths.count("/file.bin/gone") == 1


def test_a_web_seed_that_alone_sent_a_bad_piece_is_banned(tmp_path: Path) -> None:
    """For good, and it is shown; peers bring the piece."""
    torrent = with_seeds("")
    bad = bytes([DATA[0] ^ 1]) + DATA[1:]
    with (
        WebServer({"/file.bin": bad}) as server,
        serving(seeder(torrent, DATA)) as [peer],
        download(tmp_path, torrent, web_seeds=(server.url,)) as manager,
    ):
        wait_until(lambda: the_seed(manager).state == "banned")
        assert "it alone sent piece 0, which is bad" in (the_seed(manager).error or "")
        manager.swarm.add_addresses([peer.address], "test")
        assert_complete(manager, tmp_path)
        assert manager.stats().hash_failures >= 1


def test_a_web_seed_that_sent_one_bad_block_of_several_is_convicted(tmp_path: Path) -> None:
    """A peer brought the rest of the piece: once it is good, it is clear who lied, and the peer stays."""
    torrent = with_seeds("")

    def lie(exchange: Exchange) -> None:
        if len(server.requests) == 1:
            content_range = f"bytes 0-{16 * BLOCK_SIZE - 1}/{len(DATA)}"
            exchange.send(206, bytes(BLOCK_SIZE), length=16 * BLOCK_SIZE, content_range=content_range)
        exchange.stopping.wait()

    config = QUICK._replace(request_timeout=0.3)
    with (
        WebServer(FILES, lie) as server,
        serving(seeder(torrent, DATA)) as [peer],
        download(tmp_path, torrent, web_seeds=(server.url,), config=config, seed=True) as manager,
    ):
        wait_until(lambda: manager.pieces.useful_bytes == BLOCK_SIZE)
        manager.swarm.add_addresses([peer.address], "test")
        assert_complete(manager, tmp_path)
        assert the_seed(manager).state == "banned"
        assert the_seed(manager).error == "it sent bad blocks of piece 0"
        assert manager.stats().banned == 0


def test_a_server_that_sends_nothing_is_left_after_a_while(tmp_path: Path) -> None:
    """A byte now and then is nothing either: blocks count."""

    def drip(exchange: Exchange) -> None:
        exchange.send(206, b"x", length=16 * BLOCK_SIZE, content_range=f"bytes 0-{16 * BLOCK_SIZE - 1}/{len(DATA)}")
        while not exchange.stopping.wait(0.01):
            exchange.wfile.write(b"x")

    with (
        WebServer(FILES, once(drip)) as server,
        download(tmp_path, with_seeds(server.url), config=QUICK._replace(request_timeout=0.3)) as manager,
    ):
        assert_complete(manager, tmp_path)


def test_nothing_listens_there(tmp_path: Path) -> None:
    """Said in words, with the next try."""
    torrent = with_seeds(f"http://127.0.0.1:{closed_port()}/")
    with download(tmp_path, torrent, config=QUICK._replace(web_seed_retry_delays=(30.0,))) as manager:
        wait_for_error(manager, "connection refused: nothing listens there")
        wait_until(lambda: "asking again in" in (manager.stats().waiting_for or ""))


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://127.0.0.1/?reboot=1"])
def test_a_url_that_may_not_be_asked_is_unusable(tmp_path: Path, url: str) -> None:
    """And does not hold up the others."""
    with WebServer(FILES) as server, download(tmp_path, with_seeds(url, server.url)) as manager:
        assert_complete(manager, tmp_path)
        wait_until(lambda: manager.stats().web_seeds[0].state == "unusable")


def test_no_more_web_seeds_than_allowed(tmp_path: Path) -> None:
    """A torrent could name a million, and each has a thread."""
    torrent = with_seeds(*(f"http://127.0.0.1:{closed_port()}/{number}" for number in range(20)))
    with download(tmp_path, torrent) as manager:
        assert len(manager.stats().web_seeds) == Config().max_web_seeds


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    """They are sent, though."""
    with WebServer(FILES) as server:
        url = server.url.replace("http://", "http://user:secret@")
        with download(tmp_path, with_seeds(url)) as manager:
            assert_complete(manager, tmp_path)
            assert the_seed(manager).url == server.url
    assert server.requests[0].headers["Authorization"].startswith("Basic ")


# --- stopping ---------------------------------------------------------------------------------------------


def silent(exchange: Exchange) -> None:
    """Say nothing at all."""
    exchange.stopping.wait()


def half(exchange: Exchange) -> None:
    """Send a part of the answer, and no more."""
    exchange.send(206, bytes(5), length=16 * BLOCK_SIZE, content_range=f"bytes 0-{16 * BLOCK_SIZE - 1}/{len(DATA)}")
    exchange.stopping.wait()


@pytest.mark.parametrize("script", [silent, half, lambda exchange: exchange.send(503)])
def test_stopping_waits_for_no_server(tmp_path: Path, script: Callable[[Exchange], None]) -> None:
    """Neither for one that is silent, nor for one that has begun, nor for the time of the next try."""
    config = QUICK._replace(web_seed_retry_delays=(30.0,))
    with (
        WebServer(FILES, script) as server,
        download(tmp_path, with_seeds(server.url), config=config) as manager,
    ):
        wait_until(lambda: bool(server.requests))
        started = time.monotonic()
        manager.stop()
        assert time.monotonic() - started < 2.5
        assert manager.state is TorrentState.STOPPED


def test_stopping_waits_no_longer_than_a_tick_for_a_connection(tmp_path: Path) -> None:
    """There is no socket yet that could be shut down."""
    config = QUICK._replace(socket_tick=0.5)
    with black_hole() as address, download(tmp_path, with_seeds(f"http://{address}/"), config=config) as manager:
        wait_until(lambda: manager.pieces.peer_progress(manager.web_seeds._seeds[0])[1] > 0)
        manager.stop()
        assert not manager.web_seeds._seeds[0]._thread.is_alive()


# --- parts ------------------------------------------------------------------------------------------------


def test_runs_are_blocks_that_follow_each_other() -> None:
    """In whatever order they are asked for, and over the ends of pieces; the last block of a piece may be short."""
    a, b, c = Request(0, 0, 16), Request(0, 16, 4), Request(1, 0, 16)
    d = Request(3, 16, 4)
    assert list(runs_of([d, c, a, b], 20)) == [[a, b, c], [d]]
    assert list(runs_of([], 20)) == []


@pytest.mark.parametrize("size", [1, 3, 16, 17, 36, 52])
def test_blocks_are_cut_however_the_bytes_come(size: int) -> None:
    """One at a time, or all at once."""
    requests = [Request(0, 0, 16), Request(0, 16, 4), Request(1, 0, 16), Request(1, 16, 16)]
    data = payload(52)
    cutter = BlockCutter(requests)
    blocks: list[Piece] = []
    for start in range(0, len(data), size):
        blocks += [block._replace(block=bytes(block.block)) for block in cutter.cut(data[start : start + size])]
        assert len(list(cutter.rest())) == len(requests) - len(blocks)
    assert [(block.piece_index, block.begin, len(block.block)) for block in blocks] == requests
    assert b"".join(bytes(block.block) for block in blocks) == data
