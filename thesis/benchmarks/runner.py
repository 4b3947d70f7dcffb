"""One run and many: start the seeders and a tracker, measure the client, check its file, repeat in turns.

`run_once` measures one client on empty directories and with fresh seeders. A `Trial` is whatever can be run
again and again, this or a whole swarm. `Bench` owns what a whole
invocation shares: the work directory, the payloads, the JSON lines, the rounds.
"""

import contextlib
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, Self, TypeVar

from thesis.benchmarks import machine
from thesis.benchmarks.clients import Client, Job
from thesis.benchmarks.processes import Cost, Helper, RunFailed, helper, measure
from thesis.benchmarks.seeders import SEEDERS, Seeder, SeedJob, free_address, wait_until_seeding
from thesis.benchmarks.torrents import Payload, make_payload

TRACKER = Path(__file__).with_name("tracker.py")
WARM_UP_SIZE = 16 << 20  # bytes; enough to load every program and library
DISTURBED = 0.10  # of the machine's CPU time, used by other programs
DISTURBED_SECONDS = 0.05  # below this the kernel's 10 ms clock ticks are all there is to see
CLIENT_MEMORY = 128 << 20  # bytes that a client may need beside the file
REPEATS = 2  # more tries for a disturbed run
Say = Callable[[str], None]
Record = Callable[[Mapping[str, object]], None]
TIMEOUT_BASE, TIMEOUT_RATE = 60.0, 4 << 20  # seconds, and bytes per second of the slowest client


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What every run has to tell."""

    other_share: float  # of the machine's CPU time during the run, used by programs outside it
    disturbed: bool

    @property
    def wall(self) -> float:
        """Seconds that the run took."""
        raise NotImplementedError


R = TypeVar("R", bound=Outcome)
R_co = TypeVar("R_co", bound=Outcome, covariant=True)


class Trial(Protocol[R_co]):
    """What is to be run."""

    @property
    def payload(self) -> Payload:
        """What is downloaded."""

    def warm_up(self, payload: Payload) -> Self:
        """Return the same with a small payload, as fast as it goes."""

    def run(self, workspace: Path) -> R_co:
        """Run it once; RunFailed when it fails or a file is wrong."""

    def facts(self) -> Mapping[str, object]:
        """Return what tells it from others, for the record."""


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """One client that downloads alone."""

    case: str
    payload: Payload
    seeder: Seeder
    seeder_count: int
    client: Client

    def warm_up(self, payload: Payload) -> Self:
        """As `Trial.warm_up`."""
        return dataclasses.replace(self, payload=payload)

    def run(self, workspace: Path) -> "Run":
        """As `Trial.run`."""
        return run_once(self, workspace)

    def facts(self) -> Mapping[str, object]:
        """As `Trial.facts`."""
        return {
            "case": self.case,
            "client": self.client.name,
            "seeder": self.seeder.name,
            "seeders": self.seeder_count,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Run(Outcome):
    """What came of it; seconds and bytes."""

    cost: Cost
    seeder_cpu: float  # all seeders together
    seeder_rss: int  # the largest seeder

    @property
    def wall(self) -> float:
        """Seconds from the process's start to its completion."""
        return self.cost.wall


class Watch:
    """Counts, from its creation on, what seeders, tracker and the rest of the machine do; seconds of CPU."""

    def __init__(self, seeders: list[Helper], tracker: Helper) -> None:
        """Start counting."""
        self._seeders, self._tracker = seeders, tracker
        self._start = time.monotonic()
        self._seeding, self._known, self._busy = self._now()

    def _now(self) -> tuple[float, float, float]:
        seeding = sum(seeder.cpu() for seeder in self._seeders)
        return seeding, seeding + self._tracker.cpu() + time.process_time(), machine.busy_seconds()

    def stop(self, client_cpu: float) -> tuple[float, float, bool]:
        """Return the seeders' seconds, the share of all CPU time that others had, and whether it disturbed."""
        seeding, known, busy = self._now()
        other = max(0.0, busy - self._busy - (known - self._known) - client_cpu)
        share = other / ((time.monotonic() - self._start) * (os.cpu_count() or 1))
        return seeding - self._seeding, share, share > DISTURBED and other > DISTURBED_SECONDS


