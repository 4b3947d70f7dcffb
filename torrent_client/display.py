"""What a person sees on a terminal while a torrent runs: a picture, drawn in place again and again.

Spec: the guide's Task 13.
Thread: main.
Lock: none; it works on snapshots.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from torrent_client.piece_manager import PieceState
from torrent_client.stats import PeerStats, TorrentState, TorrentStats
from torrent_client.text import format_duration, format_rate, format_size, printable
from torrent_client.views import chosen_files, percent_done

PEERS_SHOWN = 8
TRACKERS_SHOWN = 4
MAP_ROWS = 2

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

    def show(self, stats: TorrentStats) -> None:
        """Draw a snapshot."""
        self._live.update(picture(stats, self._console.width, time.monotonic()), refresh=True)

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
    parts: list[RenderableType] = [_bar(stats), _numbers(stats)]
    if stats.waiting_for:
        parts.append(Text(f"waiting: {stats.waiting_for}", style="yellow"))
    if stats.error:
        parts.append(Text(stats.error, style="bold red"))
    parts.append(Text(piece_map(stats.piece_states, max(10, width - 4), MAP_ROWS), style="blue"))
    if stats.peers:
        parts.append(_peer_table(stats))
    if stats.trackers:
        parts.append(_tracker_table(stats, now))
    title = Text(f" {printable(stats.name, max(20, width - 20))} ", style="bold")
    return Panel(Group(*parts), title=title, title_align="left", border_style="dim")


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
    if stats.state is TorrentState.CHECKING:
        done, total, text = stats.checked, stats.to_check, f"{stats.checked:,}/{stats.to_check:,} checked"
    else:
        done, total, text = stats.bytes_done, stats.size, f"{percent_done(stats):.1f} %"
    style = {TorrentState.ERROR: "red", TorrentState.COMPLETE: "green"}.get(stats.state, "cyan")
    bar = ProgressBar(total=max(total, 1), completed=done if total else 1, complete_style=style)
    row.add_row(Text(stats.state.value, style=style), bar, text)
    return row


def _numbers(stats: TorrentStats) -> RenderableType:
    """Return the lines of figures."""
    grid = Table.grid(padding=(0, 2))
    for _ in range(4):
        grid.add_column(no_wrap=True)
    eta = format_duration(stats.eta) if stats.eta is not None else "-"
    wasted = format_size(stats.wasted) + (f" ({stats.hash_failures} bad pieces)" if stats.hash_failures else "")
    grid.add_row(
        f"↓ {format_rate(stats.download_rate)}",
        f"↑ {format_rate(stats.upload_rate)}",
        f"left {eta}",
        f"pieces {stats.pieces_done:,}/{stats.pieces_wanted:,}",
    )
    grid.add_row(
        f"size {format_size(stats.size)}" + (f", {chosen}" if (chosen := chosen_files(stats)) else ""),
        f"sent {format_size(stats.uploaded)}",
        f"wasted {wasted}",
        f"peers {len(stats.peers)} of {stats.known_peers} known"
        + (f", {stats.connecting} connecting" if stats.connecting else "")
        + (f", {stats.banned} banned" if stats.banned else ""),
    )
    return grid


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
        Text(peer.source if peer.direction == "out" else "incoming"),
        Text(peer.state, style=_STATE_STYLES.get(peer.state, "dim")),
        f"{has} %",
        format_rate(peer.download_rate),
        format_rate(peer.upload_rate),
    ]


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
            said = f"{tracker.peers} peers" + (f"; {tracker.warning}" if tracker.warning else "")
        is_due = tracker.state == "asking" or not tracker.next_announce
        wait = "now" if is_due else format_duration(max(0.0, tracker.next_announce - now))
        style = "red" if tracker.error else ""
        table.add_row(Text(printable(tracker.url, 80)), Text(said, style=style), wait)
    if len(stats.trackers) > TRACKERS_SHOWN:
        table.add_row(Text(f"and {len(stats.trackers) - TRACKERS_SHOWN} more", style="dim"))
    return table
