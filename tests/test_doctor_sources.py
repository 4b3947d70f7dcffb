"""The doctor asks where peers come from: trackers, the DHT, the local network; and web seeds for a piece."""

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fake_peer import LOOPBACK, closed_port, torrent_of
from tests.fake_udp_tracker import FakeUdpTracker, error, honest
from tests.support import payload, wait_until
from tests.web_server import Exchange, WebServer
from torrent_client.abort import Abort
from torrent_client.config import Config
from torrent_client.dht import saved_nodes
from torrent_client.dht.node import DhtNode
from torrent_client.doctor import sources
from torrent_client.doctor.diagnosis import Finding, Outcome, Supply
from torrent_client.doctor.patient import Patient
from torrent_client.errors import TrackerError
from torrent_client.local_discovery import LocalDiscovery
from torrent_client.local_tracker import LocalTracker
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_answers import AnnounceResponse, PeerAddress, Progress, ScrapeCounts, Tracker
from torrent_client.tracker_client import TrackerClient

PIECE = 32 * 1024
DATA = payload(5 * PIECE + 77)
TORRENT = torrent_of(DATA, piece_length=PIECE)
HASH = TORRENT.info_hash
PATIENT = Patient(TORRENT, Config(), Path())
OURS, OTHER = b"-PC0000-us0000000000", b"-PC0000-other0000000"
PEER = PeerAddress("192.0.2.1", 6881)


def ask(tracker: Tracker, abort: Abort | None = None) -> tuple[Finding, list[PeerAddress]]:
    """Return what the doctor says of a tracker, and the peers that it named."""
    found: list[PeerAddress] = []
    return sources.tracker_finding(tracker, PATIENT, found.extend, abort or Abort()), found


def client(url: str) -> TrackerClient:
    """Return ours."""
    return TrackerClient(url, HASH, OURS, 7001)


class FakeTracker:
    """A tracker in memory, with one answer or error."""

    url = "http://tracker.example/announce"

    def __init__(
        self, answer: AnnounceResponse | str, scrape: ScrapeCounts | None = None, families: Sequence[object] = (None,)
    ) -> None:
        self.answer = answer
        self.counts = scrape
        self.kinds = families
        self.events: list[str | None] = []

    def families(self) -> Sequence[None]:
        """Return so many kinds of addresses."""
        return self.kinds  # type: ignore[return-value]

    def announce(self, progress: Progress, event: str | None = None, **_more: object) -> AnnounceResponse:
        """Answer, or fail."""
        assert progress.left == len(DATA)
        self.events.append(event)
        if isinstance(self.answer, str):
            raise TrackerError(self.answer)
        return self.answer

    def scrape(self, _info_hashes: Sequence[bytes], **_more: object) -> Mapping[bytes, ScrapeCounts]:
        """Answer."""
        if self.counts is None:
            raise TrackerError("it offers no scrape")
        return {HASH: self.counts}


# --- trackers ---------------------------------------------------------------------------------------------


def test_a_tracker_tells_of_peers_and_forgets_us() -> None:
    with LocalTracker() as tracker:
        other = TrackerClient(tracker.announce_url, HASH, OTHER, 7002)
        other.announce(Progress(0, 0, 0), "started")
        finding, found = ask(client(tracker.announce_url))
        assert found == [PeerAddress(LOOPBACK, 7002)]
        left = other.scrape([HASH])[HASH]
    assert (left.seeders, left.leechers) == (1, 0)
    assert finding.outcome is Outcome.OK
    assert (finding.facts["peers"], finding.facts["seeders"]) == (1, 1)
    assert finding.text.startswith("1 peer; 1 seeder")


def test_a_tracker_without_peers_is_worth_a_note() -> None:
    with LocalTracker() as tracker:
        finding, found = ask(client(tracker.announce_url))
    assert not found
    assert finding.outcome is Outcome.NOTE
    assert "nobody else is there" in finding.advice


