"""Other people's BitTorrent programs, started on the loopback interface for a test and stopped after it.

Every peer is a context manager that yields a `Peer` when the program is ready, which is asked from outside:
it answers a BitTorrent handshake for the torrent and says that it has every piece. What it prints goes to a
log file, whose end is shown when it does not start.

Peers find each other only through what a test gives them: DHT, local discovery, peer exchange, uTP and port
mapping are off. What to know about them on loopback:

- Transmission 3.00 never dials 127.0.0.0/8 and keeps one connection per address, so that it can only seed,
  and only to one peer of an address at a time. The `host` of a peer may be any of 127.0.0.0/8, which gives
  each peer of a swarm an address of its own.
- Transmission unchokes nobody but at a pulse every 10 s, which is how long a download from it takes.
- aria2 takes no peers by hand: as a leecher it needs a tracker.
"""

import contextlib
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import pytest
import requests

from tests.support import running, tail, wait_until
from torrent_client.encryption import PeerSocket, dial_encrypted
from torrent_client.errors import PeerError
from torrent_client.protocol.mse import Crypto


def missing(reason: str) -> NoReturn:
    """Skip the test because it lacks a real peer; in continuous integration that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI must have every real peer", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


try:
    import libtorrent as lt
except ImportError:
    missing("the Python module libtorrent is not installed")

_LIBTORRENT_PEER = Path(__file__).with_name("libtorrent_peer.py")
# The slowest start on a loaded 2-core machine was Transmission's, 2 s.
_START_TIMEOUT = 20.0  # seconds
# Where the readiness probe dials from: Transmission would hold the leecher's address for the probe's.
_PROBE_ADDRESS = ("127.255.255.1", 0)
# For rtorrent, which refuses a torrent without trackers; nobody listens on port 9 (discard).
_NO_TRACKER = "http://127.0.0.1:9/announce"


# ------------------------------------------------------------------------------------------------ torrents


@dataclass(frozen=True, slots=True)
class MadeTorrent:
    """A .torrent file and the content that it describes.

    Attributes:
        path: the .torrent file.
        info_hash: 20 bytes.
        name: the name in the torrent, that of the file or of the top folder.
        directory: the folder that contains `name`, with the whole content in place.
        files: the content, by path below `directory`.
        piece_length: bytes.
    """

    path: Path
    info_hash: bytes
    name: str
    directory: Path
    files: Mapping[str, bytes]
    piece_length: int

    @property
    def size(self) -> int:
        """The content's size in bytes."""
        return sum(map(len, self.files.values()))

    @property
    def piece_count(self) -> int:
        """How many pieces the content has."""
        return -(-self.size // self.piece_length)

    @property
    def has_trackers(self) -> bool:
        """Whether the .torrent file names a tracker."""
        return b"announce" in _bdecode(self.path.read_bytes())

    def with_trackers(self, *urls: str) -> "MadeTorrent":
        """Return the same torrent, in another file, with one tier for each of these announce URLs."""
        metainfo = _bdecode(self.path.read_bytes())
        metainfo[b"announce"] = urls[0].encode()
        metainfo[b"announce-list"] = [[url.encode()] for url in urls]
        path = _new_folder(self.path.parent, "tracked") / self.path.name
        path.write_bytes(lt.bencode(metainfo))
        return replace(self, path=path)

    def as_private(self) -> "MadeTorrent":
        """Return the same content in a private torrent, in another file and with another info hash."""
        metainfo = _bdecode(self.path.read_bytes())
        metainfo[b"info"][b"private"] = 1
        path = _new_folder(self.path.parent, "private") / self.path.name
        path.write_bytes(lt.bencode(metainfo))
        return replace(self, path=path, info_hash=lt.load_torrent_file(str(path)).info_hashes.v1.to_bytes())

    def assert_content_in(self, directory: Path) -> None:
        """Fail unless `directory` holds exactly this torrent's content, no file more or less."""
        found = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        wrong = [
            *(f"{name}: missing" for name in self.files.keys() - found.keys()),
            *(f"{name}: not of this torrent" for name in found.keys() - self.files.keys()),
            *(
                f"{name}: {_first_difference(self.files[name], found[name])}"
                for name in self.files.keys() & found.keys()
                if self.files[name] != found[name]
            ),
        ]
        assert not wrong, "\n".join(sorted(wrong))


def make_torrent(
    tmp_path: Path,
    files: Mapping[str, bytes] | bytes,
    piece_length: int,
    trackers: Sequence[str] = (),
) -> MadeTorrent:
    """Write content to disk and make a v1 torrent of it with libtorrent.

    Args:
        tmp_path: where new folders for the content and the .torrent file are made.
        files: the bytes of a single file, or files by their path in the torrent's top folder.
        piece_length: bytes, a power of two from 16384 on.
        trackers: announce URLs, one tier each.
    """
    folder = _new_folder(tmp_path, "torrent")
    name = "single.bin" if isinstance(files, bytes) else "album"
    content = {name: files} if isinstance(files, bytes) else {f"{name}/{path}": files[path] for path in files}
    directory = folder / "content"
    for name_below, data in content.items():
        (directory / name_below).parent.mkdir(parents=True, exist_ok=True)
        (directory / name_below).write_bytes(data)

    entries = [lt.create_file_entry(name_below, len(data)) for name_below, data in content.items()]
    creator = lt.create_torrent(entries, piece_length, lt.create_torrent.v1_only)
    lt.set_piece_hashes(creator, str(directory))
    path = folder / f"{name}.torrent"
    path.write_bytes(lt.bencode(creator.generate()))
    info_hash = lt.load_torrent_file(str(path)).info_hashes.v1.to_bytes()
    torrent = MadeTorrent(path, info_hash, name, directory, content, piece_length)
    return torrent.with_trackers(*trackers) if trackers else torrent


def _first_difference(expected: bytes, found: bytes) -> str:
    """Say where two files differ, in a line."""
    if len(expected) != len(found):
        return f"{len(found)} bytes instead of {len(expected)}"
    offset = next(i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b)
    return f"differs from byte {offset} on"


# ----------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True, slots=True)
class Peer:
    """A running program.

    Attributes:
        name: which program it is.
        host: the address that it listens on.
        port: the TCP port that it listens on for peers, or a tracker for announces.
        process: its process.
        log: what it prints.
        encryption: all that it speaks: `rc4`, or `plaintext` after an encrypted handshake; empty for none.
    """

    name: str
    host: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    encryption: str = ""

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def address(self) -> str:
        """HOST:PORT, as `--peer` takes it."""
        return f"{_bracketed(self.host)}:{self.port}"

    def log_tail(self) -> str:
        """Return the last lines that the program printed."""
        return f"--- end of {self.log.name} ---\n{tail(self.log)}"


@dataclass(frozen=True, slots=True)
class Tracker(Peer):
    """A running tracker, over HTTP and UDP on one port number."""

    @property
    def announce_url(self) -> str:
        """The HTTP announce URL."""
        return f"http://{self.address}/announce"

    @property
    def udp_announce_url(self) -> str:
        """The UDP announce URL."""
        return f"udp://{self.address}/announce"

    def seeders(self, torrent: MadeTorrent) -> int:
        """Return how many complete peers the tracker knows, asked by a scrape."""
        with requests.Session() as session:
            url = f"http://{self.address}/scrape?info_hash={quote(torrent.info_hash, safe='')}"
            answer = _bdecode(session.get(url, timeout=5).content)
        files: dict[bytes, dict[bytes, int]] = answer[b"files"]
        return files.get(torrent.info_hash, {}).get(b"complete", 0)

    def wait_for_seeders(self, torrent: MadeTorrent, count: int = 1, timeout: float = 10.0) -> None:
        """Wait until `count` seeders are known, so that a leecher's first announce finds them."""
        wait_until(lambda: self.seeders(torrent) >= count, timeout, f"{count} seeder(s) known to the tracker")


def _bracketed(host: str) -> str:
    """Return an address as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def require_program(name: str) -> str:
    """Return the path of an executable, or skip the test; where CI is "true" fail it instead."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed")
    return path


