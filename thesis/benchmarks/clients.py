"""The clients under test: one small class for each.

To add one, write a subclass of `Client` and put it into `CLIENTS`.
"""

import functools
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from thesis.benchmarks import machine
from thesis.benchmarks.client import Client, Done, Job, Role, touch_script
from thesis.benchmarks.network import free_port
from thesis.benchmarks.references import Limit, LimitSeeder, RawCopy

LIBTORRENT_PEER = Path(__file__).with_name("libtorrent_peer.py")
WEBTORRENT_PEER = Path(__file__).with_name("webtorrent_peer.mjs")
VARIANT = Path(__file__).with_name("variant.py")
Overrides = Mapping[str, int]  # numbers of `Config` by their names


class Ours(Client):
    """The client of this repository, run by this interpreter; with overrides, numbers of its `Config` differ."""

    roles = Role.LEECH | Role.SEED | Role.MEMBER
    member_tells = Done.REPORT
    main = machine.REPOSITORY / "main.py"
    # Torrents are private, but the threads of discovery would start.
    alone: ClassVar = ("--no-portmap", "--no-lsd", "--no-pex", "--no-dht", "--encryption", "off")

    def __init__(
        self, name: str = "ours", options: tuple[str, ...] = (), overrides: Overrides = MappingProxyType({})
    ) -> None:
        """Name the row; options are of the command line."""
        self.name = name
        self._options = options
        self._overrides = overrides

    def missing(self) -> str:
        """As `Client.missing`."""
        return "" if self.main.exists() else "main.py is not there"

    def version(self) -> str:
        """As `Client.version`."""
        return machine.commit() or "unknown"

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        program = [str(self.main)]
        if self._overrides:
            program = [str(VARIANT), *(f"{name}={value}" for name, value in self._overrides.items()), "--"]
        options = ["--port", job.port, "--state-dir", str(job.scratch), *self.alone, *self._options]
        options += ["--max-upload-rate", str(job.upload_rate)] if job.upload_rate else []
        options += ["--max-peers", str(job.max_peers)] if job.max_peers else []
        options += ["-q"] if job.role is Role.LEECH else ["--seed", "--json"]
        return [sys.executable, *program, str(job.torrent), "-o", str(job.directory), *options]


class Libtorrent(Client):
    """libtorrent-rasterbar through its Python binding, tuned."""

    name = "libtorrent"
    roles = Role.LEECH | Role.SEED | Role.MEMBER
    member_tells = Done.REPORT

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
        side = {Role.LEECH: "leech", Role.SEED: "seed", Role.MEMBER: "swarm"}[job.role]
        script = [sys.executable, str(LIBTORRENT_PEER), side, str(job.torrent), str(job.directory)]
        options = ["--listen", job.listen[0]]
        options += ["--upload-limit", str(job.upload_rate)] if job.upload_rate else []
        options += ["--set", f"connections_limit={job.max_peers}"] if job.max_peers else []
        return [*script, *options]


class Aria2(Client):
    """aria2c; look at its CPU time more than at its wall time.

    It tries an encrypted handshake first, which cannot be turned off and which most seeders here refuse, and takes
    its steps once a second: about 3 s of every run are spent waiting.
    """

    name = "aria2"
    program = "aria2c"
    roles = Role.LEECH | Role.SEED | Role.MEMBER

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        options = {
            "no-conf": "true",
            "dir": str(job.directory),
            "listen-port": job.port,
            "enable-dht": "false",
            "enable-dht6": "false",
            "bt-enable-lpd": "false",
            "enable-peer-exchange": "false",
            "disable-ipv6": "true",
            "file-allocation": "none",
            "summary-interval": "0",
            "quiet": "true",
        }
        if job.role is Role.LEECH:
            options["seed-time"] = "0"
        else:
            options |= {"seed-ratio": "0.0", "on-bt-download-complete": str(touch_script(job))}
        if job.role is Role.SEED:
            options["check-integrity"] = "true"
        if job.upload_rate:
            options["max-overall-upload-limit"] = str(job.upload_rate)
        if job.max_peers:
            options["bt-max-peers"] = str(job.max_peers)
        return [self.program, *(f"--{name}={value}" for name, value in options.items()), str(job.torrent)]


