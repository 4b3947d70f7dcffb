"""What all our HTTP requests have in common: hosts that a torrent must not lead us to, and errors in words.

A torrent is a stranger's, and so are the URLs in it. Without rules it could make us talk to services that only
this machine, or its network, can reach (server-side request forgery): a router's page, say.

    http://10.0.0.1/...        allowed: somebody may well run a server there
    http://public.example/...  -- redirects to --> http://10.0.0.1/...      not followed

Where a host name leads is looked up, except (`looks_up=False`) where a proxy does that: nothing may go past it.

Spec: none; the rules are those of libtorrent's `ssrf_mitigation`.
Thread: any.
Lock: none.
"""

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from torrent_client.text import printable

MAX_REDIRECTS: Final = 5
"""Redirects that are followed in a row; browsers allow 20, and honest servers need one or two."""

MAX_REASON_LENGTH: Final = 200
"""Characters of a stranger's words, a tracker's failure reason say, that are shown."""


def is_loopback(host: str, *, looks_up: bool = True) -> bool:
    """Tell whether a host is this very machine, by whatever name: localhost, 127.1, 0.0.0.0, a public name ..."""
    return any(address.is_loopback or address.is_unspecified for address in addresses(host, looks_up=looks_up))


def is_private(host: str, *, looks_up: bool = True) -> bool:
    """Tell whether any address of a host is not a public one."""
    return any(not address.is_global for address in addresses(host, looks_up=looks_up))


def leads_inside(source: str, target: str, *, looks_up: bool = True) -> bool:
    """Tell whether a redirect leads from a public host to a private one.

    Args:
        source: the URL that answered with a redirect.
        target: the whole URL that it leads to.
        looks_up: find out where their hosts' names lead.
    """
    source_host, target_host = urlsplit(source).hostname or "", urlsplit(target).hostname or ""
    if target_host == source_host or not is_private(target_host, looks_up=looks_up):
        return False
    return not is_private(source_host, looks_up=looks_up)


def error_in_words(error: Exception) -> str:
    """Return the inmost cause of an error of `requests` or `urllib3`, which nest them."""
    import ssl  # here, because a client that needs no HTTP need not load it

    kind = type(error).__name__
    if "Timeout" in kind:
        return "no answer in time"
    if "BadStatusLine" in str(error):
        return "it does not speak HTTP"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused: nothing listens there"
        if isinstance(cause, TimeoutError):
            return "no answer in time"
        if isinstance(cause, ConnectionResetError):
            return "it hung up instead of an answer"
        if isinstance(cause, socket.gaierror):
            return "its host name is not known"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS as we do"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    return "its host name is not known" if "resolve" in text else printable(text, MAX_REASON_LENGTH)


def addresses(host: str, *, looks_up: bool) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Give the addresses of a host; none for one that is not known, which cannot be reached either.

    Args:
        host: a name or an address.
        looks_up: ask where a name leads; if not, only addresses have some.
    """
    if not looks_up and host.rstrip(".").lower() == "localhost":
        host = "127.0.0.1"
    flags = 0 if looks_up else socket.AI_NUMERICHOST
    with suppress(OSError, UnicodeError):  # UnicodeError: too long for a name
        for *_, target in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags):
            address = ipaddress.ip_address(str(target[0]).partition("%")[0])
            mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
            yield mapped or address
