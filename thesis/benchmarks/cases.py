"""The cases: what is measured, at which points, and how it is shown.

A `Case` has points on an axis (seeders, bytes of a piece, kinds of links ...), and at each point a `Trial` for every
row of the table. To add a case, write a function from a `Scale` to points, and put a `Case` into `CASES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from thesis.benchmarks.clients import CLIENTS, Ours
from thesis.benchmarks.network import LinkSpec
from thesis.benchmarks.references import Limit
from thesis.benchmarks.torrents import Work
from thesis.benchmarks.trials import Download, Idling, Seeding, Swarm, Trial

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BLOCK = 16 * KIB  # what clients ask for
FAST = ("ours", "libtorrent", "rtorrent", "limit-1", "limit-2")
REAL = ("ours", "libtorrent", "rtorrent", "qbittorrent", "aria2", "transmission", "transmission-cli", "webtorrent")
ALL = (*REAL, "limit-1", "limit-2")
QUICK = tuple(name for name in ALL if not name.startswith("transmission"))  # which waits for 14 s
SWARMING = ("ours", "libtorrent", "rtorrent", "qbittorrent", "transmission", "aria2")


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    name: str
    rounds: int  # runs of each client at each point
    repeats: int  # more tries for a disturbed run
    warm_up: bool

    @property
    def is_quick(self) -> bool:
        """Whether all of it is to take two minutes."""
        return self.name == "quick"

    def pick(self, full: T, quick: T) -> T:
        """Return one of the two."""
        return quick if self.is_quick else full


SCALES = {
    "full": Scale("full", rounds=3, repeats=2, warm_up=True),
    "quick": Scale("quick", rounds=1, repeats=0, warm_up=False),
}


@dataclass(frozen=True, slots=True)
class Point:
    """A value on the axis, and what is run there."""

    x: str | float
    trials: Mapping[str, Trial]  # by the name of the row


@dataclass(frozen=True, slots=True)
class Plot:
    """A graph: a column over the axis as lines, or as bars where the axis has no numbers."""

    column: str
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """What there is to know about a case; columns are names in `columns.COLUMNS`."""

    name: str
    title: str
    about: str
    points: Callable[[Scale], Sequence[Point]]
    columns: tuple[str, ...]
    plots: tuple[Plot, ...] = ()
    axis: str = ""  # what x is; empty when there is one point
    many_rounds: bool = False  # short runs that scatter

    def rounds(self, scale: Scale) -> int:
        """Return how often each client runs at each point."""
        return 3 * scale.rounds if self.many_rounds else scale.rounds


def each(names: Sequence[str], download: Download) -> dict[str, Trial]:
    """Return the same download for each of these clients."""
    return {name: replace(download, subject=CLIENTS[name]) for name in names}


def base(work: Work, **more: Any) -> Download:  # noqa: ANN401 - the fields of Download
    """Return a download to give to each client."""
    return Download(work, CLIENTS["ours"], **more)


def comparison(scale: Scale) -> list[Point]:
    """All clients, four fast seeders."""
    return [Point("", each(scale.pick(ALL, QUICK), base(Work(scale.pick(GIB, 64 * MIB)), seeders=4)))]


def by_seeders(scale: Scale) -> list[Point]:
    """One seeder and more, so cheap that the leecher is what is measured."""
    names = scale.pick((*FAST, "qbittorrent", "aria2", "webtorrent"), FAST)
    work = Work(scale.pick(GIB, 64 * MIB))
    return [Point(count, each(names, base(work, seeders=count))) for count in scale.pick((1, 2, 4, 8), (1, 4))]


def by_libtorrent_seeders(scale: Scale) -> list[Point]:
    """The same with libtorrent as the seeder, which has half of the machine for itself."""
    work = Work(scale.pick(GIB, 64 * MIB))
    counts = scale.pick((1, 2, 4, 8), (1,))
    return [Point(count, each(FAST, base(work, seeders=count, seeder="libtorrent"))) for count in counts]


def by_peers(scale: Scale) -> list[Point]:
    """Seeders that are as slow as peers on the internet: more of them are faster, until a client is busy."""
    rate = 8 * MIB  # bytes per second of each
    work = Work(scale.pick(256 * MIB, 32 * MIB))
    points = []
    for count in scale.pick((1, 2, 4, 8, 16, 32, 64), (4, 32)):
        download = base(work, seeders=count, seeder_rate=rate)
        names = scale.pick(("ours", "libtorrent", "rtorrent", "qbittorrent", "webtorrent"), ("ours", "libtorrent"))
        points.append(Point(count, {**each(names, download), "limit": replace(download, subject=Limit(count))}))
    return points


def by_piece_length(scale: Scale) -> list[Point]:
    """Small pieces cost bookkeeping, large ones memory."""
    lengths = scale.pick((16, 64, 256, 1024, 4096, 16384), (16, 256, 4096))
    size = scale.pick(GIB, 64 * MIB)
    names = scale.pick(("ours", "libtorrent", "rtorrent", "limit-1"), ("ours", "libtorrent", "limit-1"))
    return [Point(length, each(names, base(Work(size, length * KIB)))) for length in lengths]


def many_files(scale: Scale) -> list[Point]:
    """Two hundred files."""
    work = Work(scale.pick(256 * MIB, 32 * MIB), files=200)
    return [Point("", each(scale.pick(ALL, FAST), base(work)))]


def many_pieces(scale: Scale) -> list[Point]:
    """A hundred thousand pieces, each of one block."""
    names = ("ours", "libtorrent", "rtorrent", "limit-1")
    return [Point(count, each(names, base(Work(count * BLOCK, BLOCK)))) for count in scale.pick((100_000,), (5_000,))]


def start_up(scale: Scale) -> list[Point]:
    """So little data that interpreter, libraries, announce, dial and exit are what counts."""
    names = scale.pick(ALL, ("ours", "libtorrent", "rtorrent", "limit-1"))
    return [Point("", each(names, base(Work(MIB))))]


def seeding(scale: Scale) -> list[Point]:
    """What it costs to give."""
    names = scale.pick((*SWARMING, "webtorrent", "limit-seeder"), ("ours", "libtorrent", "rtorrent", "limit-seeder"))
    work = Work(scale.pick(GIB, 64 * MIB))
    return [Point("", {name: Seeding(work, CLIENTS[name]) for name in names})]


def swarm(scale: Scale) -> list[Point]:
    """A seed and its leechers, nothing limited: all of it costs CPU."""
    names = (*scale.pick(SWARMING, ("ours", "libtorrent")), "limit-1")
    work = Work(scale.pick(256 * MIB, 16 * MIB))
    counts = scale.pick((4, 6, 8), (4,))
    return [Point(count, {name: Swarm(work, CLIENTS[name], count) for name in names}) for count in counts]


def slow_seed(scale: Scale) -> list[Point]:
    """A seed with a slow uplink: what counts is how well the leechers share what it gives."""
    names = scale.pick(SWARMING, ("ours", "libtorrent"))
    work, rate = Work(scale.pick(64 * MIB, 8 * MIB)), scale.pick(4 * MIB, 4 * MIB)
    counts = scale.pick((4, 8), (4,))
    return [Point(count, {name: Swarm(work, CLIENTS[name], count, rate) for name in names}) for count in counts]


def order(scale: Scale) -> list[Point]:
    """Rarest first and two other orders, where it matters: with a slow seed."""
    work, rate = Work(scale.pick(64 * MIB, 8 * MIB)), 4 * MIB
    variants = {
        "rarest first": Ours(),
        "random": Ours("ours, random", overrides={"random_first_pieces": 10**9}),
        "sequential": Ours("ours, sequential", options=("--sequential",)),
    }
    counts = scale.pick((2, 4, 8), (4,))
    return [Point(count, {name: Swarm(work, each, count, rate) for name, each in variants.items()}) for count in counts]


def links(scale: Scale) -> list[Point]:
    """Lines like people have them; four seeders share one in the last case."""
    specs = [
        (LinkSpec(10, 50), 1),
        (LinkSpec(100, 10), 1),
        (LinkSpec(100, 25), 1),
        (LinkSpec(100, 25, 0.1), 4),
        (LinkSpec(200, 50), 1),
        (LinkSpec(200, 50, 0.1), 1),
        (LinkSpec(50, 100, 1), 1),
    ]
    names = scale.pick((*REAL, "limit-1", "raw-copy"), ("ours", "libtorrent", "raw-copy"))
    points = []
    for spec, seeders in specs if not scale.is_quick else specs[2:3]:
        full = 16 * MIB if spec.mbit <= 10 else 64 * MIB
        download = base(Work(scale.pick(full, 32 * MIB)), seeders=seeders, seeder="libtorrent", link=spec)
        points.append(Point(f"{spec}" + f", {seeders} seeders" * (seeders > 1), each(names, download)))
    return points


def depth(scale: Scale) -> list[Point]:
    """A fixed number of requests under way, and the client's own choice, near and far."""
    spec = LinkSpec(100, 25)
    depths = scale.pick((1, 2, 5, 10, 20, 50, 100, 200, 500), (5, 50))
    points = []
    for number in depths:
        names = ("initial_queue_depth", "min_queue_depth", "max_queue_depth", "default_reqq")
        client = Ours(f"ours, depth {number}", overrides=dict.fromkeys(names, number))
        far = Work(min(64 * MIB, max(2 * MIB, number * BLOCK * scale.pick(200, 40))))
        near, own = Work(scale.pick(256 * MIB, 32 * MIB)), Work(scale.pick(64 * MIB, 16 * MIB))
        trials: dict[str, Trial] = {
            "loopback": Download(near, client),
            f"{spec}": Download(far, client, link=spec),
            f"{spec}, the client's choice": Download(own, CLIENTS["ours"], link=spec),
        }
        points.append(Point(number, trials))
    return points


