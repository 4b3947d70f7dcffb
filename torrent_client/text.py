"""Text for people: sizes, rates, times, and strings from strangers made safe for a terminal.

Spec: none.
Thread: pure.
Lock: none.
"""


def printable(text: bytes | str, limit: int = 200) -> str:
    """Return text without control characters, so that no stranger writes escape codes onto our terminal.

    Args:
        text: from a torrent, a tracker or a peer; bytes are read as UTF-8.
        limit: characters kept.
    """
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in decoded)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def counted(number: int, noun: str) -> str:
    """Return `1 peer`, `2 peers`, `1,024 pieces`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_size(count: float) -> str:
    """Return bytes as `512 B`, `1.5 MiB`, `3.20 GiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if count < 1000 or unit == "TiB":
            break
    return f"{count:.{2 if count < 10 else 1 if count < 100 else 0}f} {unit}"


def format_rate(rate: float) -> str:
    """Return bytes per second as `1.5 MiB/s`."""
    return f"{format_size(rate)}/s"


def format_duration(seconds: float) -> str:
    """Return a time as `45 s`, `2 min 35 s`, `3 h 20 min`, `5 d 2 h`."""
    whole = int(seconds + 0.5)
    for size, unit, smaller_size, smaller_unit in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller_size} {smaller_unit}"
    return f"{whole} s"
