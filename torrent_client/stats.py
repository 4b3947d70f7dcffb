"""Snapshots of a torrent for whoever looks at it: the display, `--json`, tests.

Spec: the guide's Task 13.
Thread: made in any, immutable.
Lock: none.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from torrent_client.announcer import TrackerStatus
from torrent_client.text import counted, format_duration, printable

MAX_FAILURE_LENGTH: Final = 150
"""Characters of an error that are shown within a sentence."""


class TorrentState(StrEnum):
    """What a torrent is doing."""

    METADATA = "metadata"
    STARTING = "starting"
    CHECKING = "checking"
    DOWNLOADING = "downloading"
    COMPLETE = "complete"
    STOPPED = "stopped"
    ERROR = "error"


class PeerStats(NamedTuple):
    """One connected peer.

    Attributes:
        address: `host:port`.
        client: its name and version.
        source: where its address came from.
        direction: `out` if we dialled it, else `in`.
        state: what it does for us, in a word.
        pieces: how many it has.
        in_flight: blocks that it owes us.
        download_rate, upload_rate: bytes per second, smoothed.
        downloaded, uploaded: bytes of blocks.
        encrypted: by RC4.
    """

    address: str
    client: str
    source: str
    direction: str
    state: str
    pieces: int
    in_flight: int
    download_rate: float
    upload_rate: float
    downloaded: int
    uploaded: int
    encrypted: bool = False


class WebSeedStats(NamedTuple):
    """One web seed.

    Attributes:
        url: without a password.
        state: `waiting`, `asking`, `sending`, `idle`, `failing`, `banned` or `unusable`.
        error: what went wrong last, None after a success.
        failures: in a row.
        next_try_in: seconds until it is asked again, in state `failing`.
        pieces: how many it has, as far as we know.
        in_flight: blocks that we wait for.
        download_rate: bytes per second, smoothed.
        downloaded: bytes of blocks.
        source: as with peers, who it comes from.
    """

    url: str
    state: str
    error: str | None
    failures: int
    next_try_in: float | None
    pieces: int
    in_flight: int
    download_rate: float
    downloaded: int
    source: str = "web"


class TorrentStats(NamedTuple):
    """Everything about one torrent at one moment.

    Attributes:
        size, bytes_done: bytes of the wanted files, padding included.
        pieces_done: complete pieces, of the wanted ones.
        pieces_wanted: how many pieces the wanted files have bytes in.
        files_wanted, files_total: how many files, padding not counted.
        total_size: bytes of all files, padding included.
        downloaded, uploaded: bytes of blocks in this run.
        wasted: bytes of blocks that came twice or belonged to a piece that failed.
        hash_failures: pieces that failed.
        download_rate, upload_rate: bytes per second, smoothed.
        eta: seconds until it is complete at this rate, None if that cannot be said.
        checked: pieces looked at so far, in state `checking`, of `to_check`; pieces of the metadata, in state
            `metadata`.
        known_peers: addresses known.
        connecting: of them being dialled.
        banned: peers that are banned.
        piece_states: a `PieceState` a byte.
        waiting_for: why nothing is coming, None while something is.
        error: what ended it, in state `error`.
        ratio: bytes sent in all runs, in multiples of the torrent's size.
        seeding: complete, and there for others.
        dht_state: how the DHT is and what came of asking it, in words; None where it is not asked.
        local_network: what came of asking our own network for peers, in words; None where it is not asked.
        max_download_rate, max_upload_rate: bytes per second that this torrent may have, 0 for no limit of its own.
    """

    name: str
    info_hash: str
    state: TorrentState
    size: int = 0
    bytes_done: int = 0
    pieces_done: int = 0
    pieces_wanted: int = 0
    pieces_total: int = 0
    files_wanted: int = 0
    files_total: int = 0
    total_size: int = 0
    downloaded: int = 0
    uploaded: int = 0
    wasted: int = 0
    hash_failures: int = 0
    download_rate: float = 0.0
    upload_rate: float = 0.0
    eta: float | None = None
    checked: int = 0
    to_check: int = 0
    known_peers: int = 0
    connecting: int = 0
    banned: int = 0
    peers: tuple[PeerStats, ...] = ()
    trackers: tuple[TrackerStatus, ...] = ()
    piece_states: bytes = b""
    waiting_for: str | None = None
    error: str | None = None
    web_seeds: tuple[WebSeedStats, ...] = ()
    ratio: float = 0.0
    seeding: bool = False
    dht_state: str | None = None
    local_network: str | None = None
    max_download_rate: float = 0.0
    max_upload_rate: float = 0.0


def waiting_reason(
    peers: tuple[PeerStats, ...],
    trackers: tuple[TrackerStatus, ...],
    connecting: int,
    known_peers: int,
    next_dial_in: float | None,
    now: float,
    web_seeds: tuple[WebSeedStats, ...] = (),
    failure: str | None = None,
    obstacle: str | None = None,
    dht_state: str | None = None,
) -> str:
    """Return why a download that gets nothing gets nothing.

    Args:
        peers: the connected ones.
        trackers: all of them.
        connecting: addresses being dialled.
        known_peers: addresses known.
        next_dial_in: seconds until the next address may be dialled, None if there is none.
        now: the clock of the trackers' times.
        web_seeds: all of them.
        failure: what the last dial that failed came to.
        obstacle: what keeps us from dialling anybody.
        dht_state: how the DHT is, if it is asked.
    """
    if peers:
        return _waiting_for_peers(peers)
    if any(seed.state in ("waiting", "asking", "sending") for seed in web_seeds):
        return f"waiting for the first bytes from {counted(len(web_seeds), 'web seed')}"
    if obstacle:
        return obstacle
    if connecting:
        return f"connecting to {counted(connecting, 'peer')}"
    if known_peers and next_dial_in is not None and next_dial_in <= 0 and not failure:
        return f"about to dial {counted(known_peers, 'known peer')}"
    if known_peers and next_dial_in is not None:
        tries = f"trying again in {format_duration(max(0.0, next_dial_in))}"
        last = f" ({printable(failure, MAX_FAILURE_LENGTH)})" if failure else ""
        return f"none of {counted(known_peers, 'known peer')} could be reached{last}; {tries}"
    asking = [tracker for tracker in trackers if tracker.state == "asking" or not tracker.next_announce]
    if asking:
        return f"asking {asking[0].url} for peers"
    if web_seeds and not trackers:
        return _waiting_for_web_seeds(web_seeds)
    reason = _waiting_for_trackers(trackers, now, dht_state)
    return f"{reason}; {_waiting_for_web_seeds(web_seeds)}" if web_seeds else reason


def _waiting_for_trackers(trackers: tuple[TrackerStatus, ...], now: float, dht_state: str | None) -> str:
    """Return what keeps the trackers, and the DHT, from giving us peers."""
    if dht_state:
        reason = f"{_waiting_for_trackers(trackers, now, None)}; " if trackers else "no peers yet; "
        return f"{reason}DHT: {dht_state}"
    if not trackers:
        return "no peers: there is no tracker to ask, and no --peer was given"
    soonest = min(trackers, key=lambda tracker: tracker.next_announce)
    wait = f"asking again in {format_duration(max(0.0, soonest.next_announce - now))}"
    if soonest.error:
        return f"no peers from {soonest.url}: {soonest.error}; {wait}"
    return f"no peers: the tracker knows of nobody else; {wait}"


def seeding_reason(trackers: tuple[TrackerStatus, ...], port: int, dht_state: str | None = None) -> str:
    """Return why a seed without peers has none.

    Args:
        trackers: all of them.
        port: TCP port that we listen on; 0 for none, behind a proxy.
        dht_state: how the DHT is, if it tells others of us.
    """
    if not port:
        return "nobody can call us behind a proxy: we dial the peers that the trackers tell us of"
    if any(tracker.state == "working" for tracker in trackers):
        return f"nobody asks for anything; listening on port {port}"
    if dht_state:
        return f"nobody asks for anything; listening on port {port}, DHT: {dht_state}"
    if not trackers:
        return f"no tracker tells others of us: they need our address, with port {port}"
    return f"no tracker has answered yet, so that nobody knows of us; listening on port {port}"


def _waiting_for_peers(peers: tuple[PeerStats, ...]) -> str:
    """Return what the connected peers keep us waiting for."""
    states = [peer.state for peer in peers]
    if all(state == "nothing for us" for state in states):
        return f"{counted(len(peers), 'peer')} connected, but none has a piece that we lack"
    if all(state in ("choked", "nothing for us") for state in states):
        return f"choked by {counted(states.count('choked'), 'peer')}: they have no free upload slot for us yet"
    if "snubbed" in states:
        return f"{counted(states.count('snubbed'), 'peer')} promised blocks but send nothing"
    return f"waiting for the first blocks from {counted(len(peers), 'peer')}"


def _waiting_for_web_seeds(web_seeds: tuple[WebSeedStats, ...]) -> str:
    """Return what is wrong with the web seed that is to be asked next."""
    soonest = min(web_seeds, key=lambda seed: (seed.next_try_in is None, seed.next_try_in))
    what = "the web seed" if len(web_seeds) == 1 else f"{counted(len(web_seeds), 'web seed')}, {soonest.url}"
    if soonest.next_try_in is None:
        return f"nothing more from {what}: {soonest.error or soonest.state}"
    return f"nothing from {what}: {soonest.error}; asking again in {format_duration(soonest.next_try_in)}"
