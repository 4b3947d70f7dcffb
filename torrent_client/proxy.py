"""Which proxy carries what.

                     SOCKS5                    HTTP                     none
    HTTP trackers    through it                through it               direct, or by `http_proxy` of the environment
    web seeds        through it                through it               the same
    peers            through it, we dial       none                     direct, both ways
    all that is UDP, multicast, port mapping, listening: off            on

A user who names a proxy does not want to be seen without it. So what it cannot carry is off instead of
direct (`Config.allows_direct`), and names are looked up by the proxy, never here. Who opens a socket to a
peer does it with `dialing`; who uses `requests` passes `requests_proxies`.

Spec: RFC 1928 and 1929 (SOCKS5), through PySocks.
Thread: any; nothing is kept.
Lock: none.
"""

import socket
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from torrent_client.config import Config
from torrent_client.text import printable

SOCKS_SCHEMES: Final = ("socks5", "socks5h")
"""To others `socks5` means that names are looked up here; to us both mean that the proxy does."""

DEFAULT_PORTS: Final = {"socks5": 1080, "socks5h": 1080, "http": 8080}

UNREACHABLE_PORT: Final = 1
"""What trackers are told for a port when nobody can call us: 0 would be honest, and many trackers refuse it."""

NO_PEERS: Final = "an HTTP proxy carries trackers and web seeds only, and peers are not dialled past it"


class Proxy(NamedTuple):
    """A proxy: its URL in parts; the user and the password are empty where it asks for none."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        """Return what may be shown: the URL without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def carries_peers(self) -> bool:
        """Whether any TCP connection can be made through it."""
        return self.scheme in SOCKS_SCHEMES

    @property
    def url(self) -> str:
        """The URL for `requests`, with the password, and with names looked up by the proxy."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "socks5h" if self.carries_peers else self.scheme
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user else ""
        return f"{scheme}://{login}{host}:{self.port}"


def parse_proxy(url: str) -> Proxy:
    """Read `socks5://user:password@host:port`, or `http://...`; the port may be left out.

    Raises:
        ValueError: it is something else; the message is for people and does not repeat a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"a proxy's URL is not right: {error}") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("a proxy is given as socks5://HOST:PORT or http://HOST:PORT, with USER:PASSWORD@ if it asks")
    if not host or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"a proxy's URL has a host, a port and nothing else, such as {parts.scheme}://127.0.0.1:1080")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if max(len(user.encode()), len(password.encode())) > 255:
        raise ValueError("a proxy's user name and password have at most 255 bytes each")
    return Proxy(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], user, password)


def requests_proxies(config: Config) -> dict[str, str]:
    """Return the `proxies` of a request; empty, which means those of the environment, where none was chosen."""
    if not config.proxy:
        return {}
    url = parse_proxy(config.proxy).url
    return {"http": url, "https": url}


def may_dial_peers(config: Config) -> bool:
    """Tell whether peers can be reached: directly, or through a proxy that carries them."""
    return config.allows_direct or parse_proxy(config.proxy).carries_peers


def proxy_trouble(config: Config, error: BaseException) -> str | None:
    """Return what went wrong at the proxy itself, in words; None if the trouble lies beyond it.

    Args:
        config: names the proxy.
        error: of `requests` or PySocks, with what caused it. They are told by their names, since neither
            library is loaded where it is not used.
    """
    causes = list(_causes(error))
    kinds = {type(cause).__name__ for cause in causes}
    if not config.proxy or not kinds & _PROXY_ERRORS or "SOCKS5Error" in kinds:  # that one: it works, and reports
        return None
    if "SOCKS5AuthError" in kinds or any(" 407 " in str(cause) for cause in causes):
        reason = "it refuses the user name or the password, or wants some"
    else:
        reasons = filter(None, map(_reason, causes))
        reason = next(reasons, "it does not answer as such a proxy does")
    return f"the proxy {parse_proxy(config.proxy)}: {reason}"


def refused_by_proxy(error: BaseException) -> str | None:
    """Return what a proxy that works says of the other side, in words; None if it says nothing."""
    for cause in _causes(error):
        if type(cause).__name__ == "SOCKS5Error":
            _, _, reason = str(cause).partition(": ")  # "0x05: Connection refused"
            return f"the proxy cannot connect to it: {printable(reason.lower())}"
    return None


_PROXY_ERRORS: Final = {"ProxyError", "ProxyConnectionError", "GeneralProxyError", "SOCKS5AuthError"}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what led to it, the last cause last; PySocks has a way of its own to name it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = getattr(cause, "socket_err", None) or cause.__cause__ or cause.__context__


def _reason(error: BaseException) -> str | None:
    """Return what an error of a socket says, in words; None for any other."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, socket.gaierror):
        return "its host name is not known"
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else None
