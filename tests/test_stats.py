"""Why a download that gets nothing gets nothing: every reason, and which one is told first."""

import pytest

from torrent_client.announcer import TrackerStatus
from torrent_client.stats import PeerStats, TorrentState, WebSeedStats, seeding_reason, waiting_reason

NOW = 1000.0


def peers(*states: str) -> tuple[PeerStats, ...]:
    """Return connected peers in these states."""
    return tuple(
        PeerStats(
            address=f"192.0.2.{number}:6881",
            client="Transmission 4.0.5.0",
            source="tracker",
            direction="out",
            state=state,
            pieces=1,
            in_flight=0,
            download_rate=0.0,
            upload_rate=0.0,
            downloaded=0,
            uploaded=0,
        )
        for number, state in enumerate(states, 1)
    )


def tracker(name: str, state: str = "working", wait: float = 60.0, error: str | None = None) -> TrackerStatus:
    """Return a tracker that is asked again after `wait` seconds."""
    return TrackerStatus(f"http://{name}/announce", state=state, error=error, next_announce=NOW + wait)


def reason(
    connected: tuple[PeerStats, ...] = (),
    trackers: tuple[TrackerStatus, ...] = (),
    *,
    connecting: int = 0,
    known_peers: int = 0,
    next_dial_in: float | None = None,
    web_seeds: tuple[WebSeedStats, ...] = (),
) -> str:
    """Return the reason, with nothing going on but for what a test says."""
    return waiting_reason(connected, trackers, connecting, known_peers, next_dial_in, NOW, web_seeds)


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (["nothing for us"], "1 peer connected, but none has a piece that we lack"),
        (["nothing for us"] * 2, "2 peers connected, but none has a piece that we lack"),
        (["choked"], "choked by 1 peer: they have no free upload slot for us yet"),
        (["choked", "nothing for us", "choked"], "choked by 2 peers: they have no free upload slot for us yet"),
        (["snubbed"], "1 peer promised blocks but send nothing"),
        (["snubbed", "choked", "snubbed", "nothing for us"], "2 peers promised blocks but send nothing"),
        (["idle"], "waiting for the first blocks from 1 peer"),
        (["sending", "choked"], "waiting for the first blocks from 2 peers"),
    ],
)
def test_connected_peers_are_the_reason_while_there_are_any(states: list[str], told: str) -> None:
    """Whatever dialling and the trackers do: who is here could send."""
    connected = peers(*states)
    assert reason(connected) == told
    failing = (tracker("a", "failing", error="refused"),)
    assert reason(connected, failing, connecting=3, known_peers=9, next_dial_in=5.0) == told


@pytest.mark.parametrize(("connecting", "told"), [(1, "connecting to 1 peer"), (3, "connecting to 3 peers")])
def test_dialling_comes_next(connecting: int, told: str) -> None:
    """Before the question when the next attempt is, and before the trackers."""
    assert reason(trackers=(tracker("a", "asking"),), connecting=connecting, known_peers=9, next_dial_in=5.0) == told


@pytest.mark.parametrize(
    ("known_peers", "next_dial_in", "told"),
    [
        (1, 9.6, "none of 1 known peer could be reached; trying again in 10 s"),
        (7, 0.0, "about to dial 7 known peers"),
        (7, -3.0, "about to dial 7 known peers"),
    ],
)
def test_peers_that_cannot_be_reached_are_told_with_the_next_try(
    known_peers: int, next_dial_in: float, told: str
) -> None:
    """Addresses are known, but nobody answers there; when a time has passed and nothing has failed, it is now."""
    assert reason(trackers=(tracker("a"),), known_peers=known_peers, next_dial_in=next_dial_in) == told


def test_the_last_failure_is_told_with_the_next_try() -> None:
    """Made safe for a terminal, and short: it may hold a stranger's words."""
    told = waiting_reason((), (), 0, 2, 5.0, 0.0, (), "the proxy said \x1b[31m" + "x" * 500)
    assert told.startswith("none of 2 known peers could be reached (the proxy said ")
    assert told.endswith("); trying again in 5 s")
    assert "\x1b" not in told
    assert len(told) < 250


def test_what_keeps_us_from_dialling_anybody_comes_before_the_dials() -> None:
    """But not before peers that are there, and web seeds."""
    assert waiting_reason((), (), 0, 2, 5.0, 0.0, (), "refused", "no way out") == "no way out"
    assert waiting_reason(peers("choked"), (), 0, 2, 5.0, 0.0, (), None, "no way out").startswith("choked by")


