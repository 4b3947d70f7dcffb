"""Programs that are no clients: what the figures of clients are compared with."""

import sys
from pathlib import Path

from thesis.benchmarks import machine
from thesis.benchmarks.client import Client, Job, Role

RAW_COPY = Path(__file__).with_name("raw_copy.py")
LIMITS = ("limit-1", "limit-2", "limit-seeder")
"""Rows that do only what cannot be left out, by the number of threads; the last one is what seeding costs at least."""


class Limit(Client):
    """The floor of leeching: receive, hash and write, in C (see limit.c); of many files it writes one."""

    roles = Role.LEECH | Role.MEMBER
    needs_seeder = "limit-seeder"

    def __init__(self, threads: int) -> None:
        """Name the row after its number of threads."""
        self.threads = threads
        self.name = f"limit-{threads}"

    def missing(self) -> str:
        """As `Client.missing`."""
        return machine.missing_compiler()

    def version(self) -> str:
        """As `Client.version`."""
        return f"{self.threads} thread" + "s" * (self.threads > 1)

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        hashes = job.scratch / "hashes"
        hashes.write_bytes(job.payload.hashes)
        payload, output = job.payload, job.directory / job.payload.name
        program = machine.compile_c("limit", job.tools)
        mark = "-" if job.role is Role.LEECH else job.mark
        facts = (output, payload.size, payload.piece_length, hashes, payload.info_hash.hex(), self.threads, mark)
        return [str(program), *map(str, facts), *job.peers]


class LimitSeeder(Client):
    """The floor of seeding: sendfile, in C (see cheap_seeder.c), so that leechers are what is measured."""

    name = "limit-seeder"
    roles = Role.SEED
    listens_often = True

    def missing(self) -> str:
        """As `Client.missing`."""
        return machine.missing_compiler()

    def version(self) -> str:
        """As `Client.version`."""
        return "sendfile"

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        program = machine.compile_c("cheap_seeder", job.tools)
        facts = (job.payload.joined, job.payload.piece_length, job.upload_rate)
        return [str(program), *map(str, facts), *job.listen]


class RawCopy(Client):
    """What TCP alone makes of a link: the bytes as they are, over a connection to each seeder, written to the file."""

    name = "raw-copy"
    roles = Role.LEECH | Role.SEED
    needs_seeder = "raw-copy"
    listens_often = True

    def missing(self) -> str:
        """As `Client.missing`."""
        return ""

    def version(self) -> str:
        """As `Client.version`."""
        return "TCP"

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        script = [sys.executable, "-I", "-S", str(RAW_COPY)]
        if job.role is Role.SEED:
            return [*script, "serve", str(job.payload.joined), *job.listen]
        return [*script, "fetch", str(job.directory / job.payload.name), str(job.payload.size), *job.peers]
