"""Everything through a proxy and nothing past it: peers, trackers, names; and what is said when it does not work."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.fake_peer import LOOPBACK, FakePeer, FakeServer, closed_port, metainfo, seeder, serving, torrent_of
from tests.fake_proxy import HttpProxy, SocksProxy
from tests.support import payload, running_client, wait_until
from tests.web_server import WebServer
from torrent_client.config import Config
from torrent_client.dialing import open_peer_socket
from torrent_client.download_manager import DownloadManager
from torrent_client.download_options import DownloadOptions
from torrent_client.errors import PeerDisconnected, TrackerError
from torrent_client.local_tracker import LocalTracker
from torrent_client.proxy import NO_PEERS, Proxy, may_dial_peers, parse_proxy, proxy_trouble, requests_proxies
from torrent_client.session import Session
from torrent_client.stats import TorrentState
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress, TrackerClient

PASSWORD = "s3cret"
SIZE = 200_003


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what our side connects and sends to, and the names that it looks up, the fakes' doings left out."""
    seen: list[object] = []
    real_connect, real_sendto, real_lookup = socket.socket.connect, socket.socket.sendto, socket.getaddrinfo

    def is_ours() -> bool:
        return not threading.current_thread().name.startswith("fake-")

    def connect(sock: socket.socket, address: Any) -> None:  # noqa: ANN401  # passed on
        if is_ours():
            seen.append(address)
        real_connect(sock, address)

    def sendto(sock: socket.socket, *arguments: Any) -> int:  # noqa: ANN401  # passed on
        seen.append(arguments[-1])
        return real_sendto(sock, *arguments)

    def looked_up(host: str, port: Any, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401  # passed on
        is_look_up = host != LOOPBACK and not more.get("flags", 0) & socket.AI_NUMERICHOST
        if is_ours() and is_look_up:
            seen.append(host)
        return real_lookup(host, port, *arguments, **more)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "sendto", sendto)
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    return seen


def through(url: str, **more: Any) -> Config:  # noqa: ANN401  # passed on
    """Return settings with this proxy."""
    quick = {"listen_port": 0, "housekeeping_interval": 0.05, "proxy_timeout": 5.0, "tracker_stop_timeout": 0.5}
    return Config(proxy=url, **quick | more)  # type: ignore[arg-type]


def dial(address: PeerAddress, config: Config) -> socket.socket:
    """Open a connection as a peer's worker does."""
    told: list[socket.socket] = []
    sock = None
    try:
        sock = open_peer_socket(address, config, told.append)
    finally:
        for one in told:
            if one is not sock:
                one.close()
    assert told[-1] is sock
    return sock


def answer(peer: FakePeer) -> None:
    """Echo a few bytes."""
    peer.send_raw(peer.read_exactly(5))


# --- URLs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("socks5://127.0.0.1:9050", Proxy("socks5", "127.0.0.1", 9050)),
        ("socks5h://proxy.example", Proxy("socks5h", "proxy.example", 1080)),
        ("socks5://me:a%40b@[2001:db8::1]:1081/", Proxy("socks5", "2001:db8::1", 1081, "me", "a@b")),
        ("http://proxy.example", Proxy("http", "proxy.example", 8080)),
    ],
)
def test_a_proxys_url_is_read(url: str, proxy: Proxy) -> None:
    """With what is usual for what is left out; and what `requests` is given is the same proxy."""
    assert parse_proxy(url) == proxy
    assert parse_proxy(proxy.url)[1:] == proxy[1:]
    assert proxy.url.startswith("socks5h://" if proxy.carries_peers else "http://")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:1080",
        "ftp://127.0.0.1:1080",
        "socks4://127.0.0.1:1080",
        "socks5://",
        f"socks5://me:{PASSWORD}@:1080",
        f"socks5://me:{PASSWORD}@127.0.0.1:0",
        f"socks5://me:{PASSWORD}@127.0.0.1:99999",
        f"socks5://me:{PASSWORD}@127.0.0.1:x",
        f"socks5://me:{PASSWORD}@127.0.0.1:1080/path",
        f"socks5://me:{PASSWORD}@127.0.0.1:1080?query",
        f"socks5://me:{PASSWORD}@[127.0.0.1:1080",
        f"socks5://me:{PASSWORD * 50}@127.0.0.1:1080",
    ],
)
def test_what_is_no_proxys_url_is_refused_without_telling_the_password(url: str) -> None:
    """The message may end up in a log."""
    with pytest.raises(ValueError, match="a proxy") as caught:
        parse_proxy(url)
    assert PASSWORD not in str(caught.value)