class Rtorrent(Client):
    """rtorrent as a daemon; it creates the mark when its finished event comes."""

    name = "rtorrent"
    program = "rtorrent"
    roles = Role.LEECH | Role.SEED | Role.MEMBER
    leeches_until = Done.MARK

    def version(self) -> str:
        """As `Client.version`."""
        done = subprocess.run([self.program, "-h"], capture_output=True, text=True, check=False)
        return done.stdout.partition("\n")[0].strip()

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        settings = job.scratch / "rtorrent.rc"
        lines = [
            "system.daemon.set = true",
            f"session.path.set = {job.scratch}",
            f"directory.default.set = {job.directory}",
            f"network.port_range.set = {job.port}-{job.port}",
            "dht.mode.set = disable",
            "protocol.pex.set = no",
            "protocol.encryption.set = none",
            "trackers.use_udp.set = no",
            "pieces.hash.on_completion.set = no",
            f'method.set_key = event.download.finished, mark, "execute.nothrow.bg={{touch,{job.mark}}}"',
        ]
        if job.role is not Role.LEECH and job.listen:
            lines.append(f"network.bind_address.set = {job.host}")
        if job.upload_rate:
            lines.append(f"throttle.global_up.max_rate.set_kb = {job.upload_rate // 1024}")
        if job.max_peers:
            lines.append(f"throttle.max_peers.normal.set = {job.max_peers}")
        lines.append(f'schedule2 = start, 0, 0, "load.start={job.torrent}"')
        settings.write_text("\n".join(lines), encoding="utf-8")
        return [self.program, "-n", "-o", f"import={settings}"]


