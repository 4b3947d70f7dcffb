"""Who may ask us how much: the sender of a datagram is easily forged, and our answer is longer than the question.

    datagram --> bucket of its host --> bucket of everybody --> answered
                     | empty               | empty
                     v                     v
                  dropped, before anything is decoded

Somebody who puts another's address on his queries must not be able to flood that one through us: no host gets
more than a few answers a second, and all together not more than a slow line carries. This machine itself is
exempt: what it is sent goes nowhere.

Spec: none.
Thread: the DHT's.
Lock: none.
"""

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

HOST_RATE: Final = 10.0
"""Datagrams per second of one host that are looked at. libtorrent blocks hosts that send more than 5 for long."""

HOST_BURST: Final = 50.0
"""The same at once: clients that begin ask for several torrents."""

TOTAL_RATE: Final = 250.0
"""Datagrams per second of all hosts together: at 300 bytes an answer 75 KB/s at worst. A node of the public DHT is
asked some 5 to 50 times a second."""

TOTAL_BURST: Final = 1000.0
"""The same at once."""

HOSTS_KEPT: Final = 2000
"""Hosts whose use is remembered: who was silent for longest is forgotten, and would have a full bucket anyhow."""


class QueryGuard:
    """Counts datagrams that nobody waits for.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with full buckets."""
        self._clock = clock
        self._hosts: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when that was
        self._total = TOTAL_BURST, clock()
        self.dropped = 0

    def admit(self, host: str) -> bool:
        """Tell whether a datagram of a host may be looked at; counts it."""
        key = _network(host)
        if not key:
            return True
        now = self._clock()
        left = _left(self._hosts.pop(key, (HOST_BURST, now)), now, HOST_RATE, HOST_BURST)
        total = _left(self._total, now, TOTAL_RATE, TOTAL_BURST)
        admitted = left >= 1 and total >= 1
        self._hosts[key] = left - admitted, now
        self._total = total - admitted, now
        if len(self._hosts) > HOSTS_KEPT:
            self._hosts.popitem(last=False)
        self.dropped += not admitted
        return admitted


def _left(bucket: tuple[float, float], now: float, rate: float, burst: float) -> float:
    """Return what a bucket holds by now."""
    left, since = bucket
    return min(burst, left + (now - since) * rate)


def _network(host: str) -> str:
    """Return what counts as one host: an IPv4 address, a network of IPv6; empty for this machine."""
    address = ip_address(host)
    if address.is_loopback:
        return ""
    return host if address.version == 4 else address.packed[:8].hex()
