"""Looks at what is on this machine's side: the torrent itself, the disk, the clock, the proxy, the port, the router.

Nothing is written: where a file could go is found out by asking the system.

Spec: BEP 27 (private), BEP 3 (files); RFC 1928 and 1929 (the greeting of a SOCKS5 proxy).
Thread: the caller's; the proxy and the router take seconds.
Lock: none.
"""

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from torrent_client.config import Config
from torrent_client.doctor.diagnosis import Finding, Outcome
from torrent_client.doctor.patient import Patient
from torrent_client.errors import StorageError
from torrent_client.port_mapping import Gateway, PortMapper
from torrent_client.proxy import NO_PEERS, Proxy, may_dial_peers, parse_proxy
from torrent_client.storage import Storage
from torrent_client.text import format_size, printable
from torrent_client.torrent_parser import FileEntry, TorrentFile

PROXY_LIMIT: Final = 5.0
"""Seconds for the proxy itself to answer."""

SELF_CALL_LIMIT: Final = 2.0
"""Seconds for a call to our own port, which the system answers at once."""

ROUTER_LIMIT: Final = 8.0
"""Seconds for the router: two to find it, and three questions after that."""

TICK: Final = 0.1
"""Seconds between two looks at what another thread does."""

NAMES_SHOWN: Final = 3
"""Files that are named where many have the same trouble."""

CLOCK_TOLERANCE: Final = timedelta(days=1)
"""How far a clock may be behind a torrent's date of creation: time zones were mixed up by some makers."""


# --- the torrent ------------------------------------------------------------------------------------------


def torrent_findings(patient: Patient) -> Iterator[Finding]:
    """Say what the torrent is, and what follows from that for finding peers."""
    source = patient.source
    facts = {"info_hash": patient.info_hash.hex(), "trackers": len(patient.trackers), "private": patient.is_private}
    count = len(patient.trackers)
    trackers = f"{count} tracker{'' if count == 1 else 's'}"
    if isinstance(source, TorrentFile):
        size = f"{format_size(source.total_length)} in {source.piece_count:,} pieces"
        kind = ", v1 and v2" if source.is_hybrid else ""
        yield Finding("torrent", "", Outcome.OK, f"{printable(source.name)}, {size}, {trackers}{kind}", facts=facts)
    else:
        text = f"{printable(source.display_name)}: a magnet link with {trackers}; peers must have the metadata"
        yield Finding("torrent", "", Outcome.OK, text, facts=facts)
    if patient.is_private:
        advice = "" if count else "no way leads to peers: ask the tracker's site for a new .torrent"
        outcome = Outcome.NOTE if count else Outcome.BAD
        yield Finding("torrent", "", outcome, "private: peers come from its trackers alone", advice)
    elif not count:
        others = [
            name
            for name, is_on in (("the DHT", patient.config.dht), ("the local network", patient.config.lsd))
            if is_on
        ]
        text = f"no trackers: peers come from {' and '.join(others) if others else 'nowhere but --peer'}"
        advice = "" if patient.config.dht else "do without --no-dht, or name a tracker or a peer: --tracker, --peer"
        yield Finding("torrent", "", Outcome.NOTE, text, advice)


def clock_finding(patient: Patient, troubles: Sequence[str], now: datetime | None = None) -> Finding | None:
    """Say whether this machine's clock can be right; None where nothing speaks against it.

    Args:
        patient: has perhaps a date of creation.
        troubles: what trackers and web seeds failed with.
        now: the time, by this clock.
    """
    now = now or datetime.now(UTC)
    made = patient.torrent.creation_date if patient.torrent else None
    shown = f"{now:%Y-%m-%d %H:%M} UTC"
    if any("not yet valid" in trouble for trouble in troubles):
        text = f"this machine says {shown}, and a certificate is not valid before a later date"
    elif made and made > now + CLOCK_TOLERANCE:
        text = f"this machine says {shown}, and the torrent was made on {made:%Y-%m-%d}"
    elif any("certificate has expired" in trouble for trouble in troubles):
        advice = "if that is right, the server's owner has to renew it"
        return Finding("clock", "", Outcome.NOTE, f"this machine says {shown}, and a certificate has expired", advice)
    else:
        return None
    return Finding("clock", "", Outcome.BAD, text, "set the clock: connections by https fail until it is right")


# --- the disk ---------------------------------------------------------------------------------------------


