"""What a person sees on a terminal while torrents run: a picture, drawn in place again and again.

One torrent has the whole picture: bar, piece map, peers, trackers. Several have a row each.

Spec: the guide's Task 13.
Thread: main.
Lock: none; it works on snapshots.
"""

import textwrap
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from torrent_client.announcer import TrackerStatus
from torrent_client.piece_table import PieceState
from torrent_client.stats import PeerStats, TorrentState, TorrentStats, WebSeedStats
from torrent_client.text import counted, format_duration, format_rate, format_size, printable
from torrent_client.views import chosen_files, is_over, percent, percent_done, state_name

PEERS_SHOWN = 8
TRACKERS_SHOWN = 4
WEB_SEEDS_SHOWN = 4
MAP_ROWS = 2
WIDE = 72
"""Columns from which on an overview has all its columns; the usual terminal has 80."""

VERY_WIDE = 120
"""Columns from which on it shows the limits of each torrent, too."""

NARROW = 50
"""Columns below which it has only the most important ones."""

FRAME_LINES = 5
"""Lines of an overview besides its rows: the frame, the headings, the totals, and the cursor's own."""

_SHADES = " ░▒▓█"
_STATE_STYLES = {
    "sending": "green",
    "downloading from us": "cyan",
    "choked": "yellow",
    "snubbed": "red",
}


class LiveView:
    """Draws the whole picture in place, again and again.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        """Begin with an empty picture."""
        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self.takes_keys = True
        self.note = ""
        self.keys = ""

    def show(self, *snapshots: TorrentStats) -> None:
        """Draw a snapshot of each torrent."""
        below = self._below()
        if len(snapshots) == 1:
            drawing: RenderableType = picture(snapshots[0], self._console.width, time.monotonic())
        else:
            drawing = overview(snapshots, self._console.height - len(below), self._console.width)
        self._live.update(Group(drawing, *below), refresh=True)

    def _below(self) -> list[RenderableType]:
        """Return what stands below the picture: in one line where there is room, so that the keys are not cut off."""
        lines = [line for line in (self.note, self.keys) if line]
        if len("     ".join(lines)) < self._console.width:
            lines = ["   ".join(lines)] if lines else []
        return [Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis") for line in lines]

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the terminal back; the last picture stays."""
        self._live.__exit__(kind, error, traceback)


def picture(stats: TorrentStats, width: int, now: float) -> RenderableType:
    """Return the whole display of a snapshot.

    Args:
        stats: the snapshot.
        width: columns of the terminal.
        now: the clock of the trackers' times.
    """
    parts: list[RenderableType] = [_bar(stats), _numbers(stats, max(10, width - 4))]
    if stats.waiting_for:
        parts.append(Text(f"waiting: {stats.waiting_for}", style="yellow"))
    if stats.error:
        parts.append(Text(stats.error, style="bold red"))
    parts.append(Text(piece_map(stats.piece_states, max(10, width - 4), MAP_ROWS), style="blue"))
    if stats.peers:
        parts.append(_peer_table(stats))
    if stats.web_seeds:
        parts.append(_web_seed_table(stats.web_seeds))
    if stats.trackers:
        parts.append(_tracker_table(stats, now))
    if stats.dht_state:
        parts.append(Text(f"DHT: {stats.dht_state}", style="dim"))
    if stats.local_network:
        parts.append(Text(f"local network: {stats.local_network}", style="dim"))
    title = Text(f" {printable(stats.name, max(20, width - 20))} ", style="bold")
    return Panel(Group(*parts), title=title, title_align="left", border_style="dim")


def overview(snapshots: Sequence[TorrentStats], height: int, width: int = WIDE) -> RenderableType:
    """Return a row for each of several torrents, as many as there is room for, and their totals.

    Args:
        snapshots: one of each torrent.
        height: lines of the terminal.
        width: its columns; on a narrow one the name, the progress and the speed are what is left.
    """
    room = max(1, height - FRAME_LINES)
    shown = list(snapshots)
    if len(shown) > room:  # those that still do something come first, and the last line counts the others
        shown = sorted(snapshots, key=is_over)[: max(1, room - 1)]
    table = Table(box=None, expand=True, header_style="dim", padding=(0, 1), pad_edge=False)
    table.add_column("torrent", no_wrap=True, ratio=3, min_width=12)
    if width >= WIDE:
        table.add_column("state", no_wrap=True)
        table.add_column("", no_wrap=True, ratio=2)
    headings = ("done", "↓", "↑", "ratio", "peers", "left") if width >= WIDE else ("done", "↓", "left")
    for heading in headings[: 2 if width < NARROW else None]:
        table.add_column(heading, justify="right", no_wrap=True)
    for stats in shown:
        cells = _torrent_row(stats, width >= VERY_WIDE)
        named = dict(zip(("torrent", "state", "", "done", "↓", "↑", "ratio", "peers", "left"), cells, strict=True))
        table.add_row(*(named[str(column.header)] for column in table.columns))
    parts: list[RenderableType] = [table]
    if len(shown) < len(snapshots):
        parts.append(Text(f"and {len(snapshots) - len(shown)} more", style="dim"))
    notes = [note for stats in shown if (note := _note(stats))]
    parts += notes[: room - len(parts) - len(shown) + 1]
    parts.append(_totals(snapshots))
    return Panel(Group(*parts), title=f" {len(snapshots)} torrents ", title_align="left", border_style="dim")


