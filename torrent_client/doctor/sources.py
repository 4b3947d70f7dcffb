"""Asks where peers come from: each tracker, the DHT, the local network; and each web seed for a piece.

    tracker     started, and stopped at once: it tells us of peers, and forgets us
    DHT         a read-only node without an announcement, nothing saved
    web seed    the range of a piece, or of a block where pieces are large

Spec: BEP 3, 15, 48 (trackers), 5, 43 (the DHT, read-only), 14 (local network), 17 and 19 (web seeds).
Thread: the caller's, one for each; addresses come on the threads of those who find them.
Lock: none.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final, TypeAlias

from torrent_client.abort import Abort
from torrent_client.config import BLOCK_SIZE, MIB, Config
from torrent_client.doctor.diagnosis import Finding, Outcome, Supply
from torrent_client.doctor.patient import Patient
from torrent_client.errors import TorrentError, TrackerError, WebSeedError
from torrent_client.local_discovery import LocalDiscovery
from torrent_client.text import format_duration, printable
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_answers import AnnounceResponse, PeerAddress, Progress, ScrapeCounts, Tracker
from torrent_client.web_layout import FileLayout, PieceLayout, check_web_seed_url

if TYPE_CHECKING:
    from torrent_client.dht.node import DhtNode

OnPeers: TypeAlias = Callable[[Sequence[PeerAddress]], None]
"""Takes addresses as they are found, on any thread."""

TRACKER_LIMIT: Final = 8.0
"""Seconds for a tracker: a download is more patient, and whoever asks what is wrong is not."""

STOPPED_LIMIT: Final = 2.0
"""Seconds for taking the announcement back."""

SCRAPE_LIMIT: Final = 3.0
"""Seconds for a scrape of a tracker that has just answered."""

NODES_LIMIT: Final = 8.0
"""Seconds until the DHT has to have nodes; half of it is usual where UDP passes."""

MORE_NODES_LIMIT: Final = 3.0
"""Seconds in which nodes of earlier runs may answer where the public ones do not."""

SEARCH_LIMIT: Final = 8.0
"""Seconds for the search after that."""

LOCAL_LIMIT: Final = 5.0
"""Seconds to listen to the local network: who answers at all answers soon."""

MAX_SAVED_NODES: Final = 40
"""Nodes of earlier runs that are asked, beside the public ones."""

MAX_TORRENT_NODES: Final = 20
"""Nodes that a torrent names; a session asks as many."""

MAX_WHOLE_PIECE: Final = MIB
"""Bytes of a piece that is fetched whole from a web seed, to be hashed; of a larger one a block is."""

WEB_SEED_TIMEOUT: Final = 8.0
"""Seconds of silence from a web seed."""

TICK: Final = 0.1
"""Seconds between two looks at what another thread does."""

_TRACKER_ADVICE: Final = (
    ("not finished", "it was stopped before the tracker answered"),
    ("we are stopping", "it was stopped before the tracker answered"),
    ("does not go through the proxy", "UDP trackers are off behind a proxy; use one that speaks HTTP, or no --proxy"),
    ("the proxy", "see the proxy above: trackers are asked through it"),
    ("host name is not known", "a tracker that is gone for good, or your name server (DNS) does not work"),
    ("not yet valid", "set this machine's clock"),
    ("has expired", "its owner has to renew the certificate, unless this machine's clock is wrong"),
    ("certificate", "somebody on the way listens in, or its certificate is not right: not trusted"),
    ("connection refused", "it is down, or has moved"),
    ("no answer", "it is down, or something on the way (a firewall, for UDP above all) drops the questions"),
    ("takes too long", "it is overloaded: a download asks again"),
    ("refused:", "it does not want this torrent, or you: if it is private, get a new .torrent from its site"),
    ("HTTP 4", "there is no tracker at this URL any more"),
    ("HTTP 5", "it is broken now: a download asks again"),
    ("no tracker's", "there is something else than a tracker at this URL"),
    ("unreachable", "no way leads there from here: see your network"),
    ("not supported", "other clients' kinds of trackers do not count here; the DHT may do"),
)
"""What to do about what a tracker failed with, by words of its message; the first that fits counts."""

_WEB_SEED_ADVICE: Final = (
    ("the proxy", "see the proxy above: web seeds are asked through it"),
    ("host name is not known", "it is gone for good, or your name server (DNS) does not work"),
    ("certificate", "see the clock, and who is between you and the server"),
    ("HTTP 404", "it does not have the file any more; a download does without it"),
    ("bytes instead of", "it has another version of the file; a download does without it"),
    ("connection refused", "it is down, or has moved"),
)


def _advice(table: Sequence[tuple[str, str]], message: str, otherwise: str) -> str:
    return next((advice for words, advice in table if words in message), otherwise)


# --- trackers ---------------------------------------------------------------------------------------------


def tracker_finding(tracker: Tracker, patient: Patient, on_peers: OnPeers, abort: Abort) -> Finding:
    """Announce to a tracker, take that back, and say what it answered.

    Args:
        tracker: which one.
        patient: the torrent.
        on_peers: is given the peers.
        abort: ends the waiting.
    """
    began = time.monotonic()
    answers: list[AnnounceResponse] = []
    troubles: list[str] = []
    try:
        families = tracker.families()
    except TrackerError as error:
        families, troubles = (), [str(error)]
    for family in families:
        left = TRACKER_LIMIT - (time.monotonic() - began)
        if left <= 0 or abort.is_set:
            break
        progress = Progress(0, 0, patient.left)
        try:
            answer = tracker.announce(progress, "started", time_limit=left, family=family, abort=abort)
        except TrackerError as error:
            troubles.append(str(error))
            continue
        on_peers(answer.peers)
        answers.append(answer)
        with suppress(TrackerError):  # it forgets us by itself, later
            tracker.announce(
                progress, "stopped", num_want=0, tracker_id=answer.tracker_id, time_limit=STOPPED_LIMIT, family=family
            )
    seconds = time.monotonic() - began
    if not answers:
        return _failed_tracker(tracker.url, list(dict.fromkeys(troubles)) or ["not finished"], seconds)
    return _answered_tracker(tracker, patient, answers, seconds)


def _failed_tracker(url: str, troubles: Sequence[str], seconds: float) -> Finding:
    text = printable("; ".join(troubles))
    advice = _advice(_TRACKER_ADVICE, text, "try it later; peers may come from elsewhere")
    facts = {"error": text, "peers": 0}
    return Finding("tracker", printable(url), Outcome.BAD, text, advice, seconds, facts=facts)


def _answered_tracker(
    tracker: Tracker, patient: Patient, answers: Sequence[AnnounceResponse], seconds: float
) -> Finding:
    """Return what a tracker says, with the numbers of a scrape where the announce had none."""
    peers = set().union(*(answer.peers for answer in answers))
    seeders = max((answer.seeders for answer in answers if answer.seeders is not None), default=None)
    leechers = max((answer.leechers for answer in answers if answer.leechers is not None), default=None)
    if seeders is None and (counts := _scraped(tracker, patient.info_hash)):
        seeders, leechers = counts.seeders, counts.leechers
    warnings = [answer.warning for answer in answers if answer.warning]
    facts = {"peers": len(peers), "seeders": seeders, "leechers": leechers, "warning": next(iter(warnings), None)}
    words = [f"{len(peers)} peer{'' if len(peers) == 1 else 's'}"]
    if seeders is not None:
        words.append(f"{seeders} seeder{'' if seeders == 1 else 's'}, {leechers or 0} downloading (with us)")
    if warnings:
        words.append(f"it warns: {warnings[0]}")
    outcome, advice = Outcome.OK, ""
    if not peers or (seeders == 0 and leechers is not None and leechers <= 1):  # some name ourselves, too
        outcome, advice = Outcome.NOTE, "it works, and nobody else is there: other trackers, or another day"
    elif seeders == 0:
        outcome, advice = Outcome.NOTE, "no seeder is there: you get what the others have, and may have to wait"
    return Finding("tracker", printable(tracker.url), outcome, "; ".join(words), advice, seconds, facts=facts)


def _scraped(tracker: Tracker, info_hash: bytes) -> ScrapeCounts | None:
    with suppress(TrackerError):
        return tracker.scrape([info_hash], time_limit=SCRAPE_LIMIT).get(info_hash)
    return None


# --- the DHT ----------------------------------------------------------------------------------------------


def why_no_dht(patient: Patient) -> str | None:
    """Return why the DHT is not asked; None if it is."""
    if not patient.config.dht:
        return "switched off"
    if not patient.config.allows_direct:
        return "off: the proxy carries no UDP"
    return "off: a private torrent has peers of its trackers alone" if patient.is_private else None


def dht_finding(patient: Patient, port: int, on_peers: OnPeers, is_over: Callable[[], bool]) -> Finding:
    """Take part in the DHT for a moment, without a trace, and look for the peers of the torrent.

    Args:
        patient: the torrent.
        port: UDP port wanted.
        on_peers: is given the peers as they are found.
        is_over: whether nobody wants to know any more.
    """
    from torrent_client.dht.node import DhtNode  # here, for it is not always asked

    began = time.monotonic()
    try:
        node = DhtNode(patient.config._replace(dht_read_only=True), port)
    except TorrentError as error:
        return Finding("dht", "", Outcome.BAD, str(error), "end programs that use UDP, or restart the machine")
    node.start()
    try:
        more = _more_nodes(patient, node.port)
        for host, node_port in more:
            node.add_node(host, node_port)
        patience = began + (MORE_NODES_LIMIT if more else 0)
        _wait(NODES_LIMIT, lambda: _is_settled(node, patience) or is_over())
        stats = node.stats()
        if not stats.nodes:
            return _unreachable_dht(stats.best.reason or stats.describe(), time.monotonic() - began)
        found, is_done = _search(node, patient.info_hash, on_peers, is_over)
        return _searched_dht(node.stats().nodes, found, is_done, time.monotonic() - began)
    finally:
        node.stop()


def _is_settled(node: "DhtNode", patience: float) -> bool:
    """Tell whether a node is in the DHT, or will not get there; until `patience` (monotonic) it still may."""
    state = node.stats().best.state
    return state == "ready" or (state == "unreachable" and time.monotonic() >= patience)


def _more_nodes(patient: Patient, port: int) -> list[tuple[str, int]]:
    """Return nodes that the torrent names, and those of earlier runs."""
    named = list(patient.torrent.nodes[:MAX_TORRENT_NODES]) if patient.torrent else []
    if patient.config.dht_bootstrap is not None or patient.state_directory is None:
        return named
    return named + _saved_nodes(patient.state_directory, port)


def _saved_nodes(directory: Path, port: int) -> list[tuple[str, int]]:
    from torrent_client.dht import saved_nodes

    families = saved_nodes.load(directory, port).values()
    return [(node.endpoint.host, node.endpoint.port) for saved in families for node in saved.nodes][:MAX_SAVED_NODES]


def _search(
    node: "DhtNode", info_hash: bytes, on_peers: OnPeers, is_over: Callable[[], bool]
) -> tuple[set[PeerAddress], bool]:
    """Search; return the peers, and whether the search came to its end."""
    found: set[PeerAddress] = set()
    done = Event()

    def take(peers: Sequence[PeerAddress]) -> None:
        found.update(peers)
        on_peers(peers)

    search = node.find_peers(info_hash, take, announce_port=None, on_done=lambda _result: done.set())
    _wait(SEARCH_LIMIT, lambda: done.is_set() or is_over())
    search.cancel()
    return set(found), done.is_set()


def _unreachable_dht(reason: str, seconds: float) -> Finding:
    advice = "something on the way drops UDP (a firewall?), or the bootstrap nodes are down: see --dht-bootstrap"
    if "host name" in reason:
        advice = "your name server (DNS) does not work, or you are not online: see also --dht-bootstrap"
    return Finding("dht", "", Outcome.BAD, printable(reason), advice, seconds, facts={"nodes": 0, "peers": 0})


def _searched_dht(nodes: int, found: set[PeerAddress], is_done: bool, seconds: float) -> Finding:
    unfinished = "" if is_done else ", not finished"
    peers = f"{len(found)} peer{'' if len(found) == 1 else 's'} found"
    text = f"{nodes} node{'' if nodes == 1 else 's'}, {peers}{unfinished}"
    facts = {"nodes": nodes, "peers": len(found), "finished": is_done}
    if found:
        return Finding("dht", "", Outcome.OK, text, seconds=seconds, facts=facts)
    advice = "it works, and nobody there has this torrent now"
    return Finding("dht", "", Outcome.NOTE, text, advice, seconds, facts=facts)


def _wait(seconds: float, condition: Callable[[], bool]) -> None:
    """Wait until a condition is true, or for so long."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(TICK)


