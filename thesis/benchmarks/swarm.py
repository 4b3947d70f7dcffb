"""A swarm: one seed and several leechers of the same client, which trade with each other.

    tracker: tells each leecher of the seed, and of the leechers that came before
    seed ---uplink---> leecher <--> leecher <--> leecher ...      each goes on seeding when it is complete

The seed is ready before the leechers start. Time runs from the start of the first leecher to the last one's
own report that it is complete; then all are asked to stop, and every file is hashed. What the client does well
or badly shows in the copies that the seed had to send: with N leechers, 1 is the least and N means that the
leechers gave each other nothing.

To add a client, write a subclass of `Member` and put it into `MEMBERS`.
"""

import contextlib
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from thesis.benchmarks import machine
from thesis.benchmarks.clients import LIBTORRENT_PEER, Client, Libtorrent, Ours
from thesis.benchmarks.processes import Reporter, RunFailed, helper
from thesis.benchmarks.runner import CLIENT_MEMORY, TIMEOUT_BASE, TIMEOUT_RATE, TRACKER, Outcome, Watch, make_directory
from thesis.benchmarks.seeders import free_address
from thesis.benchmarks.torrents import Payload

COPIES_AT_MOST = 8  # that a slow seed has time to send before a run counts as failed


@dataclasses.dataclass(frozen=True, slots=True)
class MemberJob:
    """What a member of a swarm is asked to do."""

    torrent: Path  # names the tracker; the seed's names none
    directory: Path  # where the file is, or goes
    scratch: Path  # for the client's own state
    address: str  # ADDRESS:PORT to listen on; port 0 is any
    complete: bool  # the file is there
    upload_rate: int  # bytes per second; 0 is no limit


class Member:
    """A program that can be in a swarm.

    It prints JSON lines with the keys ``state`` ("complete" from the moment when everything is written),
    ``uploaded`` and ``wasted`` (bytes), the first such line at once, and ends after SIGTERM with one more.
    """

    client: Client

    @property
    def name(self) -> str:
        """The client's."""
        return self.client.name

    def missing(self) -> str:
        """Return why it cannot run here; empty when it can."""
        return self.client.missing()

    def command(self, job: MemberJob) -> list[str]:
        """Return the command that downloads the torrent, or seeds it, until SIGTERM."""
        raise NotImplementedError


class OurMember(Member):
    """The client of this repository; as a seed it hashes the file first."""

    client = Ours()

    def command(self, job: MemberJob) -> list[str]:
        """As `Member.command`."""
        port = job.address.rpartition(":")[2]
        options = ["--seed", "--json", "--port", port, "--state-dir", str(job.scratch)]
        limit = ["--max-upload-rate", str(job.upload_rate)]
        return [sys.executable, str(Ours.main), str(job.torrent), "-o", str(job.directory), *options, *limit]


class LibtorrentMember(Member):
    """libtorrent through its Python binding, tuned."""

    client = Libtorrent()

    def command(self, job: MemberJob) -> list[str]:
        """As `Member.command`."""
        script = [sys.executable, str(LIBTORRENT_PEER), "swarm", str(job.torrent), str(job.directory)]
        options = ["--listen", job.address, "--upload-limit", str(job.upload_rate)]
        return [*script, *options, *(["--complete"] if job.complete else [])]


_ALL: tuple[Member, ...] = (OurMember(), LibtorrentMember())
MEMBERS: dict[str, Member] = {member.name: member for member in _ALL}


@dataclasses.dataclass(frozen=True, slots=True)
class SwarmRun(Outcome):
    """What came of a run; seconds and bytes, the leechers in the order in which they were started."""

    finished: list[float]  # since the start of the first leecher
    uploaded: list[int]  # by each leecher, until all were complete
    seed_uploaded: int
    copies: float  # seed_uploaded in sizes of the payload
    wasted: int  # by all leechers
    leecher_cpu: float  # all leechers together
    seed_cpu: float
    peak_rss: int  # the largest process

    @property
    def wall(self) -> float:
        """Seconds until the last leecher was complete."""
        return max(self.finished)

    @property
    def spread(self) -> float:
        """Seconds between the first and the last completion."""
        return max(self.finished) - min(self.finished)

    @property
    def cpu(self) -> float:
        """User and system seconds of the seed and all leechers."""
        return self.leecher_cpu + self.seed_cpu