def disk_findings(patient: Patient) -> Iterator[Finding]:
    """Say whether the files can be written, and what of them is there."""
    directory = _nearest_directory(patient.output)
    where = printable(str(patient.output.absolute()), 1000)
    if trouble := _why_not_writable(directory):
        advice = "choose another directory with -o, or change its permissions"
        yield Finding("disk", where, Outcome.BAD, f"cannot be written: {trouble}", advice)
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    torrent = patient.torrent
    if torrent is None:
        text = f"{format_size(free)} free; how much is needed the metadata will tell"
        yield Finding("disk", where, Outcome.OK, text, facts={"free": free})
        return
    storage = Storage(patient.output, torrent.files, torrent.piece_length, read_only=True)
    yield _space(storage, where, free)
    yield from _names(torrent, patient.output, directory)
    yield from _what_is_there(storage, torrent)


def _space(storage: Storage, where: str, free: int) -> Finding:
    """Say whether the disk has room."""
    try:
        needed = storage.bytes_to_allocate()
        facts = {"needed": needed, "free": free}
        storage.check_free_space(needed)
    except StorageError as error:
        advice = "free some space, or choose another directory with -o"
        return Finding("disk", where, Outcome.BAD, str(error), advice)
    text = f"{format_size(needed)} needed, {format_size(free)} free"
    return Finding("disk", where, Outcome.OK, text, facts=facts)


