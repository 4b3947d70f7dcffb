"""The seeders: one small class for each, and the check that one is ready.

To add a seeder, write a subclass of `Seeder` and put it into `SEEDERS`. Seeders run on loopback addresses of
their own (127.0.0.1, 127.0.0.2, ...), because some clients take one peer per address.
"""

import contextlib
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from thesis.benchmarks import machine
from thesis.benchmarks.clients import LIBTORRENT_PEER, Libtorrent, Ours
from thesis.benchmarks.processes import Helper, RunFailed
from thesis.benchmarks.torrents import Payload

PROBE_ADDRESS = "127.0.0.100"  # nobody else's, lest a leecher be taken for the probe coming back
READY_TIMEOUT = 60.0  # seconds; enough for a seeder that hashes its file first
RETRY = 0.05  # seconds between probes
PROTOCOL = b"\x13BitTorrent protocol"
BITFIELD = 5


@dataclass(frozen=True, slots=True)
class SeedJob:
    """What a seeder is asked to do."""

    payload: Payload  # to be seeded where it lies
    torrent: Path  # names no tracker
    address: str  # ADDRESS:PORT to listen on
    scratch: Path  # for the seeder's own state
    tools: Path  # compiled programs


class Seeder:
    """A program that seeds a payload where it lies."""

    name: str

    def missing(self) -> str:
        """Return why it cannot run here; empty when it can."""
        raise NotImplementedError

    def command(self, job: SeedJob) -> list[str]:
        """Return the command that seeds the job's payload until it is killed."""
        raise NotImplementedError


class SendfileSeeder(Seeder):
    """The cheapest one, in C (see cheap_seeder.c)."""

    name = "sendfile"

    def missing(self) -> str:
        """As `Seeder.missing`."""
        return machine.missing_compiler()

    def command(self, job: SeedJob) -> list[str]:
        """As `Seeder.command`."""
        program = machine.compile_c("cheap_seeder", job.tools)
        host, _, port = job.address.rpartition(":")
        return [str(program), str(job.payload.path), str(job.payload.piece_length), host, port]


class LibtorrentSeeder(Seeder):
    """libtorrent, tuned for upload."""

    name = "libtorrent"

    def missing(self) -> str:
        """As `Seeder.missing`."""
        return Libtorrent().missing()

    def command(self, job: SeedJob) -> list[str]:
        """As `Seeder.command`."""
        script = [sys.executable, str(LIBTORRENT_PEER), "seed"]
        return [*script, str(job.torrent), str(job.payload.path.parent), "--listen", job.address]


class OurSeeder(Seeder):
    """The client of this repository; it hashes the file first and listens on every address."""

    name = "ours"

    def missing(self) -> str:
        """As `Seeder.missing`."""
        return Ours().missing()

    def command(self, job: SeedJob) -> list[str]:
        """As `Seeder.command`."""
        port = job.address.rpartition(":")[2]
        options = ["-q", "--seed", "--port", port, "--state-dir", str(job.scratch)]
        command = [sys.executable, str(Ours.main), str(job.torrent), "-o", str(job.payload.path.parent)]
        return [*command, *options]


_ALL: tuple[Seeder, ...] = (SendfileSeeder(), LibtorrentSeeder(), OurSeeder())
SEEDERS: dict[str, Seeder] = {seeder.name: seeder for seeder in _ALL}


def free_address(number: int, loopback: bool = True) -> str:
    """Return ADDRESS:PORT for the seeder of this number, from 0; the port is free now."""
    host = f"127.0.0.{number + 1}" if loopback else machine.outside_address()
    with socket.create_server((host, 0)) as server:
        return f"{host}:{server.getsockname()[1]}"


def wait_until_seeding(seeder: Helper, address: str, payload: Payload) -> None:
    """Return once the seeder tells a probe that it has every piece; RunFailed when that does not come."""
    deadline = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < deadline:
        if not seeder.alive():
            raise RunFailed(f"seeder ended: {seeder.complaint()}")
        with contextlib.suppress(OSError):
            if has_everything(address, payload):
                return
        time.sleep(RETRY)
    raise RunFailed(f"seeder not ready after {READY_TIMEOUT:.0f} s: {seeder.complaint()}")


def has_everything(address: str, payload: Payload) -> bool:
    """Shake hands with a peer and return whether its bitfield is full; OSError when it does not answer."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=2, source_address=(PROBE_ADDRESS, 0)) as peer:
        peer.sendall(PROTOCOL + bytes(8) + payload.info_hash + b"-PR0001-ready-or-not")
        stream = peer.makefile("rb")
        if stream.read(68)[:20] != PROTOCOL:
            return False
        length = int.from_bytes(stream.read(4), "big")
        message = stream.read(min(length, payload.piece_count // 8 + 2))
    if not message or message[0] != BITFIELD:
        return False
    return sum(byte.bit_count() for byte in message[1:]) == payload.piece_count
