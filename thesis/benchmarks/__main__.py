"""The command line: ``python -m thesis.benchmarks leech|startup|seed|swarm``."""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from thesis.benchmarks import machine
from thesis.benchmarks.cases import CASES, Case, Options
from thesis.benchmarks.clients import CLIENTS, DEFAULT_CLIENTS
from thesis.benchmarks.report import JsonLines
from thesis.benchmarks.runner import Bench
from thesis.benchmarks.seeders import SEEDERS
from thesis.benchmarks.torrents import parse_size

MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - the figures are to be without a disk
WIDTH = 120  # characters of a table that goes to a file or a pipe
SPARE = 512 << 20  # bytes to leave free beside the payload and its copies


def parse_arguments() -> argparse.Namespace:
    """Read the command line; every case has the same options with defaults of its own."""
    parser = argparse.ArgumentParser(prog="python -m thesis.benchmarks", description=__doc__)
    subparsers = parser.add_subparsers(dest="case", required=True)
    for name, case in CASES.items():
        add_options(subparsers.add_parser(name, help=case.help), case)
    return parser.parse_args()


def add_options(parser: argparse.ArgumentParser, case: Case) -> None:
    """Add the options that all cases share, and those of swarms or of single leechers."""
    clients = ",".join(DEFAULT_CLIENTS)
    parser.add_argument("--size", type=parse_size, default="1GiB", help="the payload's (%(default)s)")
    parser.add_argument("--piece-length", type=parse_size, default="256KiB", help="(%(default)s)")
    if case.is_swarm:
        parser.add_argument("--leechers", type=int, default=6, help="how many (%(default)s)")
        rate_help = "bytes per second that the seed sends at most, as in 2M; 0 for no limit (%(default)s)"
        parser.add_argument("--seed-rate", type=parse_size, default=0, help=rate_help)
    else:
        parser.add_argument("--seeders", type=counts, default="1", help="how many, as in 1,4 (%(default)s)")
        parser.add_argument("--seeder", choices=SEEDERS, default="sendfile", help="which (%(default)s)")
    names = names_among(case.programs)
    parser.add_argument("--clients", dest="names", type=names, default=clients, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each client (%(default)s)")
    parser.add_argument("--dir", type=Path, help="where to work (/dev/shm when there is room, else a temp dir)")
    parser.add_argument("--json", type=Path, help="append the runs to this file, as JSON lines")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.set_defaults(**case.defaults)


def counts(text: str) -> list[int]:
    """Parse ``1,4``."""
    return [int(part) for part in text.split(",")]


def names_among(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return a parser of lists of known names."""

    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen).difference(known):
            raise argparse.ArgumentTypeError(f"not {', '.join(unknown)}, but any of {', '.join(known)}")
        return chosen

    return names


def chosen_options(arguments: argparse.Namespace) -> Options:
    """Return what the user chose; options that the case does not have keep their defaults."""
    options = Options(arguments.size, arguments.piece_length, arguments.names)
    if CASES[arguments.case].is_swarm:
        return replace(options, leechers=arguments.leechers, seed_rate=arguments.seed_rate)
    return replace(options, seeder_counts=arguments.seeders, seeder=arguments.seeder)


def roomy_directory(size: int) -> Path:
    """Return /dev/shm when so many bytes fit there, else the usual temporary directory."""
    fits = MEMORY_DISK.is_dir() and shutil.disk_usage(MEMORY_DISK).free > size + SPARE
    return MEMORY_DISK if fits else Path(tempfile.gettempdir())


def versions(chosen: list[str]) -> dict[str, str]:
    """Return the versions of the chosen clients that are there."""
    there = [CLIENTS[name] for name in chosen if name in CLIENTS and not CLIENTS[name].missing()]
    return {client.name: client.version() for client in there}


def main() -> int:
    """Run the chosen case and print its tables."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no helper behind
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    progress = Console(stderr=True, highlight=False)
    options = chosen_options(arguments)
    place = arguments.dir or roomy_directory((1 + options.leechers) * options.size)
    if reason := SEEDERS[options.seeder].missing():
        progress.print(f"{options.seeder} cannot seed: {reason}")
        return 1
    record = JsonLines(arguments.json, vars(arguments), versions(options.names))
    with tempfile.TemporaryDirectory(dir=place, prefix="benchmark-") as workspace:
        bench = Bench(Path(workspace), arguments.rounds, progress.print, record)
        tables = CASES[arguments.case].function(bench, options)
    computer = ", ".join(f"{name} {value}" for name, value in machine.describe().items())
    for table in tables:
        if arguments.markdown:
            print(table.as_markdown())
        else:
            table.show(console)
    print(computer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