@dataclasses.dataclass(frozen=True, slots=True)
class SwarmSetup:
    """A swarm of one client."""

    payload: Payload
    member: Member
    leechers: int
    seed_rate: int  # bytes per second that the seed sends at most; 0 is no limit

    def warm_up(self, payload: Payload) -> Self:
        """As `Trial.warm_up`."""
        return dataclasses.replace(self, payload=payload, seed_rate=0)

    def facts(self) -> Mapping[str, object]:
        """As `Trial.facts`."""
        return {
            "case": "swarm",
            "client": self.member.name,
            "leechers": self.leechers,
            "seed_rate": self.seed_rate,
        }

    @property
    def timeout(self) -> float:
        """Seconds after which a run counts as failed."""
        seeding = COPIES_AT_MOST * self.payload.size / self.seed_rate if self.seed_rate else 0.0
        return TIMEOUT_BASE + self.leechers * self.payload.size / TIMEOUT_RATE + seeding

    def run(self, workspace: Path) -> SwarmRun:
        """As `Trial.run`."""
        with tempfile.TemporaryDirectory(dir=workspace, prefix="swarm-") as name, contextlib.ExitStack() as stack:
            place = Path(name)
            address = free_address(0)
            tracker = stack.enter_context(
                helper([sys.executable, str(TRACKER), "--introduce", address], place, "tracker")
            )
            announce = f"http://127.0.0.1:{tracker.first_line()}/announce"
            seed = stack.enter_context(self._seed(make_directory(place / "seed"), address))
            seed.wait_until_complete(time.monotonic() + self.timeout)
            machine.touch_memory(place, self.leechers * (self.payload.size + CLIENT_MEMORY))
            places = [make_directory(place / f"leecher-{number}") for number in range(self.leechers)]

            watch, start = Watch([seed], tracker), time.monotonic()
            leechers = [stack.enter_context(self._leecher(each, announce)) for each in places]
            finished = [leecher.wait_until_complete(start + self.timeout) - start for leecher in leechers]
            leecher_cpu = sum(leecher.cpu() for leecher in leechers)
            seed_cpu, share, disturbed = watch.stop(leecher_cpu)

            peak_rss = max(member.peak_rss() for member in [seed, *leechers])
            seed_totals, *totals = last_reports([seed, *leechers])
            if not all(self.payload.matches(each / "output" / self.payload.path.name) for each in places):
                raise RunFailed("a downloaded file is missing or wrong")
            return SwarmRun(
                finished=finished,
                uploaded=[each["uploaded"] for each in totals],
                seed_uploaded=seed_totals["uploaded"],
                copies=seed_totals["uploaded"] / self.payload.size,
                wasted=sum(each["wasted"] for each in totals),
                leecher_cpu=leecher_cpu,
                seed_cpu=seed_cpu,
                peak_rss=peak_rss,
                other_share=share,
                disturbed=disturbed,
            )

    def _seed(self, scratch: Path, address: str) -> contextlib.AbstractContextManager[Reporter]:
        torrent = self.payload.write_torrent(scratch / "swarm.torrent")
        job = MemberJob(torrent, self.payload.path.parent, scratch, address, True, self.seed_rate)
        return reporter(self.member.command(job), scratch)

    def _leecher(self, scratch: Path, announce: str) -> contextlib.AbstractContextManager[Reporter]:
        torrent = self.payload.write_torrent(scratch / "swarm.torrent", announce)
        job = MemberJob(torrent, make_directory(scratch / "output"), scratch, "127.0.0.1:0", False, 0)
        return reporter(self.member.command(job), scratch)


@contextlib.contextmanager
def reporter(command: list[str], scratch: Path) -> Iterator[Reporter]:
    """Run a member for the length of a with block."""
    process = Reporter(command, scratch, "member")
    try:
        yield process
    finally:
        process.stop()


def last_reports(members: list[Reporter]) -> list[dict[str, int]]:
    """Let all members end, and return the totals that each said last."""
    for member in members:
        member.ask_to_leave()
    return [member.last_report() for member in members]