def wait_until_ready(peer: Peer, ready: Callable[[], bool], timeout: float = _START_TIMEOUT) -> None:
    """Poll `ready`, and fail with the end of the program's log when it ends or takes too long."""

    def ready_or_dead() -> bool:
        return peer.process.poll() is not None or ready()

    try:
        wait_until(ready_or_dead, timeout)
    except TimeoutError:
        pytest.fail(f"{peer.name} was not ready in {timeout:g} s\n{peer.log_tail()}", pytrace=False)
    if peer.process.poll() is not None:
        pytest.fail(f"{peer.name} ended with {peer.process.returncode}\n{peer.log_tail()}", pytrace=False)


_ports = itertools.count(random.randrange(20000, 30000))


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free for TCP and UDP.

    From below the range that the kernel hands out for outgoing connections (32768 on), so that nobody is
    given it before the peer binds it; each call goes on from the last one, so that no two peers get the same.
    """
    for port in _ports:
        if port >= 32768:
            break
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((host, port))
                udp.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port left below 32768")


def _bdecode(data: bytes) -> dict[bytes, Any]:
    """Decode a bencoded dictionary."""
    decoded = lt.bdecode(data)
    assert isinstance(decoded, dict), decoded
    return decoded  # type: ignore[return-value]  # its hints allow str keys, which it never returns


def _new_folder(parent: Path, prefix: str) -> Path:
    """Make a folder of its own below `parent`, for each peer and each torrent."""
    return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=parent))


# --------------------------------------------------------------------------------------------------- probe


def has_everything(peer: Peer, torrent: MadeTorrent) -> bool:
    """Return whether a peer answers a handshake for the torrent and then a bitfield with every bit set."""
    source = None if ":" in peer.host else _PROBE_ADDRESS
    try:
        with socket.create_connection((peer.host, peer.port), 2, source) as connection:
            read = _greet(connection, torrent.info_hash, peer.encryption)
            if read(68)[28:48] != torrent.info_hash:
                return False
            return _says_everything(read, torrent.piece_count)
    except (OSError, PeerError):  # not listening yet, or not for this torrent
        return False


def _greet(connection: socket.socket, info_hash: bytes, encryption: str) -> Callable[[int], bytes]:
    """Say a handshake, encrypted if need be; return a function that reads so many bytes, fewer at the end."""
    stream: PeerSocket = connection
    if encryption:
        offer = {"rc4": Crypto.RC4, "plaintext": Crypto.PLAINTEXT}[encryption]
        stream = dial_encrypted(connection, info_hash, offer, _handshake(info_hash), 2)
        stream.settimeout(2)
    else:
        connection.sendall(_handshake(info_hash))

    def read(size: int) -> bytes:
        data = b""
        while len(data) < size and (part := stream.recv(size - len(data))):
            data += part
        return data

    return read


def _handshake(info_hash: bytes) -> bytes:
    """Return the handshake of a peer that knows no extension, so that a full bitfield is not abbreviated."""
    return b"\x13BitTorrent protocol" + bytes(8) + info_hash + b"-PROBE-" + random.randbytes(13)


def _says_everything(read: Callable[[int], bytes], piece_count: int) -> bool:
    """Collect a bitfield and HAVE messages until every piece is there; OSError when the peer falls silent."""
    pieces: set[int] = set()
    while len(pieces) < piece_count:
        prefix = read(4)
        if len(prefix) < 4:
            return False
        message = read(int.from_bytes(prefix, "big"))
        if message[:1] == b"\x04":
            pieces.add(int.from_bytes(message[1:], "big"))
        elif message[:1] == b"\x05":
            bits = message[1:]
            pieces.update(i for i in range(piece_count) if bits[i // 8] & (0x80 >> i % 8))
    return True


# -------------------------------------------------------------------------------------------------- seeders


@contextlib.contextmanager
def libtorrent_seeder(
    tmp_path: Path,
    torrent: MadeTorrent,
    *,
    host: str = "127.0.0.1",
    upload_limit: int = 0,
    encryption: str = "",
    dht: str = "",
) -> Iterator[Peer]:
    """Seed with libtorrent.

    Args:
        tmp_path: for its log.
        torrent: what to seed.
        host: the address to listen on.
        upload_limit: bytes per second; 0 is no limit.
        encryption: as in `Peer`.
        dht: address of a DHT node to begin at, HOST:PORT; none for no DHT.
    """
    options = ["--seed", "--upload-limit", str(upload_limit), "--encryption", encryption, "--dht", dht]
    with _libtorrent(tmp_path, torrent, torrent.directory, host, options) as started:
        peer = replace(started, encryption=encryption)
        wait_until_ready(peer, lambda: has_everything(peer, torrent))
        yield peer


@contextlib.contextmanager
def _libtorrent(
    tmp_path: Path, torrent: MadeTorrent | str, directory: Path, host: str, options: Sequence[str]
) -> Iterator[Peer]:
    """Run libtorrent on a port of its choice until the block ends."""
    folder = _new_folder(tmp_path, "libtorrent")
    log, output = folder / "libtorrent.log", folder / "port"
    command: list[str | Path] = [
        sys.executable,
        _LIBTORRENT_PEER,
        torrent if isinstance(torrent, str) else torrent.path,
        directory,
        "--listen",
        f"{_bracketed(host)}:0",
        *options,
    ]
    with running(command, log, stdout=output) as process:
        starting = Peer("libtorrent", host, 0, process, log)
        wait_until_ready(starting, lambda: output.read_text().endswith("\n"))
        yield replace(starting, port=int(output.read_text()))


_ARIA2_OPTIONS = (
    "--no-conf",
    "--enable-dht=false",
    "--enable-dht6=false",
    "--bt-enable-lpd=false",
    "--enable-peer-exchange=false",
    "--disable-ipv6",
    "--file-allocation=none",
    "--summary-interval=0",
    "--console-log-level=notice",
    "--enable-color=false",
)
_ARIA2_ENCRYPTED = ("--bt-require-crypto=true", "--bt-min-crypto-level=arc4")


@contextlib.contextmanager
def aria2_seeder(
    tmp_path: Path,
    torrent: MadeTorrent,
    *,
    host: str = "127.0.0.1",
    upload_limit: int = 0,
    encryption: str = "",
) -> Iterator[Peer]:
    """Seed with aria2, which checks the content first; the arguments are those of `libtorrent_seeder`."""
    folder = _new_folder(tmp_path, "aria2")
    port = free_port(host)
    command = [
        require_program("aria2c"),
        *_ARIA2_OPTIONS,
        f"--listen-port={port}",
        f"--interface={host}",
        f"--dir={torrent.directory}",
        f"--max-upload-limit={upload_limit}",
        "--check-integrity=true",
        "--seed-ratio=0",
        *(_ARIA2_ENCRYPTED if encryption else ()),
        str(torrent.path),
    ]
    with running(command, folder / "aria2.log", cwd=folder) as process:
        peer = Peer("aria2", host, port, process, folder / "aria2.log", encryption)
        wait_until_ready(peer, lambda: has_everything(peer, torrent))
        yield peer


@contextlib.contextmanager
def transmission_seeder(
    tmp_path: Path, torrent: MadeTorrent, *, host: str = "127.0.0.1", encryption: str = ""
) -> Iterator[Peer]:
    """Seed with Transmission's daemon; the arguments are those of `aria2_seeder`, but for the limit.

    Transmission unchokes only every 10 s, so that a download from it takes about that long at least.
    """
    with _transmission(tmp_path, torrent, torrent.directory, host, encryption) as (peer, rpc):
        wait_until_ready(peer, lambda: rpc.is_seeding() and has_everything(peer, torrent))
        yield peer


@contextlib.contextmanager
def _transmission(
    tmp_path: Path, torrent: MadeTorrent, directory: Path, host: str, encryption: str = ""
) -> Iterator[tuple[Peer, "_TransmissionRpc"]]:
    """Run Transmission's daemon with one torrent, whose content is in `directory` or goes there."""
    folder = _new_folder(tmp_path, "transmission")
    port, rpc_port = free_port(host), free_port()
    settings = _transmission_settings(host, port, rpc_port, directory)
    if encryption:
        settings["encryption"] = 2  # required
    (folder / "settings.json").write_text(json.dumps(settings))
    command = [
        require_program("transmission-daemon"),
        "--foreground",
        "--log-info",
        "--config-dir",
        str(folder),
    ]
    with running(command, folder / "transmission.log") as process:
        peer = Peer("transmission", host, port, process, folder / "transmission.log", encryption)
        rpc = _TransmissionRpc(rpc_port)
        wait_until_ready(peer, rpc.answers)
        rpc.call("torrent-add", filename=str(torrent.path))
        yield peer, rpc


