"""Which trackers a torrent may make us talk to, and at which addresses they are.

A URL comes from a stranger. On this very machine, by whatever name it is called, only the path of a tracker
is asked (and over UDP none but that is sent), so that no torrent reaches other local services; and nothing
leads from the internet to a host in a private network (server-side request forgery).

Spec: BEP 3, 15 (URLs of trackers), BEP 48 (where to scrape).
Thread: the caller's; looking a name up may take seconds.
Lock: none.
"""

import ipaddress
import socket
from typing import NamedTuple, TypeAlias
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from torrent_client.errors import TrackerError
from torrent_client.http_rules import addresses, leads_inside

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

SCHEMES = ("http", "https", "udp")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Endpoint(NamedTuple):
    """One address of a tracker: IPv4 or IPv6, and what `connect` takes."""

    family: socket.AddressFamily
    address: tuple[str, int]


def check_tracker_url(url: str, *, looks_up: bool = True) -> None:
    """Refuse URLs by which a torrent could make us talk to something that is no tracker.

    Args:
        url: what the torrent names.
        looks_up: find out where host names lead; not where a proxy does that, past which nothing may go.

    Raises:
        TrackerError: another scheme than http, https and udp, no host, no port where one is needed, or a path
            other than /announce on this very machine.
    """
    endpoints(url, looks_up=looks_up)


def endpoints(url: str, family: socket.AddressFamily | None = None, *, looks_up: bool = True) -> list[Endpoint]:
    """Look up where a tracker is, after the check of its URL; nothing for a name that is not known.

    Args:
        url: announce URL.
        family: only addresses of this kind.
        looks_up: see `check_tracker_url`.

    Raises:
        TrackerError: see `check_tracker_url`.
    """
    parts = _split(url)
    host, port = parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
    if not host:
        raise TrackerError("the URL has no host")
    if not port:
        raise TrackerError("the URL has no port, as in udp://tracker.example:6969/announce")
    known = list(dict.fromkeys(addresses(host, looks_up=looks_up)))
    if any(address.is_loopback or address.is_unspecified for address in known):
        _check_local_path(parts)
    found = [_endpoint(address, port) for address in known]
    return [endpoint for endpoint in found if family in (None, endpoint.family)]


def families(url: str) -> tuple[socket.AddressFamily, ...]:
    """Return the kinds of addresses that a tracker has, IPv4 first; none if its name is not known.

    Raises:
        TrackerError: see `check_tracker_url`.
    """
    found = {endpoint.family for endpoint in endpoints(url)}
    return tuple(family for family in (socket.AF_INET, socket.AF_INET6) if family in found)


def redirected(url: str, location: str, *, looks_up: bool = True) -> str:
    """Return where a redirect leads, unless it leads from a public host to a private one.

    Raises:
        TrackerError: it does, or to what is no tracker over HTTP.
    """
    target = urljoin(url, location)
    if _split(target).scheme == "udp":
        raise TrackerError("redirected from http to udp: not followed")
    check_tracker_url(target, looks_up=looks_up)
    if leads_inside(url, target, looks_up=looks_up):
        host = urlsplit(target).hostname
        raise TrackerError(f"redirected from a public host to a private one, {host}: not followed")
    return target


def scrape_url(url: str) -> str:
    """Return where the tracker with this announce URL is to be scraped over HTTP.

    Raises:
        TrackerError: the last part of its path does not begin with `announce`, the sign that it cannot be.
    """
    head, slash, last = urlsplit(url).path.rpartition("/")
    if not last.startswith("announce"):
        raise TrackerError("it offers no scrape: its URL does not end in /announce")
    path = f"{head}{slash}scrape{last.removeprefix('announce')}"
    return urlsplit(url)._replace(path=path, fragment="").geturl()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError as error:
        raise TrackerError(f"not a URL: {error}") from error
    if parts.scheme not in SCHEMES:
        raise TrackerError(f"{parts.scheme or 'no'} trackers are not supported, only http, https and udp; try --peer")
    return parts


def _check_local_path(parts: SplitResult) -> None:
    """Refuse what is not a tracker's on this machine; over UDP the path is optional, and usually not there."""
    path = unquote(parts.path)
    if parts.scheme == "udp" and path in ("", "/") and not parts.query:
        return
    if not path.startswith(("/announce", "/scrape")) or "/." in path:
        raise TrackerError("a tracker on this machine must be at /announce")


def _endpoint(address: IPAddress, port: int) -> Endpoint:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return Endpoint(family, (str(address), port))
