"""The kinds of values on the command line: each reads a word, or says what is wrong with it.

Spec: none.
Thread: main.
Lock: none.
"""

import argparse
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from torrent_client.config import KIB, MIB
from torrent_client.errors import MetainfoError
from torrent_client.file_selection import FilePriority, FileRange, parse_priorities, parse_ranges
from torrent_client.proxy import parse_proxy
from torrent_client.tracker_client import PeerAddress


def parse_peer(text: str) -> PeerAddress:
    """Read `HOST:PORT`, with brackets around an IPv6 address.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host.strip("[]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 192.0.2.7:6881 or [2001:db8::7]:6881")
    if bracketed or ":" in host:
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} has no IPv6 address in brackets") from error
    return PeerAddress(host, int(port))


def parse_rate(text: str) -> float:
    """Read bytes per second: a number, and K, M or G for KiB, MiB or GiB; 0 for no limit.

    Raises:
        argparse.ArgumentTypeError: it is something else, or below 1K, at which nothing would work.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)", text.strip().upper())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate, such as 500K or 2M")
    rate = float(match[1]) * {"": 1, "K": KIB, "M": MIB, "G": KIB * MIB}[match[2]]
    if 0 < rate < KIB:
        raise argparse.ArgumentTypeError(f"{text!r} is below 1K bytes per second")
    return rate


def parse_piece_size(text: str) -> int | None:
    """Read bytes per piece: `256K`, `1M`, `1MiB`, `262144`; None for `auto`.

    Raises:
        argparse.ArgumentTypeError: it is something else, or what pieces cannot have.
    """
    from torrent_client.torrent_creator import checked_piece_length

    if text.lower() == "auto":
        return None
    match = re.fullmatch(r"([0-9]{1,9}) ?([KM]?)(?:I?B)?", text.strip().upper())
    try:
        return checked_piece_length(int(match[1]) * {"": 1, "K": KIB, "M": MIB}[match[2]] if match else 0)
    except MetainfoError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no piece size: a power of two from 16K to 16M, such as 256K, or auto"
        ) from error


def parse_tier(text: str) -> tuple[str, ...]:
    """Read announce URLs with commas between them.

    Raises:
        argparse.ArgumentTypeError: one of them is not the URL of a tracker.
    """
    urls = _urls(text, ("http", "https", "udp", "ws", "wss"), "http://tracker.example/announce")
    for url in urls:
        if url.startswith("udp:") and urlsplit(url).port is None:
            raise argparse.ArgumentTypeError(f"{url!r} has no port, as in udp://tracker.example:6969/announce")
    return urls


def parse_web_seeds(text: str) -> tuple[str, ...]:
    """Read the URLs of web seeds with commas between them.

    Raises:
        argparse.ArgumentTypeError: one of them is not the URL of a web seed.
    """
    return _urls(text, ("http", "https", "ftp"), "http://mirror.example/files/")


def web_seed(text: str) -> str:
    """Read the URL of a web seed."""
    urls = _urls(text, ("http", "https"), "http://mirror.example/files/")
    if len(urls) > 1:
        raise argparse.ArgumentTypeError("one URL each; --web-seed can be given several times")
    return urls[0]


def _urls(text: str, schemes: Sequence[str], example: str) -> tuple[str, ...]:
    """Split at the commas that another URL follows, for a URL may hold some itself; check each."""
    urls = re.split(r",+\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)", text.strip().rstrip(","))
    for url in urls:
        try:
            parts = urlsplit(url)
            good = parts.scheme in schemes and parts.hostname and "," not in parts.netloc and parts.port != 0
        except ValueError:  # a port or an address in brackets that is none
            good = False
        if not good or not url.isprintable() or " " in url:
            raise argparse.ArgumentTypeError(f"{url!r} is not a URL such as {example}")
    return tuple(urls)


def proxy_url(text: str) -> str:
    """Check a proxy's URL; the error does not repeat it, because of the password in it."""
    try:
        parse_proxy(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def path(text: str) -> Path:
    """Refuse an empty path, which would be the current directory: surely a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def utf8(text: str) -> str:
    """Read text that is UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"{text!a} is not UTF-8") from error
    return text


def not_empty(text: str) -> str:
    """Read a path or a link; an empty one is surely a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def select_file(text: str) -> tuple[FileRange, ...]:
    """Read files' numbers: `1,3-5`."""
    try:
        return parse_ranges(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def file_priority(text: str) -> tuple[tuple[FileRange, FilePriority], ...]:
    """Read files' priorities: `3=high,5-7=low`."""
    try:
        return parse_priorities(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def port(text: str) -> int:
    """Read a port, 0 to 65535."""
    number = whole(text)
    if not 0 <= number < 65_536:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 0 to 65535")
    return number


def positive(text: str) -> int:
    """Read a whole number, 1 to 10000."""
    number = whole(text)
    if not 0 < number <= 10_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 10000")
    return number


def above_zero(text: str) -> float:
    """Read a number above zero, such as 1.5."""
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 < number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1000000")
    return number


def mebibytes(text: str) -> int:
    """Read MiB; returns bytes."""
    return positive(text) * MIB


def seconds(text: str) -> float:
    """Read seconds."""
    return float(positive(text))


def whole(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