def _transmission_settings(host: str, port: int, rpc_port: int, directory: Path) -> dict[str, object]:
    """Return a settings.json for a daemon that finds no peer by itself and changes nothing on disk."""
    return {
        "bind-address-ipv4": host,
        "bind-address-ipv6": "::1",
        "dht-enabled": False,
        "download-dir": str(directory),
        "lpd-enabled": False,
        "peer-port": port,
        "pex-enabled": False,
        "port-forwarding-enabled": False,
        "ratio-limit-enabled": False,
        "rename-partial-files": False,
        "rpc-authentication-required": False,
        "rpc-bind-address": "127.0.0.1",
        "rpc-port": rpc_port,
        "rpc-whitelist": "127.0.0.1",
        "utp-enabled": False,
    }


class _TransmissionRpc:
    """The few calls of Transmission's RPC that a seeder needs."""

    _SEEDING = 6  # TR_STATUS_SEED

    def __init__(self, port: int):
        self._url = f"http://127.0.0.1:{port}/transmission/rpc"
        self._session_id = ""

    def answers(self) -> bool:
        """Return whether the RPC is up."""
        try:
            self.call("session-get")
        except requests.ConnectionError:
            return False
        return True

    def is_seeding(self) -> bool:
        """Return whether the daemon has checked its torrent and seeds it."""
        torrents = self.call("torrent-get", fields=["status", "percentDone"])["torrents"]
        return [(t["status"], t["percentDone"]) for t in torrents] == [(self._SEEDING, 1)]

    def call(self, method: str, **arguments: object) -> dict[str, Any]:
        """Call a method and return its answer's arguments."""
        body: dict[str, object] = {"method": method, "arguments": arguments}
        response = self._post(body)
        if response.status_code == requests.codes.conflict:  # how the daemon tells its session id
            self._session_id = response.headers["X-Transmission-Session-Id"]
            response = self._post(body)
        response.raise_for_status()
        answer = response.json()
        assert answer["result"] == "success", answer
        result: dict[str, Any] = answer["arguments"]
        return result

    def _post(self, body: dict[str, object]) -> requests.Response:
        headers = {"X-Transmission-Session-Id": self._session_id}
        with requests.Session() as session:
            return session.post(self._url, json=body, headers=headers, timeout=5)