def test_a_seed_that_nobody_can_call_says_so() -> None:
    """Behind a proxy."""
    assert seeding_reason((), 0).startswith("nobody can call us behind a proxy")


def test_a_tracker_that_is_being_asked_is_named() -> None:
    """Also when addresses are known of which none will be dialled again."""
    trackers = (tracker("a", "failing", error="refused"), tracker("b", "asking"))
    assert reason(trackers=trackers) == "asking http://b/announce for peers"
    assert reason(trackers=trackers, known_peers=3) == "asking http://b/announce for peers"
    assert reason(trackers=trackers, next_dial_in=3.0) == "asking http://b/announce for peers"


def test_without_trackers_there_is_nobody_to_ask() -> None:
    """The user learns what could be done about it."""
    assert reason() == "no peers: there is no tracker to ask, and no --peer was given"


def test_the_tracker_that_is_asked_next_tells_what_is_wrong() -> None:
    """Its last error and when it is asked again; the other trackers come later."""
    trackers = (
        tracker("a", "failing", 90.0, "refused: go away"),
        tracker("b", "failing", 17.6, "no answer in time"),
        tracker("c", "working", 30.0),
    )
    assert reason(trackers=trackers) == "no peers from http://b/announce: no answer in time; asking again in 18 s"


def test_a_tracker_without_peers_and_without_error_knows_nobody() -> None:
    """The torrent is dead, or young."""
    told = "no peers: the tracker knows of nobody else; asking again in 1 min 0 s"
    assert reason(trackers=(tracker("a"),)) == told


def test_a_tracker_that_is_due_is_asked_now() -> None:
    """Never in minus three seconds."""
    assert reason(trackers=(tracker("a", wait=-3.0),)).endswith("asking again in 0 s")


def test_snapshots_cannot_be_changed() -> None:
    """They cross threads."""
    (peer,) = peers("idle")
    with pytest.raises(AttributeError):
        peer.state = "sending"  # type: ignore[misc]


def test_states_are_their_own_text() -> None:
    """The display and `--json` print them as they are."""
    assert [f"{state}" for state in TorrentState] == [
        "metadata",
        "starting",
        "checking",
        "downloading",
        "complete",
        "stopped",
        "error",
    ]


def web_seed(name: str, state: str, error: str | None = None, next_try_in: float | None = None) -> WebSeedStats:
    """Return a web seed in some state."""
    return WebSeedStats(f"http://{name}/", state, error, 0, next_try_in, 1, 0, 0.0, 0)


@pytest.mark.parametrize(
    ("web_seeds", "told"),
    [
        ([web_seed("a", "asking")], "waiting for the first bytes from 1 web seed"),
        (
            [web_seed("a", "failing", "HTTP 404", 3600.0)],
            "nothing from the web seed: HTTP 404; asking again in 1 h 0 min",
        ),
        (
            [
                web_seed("a", "banned", "it lied"),
                web_seed("b", "failing", "no", 5.0),
                web_seed("c", "failing", "so", 9.0),
            ],
            "nothing from 3 web seeds, http://b/: no; asking again in 5 s",
        ),
        ([web_seed("a", "banned", "it lied")], "nothing more from the web seed: it lied"),
        ([web_seed("a", "idle")], "nothing more from the web seed: idle"),
    ],
)
def test_web_seeds_are_the_reason_where_there_are_any(web_seeds: list[WebSeedStats], told: str) -> None:
    """By themselves, or beside a tracker that gives no peers."""
    assert reason(web_seeds=tuple(web_seeds)) == told
    with_tracker = reason(trackers=(tracker("t", error="dead"),), web_seeds=tuple(web_seeds))
    assert with_tracker in (told, f"no peers from http://t/announce: dead; asking again in 1 min 0 s; {told}")


def test_the_dht_is_named_where_it_is_what_we_wait_for() -> None:
    """With or without trackers; and a seed says that it is announced there."""
    told = waiting_reason((), (), 0, 0, None, NOW, (), None, None, "unreachable: no answer, next try in 5 s")
    assert told == "no peers yet; DHT: unreachable: no answer, next try in 5 s"
    assert seeding_reason((), 6881, "120 nodes") == ("nobody asks for anything; listening on port 6881, DHT: 120 nodes")
