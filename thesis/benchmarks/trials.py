"""One run of each kind, from empty directories to a verified result.

    Download   one client, alone, from seeders that are the same for all clients; over loopback or over a link
    Seeding    one seeder, the same leecher for all
    Swarm      a seed and leechers of one client, which trade with each other
    Idling     one client, connected to peers that have nothing for it

Every run has fresh processes and an empty directory. What it costs is counted by the kernel: see `processes`. A
`Lab` has what the runs of one invocation share.
"""

import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from thesis.benchmarks import machine
from thesis.benchmarks.client import Client, Done, Job, Role
from thesis.benchmarks.clients import CLIENTS
from thesis.benchmarks.network import Link, LinkSpec, Network
from thesis.benchmarks.processes import Helper, Marked, Reporter, RunFailed, helper, measure, running
from thesis.benchmarks.readiness import wait_until_seeding
from thesis.benchmarks.torrents import Payload, Work, format_size, make_payload

TRACKER = Path(__file__).with_name("tracker.py")
IDLE_PEERS = Path(__file__).with_name("idle_peers.py")
WARM_UP_SIZE = 4 << 20  # bytes; enough to load every program and library
DISTURBED = 0.10  # of the machine's CPU time, used by other programs
DISTURBED_SECONDS = 0.05  # below this the kernel's 10 ms clock ticks are all there is to see
NO_TRACKER = "http://127.0.0.1:9/announce"  # nobody listens there; rtorrent takes no torrent without a tracker
CLIENT_MEMORY = 128 << 20  # bytes that a client may need beside the file
TIMEOUT_BASE, TIMEOUT_RATE = 60.0, 4 << 20  # seconds, and bytes per second of the slowest client
TIMEOUT_LINK = 12  # times what a link needs at its full rate
COPIES_AT_MOST = 8  # that a slow seed has time to send before a run counts as failed
MANY_PEERS = 20  # above this a client is told how many connections it may have
SETTLE = 5.0  # seconds between the last connection and the measurement of idleness
GROUP_SEEDERS, GROUP_LEECHERS, GROUP_IDLE = range(3)  # of addresses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What came of a run; seconds and bytes. None is what this kind of run or this system cannot tell."""

    wall: float  # from the process's start to completion; of the last leecher, in a swarm
    cpu: float  # user and system seconds of the measured client, all processes
    peak_rss: int  # the largest process
    seeder_cpu: float | None = None  # all seeders together
    wire: int | None = None  # bytes that passed the network, headers and all
    first: float | None = None  # seconds to the first leecher's completion
    sent_by_seed: int | None = None
    wasted: int | None = None  # bytes that leechers got twice or that were bad
    other_share: float  # of the machine's CPU time during the run, used by programs outside it
    disturbed: bool


class Lab:
    """What the runs of one invocation share."""

    def __init__(self, workspace: Path, network: Network) -> None:
        """Work in the (empty) workspace."""
        self.workspace = workspace
        self.network = network
        self.runs = 0
        self._payloads: dict[Work, Payload] = {}

    def payload(self, work: Work) -> Payload:
        """Return the work's payload; of those for real runs only the last one is kept."""
        if work not in self._payloads:
            for other in [other for other in self._payloads if other.size > WARM_UP_SIZE]:
                shutil.rmtree(self._payloads.pop(other).root)
            root = self.workspace / f"payload-{work.size}-{work.piece_length}-{work.files}"
            self._payloads[work] = make_payload(root, work)
        return self._payloads[work]

    def why_no_room(self, work: Work) -> str:
        """Return why a payload and its copy do not fit into the workspace; empty when they do."""
        needed = 2 * work.size + CLIENT_MEMORY
        ours = sum(payload.size * (1 + (payload.work.files > 1)) for payload in self._payloads.values())
        fits = machine.free_bytes(self.workspace) + ours > needed
        return "" if fits else f"{self.workspace.parent} has no room for {format_size(work.size)} twice"

    @contextlib.contextmanager
    def place(self) -> Iterator[Path]:
        """Give an empty directory for one run."""
        self.runs += 1
        with tempfile.TemporaryDirectory(dir=self.workspace, prefix="run-", ignore_cleanup_errors=True) as name:
            yield Path(name)


