"""The command line: ``python -m thesis.benchmarks all|CASE...|report|list``."""

import argparse
import dataclasses
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from thesis.benchmarks import machine
from thesis.benchmarks.cases import CASES, SCALES, Case, Scale
from thesis.benchmarks.clients import CLIENTS
from thesis.benchmarks.network import Network, enter_own_namespace
from thesis.benchmarks.report import write_report
from thesis.benchmarks.results import Results, ResultsError, read_records
from thesis.benchmarks.runner import Runner
from thesis.benchmarks.trials import Lab

RESULTS = machine.REPOSITORY / "thesis" / "results"
ROOM = {"full": 10 << 30, "quick": 1 << 30}  # bytes that the largest case needs
ALL, REPORT, LIST = "all", "report", "list"


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m thesis.benchmarks",
        description="Measure this client and others side by side; what the file of results has is not run again.",
    )
    known = [ALL, REPORT, LIST, *CASES]
    parser.add_argument("what", nargs="+", choices=known, metavar="CASE", help="all, report, list, or names of cases")
    parser.add_argument("--quick", action="store_true", help="all of it, small, in about two minutes")
    parser.add_argument("--clients", type=lambda text: text.split(","), help="these only, such as ours,libtorrent")
    parser.add_argument("--point", action="append", help="this value of the axis alone, such as 4; may be repeated")
    parser.add_argument("--rounds", type=int, help="runs of each client at each point (3; --quick 1)")
    parser.add_argument("--results", type=Path, help="file to append to (thesis/results/full.jsonl or quick.jsonl)")
    parser.add_argument("--dir", type=Path, help="where to work (/dev/shm if there is room, else the usual place)")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.clients or ()).difference(CLIENTS):
        parser.error(f"no such clients: {', '.join(sorted(unknown))}; there are {', '.join(CLIENTS)}")
    return arguments


def among(chosen: Sequence[str] | None) -> Callable[[object], bool]:
    """Return what tells whether something is among those that the user named; everything is when there are none."""
    return lambda thing: not chosen or str(thing) in chosen


def chosen_scale(arguments: argparse.Namespace) -> Scale:
    """Return how much of everything the user wants."""
    scale = SCALES["quick" if arguments.quick else "full"]
    return dataclasses.replace(scale, rounds=arguments.rounds or scale.rounds)


def roomy_directory(size: int) -> Path:
    """Return /dev/shm when so many bytes fit there, else the usual temporary directory."""
    fits = machine.MEMORY_DISK.is_dir() and machine.free_bytes(machine.MEMORY_DISK) > size
    return machine.MEMORY_DISK if fits else Path(tempfile.gettempdir())


def versions() -> dict[str, str]:
    """Return the versions of all clients that are there."""
    return {client.name: client.version() for client in CLIENTS.values() if not client.missing()}


def run(arguments: argparse.Namespace, path: Path, cases: Sequence[Case], network: Network) -> None:
    """Run what is missing in the file; ResultsError when the file is about something else."""
    scale = chosen_scale(arguments)
    results = Results(path, scale.name)
    results.begin(versions(), vars(arguments))
    if not network.is_own:
        say("no network of our own here: no bytes are counted, and there are no links")
    with tempfile.TemporaryDirectory(
        dir=arguments.dir or roomy_directory(ROOM[scale.name]), prefix="benchmark-"
    ) as name:
        runner = Runner(Lab(Path(name), network), results, scale, say)
        runner.run(cases, among(arguments.clients), among(arguments.point))


def say(text: str) -> None:
    """Tell the user how it goes."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def list_cases() -> None:
    """Print the cases and the clients that are there."""
    for case in CASES.values():
        print(f"{case.name:20} {case.title}")
    print()
    for client in CLIENTS.values():
        print(f"{client.name:20} {client.missing() or client.version()}")


def main(words: Sequence[str]) -> int:
    """Run the chosen cases and write the report."""
    arguments = parse(words)
    if LIST in arguments.what:
        list_cases()
        return 0
    path = arguments.results or RESULTS / f"{'quick' if arguments.quick else 'full'}.jsonl"
    cases = list(CASES.values()) if ALL in arguments.what else [CASES[name] for name in arguments.what if name in CASES]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no helper behind
    try:
        if cases:
            run(arguments, path, cases, Network(enter_own_namespace(list(words))))
        records = read_records(path)
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return 130
    if not records:
        print(f"error: there is nothing in {path}", file=sys.stderr)
        return 1
    print(write_report(records, path.with_suffix("")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