def _torrent_row(stats: TorrentStats, with_limits: bool) -> list[RenderableType]:
    """Return the cells of one torrent."""
    done, total = _progress(stats)
    style = _style(stats)
    return [
        Text(printable(stats.name, 60)),
        Text(state_name(stats), style=style),
        ProgressBar(total=max(total, 1), completed=done if total else 1, complete_style=style),
        "-"
        if stats.state is TorrentState.METADATA and not total
        else f"{percent(done, total) if total else 100:.1f} %",
        format_rate(stats.download_rate) + (_limit(stats.max_download_rate) if with_limits else ""),
        format_rate(stats.upload_rate) + (_limit(stats.max_upload_rate) if with_limits else ""),
        f"{stats.ratio:.2f}",
        str(len(stats.peers)),
        format_duration(stats.eta) if stats.eta is not None else "-",
    ]


def _note(stats: TorrentStats) -> Text | None:
    """Return why a torrent gets nothing, in one line."""
    text, style = (stats.error, "bold red") if stats.error else (stats.waiting_for, "yellow")
    if not text:
        return None
    line = f"{printable(stats.name, 30)}: {printable(text, 500)}"
    return Text(line, style=style, no_wrap=True, overflow="ellipsis")


def _totals(snapshots: Sequence[TorrentStats]) -> Text:
    """Return the sums of all torrents."""
    done, size = sum(stats.bytes_done for stats in snapshots), sum(stats.size for stats in snapshots)
    down, up = (sum(rates) for rates in zip(*((s.download_rate, s.upload_rate) for s in snapshots), strict=True))
    return Text(
        f"together {format_size(done)} of {format_size(size)}   ↓ {format_rate(down)}   ↑ {format_rate(up)}   "
        f"peers {sum(len(stats.peers) for stats in snapshots)}"
    )


def _progress(stats: TorrentStats) -> tuple[int, int]:
    """Return how much of how much is done: pieces while they are checked or fetched as metadata, else bytes."""
    if stats.state in (TorrentState.CHECKING, TorrentState.METADATA):
        return stats.checked, stats.to_check
    return stats.bytes_done, stats.size


def _style(stats: TorrentStats) -> str:
    return {TorrentState.ERROR: "red", TorrentState.COMPLETE: "green"}.get(stats.state, "cyan")


