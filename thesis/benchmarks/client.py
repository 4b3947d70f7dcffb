"""What a program under test is to the benchmarks, and what it is asked to do.

A program can be in three places, and says in `Client.roles` which of them it knows:

    LEECH   downloads, alone, and exits when complete (or leaves a mark and goes on)
    SEED    has the data, and gives it to others until it is killed
    MEMBER  downloads among its likes and goes on giving when it is complete

Every client gets the same chances: discovery and encryption off, no rate limits but those asked for, peers from the
tracker, no allocation of the file beforehand. All else is as its makers deliver it.
"""

import enum
import shutil
from dataclasses import dataclass
from pathlib import Path

from thesis.benchmarks import machine
from thesis.benchmarks.torrents import Payload


class Role(enum.Flag):
    """Where a program can be."""

    LEECH = enum.auto()
    SEED = enum.auto()
    MEMBER = enum.auto()


class Done(enum.Enum):
    """How a program tells that it is complete."""

    EXIT = "it exits with status 0"
    MARK = "it creates the file Job.mark"
    REPORT = "it prints JSON lines with state, uploaded and wasted"


@dataclass(frozen=True, slots=True)
class Job:
    """What a program is asked to do."""

    role: Role
    payload: Payload
    torrent: Path  # names the tracker, if there is one
    directory: Path  # the data is here, or goes here under the payload's name
    scratch: Path  # for the program's own state
    tools: Path  # compiled programs
    listen: tuple[str, ...]  # ADDRESS:PORT, usually one
    peers: tuple[str, ...] = ()  # ADDRESS:PORT, the tracker's answer
    upload_rate: int = 0  # bytes per second, of each connection where only one listens; 0 is no limit
    max_peers: int = 0  # connections at most; 0 is the program's own limit

    @property
    def mark(self) -> Path:
        """The file that tells of completion."""
        return self.scratch / "complete"

    @property
    def host(self) -> str:
        """The address to listen on."""
        return self.listen[0].rpartition(":")[0]

    @property
    def port(self) -> str:
        """The port to listen on."""
        return self.listen[0].rpartition(":")[2]


class Client:
    """A program; the defaults suit one that exits when complete."""

    name: str
    program = ""  # looked for on the path; the first line of `program --version` is its version
    roles = Role.LEECH
    leeches_until = Done.EXIT
    member_tells = Done.MARK
    needs_seeder = ""  # the only seeder that it works with
    listens_often = False  # one process can be many seeders
    only_own_network = False  # takes no peers from loopback addresses

    def missing(self) -> str:
        """Return why it cannot run here; empty when it can."""
        return "" if shutil.which(self.program) else f"{self.program} is not installed"

    def version(self) -> str:
        """Return its version in its own words."""
        return machine.first_line([self.program, "--version"])

    def command(self, job: Job) -> list[str]:
        """Prepare the job's scratch directory and return the command that does the job."""
        raise NotImplementedError


def touch_script(job: Job) -> Path:
    """Write a script that creates the mark, for programs that call one when complete."""
    script = job.scratch / "finished.sh"
    script.write_text(f"#!/bin/sh\ntouch '{job.mark}'\n", encoding="utf-8")
    script.chmod(0o755)
    return script