def run_once(setup: Setup, workspace: Path) -> Run:
    """Run the setup's client alone and return what it cost; RunFailed when it fails or its file is wrong."""
    payload, client = setup.payload, setup.client
    with tempfile.TemporaryDirectory(dir=workspace, prefix="run-") as name, contextlib.ExitStack() as stack:
        place = Path(name)
        addresses = [free_address(number, client.takes_loopback) for number in range(setup.seeder_count)]
        seeders = [stack.enter_context(start_seeder(setup, place, address)) for address in addresses]
        for seeder, address in zip(seeders, addresses, strict=True):
            wait_until_seeding(seeder, address, payload)
        tracker = stack.enter_context(helper([sys.executable, str(TRACKER), *addresses], place, "tracker"))
        announce = f"http://127.0.0.1:{tracker.first_line()}/announce"
        torrent = payload.write_torrent(place / "leech.torrent", announce)
        output, scratch = make_directory(place / "output"), make_directory(place / "client")
        job = Job(payload, torrent, addresses, output, scratch, workspace)
        command, mark = client.command(job), job.mark if client.leaves_mark else None

        machine.touch_memory(place, payload.size + CLIENT_MEMORY)
        watch = Watch(seeders, tracker)
        cost = measure(command, scratch, TIMEOUT_BASE + payload.size / TIMEOUT_RATE, mark)
        seeder_cpu, share, disturbed = watch.stop(cost.cpu)

        if not payload.matches(output / payload.path.name):
            raise RunFailed("the downloaded file is missing or wrong")
        rss = max(seeder.peak_rss() for seeder in seeders)
        return Run(cost, seeder_cpu, rss, other_share=share, disturbed=disturbed)


def start_seeder(setup: Setup, place: Path, address: str) -> contextlib.AbstractContextManager[Helper]:
    """Start one of the setup's seeders, for the length of a with block."""
    scratch = Path(tempfile.mkdtemp(dir=place, prefix="seeder-"))
    torrent = setup.payload.write_torrent(scratch / "seed.torrent")
    job = SeedJob(setup.payload, torrent, address, scratch, place.parent)
    return helper(setup.seeder.command(job), scratch, "seeder")


def make_directory(path: Path) -> Path:
    """Create a directory and return it."""
    path.mkdir()
    return path


class Bench:
    """What the runs of one invocation share."""

    def __init__(self, workspace: Path, rounds: int, say: Say, record: Record) -> None:
        """Work in the (empty) workspace; say goes to the user, record to the JSON file."""
        self._workspace = workspace
        self._rounds = rounds
        self.say = say
        self._record = record
        self._small: Payload | None = None  # what warm-ups download

    def payload(self, size: int, piece_length: int) -> Payload:
        """Make a payload in a directory of its own."""
        directory = Path(tempfile.mkdtemp(dir=self._workspace, prefix="payload-"))
        return make_payload(directory / "payload.bin", size, piece_length)

    def take_turns(self, trials: Mapping[str, Trial[R]]) -> dict[str, list[R]]:
        """Run the trials in turn, round after round, and return the runs by name; a failed run is left out."""
        runs: dict[str, list[R]] = {name: [] for name in trials}
        ready = [name for name, trial in trials.items() if self._warm_up(name, trial)]
        for number in range(1, self._rounds + 1):
            for name in ready:
                run = self._undisturbed(name, trials[name])
                if run is not None:
                    runs[name].append(run)
                    mark = f", disturbed: {run.other_share:.0%} other load" if run.disturbed else ""
                    self.say(f"round {number}/{self._rounds} {name}: {run.wall:.2f} s{mark}")
                    self._record_run(name, number, trials[name], run)
        return runs

    def _warm_up(self, name: str, trial: Trial[Outcome]) -> bool:
        """Run once with a small torrent, so that programs and libraries are in memory; False when it fails."""
        payload = trial.payload
        if payload.size > WARM_UP_SIZE:
            if self._small is None or self._small.piece_length != payload.piece_length:
                self._small = self.payload(WARM_UP_SIZE, payload.piece_length)
            payload = self._small
        return self._try(name, trial.warm_up(payload)) is not None

    def _try(self, name: str, trial: Trial[R]) -> R | None:
        try:
            return trial.run(self._workspace)
        except RunFailed as failure:
            self.say(f"{name} failed: {failure}")
            return None

    def _undisturbed(self, name: str, trial: Trial[R]) -> R | None:
        """Run until nothing else disturbs it, REPEATS more times at most; the least disturbed run."""
        best: R | None = None
        for _ in range(1 + REPEATS):
            run = self._try(name, trial)
            if run is None:
                return best
            if best is None or run.other_share < best.other_share:
                best = run
            if not run.disturbed:
                return run
        return best

    def _record_run(self, name: str, number: int, trial: Trial[R], run: R) -> None:
        sizes = {"size": trial.payload.size, "piece_length": trial.payload.piece_length}
        names = {"name": name, "round": number}
        self._record({"record": "run", **names, **trial.facts(), **sizes, **dataclasses.asdict(run)})


def seeder_for(client: Client, chosen: str) -> Seeder:
    """Return the seeder that the client needs, else the chosen one."""
    return SEEDERS[client.needs_seeder or chosen]