def _nearest_directory(path: Path) -> Path:
    """Return the directory that exists, of this one and those above it."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _why_not_writable(directory: Path) -> str | None:
    """Return why nothing can be made in a directory; None where it can."""
    if not directory.is_dir():
        return f"{printable(str(directory))} is no directory"
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return "the file system is read-only"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"permission denied in {printable(str(directory))}"
    return None


def _names(torrent: TorrentFile, output: Path, directory: Path) -> Iterator[Finding]:
    """Say which names are changed, and which the file system does not take."""
    if torrent.renamed:
        count = len(torrent.renamed)
        text = f"{count:,} name{'' if count == 1 else 's'} of the torrent would be changed: {torrent.renamed[0]}"
        yield Finding("disk", "names", Outcome.NOTE, printable(text, 300), "nothing to do: the contents are the same")
    try:
        longest = os.pathconf(directory, "PC_NAME_MAX")
        longest_path = os.pathconf(directory, "PC_PATH_MAX")
    except (OSError, ValueError):  # a file system that does not say
        return
    root = output.absolute()
    too_long = [
        file
        for file in torrent.files
        if max(len(os.fsencode(part)) for part in file.path.parts) > longest
        or len(os.fsencode(root / file.path)) >= longest_path
    ]
    if too_long:
        text = f"this file system takes no names as long as {_named(too_long)}"
        yield Finding("disk", "names", Outcome.BAD, text, "choose a directory on another file system with -o")


def _what_is_there(storage: Storage, torrent: TorrentFile) -> Iterator[Finding]:
    """Say which files are there, and which cannot be made."""
    blocked, full, partial = [], [], []
    files = [file for file in torrent.files if not file.is_padding]
    for file in files:
        try:
            status = os.lstat(storage.path(file))
        except FileNotFoundError:
            continue
        except OSError:  # there is a file where a directory should be
            blocked.append(file)
            continue
        if not stat.S_ISREG(status.st_mode):
            blocked.append(file)
        elif status.st_size >= file.length:
            full.append(file)
        else:
            partial.append(file)
    if blocked:
        text = f"there is something else in the place of {_named(blocked)}: a directory, a link or a device"
        yield Finding("disk", "files", Outcome.BAD, text, "move it away, or choose another directory with -o")
    if full or partial:
        text = f"there already: {len(full):,} of {len(files):,} files at full size, {len(partial):,} shorter"
        advice = "they are checked and used; `verify` tells how much of them is good" if full else ""
        facts = {"full_size": len(full), "shorter": len(partial)}
        yield Finding("disk", "files", Outcome.OK, text, advice, facts=facts)


def _named(files: Sequence[FileEntry]) -> str:
    names = ", ".join(printable(str(file.path), 100) for file in files[:NAMES_SHOWN])
    return f"{names} and {len(files) - NAMES_SHOWN:,} more" if len(files) > NAMES_SHOWN else names


# --- the proxy --------------------------------------------------------------------------------------------


def proxy_finding(config: Config) -> Finding:
    """Say whether the proxy answers, and what it carries; only where there is one."""
    proxy = parse_proxy(config.proxy)
    began = time.monotonic()
    trouble = _greet(proxy)
    seconds = time.monotonic() - began
    if trouble:
        advice = "is it running, and are host, port, user and password right? Nothing goes past it"
        return Finding("proxy", str(proxy), Outcome.BAD, trouble, advice, seconds)
    if not may_dial_peers(config):
        return Finding("proxy", str(proxy), Outcome.NOTE, NO_PEERS, "use a SOCKS5 proxy, socks5://HOST:PORT", seconds)
    text = "answers; it carries trackers, web seeds and peers that we call; UDP, the DHT and our port are off"
    return Finding("proxy", str(proxy), Outcome.OK, text, seconds=seconds)


def _greet(proxy: Proxy) -> str | None:
    """Connect to the proxy and, if it is SOCKS5, log in; return what is wrong."""
    try:
        with socket.create_connection((proxy.host, proxy.port), PROXY_LIMIT) as sock:
            return _log_in(sock, proxy) if proxy.carries_peers else None
    except TimeoutError:
        return "no answer in time"
    except ConnectionRefusedError:
        return "connection refused: nothing listens there"
    except socket.gaierror:
        return "its host name is not known"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _log_in(sock: socket.socket, proxy: Proxy) -> str | None:
    """Say the greeting of SOCKS5 (RFC 1928), and the password if it wants one (RFC 1929)."""
    sock.sendall(b"\x05\x02\x00\x02" if proxy.user else b"\x05\x01\x00")
    answer = sock.recv(2)
    if len(answer) < 2 or answer[0] != 5:
        return "it does not speak SOCKS5"
    if answer[1] == 2 and proxy.user:
        user, password = proxy.user.encode(), proxy.password.encode()
        sock.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        return None if sock.recv(2)[1:] == b"\0" else "it refuses the user name or the password"
    return None if answer[1] == 0 else "it wants a user name and a password"


# --- the port ---------------------------------------------------------------------------------------------


def port_finding(config: Config, port: int | None, error: str = "") -> Finding:
    """Say whether peers could call us on this machine.

    Args:
        config: which port was wanted.
        port: the one that we listen on; None if that failed.
        error: why.
    """
    wanted = config.listen_port
    if port is None:
        advice = "end the program that has it, or choose another one with --port"
        return Finding("port", str(wanted), Outcome.BAD, error, advice)
    heard = [name for name, host in (("IPv4", "127.0.0.1"), ("IPv6", "::1")) if _is_heard(host, port)]
    facts = {"port": port, "wanted": wanted, "families": heard}
    if not heard:
        advice = "a firewall on this machine is in the way of its own programs"
        return Finding("port", str(port), Outcome.BAD, "we listen, and are not heard", advice, facts=facts)
    families = " and ".join(heard)
    if wanted not in (0, port):
        text = f"port {wanted} is taken by another program: a download listens on port {port}, {families}"
        advice = f"if your router forwards {wanted}, end that program (another copy of this one?), or use --port"
        return Finding("port", str(port), Outcome.NOTE, text, advice, facts=facts)
    advice = "" if len(heard) == 2 else "without IPv6 on this machine, peers that have nothing else are out of reach"
    return Finding("port", str(port), Outcome.OK, f"free, and we are heard on it: {families}", advice, facts=facts)


def _is_heard(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), SELF_CALL_LIMIT):
            return True
    except OSError:
        return False


def router_finding(port: int, find: Callable[[], Gateway], is_over: Callable[[], bool]) -> Finding:
    """Ask the router to let peers in, say what it answered, and take that back.

    Args:
        port: ours.
        find: searches for a router.
        is_over: whether nobody wants to know any more.
    """
    began = time.monotonic()
    mapper = PortMapper(port, find)
    mapper.start()
    while mapper.status.state == "searching" and not is_over() and time.monotonic() - began < ROUTER_LIMIT:
        time.sleep(TICK)
    status, seconds = mapper.status, time.monotonic() - began
    mapper.begin_stop()
    mapper.finish_stop()
    facts = status.as_values()
    if status.state == "mapped":
        outcome = Outcome.NOTE if status.error else Outcome.OK
        advice = "ask the owner of the outer router, or do without being called" if status.error else ""
        return Finding("router", "", outcome, f"lets peers in: {status}", advice, seconds, facts=facts)
    text = "no answer in time" if status.state == "searching" else str(status)
    advice = f"peers cannot call you, you can call them; to be called, forward port {port} (TCP, UDP) or switch UPnP on"
    return Finding("router", "", Outcome.NOTE, text, advice, seconds, facts=facts)
