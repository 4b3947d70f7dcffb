"""A student's modules, as the checks see them: found by the guide's names, called by their parameters' names.

The guide gives names and leaves shapes open, so the checker takes what is sensible: text or bytes for strings, tuples,
dictionaries or objects for peers and messages, and any constructor whose parameters have names that say what they
are. What surprises it becomes one sentence: what the protocol wants, what came, and where to read about it.
"""

import importlib
import inspect
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any, Final

from tests.milestones.lesson import NAMES, Torrent, shown

MODULES: Final = ("torrent_parser", "tracker_client", "peer_connection", "piece_manager", "download_manager")

SYNONYMS: Final = {
    "torrent": "torrent torrent_file metainfo meta torrent_info tf",
    "path": "path filename file_name file_path filepath torrent_path torrent_file_path file source",
    "announce": "announce url tracker_url announce_url tracker",
    "info_hash": "info_hash infohash hash",
    "peer_id": "peer_id peerid my_peer_id client_id our_id my_id",
    "length": "length total_length total_size file_length file_size left size",
    "port": "port peer_port listen_port",
    "ip": "ip host ip_address peer_ip hostname",
    "address": "address addr peer peer_address",
    "piece_count": "piece_count num_pieces number_of_pieces total_pieces n_pieces pieces_count",
    "piece_length": "piece_length piece_size",
    "hashes": "hashes piece_hashes pieces",
    "output": "output output_dir output_directory download_dir download_directory directory dest_dir folder save_dir "
    "save_path download_path out_dir dest destination",
    "output_file": "output_file output_path out_file",
    "index": "index piece_index piece i",
    "data": "data piece_data block payload",
    "peers": "peers peer_list addresses",
}
"""What the checker can give, and the names of parameters that it recognises it by."""


@dataclass(frozen=True)
class Task:
    """One task of the guide.

    Attributes:
        number: 1 to 17.
        title: the guide's.
        objective: the guide's.
        deliverable: the guide's.
        interface: what the checker looks for, as a student would write it.
        hint: where to begin.
    """

    number: int
    title: str
    objective: str
    deliverable: str
    interface: str
    hint: str


class Unmet(Exception):
    """A check that failed; the message is one sentence for the student."""


class Later:
    """A fact that is made only if something asks for it.

    Args:
        make: makes it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __call__(self) -> Any:
        """Make it."""
        return self._make()


class Surprise(Exception):
    """What came instead; `Student.rule` makes a sentence of it."""


def limit(seconds: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a check more time than usual."""

    def mark(check: Callable[..., None]) -> Callable[..., None]:
        check.limit = seconds  # type: ignore[attr-defined]
        return check

    return mark


