"""Where the program begins and ends: parse, run a command, turn errors into sentences and codes.

Spec: the guide's Task 15.
Thread: main.
Lock: none.
"""

import gc
import io
import logging
import os
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn, TextIO

from torrent_client.cli.arguments import MILESTONES, parse
from torrent_client.cli.exit_codes import ExitCode, exit_code
from torrent_client.errors import TorrentError
from torrent_client.text import printable

TRANSFERS = ("get", "seed", "demo")
"""Commands that have not done their work when their output can no longer be written."""

_COMMANDS = {
    "get": ("get", "get"),
    "seed": ("seed", "seed"),
    "info": ("info", "show_info"),
    "verify": ("verify", "verify"),
    "scrape": ("scrape", "scrape"),
    "dht": ("dht", "look_up"),
    "doctor": ("doctor", "examine"),
    "create": ("create", "create"),
    "demo": ("demo", "demo"),
    "peer": ("peer", "run_peer"),
    "trace": ("trace", "show_trace"),
    "completion": ("completion", "print_completion"),
    "check": ("check", "check"),
}
"""The module and the function of each command that is no milestone."""

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(threadName)s %(name)s: %(message)s"


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code.

    Args:
        arguments: the command line without the program's name.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not fit the terminal's alphabet
            stream.reconfigure(errors="backslashreplace")
    options = parse(arguments)
    try:
        _set_up_logging(options)
        if any(getattr(options, name, None) for name in ("trace", "trace_file", "trace_pcap")):
            from torrent_client.cli.trace import traced

            with traced(options):
                return _run_command(options)
        return _run_command(options)
    except TorrentError as error:
        print(f"error: {printable(str(error), 2000)}", file=sys.stderr)
        return exit_code(error)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit finds somebody
        return ExitCode.ERROR if options.command in TRANSFERS else ExitCode.OK  # `info | head` is no error
    except OSError as error:  # what no part foresaw, such as standard output on a full disk
        print(f"error: {error.strerror or error}", file=sys.stderr)
        return ExitCode.ERROR
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def run() -> NoReturn:
    """Run the program with the process's own arguments, and exit."""
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"error: cannot write the output: {error.strerror}", file=sys.stderr)
        os._exit(ExitCode.ERROR)
    sys.stderr.flush()
    if any(thread.name.startswith("peer") for thread in threading.enumerate()):
        os._exit(code)  # a worker hangs in a name look-up: everything is saved, so it must not keep us
    gc.freeze()  # else the interpreter looks through all that is loaded, for cycles that the end of the process frees
    sys.exit(code)


def _run_command(options: Namespace) -> int:
    """Import and run the command: each one loads only what it needs, so that all start quickly."""
    module, function = ("milestones", "run_milestone") if options.command in MILESTONES else _COMMANDS[options.command]
    run_it: Callable[[Namespace], int] = getattr(import_module(f"torrent_client.cli.{module}"), function)
    return run_it(options)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the moment: a picture in place puts itself there, and lines go above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self.stream = sys.stderr
        super().emit(record)


def _set_up_logging(options: Namespace) -> None:
    """Send warnings to standard error and everything to the log file; details with -v."""
    root = logging.getLogger("torrent_client")
    level = logging.DEBUG if getattr(options, "verbose", False) else logging.INFO
    root.setLevel(level)
    console = _StderrHandler()
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    quiet = getattr(options, "quiet", False)
    console.setLevel(logging.CRITICAL if quiet else level if level == logging.DEBUG else logging.WARNING)
    root.handlers = [console]
    if getattr(options, "log_file", None):
        try:
            file = logging.FileHandler(options.log_file)
        except OSError as error:
            raise TorrentError(f"cannot write the log to {options.log_file}: {error.strerror}") from error
        file.setFormatter(logging.Formatter(LOG_FORMAT))
        root.addHandler(file)