def test_an_udp_tracker_is_asked_and_left() -> None:
    peers = socket.inet_aton(PEER.host) + PEER.port.to_bytes(2, "big")
    with FakeUdpTracker(lambda datagram: honest(datagram, peers)) as tracker:
        finding, found = ask(client(tracker.url))
        events = [int.from_bytes(datagram[80:84], "big") for datagram in tracker.seen if len(datagram) >= 98]
    assert (finding.outcome, found) == (Outcome.OK, [PEER])
    assert events == [2, 3]  # started, stopped
    assert (finding.facts["seeders"], finding.facts["leechers"]) == (3, 2)


def test_a_silent_udp_tracker_does_not_hold_us_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "TRACKER_LIMIT", 0.3)
    with FakeUdpTracker(lambda _datagram: []) as tracker:
        finding, _ = ask(client(tracker.url))
    assert finding.outcome is Outcome.BAD
    assert finding.text.startswith("no answer in")
    assert "firewall" in finding.advice


def test_an_error_over_udp_is_shown() -> None:
    def refuse(datagram: bytes) -> Iterable[bytes]:
        return honest(datagram) if len(datagram) == 16 else [error(datagram, b"torrent not allowed")]

    with FakeUdpTracker(refuse) as tracker:
        finding, _ = ask(client(tracker.url))
    assert "torrent not allowed" in finding.text


@pytest.mark.parametrize(
    ("trouble", "advice"),
    [
        ("connection refused: nothing listens there", "it is down"),
        ("refused: unregistered torrent", "get a new .torrent"),
        ("its host name is not known", "DNS"),
        ("its certificate is not trusted: certificate is not yet valid", "clock"),
        ("its certificate is not trusted: certificate has expired", "renew"),
        ("HTTP 404 Not Found", "no tracker at this URL any more"),
        ("HTTP 503 Service Unavailable", "asks again"),
        ("the answer is no tracker's, but a web page", "something else than a tracker"),
        ("not asked: UDP does not go through the proxy", "behind a proxy"),
        ("the proxy socks5://h:1: connection refused", "see the proxy"),
        ("wss trackers are not supported, only http, https and udp; try --peer", "other clients"),
        ("network is unreachable", "see your network"),
        ("whatever", "try it later"),
    ],
)
def test_each_trouble_of_a_tracker_has_an_advice(trouble: str, advice: str) -> None:
    finding, _ = ask(FakeTracker(trouble))
    assert (finding.outcome, finding.text) == (Outcome.BAD, trouble)
    assert advice in finding.advice


def test_who_does_not_answer_is_not_told_that_we_stop() -> None:
    tracker = FakeTracker("no answer in 8 s")
    ask(tracker)
    assert tracker.events == ["started"]


def test_numbers_come_from_a_scrape_where_the_announce_has_none() -> None:
    finding, _ = ask(FakeTracker(AnnounceResponse((PEER,), 60.0), ScrapeCounts(7, 8, 9)))
    assert (finding.facts["seeders"], finding.facts["leechers"]) == (7, 8)
    finding, _ = ask(FakeTracker(AnnounceResponse((PEER,), 60.0)))
    assert finding.text == "1 peer"


def test_without_a_seeder_there_is_a_note_and_warnings_are_shown() -> None:
    answer = AnnounceResponse((PEER,), 60.0, seeders=0, leechers=3, warning="old client")
    finding, _ = ask(FakeTracker(answer))
    assert finding.outcome is Outcome.NOTE
    assert "no seeder" in finding.advice
    assert "it warns: old client" in finding.text


def test_both_kinds_of_addresses_are_announced_to() -> None:
    tracker = FakeTracker(AnnounceResponse((PEER,), 60.0, seeders=1), families=(socket.AF_INET, socket.AF_INET6))
    finding, found = ask(tracker)
    assert tracker.events == ["started", "stopped"] * 2
    assert found == [PEER, PEER]
    assert finding.facts["peers"] == 1


def test_a_url_that_is_none_is_an_answer_too() -> None:
    finding, _ = ask(client("udp://tracker.invalid/announce"))
    assert "no port" in finding.text