def crowd(scale: Scale) -> list[Point]:
    """A download from four seeders among peers that have nothing."""
    names = (
        *scale.pick(("ours", "libtorrent", "rtorrent", "qbittorrent"), ("ours", "libtorrent")),
        "limit-1",
        "limit-2",
    )
    work = Work(scale.pick(GIB, 64 * MIB))
    counts = scale.pick((0, 46, 96, 196), (196,))
    return [Point(4 + count, each(names, base(work, seeders=4, idle=count))) for count in counts]


def idling(scale: Scale) -> list[Point]:
    """What a connection costs that nothing comes over: two threads, in our case."""
    names = scale.pick(SWARMING, ("ours", "libtorrent"))
    counts, seconds = scale.pick((0, 25, 50, 100, 200), (50,)), scale.pick(20.0, 2.0)
    return [
        Point(count, {name: Idling(Work(64 * MIB), CLIENTS[name], count, seconds) for name in names})
        for count in counts
    ]


def by_size(scale: Scale) -> list[Point]:
    """Memory must not grow with the torrent."""
    names = scale.pick(("ours", "libtorrent", "rtorrent", "limit-1"), ("ours", "limit-1"))
    sizes = scale.pick((16, 64, 256, 1024, 4096, 10240), (16, 128))
    return [Point(size, each(names, base(Work(size * MIB)))) for size in sizes]


