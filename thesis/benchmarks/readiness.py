"""Is a seeder ready? A probe shakes hands with it and looks at its bitfield, as a leecher would."""

import contextlib
import socket
import time
from collections.abc import Sequence

from thesis.benchmarks.network import PROBE
from thesis.benchmarks.processes import Helper, RunFailed
from thesis.benchmarks.torrents import Payload

READY_TIMEOUT = 60.0  # seconds; enough for a seeder that hashes its file first
RETRY = 0.05  # seconds between probes
PROTOCOL = b"\x13BitTorrent protocol"
BITFIELD = 5


def wait_until_seeding(seeder: Helper, addresses: Sequence[str], payload: Payload, is_bare: bool = False) -> None:
    """Return once the seeder tells a probe that it has every piece; RunFailed when that does not come.

    One that is bare does not speak BitTorrent: it is ready when it accepts connections.
    """
    deadline = time.monotonic() + READY_TIMEOUT
    for address in addresses:
        while not answers(address, payload, is_bare):
            if not seeder.alive():
                raise RunFailed(f"seeder ended: {seeder.complaint()}")
            if time.monotonic() > deadline:
                raise RunFailed(f"seeder not ready after {READY_TIMEOUT:.0f} s: {seeder.complaint()}")
            time.sleep(RETRY)


def answers(address: str, payload: Payload, is_bare: bool) -> bool:
    """Return whether the peer is there and has everything."""
    with contextlib.suppress(OSError):
        return has_everything(address, payload, is_bare)
    return False


def has_everything(address: str, payload: Payload, is_bare: bool) -> bool:
    """Shake hands with a peer and return whether its bitfield is full; OSError when it does not answer."""
    host, _, port = address.rpartition(":")
    # From an address of its own, lest a leecher be taken for the probe coming back.
    probe = f"{host.rpartition('.')[0]}.{PROBE}"
    with socket.create_connection((host, int(port)), timeout=2, source_address=(probe, 0)) as peer:
        if is_bare:
            return True
        peer.sendall(PROTOCOL + bytes(8) + payload.info_hash + b"-PR0001-ready-or-not")
        stream = peer.makefile("rb")
        if stream.read(68)[:20] != PROTOCOL:
            return False
        length = int.from_bytes(stream.read(4), "big")
        message = stream.read(min(length, payload.piece_count // 8 + 2))
    if not message or message[0] != BITFIELD:
        return False
    return sum(byte.bit_count() for byte in message[1:]) == payload.piece_count