def test_what_is_shown_of_a_proxy_has_no_password() -> None:
    """Nor the user."""
    assert str(parse_proxy(f"socks5://me:{PASSWORD}@[::1]:1080")) == "socks5://[::1]:1080"


def test_without_a_proxy_everything_is_as_it_was() -> None:
    """`requests` then looks at the environment, as it does everywhere."""
    config = Config()
    assert config.allows_direct
    assert may_dial_peers(config)
    assert requests_proxies(config) == {}
    assert proxy_trouble(config, OSError("something")) is None


def test_an_http_proxy_carries_no_peers() -> None:
    """They are not dialled past it, either."""
    config = through("http://127.0.0.1:8080")
    assert not may_dial_peers(config)
    with pytest.raises(PeerDisconnected, match=NO_PEERS):
        dial(PeerAddress(LOOPBACK, closed_port()), config)
    assert may_dial_peers(through("socks5://127.0.0.1:1080"))


# --- peers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", [None, ("me", "a@b:c/ü")])
def test_peers_are_reached_through_socks(login: tuple[str, str] | None, direct: list[object]) -> None:
    """With and without a password; the peer sees the proxy, and we touch nothing else."""
    with FakeServer(answer) as server, SocksProxy(login=login) as proxy:
        config = through(proxy.url("me:a%40b%3Ac%2F%C3%BC@" if login else ""))
        with closing(dial(server.address, config)) as sock:
            sock.settimeout(5)
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"
            assert type(sock) is socket.socket
        assert proxy.asked == [server.address]
        assert direct == [(LOOPBACK, proxy.port)]


def test_names_are_looked_up_by_the_proxy(direct: list[object]) -> None:
    """We do not even ask."""
    with FakeServer(answer) as server, SocksProxy({"peer.example": server.address}) as proxy:
        dial(PeerAddress("peer.example", 6881), through(proxy.url())).close()
        assert proxy.asked == [("peer.example", 6881)]
        assert direct == [(LOOPBACK, proxy.port)]


def test_ipv6_addresses_go_through_as_they_are() -> None:
    """The proxy may well have IPv6 where we have none."""
    with FakeServer(answer) as server, SocksProxy({"2001:db8::7": server.address}) as proxy:
        dial(PeerAddress("2001:db8::7", 6881), through(proxy.url())).close()
        assert proxy.asked == [("2001:db8::7", 6881)]


def failing(proxy: SocksProxy, login: str = "") -> str:
    """Return what a dial through a proxy comes to, for a peer that could be reached directly."""
    with FakeServer(answer) as server, proxy:
        with pytest.raises(PeerDisconnected) as caught:
            dial(server.address, through(proxy.url(login), proxy_timeout=0.3))
        assert not server.peers
        return str(caught.value).replace(str(proxy.port), "PORT")


def test_a_proxy_that_cannot_reach_a_peer_says_so() -> None:
    """That is the peer's trouble, and not the proxy's."""
    assert failing(SocksProxy(answer=5)) == "the proxy cannot connect to it: connection refused"
    assert failing(SocksProxy(answer=4)) == "the proxy cannot connect to it: host unreachable"


@pytest.mark.parametrize("login", ["", "me:wrong@", "you:right@"])
def test_a_proxy_that_does_not_let_us_in_is_told_of(login: str) -> None:
    """No password, or the wrong one."""
    proxy = SocksProxy(login=("me", "right"))
    wanted = "the proxy socks5://127.0.0.1:PORT: it refuses the user name or the password, or wants some"
    assert failing(proxy, login) == wanted
    assert not proxy.asked


def test_a_proxy_that_hangs_is_told_of() -> None:
    """After its time-out."""
    assert failing(SocksProxy(hangs=True)) == "the proxy socks5://127.0.0.1:PORT: no answer in time"


def test_a_proxy_that_is_not_there_is_told_of() -> None:
    """Nothing is dialled instead."""
    port = closed_port()
    with FakeServer(answer) as server:
        with pytest.raises(PeerDisconnected, match=f"the proxy socks5://127.0.0.1:{port}: connection refused"):
            dial(server.address, through(f"socks5://{LOOPBACK}:{port}"))
        assert not server.peers


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x04\x00", b""])
def test_what_is_no_proxy_is_told_of(nonsense: bytes) -> None:
    """A web server, say."""

    def script(peer: FakePeer) -> None:
        peer.read_exactly(3)
        peer.send_raw(nonsense)

    with FakeServer(script) as wrong, pytest.raises(PeerDisconnected, match="does not answer as such a proxy does"):
        dial(PeerAddress(LOOPBACK, 1), through(f"socks5://{LOOPBACK}:{wrong.port}"))