TIMES = ("wall", "speed", "cpu", "rss", "wall/limit", "cpu/limit", "wall/libtorrent", "cpu/libtorrent")
DOWNLOAD = (*TIMES, "seeder_cpu", "wire")
SWARM = ("wall", "first", "copies", "cpu", "rss", "wasted", "wire", "wall/libtorrent", "cpu/libtorrent")

_ALL = (
    Case(
        "comparison",
        "Comparison with standard clients",
        "A payload from four seeders that cost almost nothing, over loopback: how fast the clients themselves are. "
        "aria2 and Transmission spend seconds of it waiting for their next round.",
        comparison,
        DOWNLOAD,
        (Plot("speed"), Plot("cpu"), Plot("rss")),
    ),
    Case(
        "seeders",
        "Download speed against the number of seeders",
        "The same, from one seeder and more. Two processors, a leecher and its seeders: more seeders help only a "
        "leecher that uses more than one of them.",
        by_seeders,
        DOWNLOAD,
        (Plot("speed"), Plot("cpu")),
        "seeders",
    ),
    Case(
        "libtorrent-seeders",
        "Download speed from libtorrent seeders",
        "Seeders as they are out there need a processor of their own, which the leecher then lacks. The limit has the "
        "cheap seeder all the same.",
        by_libtorrent_seeders,
        DOWNLOAD,
        (Plot("speed"),),
        "seeders",
    ),
    Case(
        "peers",
        "Download speed against the number of peers",
        "Each seeder sends 8 MiB/s and no more, as peers on the internet are slower than the machine. The speed grows "
        "with their number until the client has no more time; memory and CPU show what a thread for each peer costs.",
        by_peers,
        DOWNLOAD,
        (Plot("speed", log_x=True), Plot("cpu", log_x=True), Plot("rss", log_x=True)),
        "peers",
    ),
    Case(
        "piece-length",
        "Piece sizes",
        "The same bytes in pieces of 16 KiB, a block each, to 16 MiB.",
        by_piece_length,
        DOWNLOAD,
        (Plot("speed", log_x=True), Plot("rss", log_x=True)),
        "KiB a piece",
    ),
    Case(
        "files", "Two hundred files", "A file more is an open and a close. The limit writes one.", many_files, DOWNLOAD
    ),
    Case(
        "pieces",
        "Many small pieces",
        "Pieces of one block each, 100,000 at full size: the bookkeeping of pieces, and nothing that hides it.",
        many_pieces,
        DOWNLOAD,
        axis="pieces",
    ),
    Case(
        "startup",
        "Start-up",
        "1 MiB, from the process's start to its exit.",
        start_up,
        ("wall", "cpu", "rss", "wall/limit", "wall/libtorrent"),
        (Plot("wall"),),
        many_rounds=True,
    ),
    Case(
        "seeding",
        "Seeding",
        "Each seeder serves one libtorrent leecher; CPU and memory are the seeder's. The limit is sendfile.",
        seeding,
        ("wall", "speed", "cpu", "rss", "cpu/limit", "cpu/libtorrent", "wire"),
        (Plot("cpu"),),
    ),
    Case(
        "swarm",
        "A swarm from one seed",
        "A seed and leechers of the same client, which trade. CPU is all of theirs. The limit does the same work with "
        "all leechers at the cheap seeder.",
        swarm,
        (*SWARM, "wall/limit", "cpu/limit"),
        (Plot("wall"), Plot("cpu")),
        "leechers",
    ),
    Case(
        "slow-seed",
        "A swarm from a slow seed",
        "The seed sends 4 MiB/s: nobody can be complete before it has sent one copy. With N leechers, 1 copy is the "
        "least that it must send, and N means that the leechers gave each other nothing.",
        slow_seed,
        (*SWARM, "wall/copy"),
        (Plot("wall"), Plot("copies")),
        "leechers",
    ),
    Case(
        "order",
        "Rarest first against other orders",
        "The client with its own order of pieces, at random, and in sequence, in a swarm from a slow seed.",
        order,
        ("wall", "wall/copy", "first", "copies", "cpu", "wasted"),
        (Plot("wall"), Plot("copies")),
        "leechers",
    ),
    Case(
        "links",
        "Links with a delay",
        "Each client behind a link; the delay is one way. What TCP alone makes of the link is the row raw-copy, 100 %.",
        links,
        ("wall", "speed", "of raw", "cpu", "wire", "seeder_cpu"),
        (Plot("of raw"),),
        "link",
    ),
    Case(
        "depth",
        "Pipeline depth",
        "The client with a fixed number of requests of 16 KiB under way. On a link nothing comes faster than depth x "
        "16 KiB a round trip.",
        depth,
        ("speed", "cpu per GiB", "wall"),
        (Plot("speed", log_x=True, log_y=True), Plot("cpu per GiB", log_x=True)),
        "requests under way",
    ),
    Case(
        "crowd",
        "A download among many peers",
        "Four seeders send as fast as they can; all other peers are connected and have nothing. The limit has only "
        "the seeders.",
        crowd,
        TIMES,
        (Plot("speed"), Plot("rss")),
        "connected peers",
    ),
    Case(
        "idle",
        "Idle peers",
        "Connected to peers that have nothing: CPU in percent of one processor, and memory.",
        idling,
        ("share", "rss"),
        (Plot("share"), Plot("rss")),
        "connected peers",
    ),
    Case(
        "size",
        "Memory against the size of the torrent",
        "It must not grow. The largest needs 21 GiB, for the payload and its copy, which a memory disk seldom has: "
        "`--dir` takes a real one.",
        by_size,
        ("rss", "wall", "cpu per GiB", "wall/limit"),
        (Plot("rss", log_x=True),),
        "MiB",
    ),
)
CASES: dict[str, Case] = {case.name: case for case in _ALL}