@dataclass
class Student:
    """The modules of one student.

    Args:
        roots: folders that they are looked for in, the first first.
        folder: an empty one for what a check writes.
        output: the file that holds what the student's code has printed.
        patience: seconds that an unresponsive piece of code is given, instead of each check's own.
    """

    roots: Sequence[Path]
    folder: Path
    output: Path
    patience: float | None = None
    rules: list[tuple[str, str]] = field(default_factory=list)
    _open: list[Any] = field(default_factory=list)

    # --- sentences --------------------------------------------------------------------------------------

    @contextmanager
    def rule(self, wanted: str, read: str) -> Iterator[None]:
        """Say what is wanted of the code in the block; whatever goes wrong there becomes a sentence.

        Args:
            wanted: what the protocol, or the guide, wants: a clause that begins a sentence.
            read: which section of which document.
        """
        self.rules.append((wanted, read))
        try:
            yield
        except Unmet:
            raise
        except Surprise as surprise:
            raise Unmet(sentence(wanted, str(surprise), read)) from surprise
        except SystemExit as error:
            raise Unmet(
                sentence(wanted, f"the code ended the program with sys.exit{self._place(error)}", read)
            ) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise Unmet(sentence(wanted, f"{in_words(error)} was raised{self._place(error)}", read)) from error
        finally:
            self.rules.pop()

    def expect(self, condition: object, came: str) -> None:
        """Fail, inside a `rule`, unless a condition holds; `came` is what there is instead."""
        if not condition:
            raise Surprise(came)

    def equal(self, got: object, wanted: object, what: str) -> None:
        """Fail, inside a `rule`, unless a value is what is wanted, text or bytes."""
        self.expect(same(got, wanted), f"{what} is {shown(got)}")

    def refuses(self, call: Callable[[], object], what: str) -> None:
        """Fail, inside a `rule`, unless a call raises an exception or gives nothing."""
        try:
            got = call()
        except Exception:
            return
        self.expect(got is None or got is False or got == [], f"{what} gave {shown(got)}")

    def _place(self, error: BaseException) -> str:
        """Say in which line of the student's the error arose."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if self.is_own(frame.filename):
                return f" at {Path(frame.filename).name} line {frame.lineno}"
        return ""

    def is_own(self, filename: str) -> bool:
        """Tell whether a file is the student's, and none of the checker's."""
        path = Path(filename)
        return path.parent != Path(__file__).parent and any(path.is_relative_to(root) for root in self.roots)

    # --- finding ----------------------------------------------------------------------------------------

    def file(self, *names: str) -> Path | None:
        """Return the first of these files that there is."""
        for root in self.roots:
            for name in names:
                for folder in (root, root / "torrent_client", root / "docs"):
                    if (folder / name).is_file():
                        return folder / name
        return None

    def module(self, name: str) -> ModuleType:
        """Import a module of the student's; inside a `rule`, what goes wrong is told."""
        if not self.file(f"{name}.py"):
            raise Surprise(f"there is no {name}.py in {' or '.join(str(root) for root in self.roots)}")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            if "relative import" not in str(error):
                raise
            return importlib.import_module(f"torrent_client.{name}")

    def find(self, module: str, *names: str) -> Any:
        """Return what has one of these names, in the module where the guide has it, or in another one."""
        found = self.module(module)
        others = [other for other in MODULES if other != module and self.file(f"{other}.py")]
        for name in names:
            if hasattr(found, name):
                return getattr(found, name)
        for other in others:
            with suppress(Exception):
                for name in names:
                    if hasattr(self.module(other), name):
                        return getattr(self.module(other), name)
        raise Surprise(f"{module}.py has no {names[0]}")

    def method(self, owner: object, *names: str) -> Callable[..., Any]:
        """Return the method, or the function, that has one of these names."""
        for name in names:
            if callable(getattr(owner, name, None)):
                method: Callable[..., Any] = getattr(owner, name)
                return method
        raise Surprise(f"{type(owner).__name__} has no method {names[0]}()")

    def attribute(self, owner: object, *names: str) -> Any:
        """Return the attribute, key or result of the method that has one of these names."""
        for name in names:
            if isinstance(owner, dict) and name in owner:
                return owner[name]
            if hasattr(owner, name):
                value = getattr(owner, name)
                return value() if callable(value) and not isinstance(value, type) else value
        raise Surprise(f"{type(owner).__name__} has no attribute {names[0]}")

    # --- calling ----------------------------------------------------------------------------------------

    def call(self, function: Callable[..., Any], **facts: Any) -> Any:
        """Call something, giving each parameter what its name asks for.

        Args:
            function: a function, a method or a class.
            facts: what there is to give, by the keys of SYNONYMS.
        """
        by_name = {name: value for key, value in facts.items() for name in SYNONYMS.get(key, key).split()}
        by_name |= facts
        if "torrent_file" in by_name and "torrent" in facts:
            by_name["torrent_file"] = facts["torrent"]
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if parameter.name.strip("_") not in by_name:
                if parameter.default is parameter.empty:
                    name = getattr(function, "__qualname__", str(function))
                    known = ", ".join(sorted(facts))
                    raise Surprise(
                        f"{name} has a parameter {parameter.name!r} that the checker has nothing for (it has {known})"
                    )
                continue
            value = by_name[parameter.name.strip("_")]
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(value() if isinstance(value, Later) else value)
            else:
                named[parameter.name] = value() if isinstance(value, Later) else value
        return function(*positional, **named)

    def torrent(self, torrent: Torrent) -> Any:
        """Return the student's own TorrentFile of a torrent (Task 3)."""
        kind = self.find("torrent_parser", "TorrentFile")
        make = getattr(kind, "from_file", kind)
        return self.call(make, path=str(torrent.path))

    def peer_id(self) -> bytes:
        """Return a peer id for the checks to use."""
        return b"-PC0001-checkchecker"

    def connect(self, torrent: Torrent, address: tuple[str, int]) -> Any:
        """Return the student's own PeerConnection, connected and with handshakes exchanged (Task 6)."""
        connection = self.peer_connection(torrent, address)
        result = self.method(connection, "handshake", "do_handshake", "perform_handshake")()
        self.expect(result is not False, "handshake() returned False")
        return connection

    def peer_connection(self, torrent: Torrent, address: tuple[str, int]) -> Any:
        """Return the student's own PeerConnection, connected."""
        kind = self.find("peer_connection", "PeerConnection")
        connection = self.call(
            kind,
            ip=address[0],
            port=address[1],
            address=address,
            info_hash=torrent.info_hash,
            peer_id=self.peer_id(),
            piece_count=torrent.piece_count,
            piece_length=torrent.piece_length,
            length=len(torrent.data),
            torrent=Later(lambda: self.torrent(torrent)),
        )
        self._open.append(connection)
        if callable(getattr(connection, "connect", None)):
            result = connection.connect()
            self.expect(result is not False, "connect() returned False")
        return connection

    def receive(self, connection: Any) -> tuple[int | None, bytes]:
        """Return the next message that the student's connection gives: id, None for a keep-alive, and payload."""
        method = self.method(connection, "receive_message", "read_message", "recv_message", "get_message", "receive")
        return as_message(method())

    def close(self) -> None:
        """Close what was opened, as far as the student's classes can."""
        for connection in self._open:
            with suppress(Exception):
                connection.close()
        self._open.clear()

    def printed(self) -> str:
        """Return what the student's code has printed so far."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        return self.output.read_text("utf-8", "replace")

    def wait(self, condition: Callable[[], object], seconds: float = 3.0) -> bool:
        """Poll a condition; tell whether it came true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