@contextlib.contextmanager
def rtorrent_seeder(
    tmp_path: Path,
    torrent: MadeTorrent,
    *,
    host: str = "127.0.0.1",
    upload_limit: int = 0,
    encryption: str = "",
) -> Iterator[Peer]:
    """Seed with rtorrent; the arguments are those of `aria2_seeder`."""
    folder = _new_folder(tmp_path, "rtorrent")
    port = free_port(host)
    tracked = torrent if torrent.has_trackers else torrent.with_trackers(_NO_TRACKER)
    (folder / "session").mkdir()
    (folder / "rtorrent.rc").write_text(
        f"""\
system.daemon.set = true
session.path.set = {folder / "session"}
directory.default.set = {torrent.directory}
network.bind_address.set = {host}
network.port_range.set = {port}-{port}
network.port_random.set = no
throttle.global_up.max_rate.set = {upload_limit}
dht.mode.set = disable
protocol.pex.set = no
protocol.encryption.set = allow_incoming,{"require,require_RC4" if encryption else "prefer_plaintext,enable_retry"}
schedule2 = add, 0, 0, "load.start_verbose={tracked.path}"
log.open_file = "errors", {folder / "rtorrent.log"}
log.add_output = "error", "errors"
"""
    )
    command = [require_program("rtorrent"), "-n", "-o", f"import={folder / 'rtorrent.rc'}"]
    with running(command, folder / "rtorrent.log", cwd=folder) as process:
        peer = Peer("rtorrent", host, port, process, folder / "rtorrent.log", encryption)
        wait_until_ready(peer, lambda: has_everything(peer, torrent))
        yield peer