class Transmission(Client):
    """transmission-daemon, told by a watched directory and telling by its script of finished torrents.

    It takes no peers from loopback addresses, and begins to download at one of its rounds: up to 14 s of every run are
    spent waiting.
    """

    name = "transmission"
    program = "transmission-daemon"
    roles = Role.LEECH | Role.SEED | Role.MEMBER
    leeches_until = Done.MARK
    only_own_network = True

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        watched = job.scratch / "watched"
        watched.mkdir()
        (watched / job.torrent.name).write_bytes(job.torrent.read_bytes())
        settings = {
            "dht-enabled": False,
            "lpd-enabled": False,
            "pex-enabled": False,
            "utp-enabled": False,
            "encryption": 0,
            "preallocation": 0,
            "port-forwarding-enabled": False,
            "rpc-enabled": False,
            "peer-port": int(job.port),
            "download-dir": str(job.directory),
            "watch-dir": str(watched),
            "watch-dir-enabled": True,
            "start-added-torrents": True,
            "script-torrent-done-enabled": True,
            "script-torrent-done-filename": str(touch_script(job)),
        }
        if job.role is not Role.LEECH:
            settings["bind-address-ipv4"] = job.host
        if job.upload_rate:
            settings |= {"speed-limit-up-enabled": True, "speed-limit-up": job.upload_rate // 1000}
        if job.max_peers:
            settings |= {"peer-limit-per-torrent": job.max_peers, "peer-limit-global": job.max_peers}
        machine.write_json(job.scratch / "settings.json", settings)
        return [self.program, "--foreground", "--config-dir", str(job.scratch)]


class TransmissionCli(Client):
    """transmission-cli; its finish script creates the mark. It waits as the daemon does."""

    name = "transmission-cli"
    program = "transmission-cli"
    leeches_until = Done.MARK
    only_own_network = True

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        settings = {
            "dht-enabled": False,
            "lpd-enabled": False,
            "pex-enabled": False,
            "utp-enabled": False,
            "encryption": 0,
            "preallocation": 0,
            "port-forwarding-enabled": False,
        }
        if job.max_peers:
            settings |= {"peer-limit-per-torrent": job.max_peers, "peer-limit-global": job.max_peers}
        machine.write_json(job.scratch / "settings.json", settings)
        options = ["-g", str(job.scratch), "-w", str(job.directory), "-f", str(touch_script(job)), "-M", "-et"]
        return [self.program, *options, "-p", job.port, str(job.torrent)]


class Qbittorrent(Client):
    """qbittorrent-nox; it calls a program when the torrent is finished."""

    name = "qbittorrent"
    program = "qbittorrent-nox"
    roles = Role.LEECH | Role.SEED | Role.MEMBER
    leeches_until = Done.MARK

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        session = {
            "AddTorrentPaused": "false",
            "BTProtocol": "TCP",
            "DHTEnabled": "false",
            "DefaultSavePath": str(job.directory),
            "Encryption": "2",  # none
            "GlobalUPSpeedLimit": str(job.upload_rate // 1024),  # KiB per second, 0 for no limit
            "IgnoreLimitsOnLAN": "false",
            "LSDEnabled": "false",
            "MultiConnectionsPerIp": "true",
            "PeXEnabled": "false",
            "Port": job.port,
            "Preallocation": "false",
            "QueueingSystemEnabled": "false",
        }
        if job.role is not Role.LEECH:
            session |= {"Interface": "lo", "InterfaceName": "lo", "InterfaceAddress": job.host}
        if job.max_peers:
            session |= {"MaxConnections": str(job.max_peers), "MaxConnectionsPerTorrent": str(job.max_peers)}
        program = shlex.quote(str(touch_script(job)))
        sections = {
            "AutoRun": {"enabled": "true", "program": program},
            "BitTorrent": {f"Session\\{name}": value for name, value in session.items()},
            "LegalNotice": {"Accepted": "true"},
            "Network": {"PortForwardingEnabled": "false"},
            "Preferences": {"WebUI\\Address": "127.0.0.1", "WebUI\\UseUPnP": "false"},
        }
        settings = job.scratch / "qBittorrent" / "config" / "qBittorrent.conf"
        settings.parent.mkdir(parents=True)
        text = [
            f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
            for name, keys in sections.items()
        ]
        settings.write_text("\n".join(text), encoding="utf-8")
        options = [f"--profile={job.scratch}", "--skip-dialog=true", f"--save-path={job.directory}"]
        # It cannot be without its web interface: on a port of its own, for there are many of them in a swarm.
        options.append(f"--webui-port={free_port('127.0.0.1').rpartition(':')[2]}")
        return [self.program, *options, str(job.torrent)]


class Webtorrent(Client):
    """webtorrent, the package of npm, in node (``npm install --global --ignore-scripts webtorrent``)."""

    name = "webtorrent"
    program = "node"
    roles = Role.LEECH | Role.SEED

    @staticmethod
    @functools.cache
    def _home() -> Path:
        """Return where npm puts the package for everybody."""
        try:
            return Path(machine.first_line(["npm", "root", "--global"])) / "webtorrent"
        except (OSError, subprocess.CalledProcessError):
            return Path("nowhere")

    def missing(self) -> str:
        """As `Client.missing`."""
        return super().missing() or ("" if self._home().is_dir() else "the npm package webtorrent is not installed")

    def version(self) -> str:
        """As `Client.version`."""
        package = machine.read_json(self._home() / "package.json")
        return f"{package['version']}, node {super().version()}"

    def command(self, job: Job) -> list[str]:
        """As `Client.command`."""
        side = "leech" if job.role is Role.LEECH else "seed"
        script = [self.program, str(WEBTORRENT_PEER), str(self._home()), side]
        return [*script, str(job.torrent), str(job.directory), job.port]


_ALL: tuple[Client, ...] = (
    Ours(),
    Libtorrent(),
    Rtorrent(),
    Qbittorrent(),
    Aria2(),
    Transmission(),
    TransmissionCli(),
    Webtorrent(),
    Limit(1),
    Limit(2),
    LimitSeeder(),
    RawCopy(),
)
CLIENTS: dict[str, Client] = {client.name: client for client in _ALL}
