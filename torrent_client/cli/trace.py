"""Traces on the command line: what `--trace...` switches on, and the `trace` command, which draws a trace again.

              us                    127.0.0.1:6881        127.0.0.1:6882
    0.000     |--- handshake ------>|                     |
    0.001     |<------- handshake --|                     |
    0.004     |--- request x 16 --->|                     |        index 0, begin 0 ... index 0, begin 245760
    0.006     |<---------- piece ---------------------------|

Spec: none.
Thread: main; events are written by whoever tells of them.
Lock: none; the tracer has one.
"""

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TextIO, TypeVar

from torrent_client.errors import TorrentError
from torrent_client.text import printable
from torrent_client.trace import tracing
from torrent_client.trace_pcap import PcapWriter
from torrent_client.tracer import TraceEvent, Tracer, line_of, write_jsonl, write_lines

logger = logging.getLogger(__name__)

AnyFile = TypeVar("AnyFile", TextIO, BinaryIO)

COLUMN: Final = 28
"""Characters from one lifeline to the next."""

TIME_WIDTH: Final = 10

PEERS_DRAWN: Final = 4
"""Lifelines besides ours; more do not fit, and nobody could follow them."""

REPEATED: Final = ("request", "piece", "have", "cancel", "reject", "keep-alive")
"""Messages of which neighbours are drawn as one arrow: a download has thousands of them."""


@contextmanager
def traced(options: Namespace) -> Iterator[None]:
    """Trace inside the block what the options ask for, if they do.

    Raises:
        TorrentError: a file cannot be written.
    """
    with ExitStack() as files:
        sinks: list[Callable[[TraceEvent], None]] = []
        if getattr(options, "trace", False):
            # What is for scripts goes to standard output, and a trace is not.
            sinks.append(write_lines(sys.stderr if options.json else sys.stdout))
        if path := getattr(options, "trace_file", None):
            try:
                sinks.append(write_jsonl(files.enter_context(_closing(path.open("w", encoding="utf-8"), path))))
            except OSError as error:
                raise TorrentError(f"cannot write the trace to {path}: {error.strerror}") from error
        packets = None
        if path := getattr(options, "trace_pcap", None):
            packets = PcapWriter(files.enter_context(_closing(_binary(path), path)))
        files.enter_context(tracing(Tracer(sinks, packets) if sinks or packets else None))
        yield


@contextmanager
def _closing(file: AnyFile, path: Path) -> Iterator[AnyFile]:
    """Close a file after the block; where the last bytes find no room, the download is none the worse for it."""
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:
            logger.warning("%s is not complete: %s", path, error.strerror)


def _binary(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise TorrentError(f"cannot write the capture to {path}: {error.strerror}") from error


def show_trace(options: Namespace) -> int:
    """Draw a trace file as a sequence diagram; return the exit code.

    Raises:
        TorrentError: it cannot be read, or is no trace.
    """
    events = [event for event in _read(options.file) if not options.peer or event.remote == options.peer]
    if options.lines:
        for event in events:
            print(line_of(event))
    else:
        for line in diagram(events, _width()):
            print(line)
    return 0


def _width() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 160


def _read(path: Path) -> Iterator[TraceEvent]:
    """Give the events of a trace file; what a killed client left half written is the end.

    Raises:
        TorrentError: it cannot be read, or is no trace.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith("\n"):
                    return
                try:
                    yield TraceEvent.from_json(line)
                except ValueError as error:
                    raise TorrentError(f"{path}, line {number}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TorrentError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


class _Arrow(NamedTuple):
    """One arrow of the diagram: the first and the last of the events that it stands for, and how many they are."""

    first: TraceEvent
    last: TraceEvent
    times: int


def diagram(events: Iterable[TraceEvent], width: int) -> Iterator[str]:
    """Give the lines of a sequence diagram.

    Args:
        events: in the order of their time.
        width: columns of the terminal.
    """
    arrows = list(_arrows(events))
    names = list(dict.fromkeys(arrow.first.remote for arrow in arrows))
    shown, hidden = names[:PEERS_DRAWN], names[PEERS_DRAWN:]
    if not arrows:
        yield "the trace is empty"
        return
    begin = arrows[0].first.time
    yield _headings(shown)
    for arrow in arrows:
        if arrow.first.remote in shown:
            drawing = _drawing(arrow, shown.index(arrow.first.remote), len(shown))
            line = f"{arrow.first.time - begin:<{TIME_WIDTH}.3f}{drawing}  {_details(arrow)}"
            yield line[:width].rstrip()
    if hidden:
        yield f"not drawn: {', '.join(printable(name, 60) for name in hidden)}; see --peer"


def _arrows(events: Iterable[TraceEvent]) -> Iterator[_Arrow]:
    """Put neighbours together that say the same."""
    arrow: _Arrow | None = None
    for event in events:
        is_more = (
            arrow is not None
            and event.name in REPEATED
            and (event.name, event.remote, event.direction)
            == (arrow.last.name, arrow.last.remote, arrow.last.direction)
        )
        if arrow is not None and is_more:
            arrow = _Arrow(arrow.first, event, arrow.times + 1)
            continue
        if arrow:
            yield arrow
        arrow = _Arrow(event, event, 1)
    if arrow:
        yield arrow


def _headings(names: list[str]) -> str:
    columns = ["us", *(printable(name, COLUMN - 2) for name in names)]
    return " " * TIME_WIDTH + "".join(f"{name:<{COLUMN}}" for name in columns)


def _drawing(arrow: _Arrow, position: int, lifelines: int) -> str:
    """Return the arrow between the lifelines, which it crosses on its way."""
    event = arrow.first
    cells = list(("|" + " " * (COLUMN - 1)) * lifelines + "|")
    end = COLUMN * (position + 1)
    label = f" {event.name}{f' x {arrow.times}' if arrow.times > 1 else ''} "[: COLUMN - 5]
    match event.direction:
        case "sent":
            cells[1:end] = ("---" + label).ljust(end - 2, "-") + ">"
        case "received":
            cells[1:end] = "<" + ("--" + label + "--").rjust(end - 2, "-")[-(end - 2) :]
        case _:
            text = f"({event.direction})"
            cells[end + 1 - len(text) : end + 1] = text
    return "".join(cells)


def _details(arrow: _Arrow) -> str:
    """Return what the arrow carries, in a line."""
    event = arrow.first
    if event.direction in ("opened", "closed"):
        return event.meaning
    skipped = ("length prefix", "id", "name length", "protocol", "extension id")
    first = ", ".join(f"{name} {shown}" for name, shown, _ in event.fields if name not in skipped)
    if arrow.times == 1 or not first:
        return first
    last = ", ".join(f"{name} {shown}" for name, shown, _ in arrow.last.fields if name not in skipped)
    return f"{first} ... {last}"