def test_who_has_had_enough_asks_nobody() -> None:
    abort = Abort()
    abort.set()
    tracker = FakeTracker(AnnounceResponse((PEER,), 60.0))
    finding, _ = ask(tracker, abort)
    assert not tracker.events
    assert finding.text == "not finished"


# --- the DHT ----------------------------------------------------------------------------------------------


def never() -> bool:
    """Want to know everything."""
    return False


@pytest.mark.parametrize(
    ("config", "private", "reason"),
    [
        (Config(), False, "switched off"),
        (Config(dht=True, lsd=True, proxy="socks5://127.0.0.1:9"), False, "off: the proxy"),
        (Config(dht=True, lsd=True), True, "off: a private torrent"),
        (Config(dht=True, lsd=True), False, None),
    ],
)
def test_who_is_not_asked_and_why(config: Config, reason: str | None, *, private: bool) -> None:
    patient = Patient(TORRENT._replace(is_private=private), config, Path())
    for why in (sources.why_no_dht(patient), sources.why_no_local(patient)):
        assert why == reason or (why and reason and why.startswith(reason))


def test_the_dht_finds_peers_and_nobody_learns_of_us() -> None:
    with ExitStack() as stack:
        nodes: list[DhtNode] = []
        for _ in range(4):
            entrance = (("127.0.0.1", nodes[0].port),) if nodes else ()
            nodes.append(DhtNode(Config(dht_bootstrap=entrance), 0))
            stack.callback(nodes[-1].stop)
            nodes[-1].start()
        wait_until(lambda: all(node.stats().best.state == "ready" for node in nodes), what="all nodes ready")
        done: list[object] = []
        nodes[1].find_peers(HASH, lambda _peers: None, announce_port=7001, on_done=done.append)
        wait_until(lambda: bool(done), what="the announcement")
        stored = sum(node.stats().best.stored_peers for node in nodes)
        found: list[PeerAddress] = []
        config = Config(dht=True, dht_bootstrap=(("127.0.0.1", nodes[2].port),))
        finding = sources.dht_finding(Patient(TORRENT, config, Path()), 0, found.extend, never)
        assert sum(node.stats().best.stored_peers for node in nodes) == stored
        for node in nodes:
            node.begin_stop()
    assert PeerAddress(LOOPBACK, 7001) in found
    assert finding.outcome is Outcome.OK
    assert finding.facts["peers"] == 1
    assert finding.facts["nodes"] >= 1


def test_a_dht_that_nobody_answers_in_is_bad() -> None:
    config = Config(dht=True, dht_bootstrap=())
    finding = sources.dht_finding(Patient(TORRENT, config, Path()), 0, lambda _peers: None, never)
    assert finding.outcome is Outcome.BAD
    assert "--dht-bootstrap" in finding.advice