def sentence(wanted: str, came: str, read: str) -> str:
    """Return the one sentence of a failure."""
    return f"{wanted[0].upper()}{wanted[1:]}, but {came}; read {read}."


def in_words(error: BaseException) -> str:
    """Return an exception in a few words."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__} ({text[:120]})" if text else type(error).__name__


# --- shapes -------------------------------------------------------------------------------------------------


def same(got: object, wanted: object) -> bool:
    """Tell whether two values are the same, where text stands for its bytes and a tuple for a list."""
    match wanted:
        case bytes():
            return as_bytes(got) == wanted or (isinstance(got, str) and got.encode("utf-8", "replace") == wanted)
        case bool() | None:
            return got is wanted
        case int():
            return isinstance(got, int) and not isinstance(got, bool) and got == wanted
        case list():
            return (
                isinstance(got, list | tuple)
                and len(got) == len(wanted)
                and all(same(one, other) for one, other in zip(got, wanted, strict=True))
            )
        case dict():
            if not isinstance(got, dict) or len(got) != len(wanted):
                return False
            by_key = {as_bytes(key): value for key, value in got.items()}
            return all(key in by_key and same(by_key[key], value) for key, value in wanted.items())
        case _:
            return got == wanted


def as_bytes(value: object) -> bytes | None:
    """Return bytes of bytes, of text, or of what can be made bytes; else None."""
    if isinstance(value, str):
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogateescape")
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None


def as_hash(value: object, size: int = 20) -> bytes | None:
    """Return a hash of bytes, of text whose characters are bytes, or of hexadecimal digits; else None."""
    raw = as_bytes(value)
    if raw is not None and len(raw) == 2 * size:
        with suppress(ValueError):
            return bytes.fromhex(raw.decode("ascii", "replace"))
    return raw


def as_address(value: object) -> tuple[str, int] | None:
    """Return (IP, port) of a tuple, a dictionary, an object or `ip:port`; else None."""
    match value:
        case str():
            host, _, port = value.rpartition(":")
            return (host, int(port)) if port.isdigit() else None
        case (host, int(port), *_):
            return str(host), port
        case dict():
            fields = {str(key if isinstance(key, str) else as_bytes(key)): item for key, item in value.items()}
            host = next((fields[name] for name in ("ip", "host", "address") if name in fields), None)
            return (str(host), int(fields["port"])) if host and "port" in fields else None
    host = next((getattr(value, name) for name in ("ip", "host", "address") if hasattr(value, name)), None)
    port = getattr(value, "port", None)
    return (str(host), port) if isinstance(port, int) else None


def as_message(value: object) -> tuple[int | None, bytes]:
    """Return (id, payload) of a tuple, a dictionary or an object; the id of a keep-alive is None."""
    if value is None:
        return None, b""
    number: Any
    if isinstance(value, tuple | list) and value:
        number, payload = value[0], value[1:]
    elif isinstance(value, dict):
        number = next((value[name] for name in ("id", "message_id", "msg_id", "type") if name in value), None)
        payload = (value.get("payload", b""),)
    else:
        names = ("id", "message_id", "msg_id", "type")
        number = next((getattr(value, name) for name in names if hasattr(value, name)), None)
        payload = (getattr(value, "payload", b""),)
    if isinstance(number, str):
        name = number.lower().replace("_", " ").replace("-", " ")
        number = NAMES.index(name) if name in NAMES else None if name in ("keep alive", "keepalive") else number
    if number is None:
        return None, b""
    if not isinstance(number, int):
        raise Surprise(f"the message is {shown(value)}, which is no (id, payload)")
    return int(number), b"".join(map(_packed, payload))


def _packed(part: object) -> bytes:
    """Return the bytes of a part of a payload, which may have been parsed to numbers already."""
    if part is None:
        return b""
    if isinstance(part, int):
        return struct.pack(">I", part)
    if isinstance(part, list | tuple):
        return b"".join(map(_packed, part))
    raw = as_bytes(part)
    if raw is None:
        raise Surprise(f"the message's payload is {shown(part)}, which is no bytes")
    return raw


def as_files(value: object, name: str) -> list[tuple[str, int]] | None:
    """Return (path, length) of each file of a list of dictionaries, tuples or objects; else None."""
    if not isinstance(value, list | tuple):
        return None
    return [_as_file(entry, name) for entry in value]


def _as_file(entry: object, name: str) -> tuple[str, int]:
    match entry:
        case dict():
            fields = {str(as_bytes(key), "utf-8"): item for key, item in entry.items() if as_bytes(key) is not None}
            path, length = fields.get("path"), fields.get("length")
        case (int(length), path) | (path, int(length)) | (path, int(length), _):
            pass
        case _:
            path, length = getattr(entry, "path", None), getattr(entry, "length", None)
    if isinstance(path, list | tuple) and not isinstance(path, PurePath):
        path = "/".join(str(as_bytes(part) or b"", "utf-8") for part in path)
    text = str(as_bytes(path), "utf-8") if isinstance(path, bytes | str) else str(path)
    return text.replace("\\", "/").removeprefix(f"{name}/"), int(length) if isinstance(length, int) else -1
