"""The cases: what is measured, and how its table looks.

To add a case, write a function of a `Bench` and `Options` that returns tables, and put it into `CASES`. A
case makes payloads, names its setups, lets the bench take turns with them and lays out the columns.
"""

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from thesis.benchmarks.clients import CLIENTS, Client, Libtorrent, Limit
from thesis.benchmarks.report import MIB, Table, disturbed_note, ratio, spread, values
from thesis.benchmarks.runner import Bench, Outcome, Run, Setup, seeder_for
from thesis.benchmarks.seeders import SEEDERS, Seeder
from thesis.benchmarks.swarm import MEMBERS, Member, SwarmRun, SwarmSetup
from thesis.benchmarks.torrents import Payload, format_size

Results = Mapping[str, list[Run]]
Program = TypeVar("Program", Client, Seeder, Member)


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose; sizes in bytes, rates in bytes per second."""

    size: int
    piece_length: int
    names: list[str]  # of clients; of seeders in the seed case
    seeder_counts: Sequence[int] = (1,)
    seeder: str = "sendfile"
    leechers: int = 1  # of the swarm case, as is the next one
    seed_rate: int = 0  # 0 is no limit


@dataclass(frozen=True, slots=True)
class Case:
    """A case's function, its line of help, whom it compares, and its own defaults (as on the command line)."""

    function: Callable[[Bench, Options], list[Table]]
    help: str
    programs: Collection[str] = tuple(CLIENTS)
    is_swarm: bool = False  # there are leechers to choose the number of, instead of seeders
    defaults: Mapping[str, str] = field(default_factory=dict)


def wall(run: Outcome) -> float:
    """Seconds from the process's start to its completion."""
    return run.wall


def cpu(run: Run) -> float:
    """The client's user and system seconds."""
    return run.cost.cpu


def seeder_cpu(run: Run) -> float:
    """The seeders' user and system seconds."""
    return run.seeder_cpu


def present(bench: Bench, programs: list[Program]) -> list[Program]:
    """Return the programs that are there, with a word about the others."""
    for program in programs:
        if reason := program.missing():
            bench.say(f"{program.name} is left out: {reason}")
    return [program for program in programs if not program.missing()]


def leech_setups(case: str, bench: Bench, options: Options, payload: Payload, count: int) -> dict[str, Setup]:
    """Return one setup for each chosen client that is there."""
    clients = present(bench, [CLIENTS[name] for name in options.names])
    return {client.name: Setup(case, payload, seeder_for(client, options.seeder), count, client) for client in clients}


def limit_runs(results: Results) -> list[Run]:
    """Return the runs of the faster limit."""
    limits = [runs for name, runs in results.items() if isinstance(CLIENTS.get(name), Limit) and runs]
    return min(limits, key=lambda runs: statistics.median(values(runs, wall)), default=[])


def leech(bench: Bench, options: Options) -> list[Table]:
    """Clients download the same torrent, in turn; one table for each number of seeders."""
    payload = bench.payload(options.size, options.piece_length)
    tables = []
    for count in options.seeder_counts:
        results = bench.take_turns(leech_setups("leech", bench, options, payload, count))
        title = f"leech {format_size(payload.size)}, pieces of {format_size(payload.piece_length)}, "
        title += f"{count} {options.seeder} seeder" + "s" * (count > 1)
        tables.append(leech_table(title, results))
    return tables


def leech_table(title: str, results: Results) -> Table:
    """Lay out time, CPU, memory and the two ratios of time."""
    columns = ["client", "wall s", "CPU s", "peak RSS MiB", "seeders' CPU s"]
    ratios = ["wall / libtorrent", "CPU / libtorrent", "wall / limit"]
    table = Table(title, [*columns, *ratios], note=disturbed_note(results))
    base, floor = results.get("libtorrent", []), limit_runs(results)
    for name, runs in results.items():
        table.rows.append(
            [
                name,
                spread(values(runs, wall)),
                spread(values(runs, cpu)),
                spread(values(runs, lambda run: run.cost.peak_rss / MIB), 0),
                spread(values(runs, seeder_cpu)),
                ratio(values(runs, wall), values(base, wall)),
                ratio(values(runs, cpu), values(base, cpu)),
                ratio(values(runs, wall), values(floor, wall)),
            ]
        )
    return table