# ------------------------------------------------------------------------------------------------- leechers


def libtorrent_leech(
    tmp_path: Path,
    torrent: MadeTorrent | str,
    directory: Path,
    peers: Sequence[str] = (),
    timeout: float = 30.0,
    *,
    host: str = "127.0.0.1",
    encryption: str = "",
    dht: str = "",
) -> None:
    """Download the whole torrent with libtorrent.

    Args:
        tmp_path: for its log.
        torrent: what to download; may be a magnet link.
        directory: where to.
        peers: addresses, HOST:PORT, besides those that the torrent's trackers know.
        timeout: fails when it takes longer, in seconds.
        host: the address to listen on.
        encryption: as in `Peer`.
        dht: address of a DHT node to begin at, HOST:PORT; none for no DHT.
    """
    options = [word for peer in peers for word in ("--peer", peer)]
    options += ["--encryption", encryption, "--dht", dht]
    with _libtorrent(tmp_path, torrent, directory, host, options) as leecher:
        _wait_until_done(leecher, timeout)


@contextlib.contextmanager
def libtorrent_exchanging(
    tmp_path: Path, torrent: MadeTorrent, peers: Sequence[str] = (), *, upload_limit: int = 0
) -> Iterator[Peer]:
    """Download with libtorrent, with peer exchange on, for the length of the block.

    Args:
        tmp_path: for its log and the download.
        torrent: what to download.
        peers: addresses, HOST:PORT.
        upload_limit: bytes per second; 0 is no limit.
    """
    options = ["--pex", "--upload-limit", str(upload_limit), *(word for peer in peers for word in ("--peer", peer))]
    with _libtorrent(tmp_path, torrent, _new_folder(tmp_path, "exchanged"), "127.0.0.1", options) as peer:
        yield peer