# --- the local network ------------------------------------------------------------------------------------


def why_no_local(patient: Patient) -> str | None:
    """Return why the local network is not asked; None if it is."""
    if not patient.config.lsd:
        return "switched off"
    if not patient.config.allows_direct:
        return "off: the proxy carries no multicast"
    return "off: a private torrent has peers of its trackers alone" if patient.is_private else None


def local_finding(
    discovery: LocalDiscovery, info_hash: bytes, on_peers: OnPeers, is_over: Callable[[], bool]
) -> Finding:
    """Tell the local network of the torrent, and listen for a while whether others have it.

    Args:
        discovery: not started yet; it is stopped in the end.
        info_hash: 20 bytes.
        on_peers: is given the peers that are heard.
        is_over: whether nobody wants to know any more.
    """
    heard: set[PeerAddress] = set()

    def take(peers: Sequence[PeerAddress]) -> None:
        heard.update(peers)
        on_peers(peers)

    discovery.start()
    try:
        discovery.announce(info_hash, take)
        _wait(LOCAL_LIMIT, lambda: bool(heard) or is_over() or discovery.state(info_hash).startswith("off"))
        state = discovery.state(info_hash)
    finally:
        discovery.stop()
    if state.startswith(("off", "no network")):
        return Finding("local", "", Outcome.NOTE, state, "nothing to do, unless somebody next to you has the file")
    return Finding("local", "", Outcome.OK, state, facts={"peers": len(heard)})


