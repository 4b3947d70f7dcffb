"""The leechers under test: one small class for each.

To add a client, write a subclass of `Client` and put it into `CLIENTS`. It says which command downloads a
torrent into a directory and ends, or creates a file when complete. Every client gets the same chances:
discovery and encryption off, no rate limits, peers from the tracker, no allocation of the file beforehand.
"""

import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from thesis.benchmarks import machine
from thesis.benchmarks.torrents import Payload

LIBTORRENT_PEER = Path(__file__).with_name("libtorrent_peer.py")


@dataclass(frozen=True, slots=True)
class Job:
    """What a client is asked to do."""

    payload: Payload
    torrent: Path  # names the tracker
    peers: list[str]  # ADDRESS:PORT of the seeders, the tracker's answer
    directory: Path  # empty; the file goes here under the payload's name
    scratch: Path  # for the client's own state
    tools: Path  # compiled programs

    @property
    def mark(self) -> Path:
        """The file that a client without an exit creates when it is complete."""
        return self.scratch / "complete"


class Client:
    """A program that leeches; the defaults suit one that exits when complete."""

    name: str
    program = ""  # looked for on the path; the first line of `program --version` is its version
    leaves_mark = False  # creates Job.mark when complete instead of exiting
    needs_seeder = ""  # the only seeder that it works with
    takes_loopback = True  # False: the seeders listen on the machine's outside address, still over lo

    def missing(self) -> str:
        """Return why it cannot run here; empty when it can."""
        return "" if shutil.which(self.program) else f"{self.program} is not installed"

    def version(self) -> str:
        """Return its version in its own words."""
        return machine.first_line([self.program, "--version"])

    def command(self, job: Job) -> list[str]:
        """Prepare the job's scratch directory and return the command that downloads the torrent."""
        raise NotImplementedError


class Ours(Client):
    """The client of this repository, run by this interpreter."""

    name = "ours"
    main = machine.REPOSITORY / "main.py"

    def missing(self) -> str:
        """As `Client.missing`."""
        return "" if self.main.exists() else "main.py is not there"

    def version(self) -> str:
        """As `Client.version`."""
        return machine.commit() or "unknown"

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        options = ["-q", "--no-portmap", "--port", "0", "--state-dir", str(job.scratch)]
        return [sys.executable, str(self.main), str(job.torrent), "-o", str(job.directory), *options]


class Libtorrent(Client):
    """libtorrent-rasterbar through its Python binding, tuned."""

    name = "libtorrent"

    def missing(self) -> str:
        """As `Client.missing`."""
        return "" if find_spec("libtorrent") else "the libtorrent package is not installed"

    def version(self) -> str:
        """As `Client.version`."""
        try:
            return version("libtorrent")
        except PackageNotFoundError:  # a distribution's package
            return "unknown"

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        return [sys.executable, str(LIBTORRENT_PEER), "leech", str(job.torrent), str(job.directory)]


class Aria2(Client):
    """aria2c; look at its CPU time more than at its wall time.

    It tries an encrypted handshake first, which cannot be turned off and which these seeders refuse, and takes
    its steps once a second: about 3 s of every run are spent waiting.
    """

    name = "aria2"
    program = "aria2c"

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        options = {
            "no-conf": "true",
            "dir": str(job.directory),
            "enable-dht": "false",
            "enable-dht6": "false",
            "bt-enable-lpd": "false",
            "enable-peer-exchange": "false",
            "disable-ipv6": "true",
            "file-allocation": "none",
            "seed-time": "0",
            "summary-interval": "0",
            "quiet": "true",
        }
        return [self.program, *(f"--{name}={value}" for name, value in options.items()), str(job.torrent)]


class Rtorrent(Client):
    """rtorrent as a daemon; it creates the mark when its finished event comes."""

    name = "rtorrent"
    program = "rtorrent"
    leaves_mark = True

    def version(self) -> str:
        """As `Client.version`."""
        done = subprocess.run([self.program, "-h"], capture_output=True, text=True, check=False)
        return done.stdout.partition("\n")[0].strip()

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        settings = job.scratch / "rtorrent.rc"
        settings.write_text(
            "\n".join(
                (
                    "system.daemon.set = true",
                    f"session.path.set = {job.scratch}",
                    f"directory.default.set = {job.directory}",
                    "network.port_random.set = yes",
                    "dht.mode.set = disable",
                    "protocol.pex.set = no",
                    "protocol.encryption.set = none",
                    "trackers.use_udp.set = no",
                    "pieces.hash.on_completion.set = no",
                    f'method.set_key = event.download.finished, mark, "execute.nothrow.bg={{touch,{job.mark}}}"',
                    f'schedule2 = start, 0, 0, "load.start={job.torrent}"',
                )
            ),
            encoding="utf-8",
        )
        return [self.program, "-n", "-o", f"import={settings}"]


class Transmission(Client):
    """transmission-cli; its finish script creates the mark.

    It takes no loopback peers, and it begins to download at one of its 10 s rounds: about 14 s of every run
    are spent waiting, so it runs only when asked for by name.
    """

    name = "transmission"
    program = "transmission-cli"
    leaves_mark = True
    takes_loopback = False

    def missing(self) -> str:
        """Ask for an outside address too."""
        return super().missing() or ("" if machine.outside_address() else "it takes no loopback peers")

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        script = job.scratch / "finished.sh"
        script.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(job.mark))}\n", encoding="utf-8")
        script.chmod(0o755)
        (job.scratch / "settings.json").write_text(
            '{"dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false,'
            ' "encryption": 0, "preallocation": 0, "port-forwarding-enabled": false,'
            ' "peer-port-random-on-start": true}',
            encoding="ascii",
        )
        options = ["-g", str(job.scratch), "-w", str(job.directory), "-f", str(script), "-M", "-et"]
        return [self.program, *options, str(job.torrent)]


class Limit(Client):
    """The floor: receive, hash and write, in C (see limit.c); not a client."""

    needs_seeder = "sendfile"

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
        payload, output = job.payload, job.directory / job.payload.path.name
        program = machine.compile_c("limit", job.tools)
        facts = (output, payload.size, payload.piece_length, hashes, payload.info_hash.hex(), self.threads)
        return [str(program), *map(str, facts), *job.peers]


_ALL: tuple[Client, ...] = (Ours(), Libtorrent(), Aria2(), Rtorrent(), Transmission(), Limit(1), Limit(2))
CLIENTS: dict[str, Client] = {client.name: client for client in _ALL}
DEFAULT_CLIENTS = [name for name in CLIENTS if name != "transmission"]
