"""Tokens: whoever announces a peer must show that he asked from that very address a little before.

    token = keyed hash (secret of these five minutes, address)

Nothing is kept for a token that was given out; one that was made with the secret before is taken too.

Spec: BEP 5 (announce_peer).
Thread: the DHT's.
Lock: none.
"""

import random
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

ROTATION: Final = 300.0
"""Seconds that a secret makes tokens; they are taken for as long again. BEP 5: five and ten minutes."""

TOKEN_LENGTH: Final = 8
"""Bytes of a token: guessing one takes 2^63 datagrams."""


class Tokens:
    """Gives out tokens and knows them again.

    Args:
        rng: source of the secrets; the system's, where others should not guess them.
        clock: monotonic seconds.
    """

    def __init__(self, rng: random.Random, clock: Callable[[], float]) -> None:
        """Make two secrets."""
        self._rng = rng
        self._clock = clock
        self._secrets = rng.randbytes(16), rng.randbytes(16)  # this one, and the one before
        self._since = clock()

    def token(self, host: str) -> bytes:
        """Return the token for an address."""
        self._rotate()
        return _token(self._secrets[0], host)

    def is_valid(self, token: bytes, host: str) -> bool:
        """Tell whether this address was given this token within the last five to ten minutes."""
        self._rotate()
        return token in [_token(secret, host) for secret in self._secrets]  # 64 bits: the time it takes tells nobody

    def _rotate(self) -> None:
        """Forget secrets whose time is over."""
        while self._clock() - self._since >= ROTATION:
            self._since = max(self._since + ROTATION, self._clock() - 2 * ROTATION)
            self._secrets = self._rng.randbytes(16), self._secrets[0]


def _token(secret: bytes, host: str) -> bytes:
    return blake2b(host.encode(), digest_size=TOKEN_LENGTH, key=secret).digest()
