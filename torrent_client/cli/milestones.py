"""The coursework's commands: each shows one step of a download, and prints that step's result and nothing else.

    decode VALUE                          bencode to JSON
    info FILE                             (`cli.info`)
    peers FILE                            one ip:port a line
    handshake FILE IP:PORT                the peer's id
    download_piece -o OUT FILE INDEX      one piece into OUT
    download -o OUT FILE                  all of it into OUT

They are thin: a few calls of the spine's modules each, in the order in which a student writes them. Handshakes have
the plain profile, all reserved bits zero, because a lesson's peer compares them byte for byte.

Spec: BEP 3; the guide's Tasks 2 to 12.
Thread: main, and those of `plain_client`.
Lock: none.
"""

import json
import os
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

from torrent_client.errors import StorageError, TorrentError
from torrent_client.peer_connection import PeerConnection
from torrent_client.plain_client import PlainClient, find_peers
from torrent_client.protocol.bencode import BencodeValue, bencode_decode
from torrent_client.storage import Storage
from torrent_client.torrent_parser import TorrentFile
from torrent_client.tracker_client import PeerAddress, generate_peer_id

JsonValue: TypeAlias = int | str | list["JsonValue"] | dict[str, "JsonValue"]


def run_milestone(options: Namespace) -> int:
    """Run the command that the command line names; return the exit code."""
    _COMMANDS[options.command](options)
    return 0


def _decode(options: Namespace) -> None:
    value = bencode_decode(os.fsencode(options.value))
    print(json.dumps(_as_json(value), separators=(",", ":")))


def _text(data: bytes) -> str:
    """Return a byte string as text; a byte that is not UTF-8 becomes a backslash, an x and two digits."""
    return data.decode("utf-8", "backslashreplace")


def _as_json(value: BencodeValue) -> JsonValue:
    """Return the value with text for its byte strings, which JSON does not have."""
    match value:
        case bytes():
            return _text(value)
        case list():
            return [_as_json(item) for item in value]
        case dict():
            return {_text(key): _as_json(item) for key, item in value.items()}
        case _:
            return value


def _peers(options: Namespace) -> None:
    torrent = TorrentFile.from_file(options.torrent)
    for address in _peers_of(torrent, generate_peer_id()):
        print(address)


def _peers_of(torrent: TorrentFile, peer_id: bytes) -> list[PeerAddress]:
    return find_peers(torrent.trackers, torrent.info_hash, peer_id, torrent.total_length)


def _handshake(options: Namespace) -> None:
    torrent = TorrentFile.from_file(options.torrent)
    with PeerConnection(options.peer, torrent.info_hash, generate_peer_id()) as connection:
        connection.connect()
        print(f"Peer ID: {connection.handshake().peer_id.hex()}")


def _download_piece(options: Namespace) -> None:
    torrent = TorrentFile.from_file(options.torrent)
    peer_id = generate_peer_id()
    check_index(torrent, options.index)
    fetch_piece(torrent, peer_id, options.index, options.output, _peers_of(torrent, peer_id))


def _download(options: Namespace) -> None:
    torrent = TorrentFile.from_file(options.torrent)
    peer_id = generate_peer_id()
    fetch_all(torrent, peer_id, options.output, _peers_of(torrent, peer_id))


def check_index(torrent: TorrentFile, index: int) -> None:
    """Refuse a piece that the torrent does not have.

    Raises:
        TorrentError: there is no such piece; says how many there are.
    """
    if not 0 <= index < torrent.piece_count:
        raise TorrentError(f"there is no piece {index}: the torrent has {torrent.piece_count}, from 0 on")


def fetch_piece(
    torrent: TorrentFile, peer_id: bytes, index: int, output: Path, addresses: Sequence[PeerAddress]
) -> None:
    """Download one piece into a file.

    Raises:
        TorrentError: no peer gave it.
        StorageError: it cannot be written.
    """
    with _finished_at(output) as folder:

        def store(_index: int, data: memoryview) -> None:
            try:
                (folder / output.name).write_bytes(data)
            except OSError as error:
                raise StorageError(f"cannot write {output}: {error.strerror or error}") from error

        PlainClient(torrent, peer_id, store, [index]).fetch(addresses)


def fetch_all(torrent: TorrentFile, peer_id: bytes, output: Path, addresses: Sequence[PeerAddress]) -> None:
    """Download a torrent into a file, or, if it has several files, into a directory of that name.

    Raises:
        TorrentError: the peers did not give all of it.
        StorageError: it cannot be written.
    """
    with (
        _finished_at(output) as folder,
        closing(Storage(folder, torrent.stored_as(output.name).files, torrent.piece_length)) as storage,
    ):
        storage.check_free_space(torrent.content_length)
        storage.preallocate()
        PlainClient(torrent, peer_id, storage.write_piece).fetch(addresses)


@contextmanager
def _finished_at(output: Path) -> Iterator[Path]:
    """Give a new folder beside `output`; what is called the same in it takes its place when the block ends well.

    So there is never half a download under the name that the user gave.

    Raises:
        StorageError: that cannot be done there.
    """
    if output.is_dir() and any(output.iterdir()):
        raise StorageError(f"{output} is a directory with something in it; -o wants a name for the file")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
            yield Path(folder)
            if output.is_dir():
                output.rmdir()
            os.replace(Path(folder, output.name), output)
    except OSError as error:
        raise StorageError(f"cannot write {output}: {error.strerror or error}") from error


_COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "decode": _decode,
    "peers": _peers,
    "handshake": _handshake,
    "download_piece": _download_piece,
    "download": _download,
}
