"""Keys that work while the display runs: rate limits, and asking the trackers again.

    d D    lower, raise the download limit        u U    lower, raise the upload limit
    a      ask the trackers again, as soon as they allow it
    t      whose: of all torrents together, of the first one, the second one ...

Lowering a limit that does not hold yet begins just below the present speed; raising the highest lifts it.

Spec: none.
Thread: main.
Lock: none.
"""

import os
import select
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TextIO

from torrent_client.config import KIB
from torrent_client.rate_limiter import Limits, RateLimiter
from torrent_client.text import format_rate, printable

LOWEST_RATE = 16 * KIB
"""Bytes per second below which a key does not go: one block a second."""

HIGHEST_RATE = 256 * KIB * KIB
"""Bytes per second above which raising means no limit."""

HELP = "d D u U change limits, t whose, a asks trackers"


class Keyboard:
    """Reads single keys from the terminal, if there is one; used in a `with` block.

    Args:
        stream: where keys come from; None for nowhere.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Change nothing yet."""
        self._stream = stream
        self._descriptor: int | None = None
        self._settings: list[Any] = []

    def __enter__(self) -> Self:
        """Let keys come one by one, without an echo; Ctrl-C works as before."""
        import termios
        import tty

        with suppress(OSError, ValueError, termios.error):  # no terminal, or standard input is closed
            descriptor = self._stream.fileno() if self._stream else -1
            self._settings = termios.tcgetattr(descriptor)
            tty.setcbreak(descriptor, termios.TCSADRAIN)
            self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the terminal back as it was."""
        import termios

        if self._descriptor is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._settings)

    @property
    def is_there(self) -> bool:
        """Whether keys can be read."""
        return self._descriptor is not None

    def pressed(self) -> str:
        """Return the keys that were pressed since the last call, without waiting."""
        if self._descriptor is None or not select.select([self._descriptor], [], [], 0)[0]:
            return ""
        with suppress(OSError):  # we are in the background, and the terminal belongs to somebody else
            data = os.read(self._descriptor, 64)
            if data:
                return data.decode("ascii", "replace")
        self._descriptor = None  # the terminal is gone
        return ""


class LimitKeys:
    """Changes limits as keys are pressed, and remembers whose.

    Args:
        session: the limits of all torrents together.
        torrents: those of each torrent.
    """

    def __init__(self, session: Limits, torrents: Sequence[Limits]) -> None:
        """Begin with those of all together."""
        self._limits = (session, *torrents)
        self._chosen = 0

    def press(self, keys: str, rates: Sequence[tuple[float, float]]) -> None:
        """Obey keys.

        Args:
            keys: what was pressed; other keys mean nothing.
            rates: bytes per second that each torrent takes and gives at present.
        """
        for key in keys:
            if key == "t":
                self._chosen = (self._chosen + 1) % len(self._limits)
            chosen = rates[self._chosen - 1 : self._chosen] if self._chosen else rates
            obey(key, self._limits[self._chosen], *map(sum, zip(*chosen, strict=True)))

    def describe(self, names: Sequence[str]) -> str:
        """Return the limits that the keys change, in a few words.

        Args:
            names: each torrent's.
        """
        whose = f"limits of {printable(names[self._chosen - 1], 30)}" if self._chosen else "limits"
        return f"{whose}: {describe(self._limits[self._chosen])}"


def obey(keys: str, limits: Limits, download_rate: float, upload_rate: float) -> None:
    """Change the limits as the keys say.

    Args:
        keys: what was pressed; other keys mean nothing.
        limits: whose.
        download_rate: bytes per second at present.
        upload_rate: the same of uploads.
    """
    for key in keys:
        match key:
            case "d":
                limits.download.set_rate(lower(limits.download, download_rate))
            case "D":
                limits.download.set_rate(raised(limits.download))
            case "u":
                limits.upload.set_rate(lower(limits.upload, upload_rate))
            case "U":
                limits.upload.set_rate(raised(limits.upload))


def lower(limiter: RateLimiter, present: float) -> float:
    """Return the next lower rate, a power of two."""
    rate = LOWEST_RATE
    ceiling = limiter.rate or min(max(present, 2 * LOWEST_RATE), HIGHEST_RATE)
    while 2 * rate < ceiling:
        rate *= 2
    return float(rate)


def raised(limiter: RateLimiter) -> float:
    """Return the next higher rate, a power of two, or 0 for no limit."""
    rate = LOWEST_RATE
    while rate <= limiter.rate:
        rate *= 2
    return float(rate) if limiter.rate and rate <= HIGHEST_RATE else 0.0


def describe(limits: Limits) -> str:
    """Return the limits in a few words."""
    download, upload = (
        format_rate(limiter.rate) if limiter.rate else "none" for limiter in (limits.download, limits.upload)
    )
    return f"↓ {download}  ↑ {upload}"