def test_nodes_of_earlier_runs_and_of_the_torrent_are_asked_and_left_as_they_were(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = DhtNode(Config(dht_bootstrap=()), 0)
        stack.callback(first.stop)
        first.start()
        (tmp_path / saved_nodes.FILE_NAME).write_text(
            f'{{"port": 1, "ipv4": {{"id": "{"00" * 20}", "nodes": [["{"11" * 20}", "127.0.0.1", {first.port}]]}}, '
            '"ipv6": {}}'
        )
        saved = (tmp_path / saved_nodes.FILE_NAME).read_bytes()
        patient = Patient(TORRENT, Config(dht=True), Path(), tmp_path)
        finding = sources.dht_finding(patient, 0, lambda _peers: None, never)
        assert finding.facts["nodes"] == 1
        named = TORRENT._replace(nodes=(("127.0.0.1", first.port),))
        finding = sources.dht_finding(Patient(named, Config(dht=True), Path()), 0, lambda _peers: None, never)
        assert finding.facts["nodes"] == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [saved]


# --- the local network ------------------------------------------------------------------------------------


class FakeLocal(LocalDiscovery):
    """A local network in memory.

    Args:
        said: what `state` says.
        peers: who answers at once.
    """

    def __init__(self, said: str, peers: Sequence[PeerAddress] = ()) -> None:
        super().__init__(6881, Config())
        self.said = said
        self.peers = peers
        self.is_stopped = False

    def start(self) -> None:
        """Do nothing."""

    def announce(self, info_hash: bytes, on_peers: Callable[[Sequence[PeerAddress]], None]) -> None:
        """Answer."""
        assert info_hash == HASH
        if self.peers:
            on_peers(self.peers)

    def state(self, _info_hash: bytes) -> str:
        """Say it."""
        return self.said

    def stop(self) -> None:
        """Note it."""
        self.is_stopped = True


def test_a_peer_next_to_us_is_found() -> None:
    found: list[PeerAddress] = []
    local = FakeLocal("announced to 1 network, 1 peer heard", [PEER])
    finding = sources.local_finding(local, HASH, found.extend, never)
    assert (finding.outcome, finding.facts["peers"], found) == (Outcome.OK, 1, [PEER])
    assert local.is_stopped


def test_a_network_without_multicast_is_worth_a_note() -> None:
    local = FakeLocal("off: no such device")
    assert sources.local_finding(local, HASH, lambda _peers: None, never).outcome is Outcome.NOTE


# --- web seeds --------------------------------------------------------------------------------------------


def fetch(url: str, torrent: TorrentFile = TORRENT, *, by_piece: bool = False) -> Finding:
    """Return what the doctor says of a web seed."""
    closers: list[Callable[[], None]] = []
    finding = sources.web_seed_finding(url, torrent, Config(), by_piece=by_piece, on_open=closers.append)
    assert len(closers) == 1
    return finding


def test_a_web_seed_gives_a_good_piece() -> None:
    with WebServer({"/file.bin": DATA}) as server:
        finding = fetch(server.url)
        assert server.ranges == [(0, PIECE)]
    assert (finding.outcome, finding.text) == (Outcome.OK, "gave a good piece")
    assert (finding.supply, finding.pieces.bit_count()) == (Supply.GIVES, TORRENT.piece_count)


def test_of_a_large_piece_a_block_is_asked_for() -> None:
    data = payload(3 * 1024 * 1024)
    with WebServer({"/file.bin": data}) as server:
        finding = fetch(server.url, torrent_of(data, piece_length=2 * 1024 * 1024))
        assert server.ranges == [(0, 16 * 1024)]
    assert finding.text == "gave the range that was asked for"


def test_a_web_seed_with_another_file_is_found_out() -> None:
    with WebServer({"/file.bin": bytes(len(DATA))}) as server:
        finding = fetch(server.url)
    assert finding.outcome is Outcome.BAD
    assert finding.text == "its first piece is corrupt"
    assert finding.supply is Supply.NOTHING


def test_a_web_seed_without_the_file_says_so() -> None:
    with WebServer({}) as server:
        finding = fetch(server.url)
    assert "HTTP 404" in finding.text
    assert "does not have the file" in finding.advice


def test_a_web_seed_that_is_down_says_so() -> None:
    assert "connection refused" in fetch(f"http://{LOOPBACK}:{closed_port()}/").text


def test_a_url_that_a_torrent_must_not_lead_to_is_not_asked() -> None:
    with WebServer({}) as server:
        finding = fetch(f"{server.url}admin?reboot=1")
        assert not server.requests
    assert finding.outcome is Outcome.BAD


def test_a_script_that_gives_pieces_is_asked_for_one() -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(200, DATA[:PIECE])

    with WebServer({}, script) as server:
        finding = fetch(f"{server.url}seed.php", by_piece=True)
        assert [path.partition("&")[2] for path in server.paths] == [f"piece=0&ranges=0-{PIECE - 1}"]
    assert finding.text == "gave a good piece"


def test_a_fetch_can_be_ended() -> None:
    """The server never answers, and the limit is longer than a test may last."""
    closers: list[Callable[[], None]] = []

    def hang(exchange: Exchange) -> None:
        closers[0]()
        exchange.stopping.wait(20)

    with WebServer({}, hang) as server:
        finding = sources.web_seed_finding(server.url, TORRENT, Config(), by_piece=False, on_open=closers.append)
        assert not server.stopping.is_set()
    assert finding.outcome is Outcome.BAD