class Trial(Protocol):
    """What can be run again and again: a dataclass of settings."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def work(self) -> Work:
        """What is downloaded."""

    @property
    def subject(self) -> Client:
        """The program that is measured."""

    def why_not(self, lab: Lab) -> str:
        """Return why it cannot be run here; empty when it can."""

    def warm_up(self) -> Self:
        """Return the same with little work, as fast as it goes."""

    def run(self, lab: Lab) -> Measurement:
        """Run it once; RunFailed when it fails or a file is wrong."""


class Watch:
    """Counts, from its creation on, what helpers and the rest of the machine do."""

    def __init__(self, lab: Lab, seeders: Sequence[Helper], others: Sequence[Helper], link: Link | None = None) -> None:
        """Start counting."""
        self._seeders, self._others = seeders, others
        self._counter = link or lab.network
        self._wire = self._counter.bytes_so_far()
        self._start = time.monotonic()
        self._seeding, self._known, self._busy = self._now()

    def _now(self) -> tuple[float, float, float]:
        seeding = sum(seeder.cpu() for seeder in self._seeders)
        known = seeding + sum(other.cpu() for other in self._others) + time.process_time()
        return seeding, known, machine.busy_seconds()

    def result(self, wall: float, cpu: float, peak_rss: int) -> Measurement:
        """Return the measurement of a client that cost so much in this time."""
        seeding, known, busy = self._now()
        wire = self._counter.bytes_so_far()
        other = max(0.0, busy - self._busy - (known - self._known) - cpu)
        share = min(1.0, other / ((time.monotonic() - self._start) * (os.cpu_count() or 1)))
        return Measurement(
            wall=wall,
            cpu=cpu,
            peak_rss=peak_rss,
            seeder_cpu=seeding - self._seeding,
            wire=None if wire is None or self._wire is None else wire - self._wire,
            other_share=share,
            disturbed=share > DISTURBED and other > DISTURBED_SECONDS,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Download:
    """One client that downloads alone."""

    work: Work
    subject: Client
    seeders: int = 1
    seeder: str = "limit-seeder"  # unless the client needs another one
    seeder_rate: int = 0  # bytes per second of each seeder; 0 is no limit
    link: LinkSpec | None = None
    idle: int = 0  # peers that have nothing

    @property
    def _seeder(self) -> Client:
        return CLIENTS[self.subject.needs_seeder or self.seeder]

    def why_not(self, lab: Lab) -> str:
        """As `Trial.why_not`."""
        reason = why_not(lab, self.subject) or why_not(lab, self._seeder) or lab.why_no_room(self.work)
        return reason or (lab.network.why_no_link() if self.link else "")

    def warm_up(self) -> Self:
        """As `Trial.warm_up`."""
        work = dataclasses.replace(self.work, size=min(self.work.size, WARM_UP_SIZE), files=1)
        return dataclasses.replace(self, work=work, link=None, seeder_rate=0, idle=0)

    def run(self, lab: Lab) -> Measurement:
        """As `Trial.run`."""
        payload = lab.payload(self.work)
        with lab.place() as place, contextlib.ExitStack() as stack:
            link = (
                stack.enter_context(lab.network.link(self.link, place, lab.workspace, lab.runs)) if self.link else None
            )
            addresses = [
                link.address(number) if link else lab.network.address(number, GROUP_SEEDERS)
                for number in range(self.seeders)
            ]
            seeders = start_seeders(stack, lab, place, payload, self._seeder, addresses, self.seeder_rate)
            idle = [lab.network.address(number, GROUP_IDLE) for number in range(self.idle)]
            others: list[Helper] = [start_idle_peers(stack, place, payload, idle)] if idle else []
            tracker, announce = start_tracker(stack, place, [*addresses, *idle], link)
            others += [tracker, *([link.carrier] if link and link.carrier else [])]
            listen = link.far_address if link else lab.network.address(0, GROUP_LEECHERS)
            job = leech_job(lab, place, payload, announce, tuple(addresses), listen, self.idle + self.seeders)
            command, mark = self.subject.command(job), self.subject.leeches_until is Done.MARK
            machine.touch_memory(place, payload.size + CLIENT_MEMORY)
            watch = Watch(lab, seeders, others, link)
            prefix = link.prefix if link else ()
            cost = measure(command, job.scratch, self._timeout, job.mark if mark else None, prefix)
            result = watch.result(cost.wall, cost.cpu, cost.peak_rss)
            check(payload, job.directory)
            return result

    @property
    def _timeout(self) -> float:
        """Seconds after which a run counts as failed."""
        rates = [self.seeders * self.seeder_rate, self.link.bytes_per_second if self.link else 0]
        slow = max((TIMEOUT_LINK * self.work.size / rate for rate in rates if rate), default=0.0)
        return TIMEOUT_BASE + self.work.size / TIMEOUT_RATE + slow


@dataclasses.dataclass(frozen=True, slots=True)
class Seeding:
    """One seeder that serves one leecher, the same for all; what is measured is the seeder, but for the time."""

    work: Work
    subject: Client
    leecher: str = "libtorrent"

    def why_not(self, lab: Lab) -> str:
        """As `Trial.why_not`."""
        return why_not(lab, self.subject) or why_not(lab, CLIENTS[self.leecher])

    def warm_up(self) -> Self:
        """As `Trial.warm_up`."""
        return dataclasses.replace(self, work=dataclasses.replace(self.work, size=min(self.work.size, WARM_UP_SIZE)))

    def run(self, lab: Lab) -> Measurement:
        """As `Trial.run`."""
        download = Download(self.work, CLIENTS[self.leecher], seeder=self.subject.name)
        payload = lab.payload(self.work)
        with lab.place() as place, contextlib.ExitStack() as stack:
            address = lab.network.address(0, GROUP_SEEDERS)
            seeder, *_ = start_seeders(stack, lab, place, payload, self.subject, [address])
            tracker, announce = start_tracker(stack, place, [address])
            listen = lab.network.address(0, GROUP_LEECHERS)
            job = leech_job(lab, place, payload, announce, (address,), listen)
            command = CLIENTS[self.leecher].command(job)
            machine.touch_memory(place, payload.size + CLIENT_MEMORY)
            watch = Watch(lab, [seeder], [tracker])
            cost = measure(command, job.scratch, download._timeout)
            result = watch.result(cost.wall, cost.cpu, seeder.peak_rss())
            check(payload, job.directory)
            return dataclasses.replace(result, cpu=result.seeder_cpu or 0.0, seeder_cpu=None)


@dataclasses.dataclass(frozen=True, slots=True)
class Swarm:
    """A seed and leechers of one client.

        tracker: tells each leecher of the seed, and of the leechers that came before
        seed ---uplink---> leecher <--> leecher <--> leecher ...      each goes on seeding when it is complete

    The seed is ready before the leechers start. Time runs from the start of the first leecher to the last one's own
    report that it is complete; then all are asked to stop, and every file is hashed.
    """

    work: Work
    subject: Client
    leechers: int
    seed_rate: int = 0  # bytes per second that the seed sends at most; 0 is no limit

    def why_not(self, lab: Lab) -> str:
        """As `Trial.why_not`."""
        return why_not(lab, self.subject)

    def warm_up(self) -> Self:
        """As `Trial.warm_up`."""
        work = dataclasses.replace(self.work, size=min(self.work.size, WARM_UP_SIZE))
        return dataclasses.replace(self, work=work, seed_rate=0)

    def run(self, lab: Lab) -> Measurement:
        """As `Trial.run`."""
        payload = lab.payload(self.work)
        with lab.place() as place, contextlib.ExitStack() as stack:
            address = lab.network.address(0, GROUP_SEEDERS)
            program = CLIENTS[self.subject.needs_seeder] if self.subject.needs_seeder else self.subject
            seed, *_ = start_seeders(stack, lab, place, payload, program, [address], self.seed_rate)
            members = [lab.network.address(number, GROUP_LEECHERS) for number in range(self.leechers)]
            tracker, announce = start_tracker(stack, place, [address], members=members)
            jobs = [
                self._job(lab, payload, announce, place / f"leecher-{number}", each, address)
                for number, each in enumerate(members)
            ]
            commands = [self.subject.command(job) for job in jobs]
            machine.touch_memory(place, self.leechers * (payload.size + CLIENT_MEMORY))

            watch, start = Watch(lab, [seed], [tracker]), time.monotonic()
            leechers = [
                stack.enter_context(running(start_member(self.subject, command, job)))
                for command, job in zip(commands, jobs, strict=True)
            ]
            finished = [leecher.wait_until_complete(start + self._timeout) - start for leecher in leechers]
            peak_rss = max(member.peak_rss() for member in [seed, *leechers])
            cpu = sum(leecher.cpu() for leecher in leechers)
            result = watch.result(max(finished), cpu, peak_rss)

            sent = report_of(seed).get("uploaded")
            for leecher in leechers:
                leecher.ask_to_leave()
            wasted = [leecher.last_report().get("wasted") for leecher in leechers]
            for job in jobs:
                check(payload, job.directory)
            known = [each for each in wasted if each is not None]
            return dataclasses.replace(
                result,
                cpu=cpu + (result.seeder_cpu or 0.0),
                first=min(finished),
                sent_by_seed=sent,
                wasted=sum(known) if len(known) == len(leechers) else None,
            )

    @property
    def _timeout(self) -> float:
        """Seconds after which a run counts as failed."""
        seeding = COPIES_AT_MOST * self.work.size / self.seed_rate if self.seed_rate else 0.0
        return TIMEOUT_BASE + self.leechers * self.work.size / TIMEOUT_RATE + seeding

    def _job(self, lab: Lab, payload: Payload, announce: str, place: Path, address: str, seed: str) -> Job:
        directory, scratch = make_directory(place / "output"), make_directory(place / "state")
        torrent = payload.write_torrent(place / "swarm.torrent", announce)
        return Job(Role.MEMBER, payload, torrent, directory, scratch, lab.workspace, (address,), (seed,))


@dataclasses.dataclass(frozen=True, slots=True)
class Idling:
    """A client that is connected to peers which have nothing for it: what a peer costs by being there."""

    work: Work  # that nobody has
    subject: Client
    peers: int
    seconds: float  # to measure

    def why_not(self, lab: Lab) -> str:
        """As `Trial.why_not`."""
        return why_not(lab, self.subject)

    def warm_up(self) -> Self:
        """As `Trial.warm_up`."""
        return dataclasses.replace(self, peers=min(self.peers, 1), seconds=0.1)

    def run(self, lab: Lab) -> Measurement:
        """As `Trial.run`; CPU is that of the measured seconds, memory is what it has at their end."""
        payload = lab.payload(self.work)
        with lab.place() as place, contextlib.ExitStack() as stack:
            addresses = [lab.network.address(number, GROUP_IDLE) for number in range(self.peers)]
            idle = [start_idle_peers(stack, place, payload, addresses)] if addresses else []
            tracker, announce = start_tracker(stack, place, addresses)
            listen = lab.network.address(0, GROUP_LEECHERS)
            job = leech_job(lab, place, payload, announce, tuple(addresses), listen, self.peers)
            client = stack.enter_context(helper(self.subject.command(job), job.scratch, "client"))
            for each in idle:
                each.wait_until_complete(time.monotonic() + TIMEOUT_BASE)
            time.sleep(min(SETTLE, self.seconds))
            watch, before, start = Watch(lab, [], [*idle, tracker]), client.cpu(), time.monotonic()
            time.sleep(self.seconds)
            cost, wall = client.cpu() - before, time.monotonic() - start
            return watch.result(wall, cost, client.rss())


def why_not(lab: Lab, client: Client) -> str:
    """Return why a client cannot run here; empty when it can."""
    if client.only_own_network and not lab.network.is_own:
        return f"{client.name} takes no loopback peers, and there is no network of our own"
    return client.missing()


def start_seeders(
    stack: contextlib.ExitStack,
    lab: Lab,
    place: Path,
    payload: Payload,
    client: Client,
    addresses: Sequence[str],
    rate: int = 0,
) -> list[Helper]:
    """Start seeders at all addresses, as few processes as the client can be, and wait until they are ready."""
    groups = [tuple(addresses)] if client.listens_often else [(address,) for address in addresses]
    seeders: list[Helper] = []
    for listen in groups:
        scratch = Path(tempfile.mkdtemp(dir=place, prefix="seeder-"))
        torrent = payload.write_torrent(scratch / "seed.torrent", NO_TRACKER)
        job = Job(Role.SEED, payload, torrent, payload.root, scratch, lab.workspace, listen, upload_rate=rate)
        command = client.command(job)
        seeders.append(stack.enter_context(running(start_member(client, command, job))))
    for seeder, listen in zip(seeders, groups, strict=True):
        wait_until_seeding(seeder, listen, payload, is_bare=client.name == "raw-copy")
    return seeders


def start_member(client: Client, command: list[str], job: Job) -> Reporter | Marked:
    """Start a program that goes on when it is complete."""
    if client.member_tells is Done.REPORT:
        return Reporter(command, job.scratch, "member")
    return Marked(command, job.scratch, "member", job.mark)


def report_of(member: Helper) -> dict[str, int]:
    """Ask a member to leave, and return what it said last."""
    member.ask_to_leave()
    return member.last_report() if isinstance(member, Reporter | Marked) else {}


def start_tracker(
    stack: contextlib.ExitStack,
    place: Path,
    peers: Sequence[str],
    link: Link | None = None,
    members: Sequence[str] = (),
) -> tuple[Helper, str]:
    """Start a tracker on the leecher's side; return it and its announce URL."""
    swarm = ["--swarm", *members] if members else []
    prefix = link.prefix if link else []
    tracker = stack.enter_context(helper([*prefix, sys.executable, str(TRACKER), *peers, *swarm], place, "tracker"))
    return tracker, f"http://127.0.0.1:{tracker.first_line()}/announce"


def start_idle_peers(stack: contextlib.ExitStack, place: Path, payload: Payload, addresses: Sequence[str]) -> Reporter:
    """Start peers that have nothing."""
    facts = (payload.info_hash.hex(), str(payload.piece_count))
    return stack.enter_context(running(Reporter([sys.executable, str(IDLE_PEERS), *facts, *addresses], place, "idle")))


def leech_job(
    lab: Lab, place: Path, payload: Payload, announce: str, peers: tuple[str, ...], listen: str, max_peers: int = 0
) -> Job:
    """Return the job of a client that downloads alone."""
    directory, scratch = make_directory(place / "output"), make_directory(place / "client")
    torrent = payload.write_torrent(place / "leech.torrent", announce)
    more = max_peers if max_peers > MANY_PEERS else 0
    return Job(Role.LEECH, payload, torrent, directory, scratch, lab.workspace, (listen,), peers, max_peers=more)


def check(payload: Payload, directory: Path) -> None:
    """Hash what was downloaded."""
    if not payload.matches(directory):
        raise RunFailed("a downloaded file is missing or wrong")


def make_directory(path: Path) -> Path:
    """Create a directory, and those above it, and return it."""
    path.mkdir(parents=True)
    return path