def aria2_leech(
    tmp_path: Path, torrent: MadeTorrent | str, directory: Path, timeout: float = 30.0, *, encryption: str = ""
) -> None:
    """Download the whole torrent with aria2 from the peers that its trackers know; arguments as above."""
    folder = _new_folder(tmp_path, "aria2")
    command = [
        require_program("aria2c"),
        *_ARIA2_OPTIONS,
        f"--listen-port={free_port()}",
        f"--dir={directory}",
        "--seed-time=0",
        *(_ARIA2_ENCRYPTED if encryption else ()),
        torrent if isinstance(torrent, str) else str(torrent.path),
    ]
    with running(command, folder / "aria2.log", cwd=folder) as process:
        peer = Peer("aria2", "127.0.0.1", 0, process, folder / "aria2.log")
        _wait_until_done(peer, timeout)


@contextlib.contextmanager
def transmission_leech(
    tmp_path: Path,
    torrent: MadeTorrent,
    directory: Path,
    host: str = "127.0.0.1",
    timeout: float = 40.0,
    *,
    encryption: str = "",
) -> Iterator[Peer]:
    """Download the whole torrent with Transmission from whoever dials it inside the block, whose end waits for it."""
    with _transmission(tmp_path, torrent, directory, host, encryption) as (peer, rpc):
        yield peer
        wait_until_ready(peer, rpc.is_seeding, timeout)


def _wait_until_done(leecher: Peer, timeout: float) -> None:
    """Wait for a leecher to end by itself, which it does when all is on disk; fail with the end of its log."""
    try:
        status = leecher.process.wait(timeout)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{leecher.name} did not finish in {timeout:g} s\n{leecher.log_tail()}", pytrace=False)
    if status != 0:
        pytest.fail(f"{leecher.name} ended with {status}\n{leecher.log_tail()}", pytrace=False)


# -------------------------------------------------------------------------------------------------- tracker


@contextlib.contextmanager
def opentracker(tmp_path: Path, *torrents: MadeTorrent, host: str = "127.0.0.1") -> Iterator[Tracker]:
    """Track these torrents with opentracker, over HTTP and UDP.

    Debian's build serves only the torrents of a whitelist. Started by root it makes its folder the root of
    the file system and becomes "nobody"; started by a user it only changes into the folder. A relative path
    and a folder that everyone may read suit both.
    """
    folder = _new_folder(tmp_path, "opentracker")
    folder.chmod(0o755)
    (folder / "whitelist").write_text("".join(f"{torrent.info_hash.hex()}\n" for torrent in torrents))
    port = free_port(host)
    command = [
        require_program("opentracker"),
        *("-i", host, "-p", str(port), "-P", str(port)),
        *("-d", str(folder), "-w", "whitelist"),
    ]
    with running(command, folder / "opentracker.log") as process:
        tracker = Tracker("opentracker", host, port, process, folder / "opentracker.log")
        wait_until_ready(tracker, lambda: all(_is_listed(tracker, torrent) for torrent in torrents))
        yield tracker


def _is_listed(tracker: Tracker, torrent: MadeTorrent) -> bool:
    """Return whether the tracker serves a torrent: an announce that says "stopped" leaves no trace."""
    info_hash = quote(torrent.info_hash, safe="")
    query = (
        f"info_hash={info_hash}&peer_id={'P' * 20}&port=1&uploaded=0&downloaded=0&left=0"
        "&event=stopped&compact=1&numwant=0"
    )
    try:
        with requests.Session() as session:
            answer = _bdecode(session.get(f"{tracker.announce_url}?{query}", timeout=5).content)
    except requests.ConnectionError:
        return False
    return b"failure reason" not in answer