def test_closing_ends_a_dial_through_a_proxy_that_hangs() -> None:
    """Whoever stops does not wait for it."""
    told: list[socket.socket] = []
    with SocksProxy(hangs=True) as proxy:
        timer = threading.Timer(0.2, lambda: told[0].shutdown(socket.SHUT_RDWR))
        timer.start()
        with pytest.raises(PeerDisconnected):
            open_peer_socket(PeerAddress(LOOPBACK, 1), through(proxy.url(), proxy_timeout=60.0), told.append)
        timer.join()
    for sock in told:
        sock.close()


# --- trackers ---------------------------------------------------------------------------------------------


@pytest.fixture
def tracker() -> Iterator[LocalTracker]:
    """Return a tracker that runs, which only the fakes' threads talk to."""
    with LocalTracker(interval=60) as tracker:
        yield tracker


def place(tracker: LocalTracker) -> tuple[str, int]:
    """Return where a tracker listens."""
    return LOOPBACK, int(tracker.announce_url.split(":")[2].split("/")[0])


def client(config: Config, url: str = "http://tracker.example/announce") -> TrackerClient:
    """Return the client of a tracker that exists behind the proxy only."""
    return TrackerClient(url, bytes(20), b"-PC0100-test-tracker", 6881, config=config)


@pytest.fixture(params=["socks", "http"])
def proxied(request: pytest.FixtureRequest, tracker: LocalTracker) -> Iterator[tuple[SocksProxy | HttpProxy, str]]:
    """Return a proxy that knows the tracker's name, and its URL."""
    names = {"tracker.example": place(tracker)}
    if request.param == "socks":
        with SocksProxy(names) as socks:
            yield socks, socks.url()
    else:
        with HttpProxy(names) as http:
            yield http, http.url


def test_trackers_are_asked_through_the_proxy(
    proxied: tuple[SocksProxy | HttpProxy, str], direct: list[object]
) -> None:
    """Their names are looked up there."""
    proxy, url = proxied
    assert client(through(url)).get_peers() is not None
    assert proxy.asked == [("tracker.example", 80)]
    assert set(direct) == {(LOOPBACK, proxy.port)}


def test_the_environment_leads_nothing_past_a_proxy_that_was_chosen(
    proxied: tuple[SocksProxy | HttpProxy, str], monkeypatch: pytest.MonkeyPatch, direct: list[object]
) -> None:
    """Neither another proxy there nor an exception from it counts."""
    proxy, url = proxied
    monkeypatch.setenv("http_proxy", f"http://{LOOPBACK}:{closed_port()}")
    monkeypatch.setenv("all_proxy", f"http://{LOOPBACK}:{closed_port()}")
    monkeypatch.setenv("no_proxy", "*,tracker.example")
    client(through(url)).get_peers()
    assert len(proxy.asked) == 1
    assert set(direct) == {(LOOPBACK, proxy.port)}