# --- web seeds --------------------------------------------------------------------------------------------


def web_seed_finding(
    url: str, torrent: TorrentFile, config: Config, *, by_piece: bool, on_open: Callable[[Callable[[], None]], None]
) -> Finding:
    """Fetch a piece from a web seed, or a block where pieces are large, and say what came.

    Args:
        url: of the web seed.
        torrent: what it has.
        config: the proxy.
        by_piece: it is a script that gives pieces (BEP 17).
        on_open: is given what ends the fetching, to be called from any thread.
    """
    from torrent_client.http_fetcher import HttpFetcher  # here, because it loads `requests`

    began = time.monotonic()
    fetcher = HttpFetcher(config._replace(web_seed_timeout=WEB_SEED_TIMEOUT))
    on_open(fetcher.close)
    size = min(torrent.piece_length, torrent.total_length)
    is_whole = size <= MAX_WHOLE_PIECE
    size = size if is_whole else BLOCK_SIZE
    layout = PieceLayout(url, torrent) if by_piece else FileLayout(url, torrent)
    data = b""
    try:
        check_web_seed_url(url, looks_up=config.allows_direct)
        for wanted in layout.ranges(0, size):
            data += b"".join(fetcher.fetch(wanted, lambda: BLOCK_SIZE)) if wanted.url else bytes(wanted.length)
    except WebSeedError as error:
        text = printable(str(error))
        advice = _advice(_WEB_SEED_ADVICE, text, "a download asks again later, and gets the file from elsewhere")
        return Finding("web seed", printable(url), Outcome.BAD, text, advice, time.monotonic() - began)
    finally:
        fetcher.hang_up()
    seconds = time.monotonic() - began
    if is_whole and sha1(data).digest() != torrent.piece_hashes[:20]:
        text, advice = "its first piece is corrupt", "it has another file under this name: a download bans it"
        return Finding("web seed", printable(url), Outcome.BAD, text, advice, seconds)
    text = "gave a good piece" if is_whole else "gave the range that was asked for"
    pieces = (1 << torrent.piece_count) - 1
    text += f" in {format_duration(seconds)}" if seconds >= 1 else ""
    return Finding("web seed", printable(url), Outcome.OK, text, "", seconds, Supply.GIVES, pieces)