def piece_map(states: bytes, width: int, rows: int) -> str:
    """Return the pieces as shaded cells: blank is missing, full is complete, a dot is under way.

    Args:
        states: a `PieceState` a byte.
        width: cells in a row.
        rows: at most.
    """
    cells = min(len(states), width * rows)
    shown = []
    for cell in range(cells):
        part = states[cell * len(states) // cells : (cell + 1) * len(states) // cells]
        complete = part.count(PieceState.COMPLETE)
        if not complete and part.count(PieceState.MISSING) < len(part):
            shown.append("·")
        else:
            shown.append(_SHADES[(len(_SHADES) - 1) * complete // len(part)])
    lines = ["".join(shown[start : start + width]) for start in range(0, cells, width)]
    return "\n".join(lines)


def _bar(stats: TorrentStats) -> RenderableType:
    """Return the state, the bar and the percentage."""
    row = Table.grid(expand=True, padding=(0, 1))
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, justify="right")
    done, total = _progress(stats)
    text = f"{percent_done(stats):.1f} %"
    if stats.state is TorrentState.CHECKING:
        text = f"{done:,}/{total:,} checked"
    elif stats.state is TorrentState.METADATA:
        text = f"{done:,}/{total:,} pieces of the metadata" if total else "no peer has it yet"
    style = _style(stats)
    bar = ProgressBar(total=max(total, 1), completed=done if total else 1, complete_style=style)
    row.add_row(Text(state_name(stats), style=style), bar, text)
    return row


def _numbers(stats: TorrentStats, width: int) -> RenderableType:
    """Return the figures, side by side as far as there is room: on a narrow terminal none is cut off."""
    eta = format_duration(stats.eta) if stats.eta is not None else "-"
    chosen = f", {files}" if (files := chosen_files(stats)) else ""
    bad = f" ({stats.hash_failures} bad pieces)" if stats.hash_failures else ""
    connecting = f", {stats.connecting} connecting" if stats.connecting else ""
    banned = f", {stats.banned} banned" if stats.banned else ""
    figures: tuple[str, ...] = (
        f"↓ {format_rate(stats.download_rate)}{_limit(stats.max_download_rate)}",
        f"↑ {format_rate(stats.upload_rate)}{_limit(stats.max_upload_rate)}",
        f"left {eta}",
        f"pieces {stats.pieces_done:,}/{stats.pieces_wanted:,}",
        f"size {format_size(stats.size)}{chosen}",
        f"sent {format_size(stats.uploaded)}, ratio {stats.ratio:.2f}",
        f"wasted {format_size(stats.wasted)}{bad}",
        f"peers {len(stats.peers)} of {stats.known_peers} known{connecting}{banned}",
    )
    if stats.state is TorrentState.METADATA:  # of the rest nothing is known
        figures = figures[-1:]
    # Lines are broken between figures, never within one.
    joined = "   ".join(figure.replace(" ", "\N{NO-BREAK SPACE}") for figure in figures)
    return Text(textwrap.fill(joined, width, break_long_words=False).replace("\N{NO-BREAK SPACE}", " "))


def _limit(rate: float) -> str:
    return f" of {format_rate(rate)}" if rate else ""


def _peer_table(stats: TorrentStats) -> RenderableType:
    """Return the busiest peers."""
    table = Table(box=None, expand=True, header_style="dim", padding=(0, 1), pad_edge=False)
    table.add_column("peer", no_wrap=True, ratio=3)
    table.add_column("client", no_wrap=True, ratio=3)
    table.add_column("from", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("has", justify="right", no_wrap=True)
    table.add_column("↓", justify="right", no_wrap=True)
    table.add_column("↑", justify="right", no_wrap=True)
    busiest = sorted(stats.peers, key=lambda peer: peer.download_rate + peer.upload_rate, reverse=True)
    for peer in busiest[:PEERS_SHOWN]:
        table.add_row(*_peer_row(peer, stats.pieces_total))
    if len(busiest) > PEERS_SHOWN:
        table.add_row(Text(f"and {len(busiest) - PEERS_SHOWN} more", style="dim"))
    return table


def _peer_row(peer: PeerStats, pieces_total: int) -> list[RenderableType]:
    has = 100 * peer.pieces // pieces_total if pieces_total else 0
    return [
        Text(peer.address),
        Text(printable(peer.client, 30)),
        Text((peer.source if peer.direction == "out" else "incoming") + (", RC4" if peer.encrypted else "")),
        Text(peer.state, style=_STATE_STYLES.get(peer.state, "dim")),
        f"{has} %",
        format_rate(peer.download_rate),
        format_rate(peer.upload_rate),
    ]


def _web_seed_table(web_seeds: Sequence[WebSeedStats]) -> RenderableType:
    """Return what each web seed does, what is wrong with it, and when it is asked again."""
    table = Table(box=None, expand=True, header_style="dim", padding=(0, 1), pad_edge=False)
    table.add_column("web seed", no_wrap=True, ratio=3)
    table.add_column("state", ratio=4)
    table.add_column("↓", justify="right", no_wrap=True)
    table.add_column("next", justify="right", no_wrap=True)
    for seed in web_seeds[:WEB_SEEDS_SHOWN]:
        said = f"{seed.state}: {seed.error}" if seed.error else seed.state
        style = "red" if seed.error else _STATE_STYLES.get(seed.state, "dim")
        wait = "-" if seed.next_try_in is None else format_duration(seed.next_try_in)
        table.add_row(
            Text(printable(seed.url, 80)),
            Text(printable(said, 500), style=style),
            format_rate(seed.download_rate),
            wait,
        )
    if len(web_seeds) > WEB_SEEDS_SHOWN:
        table.add_row(Text(f"and {len(web_seeds) - WEB_SEEDS_SHOWN} more", style="dim"))
    return table


def _tracker_table(stats: TorrentStats, now: float) -> RenderableType:
    """Return what each tracker said last, and when it is asked next."""
    table = Table(box=None, expand=True, header_style="dim", padding=(0, 1), pad_edge=False)
    table.add_column("tracker", no_wrap=True, ratio=3)
    table.add_column("state", ratio=4)
    table.add_column("next", justify="right", no_wrap=True)
    for tracker in stats.trackers[:TRACKERS_SHOWN]:
        said = tracker.state
        if tracker.error:
            said = f"{tracker.error} ({tracker.failures} in a row)"
        elif tracker.state == "working":
            said = _what_it_said(tracker)
        is_due = tracker.state == "asking" or not tracker.next_announce
        wait = "now" if is_due else format_duration(max(0.0, tracker.next_announce - now))
        style = "red" if tracker.error else ""
        table.add_row(Text(printable(tracker.url, 80)), Text(said, style=style), wait)
    if len(stats.trackers) > TRACKERS_SHOWN:
        table.add_row(Text(f"and {len(stats.trackers) - TRACKERS_SHOWN} more", style="dim"))
    return table


def _what_it_said(tracker: TrackerStatus) -> str:
    """Return a working tracker's last answer in a line."""
    counts = ((tracker.seeders, "seed"), (tracker.leechers, "other"))
    known = [counted(count, name) for count, name in counts if count is not None]
    parts = [counted(tracker.peers, "peer") + (f" of {', '.join(known)}" if known else "")]
    if tracker.external_ip:
        parts.append(f"we are {tracker.external_ip}")
    if tracker.warning:
        parts.append(tracker.warning)
    return "; ".join(parts)