def test_the_environments_proxy_is_used_for_trackers_where_none_was_chosen(
    tracker: LocalTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by every program that uses `requests`."""
    with HttpProxy({"tracker.invalid": place(tracker)}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        client(Config(), "http://tracker.invalid/announce").get_peers()
        assert proxy.asked == [("tracker.invalid", 80)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST.", "127.1", "[::1]"])
def test_a_proxy_does_not_lead_into_its_own_machine(host: str, direct: list[object]) -> None:
    """What a torrent may not make us do it may not make the proxy do; and no name is looked up for that."""
    with pytest.raises(TrackerError, match="must be at /announce"):
        client(through(f"socks5://{LOOPBACK}:1"), f"http://{host}:8080/admin").get_peers()
    assert not [name for name in direct if name in ("localhost", "LOCALHOST.")]


@pytest.mark.parametrize("scheme", ["socks5", "http"])
def test_a_tracker_behind_a_proxy_that_is_not_there_names_the_proxy(scheme: str) -> None:
    """It is not the tracker that refused."""
    url = f"{scheme}://{LOOPBACK}:{closed_port()}"
    with pytest.raises(TrackerError) as caught:
        client(through(url)).get_peers()
    assert str(caught.value) == f"the proxy {url}: connection refused: nothing listens there"


def test_a_tracker_behind_a_proxy_that_wants_a_password_names_the_proxy() -> None:
    """Whatever the proxy's kind."""
    with SocksProxy(login=("me", PASSWORD)) as socks, pytest.raises(TrackerError, match="refuses the user name or"):
        client(through(socks.url())).get_peers()
    with HttpProxy(status="407 Proxy Authentication Required") as http, pytest.raises(TrackerError, match="407 Proxy"):
        client(through(http.url)).get_peers()


def test_a_proxy_that_hangs_costs_a_tracker_its_time_out() -> None:
    """And it is named."""
    with SocksProxy(hangs=True) as proxy, pytest.raises(TrackerError, match=r"the proxy socks5.*: no answer in time"):
        client(through(proxy.url(), tracker_connect_timeout=0.2, tracker_read_timeout=0.2)).get_peers()


# --- whole downloads --------------------------------------------------------------------------------------


@pytest.fixture
def torrent() -> tuple[TorrentFile, bytes]:
    """Return a torrent whose tracker only the proxy knows, and its bytes."""
    data = payload(SIZE)
    return torrent_of(data, announce="http://tracker.example/announce"), data


def options(tmp_path: Path, *peers: PeerAddress) -> DownloadOptions:
    """Return where to, and whom to ask."""
    return DownloadOptions(tmp_path, given_peers=peers)


def waits_for(manager: DownloadManager, words: str) -> Callable[[], bool]:
    """Return whether the reason why nothing comes has these words."""
    return lambda: words in (manager.stats().waiting_for or "")


def test_a_download_goes_through_a_socks_proxy_alone(
    torrent: tuple[TorrentFile, bytes], tracker: LocalTracker, tmp_path: Path, direct: list[object]
) -> None:
    """Tracker and peers, which it names; nobody can call us, and nobody is told that they could."""
    file, data = torrent
    names = {"tracker.example": place(tracker)}
    with serving(seeder(file, data), seeder(file, data, name="other")) as servers, SocksProxy(names) as proxy:
        names["peer.example"] = servers[0].address
        with Session(through(proxy.url())) as session:
            manager = session.add(file, options(tmp_path, servers[1].address, PeerAddress("peer.example", 7)))
            assert session.port == 0
            wait_until(lambda: manager.state is TorrentState.COMPLETE)
        peers = [address for address in proxy.asked if address[0] != "tracker.example"]
        assert sorted(peers) == sorted([servers[1].address, ("peer.example", 7)])
        assert len(peers) == sum(len(server.peers) for server in servers)
        assert set(direct) == {(LOOPBACK, proxy.port)}
    assert (tmp_path / file.name).read_bytes() == data


def test_udp_trackers_are_not_asked_past_a_proxy(tmp_path: Path, direct: list[object]) -> None:
    """Not even their names are looked up; each says so."""
    file = torrent_of(payload(SIZE), announce="udp://tracker.example:6969/announce")
    with SocksProxy() as proxy, Session(through(proxy.url())) as session:
        manager = session.add(file, options(tmp_path))
        wait_until(lambda: manager.stats().trackers[0].state == "failing")
        assert manager.stats().trackers[0].error == "not asked: UDP does not go through the proxy"
        assert "UDP does not go through the proxy; asking again in" in (manager.stats().waiting_for or "")
        assert not direct


def test_a_session_behind_a_proxy_opens_no_port(direct: list[object]) -> None:
    """No listener, no port mapping, no search on the local network."""
    before = set(psutil.Process().net_connections("inet"))
    with Session(through("socks5://127.0.0.1:1")._replace(portmap=True)) as session:
        assert session.port == 0
        assert set(psutil.Process().net_connections("inet")) <= before
    assert not direct


def test_a_peer_that_only_we_could_reach_is_not_reached(
    torrent: tuple[TorrentFile, bytes], tmp_path: Path, direct: list[object]
) -> None:
    """And the reason is shown, with the time of the next try."""
    file, data = torrent
    with serving(seeder(file, data)) as [server], SocksProxy(answer=2) as proxy:
        with Session(through(proxy.url())) as session:
            manager = session.add(file, options(tmp_path, server.address))
            words = "none of 1 known peer could be reached (the proxy cannot connect to it: connection not allowed"
            wait_until(waits_for(manager, words))
            assert "trying again in" in (manager.stats().waiting_for or "")
            wait_until(lambda: bool(manager.stats().trackers[0].error))  # it may be asked later than the peer
            status = manager.stats().trackers[0]
            assert status.error
            assert status.next_announce > 0
        assert not server.peers
        assert set(direct) == {(LOOPBACK, proxy.port)}


def test_a_wrong_proxy_is_the_reason_that_is_shown(torrent: tuple[TorrentFile, bytes], tmp_path: Path) -> None:
    """What was tried, what failed, and when the next try is."""
    file, data = torrent
    url = f"socks5://{LOOPBACK}:{closed_port()}"
    with serving(seeder(file, data)) as [server], Session(through(url)) as session:
        manager = session.add(file, options(tmp_path, server.address))
        wait_until(waits_for(manager, f"could be reached (the proxy {url}: connection refused: nothing listens there)"))
        assert "trying again in" in (manager.stats().waiting_for or "")
        assert not server.peers


def test_behind_an_http_proxy_no_peer_is_dialled(
    torrent: tuple[TorrentFile, bytes], tracker: LocalTracker, tmp_path: Path, direct: list[object]
) -> None:
    """Trackers are asked through it; that peers cannot be had is said."""
    file, data = torrent
    with serving(seeder(file, data)) as [server], HttpProxy({"tracker.example": place(tracker)}) as proxy:
        with Session(through(proxy.url)) as session:
            manager = session.add(file, options(tmp_path, server.address))
            wait_until(lambda: manager.stats().trackers[0].state == "working")
            assert manager.stats().waiting_for == NO_PEERS
        assert not server.peers
        assert set(direct) == {(LOOPBACK, proxy.port)}


@pytest.mark.parametrize("kind", [SocksProxy, HttpProxy])
def test_web_seeds_are_read_through_a_proxy(
    kind: type[SocksProxy | HttpProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: list[object]
) -> None:
    """Of either kind, without any peer, and whatever the environment says."""
    data = payload(SIZE)
    file = torrent_of(data, **{"url-list": "http://mirror.example/file.bin"})
    monkeypatch.setenv("http_proxy", f"http://{LOOPBACK}:{closed_port()}")
    monkeypatch.setenv("no_proxy", "mirror.example")
    with WebServer({"/file.bin": data}) as server:
        place = (LOOPBACK, urlsplit(server.url).port or 0)
        with kind({"mirror.example": place}) as proxy:
            url = proxy.url() if isinstance(proxy, SocksProxy) else proxy.url
            with Session(through(url)) as session:
                manager = session.add(file, options(tmp_path))
                wait_until(lambda: manager.state is TorrentState.COMPLETE)
            assert set(proxy.asked) == {("mirror.example", 80)}
            assert set(direct) == {(LOOPBACK, proxy.port)}
    assert (tmp_path / file.name).read_bytes() == data


def test_the_program_downloads_through_a_proxy(tmp_path: Path) -> None:
    """From the command line, with a password, which is not shown; what is off is."""
    data = payload(SIZE)
    file = torrent_of(data)
    path = tmp_path / "file.torrent"
    path.write_bytes(metainfo(data))
    with serving(seeder(file, data)) as [server], SocksProxy(login=("me", PASSWORD)) as proxy:
        arguments = ["--peer", str(server.address), "--proxy", proxy.url(f"me:{PASSWORD}@")]
        with running_client(tmp_path, path, tmp_path / "downloads", *arguments) as ours:
            assert ours.wait(20) == 0, ours.log_tail()
        assert proxy.asked == [server.address]
    said = ours.log.read_text()
    assert f"through socks5://{LOOPBACK}:{proxy.port}, nothing past it" in said
    assert PASSWORD not in said + ours.output.read_text()


def test_the_program_refuses_a_bad_proxy(tmp_path: Path) -> None:
    """With code 2, before anything is sent."""
    with running_client(tmp_path, tmp_path / "x.torrent", tmp_path, "--proxy", f"ftp://me:{PASSWORD}@host") as ours:
        assert ours.wait(20) == 2
    assert "argument --proxy: a proxy is given as socks5://HOST:PORT" in ours.log.read_text()
    assert PASSWORD not in ours.log.read_text()


def test_encryption_works_through_a_proxy(
    torrent: tuple[TorrentFile, bytes], tracker: LocalTracker, tmp_path: Path
) -> None:
    """A peer that hangs up on a plain handshake is called again, through the proxy as well."""
    file, _ = torrent
    with serving(FakePeer.close) as [server], SocksProxy({"tracker.example": place(tracker)}) as proxy:
        config = through(proxy.url())._replace(encryption="allow")
        with Session(config) as session:
            session.add(file, options(tmp_path, server.address))
            wait_until(lambda: len(server.peers) == 2)
        assert [address for address in proxy.asked if address[0] == LOOPBACK] == [server.address] * 2