def startup(bench: Bench, options: Options) -> list[Table]:
    """How long a small torrent takes from the process's start: interpreter, imports, announce, dial, exit."""
    payload = bench.payload(options.size, options.piece_length)
    results = bench.take_turns(leech_setups("startup", bench, options, payload, 1))
    title = f"start-up: {format_size(payload.size)} from process start to exit, 1 {options.seeder} seeder"
    table = Table(title, ["client", "wall ms", "CPU ms", "wall / libtorrent"], note=disturbed_note(results))
    base = results.get("libtorrent", [])
    for name, runs in results.items():
        times = [spread([1000 * figure for figure in values(runs, kind)], 0) for kind in (wall, cpu)]
        table.rows.append([name, *times, ratio(values(runs, wall), values(base, wall))])
    return [table]


def seed(bench: Bench, options: Options) -> list[Table]:
    """What seeding costs: each seeder serves one tuned libtorrent leecher."""
    payload = bench.payload(options.size, options.piece_length)
    leecher = Libtorrent()
    seeders = present(bench, [SEEDERS[name] for name in options.names]) if present(bench, [leecher]) else []
    results = bench.take_turns({each.name: Setup("seed", payload, each, 1, leecher) for each in seeders})
    columns = ["seeder", "seeder's CPU s", "CPU / libtorrent", "seeder's peak RSS MiB", "leecher's wall s"]
    title = f"seed {format_size(payload.size)} to one libtorrent leecher"
    table = Table(title, [*columns, "leecher's CPU s"], note=disturbed_note(results))
    base = values(results.get("libtorrent", []), seeder_cpu)
    for name, runs in results.items():
        costs = values(runs, seeder_cpu)
        rss = spread(values(runs, lambda run: run.seeder_rss / MIB), 0)
        leecher_costs = [spread(values(runs, wall)), spread(values(runs, cpu))]
        table.rows.append([name, spread(costs), ratio(costs, base), rss, *leecher_costs])
    return [table]


def swarm(bench: Bench, options: Options) -> list[Table]:
    """One seed and several leechers, all of one client, start together; until every leecher has everything."""
    payload = bench.payload(options.size, options.piece_length)
    members = present(bench, [MEMBERS[name] for name in options.names])
    setups = {each.name: SwarmSetup(payload, each, options.leechers, options.seed_rate) for each in members}
    results = bench.take_turns(setups)
    title = f"swarm: {format_size(payload.size)} from one seed to {options.leechers} leechers"
    if not options.seed_rate:
        return [swarm_table(title, results, payload.size)]
    one_copy = payload.size / options.seed_rate
    title += f", the seed sends {format_size(options.seed_rate)}/s, one copy in {one_copy:.1f} s"
    return [swarm_table(title, results, payload.size, one_copy)]


def swarm_table(title: str, results: Mapping[str, list[SwarmRun]], size: int, one_copy: float = 0.0) -> Table:
    """Lay out times, the seed's copies, CPU and waste; with a slow seed also the time in copies sent by it."""
    columns = ["client", "all complete s", "first to last s", "copies sent by the seed", "CPU s", "peak RSS MiB"]
    ratios = ["wasted %", "wall / libtorrent", "CPU / libtorrent", *(["wall / one copy"] if one_copy else [])]
    table = Table(title, [*columns, *ratios], note=disturbed_note(results))
    base = results.get("libtorrent", [])
    for name, runs in results.items():
        downloaded = size * max((len(run.finished) for run in runs), default=1)
        table.rows.append(
            [
                name,
                spread(values(runs, wall)),
                spread(values(runs, lambda run: run.spread)),
                spread(values(runs, lambda run: run.copies)),
                spread(values(runs, lambda run: run.cpu)),
                spread(values(runs, lambda run: run.peak_rss / MIB), 0),
                spread([100 * figure / downloaded for figure in values(runs, lambda run: run.wasted)]),
                ratio(values(runs, wall), values(base, wall)),
                ratio(values(runs, lambda run: run.cpu), values(base, lambda run: run.cpu)),
                *([ratio(values(runs, wall), [one_copy])] if one_copy else []),
            ]
        )
    return table


CASES: dict[str, Case] = {
    "leech": Case(leech, "clients download the same torrent over loopback"),
    "startup": Case(startup, "a small torrent, from process start to exit", defaults={"size": "1MiB", "rounds": "11"}),
    "seed": Case(
        seed,
        "the cost of seeding to a libtorrent leecher",
        tuple(SEEDERS),
        defaults={"names": "ours,libtorrent,sendfile"},
    ),
    "swarm": Case(
        swarm,
        "one seed and several leechers of one client that trade with each other",
        tuple(MEMBERS),
        is_swarm=True,
        defaults={"names": ",".join(MEMBERS), "size": "256MiB"},
    ),
}
