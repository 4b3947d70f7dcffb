"""What people see: the picture at any width, the map of pieces, plain lines, and nothing that a terminal obeys."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.support import FakeClock
from torrent_client.announcer import TrackerStatus
from torrent_client.display import PEERS_SHOWN, TRACKERS_SHOWN, WEB_SEEDS_SHOWN, LiveView, overview, picture, piece_map
from torrent_client.piece_table import PieceState
from torrent_client.stats import PeerStats, TorrentState, TorrentStats, WebSeedStats
from torrent_client.text import format_rate
from torrent_client.views import LINE_INTERVAL, LineView, SilentView, summary_line

MIB = 1024 * 1024
WIDTHS = [20, 40, 80, 200]
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202eevil\x00[red]markup[/red]"


def peer(number: int, **changes: object) -> PeerStats:
    """Return a peer that sends `number` MiB/s."""
    facts: dict[str, object] = {
        "address": f"192.0.2.{number}:6881",
        "client": "qBittorrent 4.6.0",
        "source": "tracker",
        "direction": "out",
        "state": "sending",
        "pieces": 512,
        "in_flight": 10,
        "download_rate": float(number * MIB),
        "upload_rate": 0.0,
        "downloaded": 1,
        "uploaded": 1,
    }
    return PeerStats(**(facts | changes))  # type: ignore[arg-type]


def tracker(number: int, **changes: object) -> TrackerStatus:
    """Return a tracker that works."""
    status = TrackerStatus(f"http://t{number}.example/announce", "working", peers=50, next_announce=1900.0)
    return status._replace(**changes)  # type: ignore[arg-type]


def snapshot(**changes: object) -> TorrentStats:
    """Return a download in full swing."""
    facts: dict[str, object] = dict.fromkeys(TorrentStats._fields, 0)
    facts |= {
        "name": "debian-12.iso",
        "info_hash": "ab" * 20,
        "state": TorrentState.DOWNLOADING,
        "size": 300 * MIB,
        "total_size": 300 * MIB,
        "bytes_done": 100 * MIB,
        "pieces_done": 341,
        "pieces_wanted": 1024,
        "pieces_total": 1024,
        "files_wanted": 1,
        "files_total": 1,
        "download_rate": 12.5 * MIB,
        "upload_rate": 1.5 * MIB,
        "uploaded": 5 * MIB,
        "wasted": 3 * MIB,
        "hash_failures": 2,
        "eta": 164.0,
        "known_peers": 120,
        "connecting": 4,
        "banned": 1,
        "peers": (peer(1), peer(2)),
        "trackers": (tracker(1),),
        "web_seeds": (),
        "piece_states": bytes([3] * 341 + [1] * 10 + [0] * 673),
        "waiting_for": None,
        "error": None,
        "seeding": False,
    }
    return TorrentStats(**(facts | changes))  # type: ignore[arg-type]


def drawn(thing: object, width: int = 80) -> str:
    """Return what a terminal of so many columns would show, without colours."""
    output = io.StringIO()
    Console(width=width, file=output, highlight=False).print(thing)
    return output.getvalue()


def assert_harmless(text: str) -> None:
    """Fail if a terminal would obey anything in a text."""
    bad = {character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Cs")} - {"\n"}
    assert not bad


# --- the picture ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_picture_holds_the_key_facts(width: int) -> None:
    """Progress, both speeds, time left, pieces and peers are whole on the narrowest terminal, too."""
    text = drawn(picture(snapshot(), width, 1000.0), width)
    for fact in ("debian-12.iso", "downloading", "33.3 %", "12.5 MiB/s", "1.50 MiB/s", "left 2 min 44 s"):
        assert fact in text
    for fact in ("pieces 341/1,024", "size 300 MiB", "sent 5.00 MiB", "wasted 3.00 MiB (2 bad pieces)"):
        assert fact in text
    assert "peers 2 of 120 known, 4 connecting, 1 banned" in " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("state", list(TorrentState))
def test_no_line_is_wider_than_the_terminal(width: int, state: TorrentState) -> None:
    """In any state, with long names and many peers: a line too long would tear the picture."""
    stats = snapshot(
        state=state,
        name="n" * 300,
        peers=tuple(peer(number, address=f"[2001:db8:0:0:0:0:0:{number}]:65535") for number in range(12)),
        trackers=tuple(tracker(number, error="it says " + "no " * 50, failures=3) for number in range(6)),
        waiting_for="w" * 300,
        error="cannot write /a/very/long/path: the disk is full" if state is TorrentState.ERROR else None,
        size=2**49,
        bytes_done=2**48,
        download_rate=9e9,
        eta=9e6,
    )
    lines = drawn(picture(stats, width, 1000.0), width).splitlines()
    assert lines
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [40, 80])
def test_a_torrent_of_nothing_is_drawn(width: int) -> None:
    """Zero bytes, zero pieces, nobody there: no division by zero, and it is complete."""
    nothing = snapshot(
        size=0, total_size=0, bytes_done=0, pieces_done=0, pieces_wanted=0, pieces_total=0, piece_states=b"",
        peers=(peer(1),), trackers=(), eta=None,
    )  # fmt: skip
    assert "100.0 %" in drawn(picture(nothing, width, 0.0), width)


def test_the_busiest_peers_are_shown() -> None:
    """With their address, client, share and speed; the others are counted."""
    text = drawn(picture(snapshot(peers=tuple(peer(number) for number in range(1, 12))), 80, 0.0))
    rows = [line for line in text.splitlines() if "192.0.2." in line]
    assert len(rows) == PEERS_SHOWN
    assert "192.0.2.11:6881" in rows[0]
    assert "50 %" in rows[0]
    assert "11.0 MiB/s" in rows[0]
    assert "and 3 more" in text


def test_peers_that_called_us_are_marked() -> None:
    """Incoming ones have no source."""
    text = drawn(picture(snapshot(peers=(peer(1, direction="in", source="incoming", state="choked"),)), 100, 0.0), 100)
    assert "incoming" in text
    assert "choked" in text


def test_encrypted_peers_are_marked() -> None:
    """Those by RC4, and no others."""
    text = drawn(picture(snapshot(peers=(peer(1, encrypted=True), peer(2))), 120, 0.0), 120)
    assert ["RC4" in line for line in text.splitlines() if "qBittorrent" in line] == [False, True]


def web_seed(number: int, **changes: object) -> WebSeedStats:
    """Return a web seed that sends."""
    seed = WebSeedStats(f"http://w{number}.example/", "sending", None, 0, None, 512, 10, float(number * MIB), 1)
    return seed._replace(**changes)  # type: ignore[arg-type]


def test_web_seeds_tell_what_they_do_and_when_they_are_asked_next() -> None:
    """Speeds, errors, pauses; how many more there are; no control codes."""
    web_seeds = (
        web_seed(3),
        web_seed(2, state="failing", error="HTTP 404 Not Found", next_try_in=90.0),
        web_seed(1, url=HOSTILE, error=HOSTILE),
        *(web_seed(number) for number in range(4, 8)),
    )
    text = drawn(picture(snapshot(web_seeds=web_seeds), 120, 1000.0), 120)
    assert "3.00 MiB/s" in text
    assert "failing: HTTP 404 Not Found" in text
    assert "1 min 30 s" in text
    assert "\x1b[2J" not in text
    assert f"and {7 - WEB_SEEDS_SHOWN} more" in text
    assert "7 web seeds" in summary_line(snapshot(web_seeds=web_seeds))


def test_trackers_tell_what_they_said_and_when_they_are_asked_next() -> None:
    """Peers, warnings, errors with how often; how many more there are."""
    trackers = (
        tracker(1, warning="be nice"),
        tracker(2, state="failing", error="no answer in time", failures=3, next_announce=1090.0),
        tracker(3, state="asking", next_announce=0.0),
        *(tracker(number) for number in range(4, 8)),
    )
    text = drawn(picture(snapshot(trackers=trackers), 100, 1000.0), 100)
    assert "50 peers; be nice" in text
    assert "15 min 0 s" in text
    assert "no answer in time (3 in a row)" in text
    assert "1 min 30 s" in text
    assert "asking" in text
    assert "now" in text
    assert f"and {7 - TRACKERS_SHOWN} more" in text


def test_a_trackers_numbers_and_our_address_are_shown() -> None:
    """How many it knows is more than it names; the address is what others see of us."""
    trackers = (tracker(1, seeders=7, leechers=0, external_ip="203.0.113.5"),)
    assert "50 peers of 7 seeds, 0 others; we are 203.0.113.5" in drawn(
        picture(snapshot(trackers=trackers), 150, 1000.0), 150
    )


def test_what_it_waits_for_and_what_went_wrong_are_shown() -> None:
    """In full: this is what the user needs."""
    assert "waiting: choked by 2 peers" in drawn(picture(snapshot(waiting_for="choked by 2 peers"), 80, 0.0))
    assert "the disk is full" in drawn(picture(snapshot(state=TorrentState.ERROR, error="the disk is full"), 80, 0.0))


def test_checking_shows_its_own_progress() -> None:
    """Pieces looked at, not bytes downloaded."""
    text = drawn(picture(snapshot(state=TorrentState.CHECKING, checked=1500, to_check=3000), 80, 0.0))
    assert "1,500/3,000 checked" in text


def test_while_the_metadata_is_fetched_nothing_is_said_of_what_is_not_known() -> None:
    """No pieces 0/0, no size 0 B, and no 100 % of nothing."""
    stats = snapshot(state=TorrentState.METADATA, size=0, pieces_wanted=0, checked=0, to_check=0)
    text = drawn(picture(stats, 40, 0.0), 40)
    assert "no peer has it yet" in text
    assert "pieces" not in text
    assert "size" not in text
    assert "%" not in "".join(line for line in drawn(overview([stats, stats], 24)).splitlines() if "metadata" in line)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_an_overview_names_its_torrents_however_narrow_the_terminal(width: int) -> None:
    text = drawn(overview([snapshot(), snapshot(name="other")], 24, width), width)
    assert "debian-12" in text
    assert "other" in text
    assert "33.3 %" in text
    assert "…  …" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 140])
def test_limits_of_a_torrent_leave_room_for_the_rest_of_its_row(width: int) -> None:
    """They are shown where the terminal is very wide."""
    limited = snapshot(max_download_rate=2 * MIB, max_upload_rate=200 * 1024)
    text = drawn(overview([limited, limited], 24, width), width)
    assert "debian-12" in text
    assert "33.3 %" in text
    assert "12.5 MiB/s" in text
    assert ("of 2.00 MiB/s" in text) == (width >= 120)


@pytest.mark.parametrize(("width", "lines"), [(60, 2), (120, 1)])
def test_the_keys_have_a_line_of_their_own_where_they_would_be_cut_off(width: int, lines: int) -> None:
    output = io.StringIO()
    with LiveView(Console(width=width, height=24, file=output, highlight=False)) as view:
        view.note, view.keys = "port 6881 (not mapped)   limits: none", "(d D u U change limits)"
        view.show(snapshot())
    below = output.getvalue().splitlines()[-lines:]
    assert "port 6881" in below[0]
    assert "(d D u U change limits)" in below[-1]


@pytest.mark.parametrize("width", [40, 80])
def test_strangers_cannot_write_to_the_terminal(width: int) -> None:
    """Names of torrents, clients and trackers are text: no control codes, no turned direction, no markup."""
    stats = snapshot(name=HOSTILE, peers=(peer(1, client=HOSTILE),), trackers=(tracker(1, url=HOSTILE),))
    assert_harmless(drawn(picture(stats, width, 0.0), width))
    assert_harmless(drawn(overview([stats, stats], 24), width))
    assert_harmless(summary_line(stats))
    assert "[red]markup[/red]" in drawn(picture(stats, 200, 0.0), 200)


# --- the map of pieces ------------------------------------------------------------------------------------

M, D, V, C = (int(state) for state in PieceState)


@pytest.mark.parametrize(
    ("states", "width", "rows", "shown"),
    [
        ([], 10, 2, ""),
        ([M], 10, 2, " "),
        ([C], 10, 2, "█"),
        ([M, D, V, C], 10, 2, " ··█"),
        ([C] * 10 + [M] * 10, 10, 2, "██████████\n          "),
        ([C, M] * 10, 10, 1, "▒▒▒▒▒▒▒▒▒▒"),
        ([C, C, C, M] * 5, 5, 1, "▓▓▓▓▓"),
        ([C] + [M] * 9, 1, 1, " "),
        ([C] + [D] * 3, 1, 1, "░"),
        ([M] * 3 + [D], 1, 1, "·"),
        ([C] * 99 + [M], 1, 1, "▓"),
    ],
)
def test_the_map_shades_pieces(states: list[int], width: int, rows: int, shown: str) -> None:
    """Blank is missing, a dot is under way, and only what is wholly there is full."""
    assert piece_map(bytes(states), width, rows) == shown


@given(st.binary().map(lambda data: bytes(byte % 4 for byte in data)), st.integers(1, 50), st.integers(1, 3))
def test_the_map_fits_its_place(states: bytes, width: int, rows: int) -> None:
    """Never more rows or columns than allowed, every piece in one cell, and full only when all is there."""
    lines = piece_map(states, width, rows).split("\n")
    assert len(lines) <= rows
    assert all(len(line) <= width for line in lines)
    assert sum(map(len, lines)) == min(len(states), width * rows)
    assert set("".join(lines)) <= set(" ·░▒▓█")
    if states:
        assert (set("".join(lines)) == {"█"}) == (set(states) == {C})


def test_a_map_of_many_pieces_is_drawn_in_no_time() -> None:
    """Two million pieces, the most that a torrent may have."""
    text = piece_map(bytes([C, M, D, V]) * 500_000, 100, 2)
    assert len(text) == 201


# --- plain lines ------------------------------------------------------------------------------------------


def test_a_line_has_what_counts() -> None:
    """Name, state, progress, speeds, peers, time left and what it waits for."""
    line = summary_line(snapshot(waiting_for="choked by 2 peers"))
    assert line == (
        "debian-12.iso: downloading, 33.3 % of 300 MiB, down 12.5 MiB/s, up 1.50 MiB/s, 2 peers, "
        "2 min 44 s left; choked by 2 peers"
    )


def test_a_line_about_checking_counts_pieces() -> None:
    """Nothing is downloaded yet."""
    line = summary_line(snapshot(state=TorrentState.CHECKING, checked=1500, to_check=3000))
    assert line == "debian-12.iso: checking pieces on disk, 1,500/3,000"


def test_lines_come_at_an_interval_and_at_changes(clock: FakeClock) -> None:
    """A log stays readable after a night, and yet shows every change of state at once."""
    output = io.StringIO()
    with LineView(output, clock) as view:
        for _ in range(21):
            view.show(snapshot())
            clock.advance(LINE_INTERVAL / 10)
        assert len(output.getvalue().splitlines()) == 3
        view.show(snapshot(state=TorrentState.COMPLETE))
        view.show(snapshot(state=TorrentState.ERROR, error="the disk is full"))
    lines = output.getvalue().splitlines()
    assert len(lines) == 4  # the error is told at the end, once
    assert ": complete, " in lines[-1]


def test_the_silent_view_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """For --quiet and --json."""
    with SilentView() as view:
        view.show(snapshot())
    assert capsys.readouterr() == ("", "")


def test_the_live_view_draws_on_a_terminal() -> None:
    """One torrent as a picture, several as an overview; the last one stays, and the cursor is given back."""
    output = io.StringIO()
    console = Console(width=80, height=24, file=output, force_terminal=True, highlight=False)
    with LiveView(console) as view:
        view.show(snapshot())
        assert format_rate(12.5 * MIB) in output.getvalue()
        view.show(snapshot(), snapshot(info_hash="cd" * 20))
        assert "2 torrents" in output.getvalue()
    assert output.getvalue().count("\x1b[?25l") == output.getvalue().count("\x1b[?25h") == 1


def test_a_hundred_percent_is_shown_only_when_nothing_is_lacking() -> None:
    """Rounding does not promise more than there is."""
    almost = snapshot(size=10_000_000, bytes_done=9_999_999)
    assert "99.9 %" in summary_line(almost)
    assert "100.0 %" in summary_line(snapshot(size=10_000_000, bytes_done=10_000_000))
